// Method `lmgc`: tensors -> tokens -> language model -> range coder lanes, and back (LM-GC, arXiv
// 2409.17836). Lanes of all tensors with the same format and the same modelled symbols form one
// group, whose lanes are the batch.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/lanes.h"
#include "ops/prior.h"
#include "ops/section.h"

namespace lmgc::ops {

struct LmgcOptions {
  SerializeOptions serialize;
  WindowKind window = WindowKind::disjoint;
  std::int64_t lane_elements = 0;  // 0: chosen by the amount of data
  bool bypass = true;              // incompressible and constant symbols go around the model
  std::int64_t memory_limit = 0;   // bytes of working memory to aim at; splits the batch
};

// A tensor as the serializer sees it. `bytes` is contiguous uint8 and non-empty.
struct LmgcTensor {
  at::Tensor bytes;
  FloatFormat format;  // serialized_format() of the tensor's type
  std::vector<std::int64_t> sizes;

  std::int64_t elements() const { return bytes.numel() / format.bytes; }
};

// How many lanes a bound prior's batch holds, which the frame records.
std::int64_t bound_batch_lanes(const Prior& prior, std::int64_t memory_limit);

// One section per tensor, in order. All tensors and the prior are on one device.
std::vector<Section> encode_lmgc(const std::vector<LmgcTensor>& tensors, const Prior& prior,
                                 const LmgcOptions& options);

// A section to decode: `size` untrusted bytes of the frame from `offset` on.
struct LmgcSource {
  Room room;
  FloatFormat format;  // serialized_format() of the tensor's type
  std::vector<std::int64_t> sizes;
  std::int64_t elements;
  std::int64_t offset;
  std::int64_t size;
  std::string where;  // for error messages: "tensor 3"
};

// The part of a section before its lanes, checked. On a device it is fetched in growing pieces.
// `where` is for error messages. Raises CorruptFrameError.
LmgcSection read_lmgc_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                              FloatFormat format, std::int64_t elements,
                              const SerializeOptions& options, const std::string& where);

// Decodes sections of `frame` (1-D uint8 on the prior's device). Raises CorruptFrameError. `block`
// has been checked.
void decode_lmgc(const at::Tensor& frame, const std::vector<LmgcSource>& sources,
                 const Prior& prior, const PriorBlock& block, std::int64_t memory_limit);

}  // namespace lmgc::ops
