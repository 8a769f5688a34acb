// Method `planes` for tensors, where they lie: on the CPU one by one, on CUDA as many as there are
// in the same few launches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/float_format.h"
#include "ops/section.h"

namespace lmgc::ops {

// `bytes` (contiguous, non-empty uint8, aligned to its elements) seen as elements of `format`.
struct PlanesTensor {
  at::Tensor bytes;
  FloatFormat format;
};

// The section of a tensor on the CPU, whose bytes must not change before the section is written.
Section encode_planes_section(const PlanesTensor& tensor);

// The same for tensors on CUDA, all at once. The memory that the sections share is free when the
// last of them is.
std::vector<Section> encode_planes_sections(const std::vector<PlanesTensor>& tensors);

// `size` untrusted bytes of a frame from `offset` on, the section of `elements` elements.
struct PlanesSection {
  Room room;
  FloatFormat format;
  std::int64_t elements, offset, size;
  std::string where;  // for errors
};

// Decodes them from a frame on CUDA, all at once, into tensors that are allocated when all heads
// were checked. Raises CorruptFrameError.
void decode_planes_sections(const at::Tensor& frame, const std::vector<PlanesSection>& sections);

// Decodes `size` untrusted bytes of `frame`, on the CPU, from `offset` on into `elements` elements
// of `format`. Raises CorruptFrameError.
void decode_planes_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                           FloatFormat format, std::int64_t elements, const Room& room,
                           const std::string& where);

}  // namespace lmgc::ops
