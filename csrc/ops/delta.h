// Tensors of floats told relative to a reference: what the encoder chooses, and the reference as a
// section needs it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/fixed_section.h"
#include "ops/fixed.h"

namespace lmgc::ops {

// How a tensor is told relative to its reference.
struct DeltaPlan {
  std::uint32_t checksum = 0;  // low half of the reference's
  std::uint32_t factor = delta_one;
  FixedPlan fixed;       // what predicts the difference
  bool clearly = false;  // that prediction saves much
};

// Looks for a prediction of `bytes` from those of a tensor of the same type and sizes, both
// contiguous on the CPU and non-empty. `limits`: of the search for a product that predicts the
// difference; null: there is none. In a parallel region only with a OneBlasThread.
DeltaPlan plan_delta(const at::Tensor& bytes, const at::Tensor& reference, FloatFormat format,
                     Spare spare, const std::vector<std::int64_t>& sizes,
                     const SearchLimits* limits);

// The smaller section of with and without the product; only the former where it clearly saves.
FixedResult encode_delta_section(const at::Tensor& bytes, const at::Tensor& reference,
                                 FloatFormat format, Spare spare,
                                 const std::vector<std::int64_t>& sizes, const DeltaPlan& plan);

// The reference's words as a head needs them that was read, in the format that is coded;
// head.reference.words points at them. Raises ReferenceMismatchError where `reference`, bytes on
// the CPU or undefined, is not the one that the head tells.
at::Tensor attach_reference(const at::Tensor& reference, FloatFormat format, Spare spare,
                            const std::vector<std::int64_t>& sizes, const std::string& where,
                            FixedHead& head);

}  // namespace lmgc::ops
