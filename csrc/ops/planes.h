// Method `planes` for tensors, where they lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "core/float_format.h"
#include "ops/section.h"

namespace lmgc::ops {

// The section of `bytes` (contiguous, non-empty uint8, aligned to its elements) seen as elements of
// `format`. `bytes` must not change before the section is written.
Section encode_planes_section(const at::Tensor& bytes, FloatFormat format);

// Decodes `size` untrusted bytes of `frame` from `offset` on into `elements` elements of `format`.
// Raises CorruptFrameError.
void decode_planes_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                           FloatFormat format, std::int64_t elements, const Room& room,
                           const std::string& where);

}  // namespace lmgc::ops
