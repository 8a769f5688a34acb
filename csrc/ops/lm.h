// Method `lm` for tensors: the `fixed` serializer's symbols, coded by a prior.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/lm_section.h"
#include "core/short_floats.h"
#include "ops/prior.h"
#include "ops/section.h"

namespace lmgc::ops {

// A tensor of floats and how scale or lowrank code it: scales, factors and their widths.
struct LmTensor {
  at::Tensor bytes;  // contiguous, non-empty uint8
  FloatFormat format;
  Spare spare;
  std::vector<std::int64_t> sizes;
  std::shared_ptr<const FixedHead> head;

  std::int64_t elements() const { return bytes.numel() / format.bytes; }
};

struct LmOptions {
  std::int64_t lane_elements = 0;  // about; 0: chosen here
  std::int64_t memory_limit = 0;   // of what a prior's module takes and gives at a time
};

// The symbols of a tensor as a prior codes them: the factors u and v if there is a prediction, then
// the residuals; nothing for a tensor of zeros.
std::vector<DigitStream> streams_of(const LmTensor& tensor);

// One section per tensor, in order. The lanes of many tensors go through the prior together. Takes
// 4 bytes an element of up to 2^24 elements at a time.
std::vector<Section> encode_lm(const std::vector<LmTensor>& tensors, const Prior& prior,
                               const LmOptions& options);

// A section to decode: `size` untrusted bytes of the frame from `offset` on.
struct LmSourceTensor {
  Room room;
  FloatFormat format;
  Spare spare;
  std::vector<std::int64_t> sizes;
  std::int64_t element_count;
  std::int64_t offset, size;
  std::string where;  // for error messages

  std::int64_t elements() const { return element_count; }
};

// Decodes sections of `frame` (1-D uint8 on the prior's device). Raises CorruptFrameError. `block`
// has been checked.
void decode_lm(const at::Tensor& frame, const std::vector<LmSourceTensor>& sources,
               const Prior& prior, const PriorBlock& block, std::int64_t memory_limit);

// What a section holds, for `info`. Raises CorruptFrameError.
LmSource read_lm_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                         const std::vector<std::int64_t>& sizes, const std::string& where);

}  // namespace lmgc::ops
