// Methods `scale` and `lowrank` for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/fixed_section.h"
#include "core/float_format.h"
#include "core/short_floats.h"
#include "ops/fixed_view.h"
#include "ops/low_rank.h"
#include "ops/section.h"

namespace lmgc::ops {

// What to predict a tensor by; rank 0: by nothing.
struct FixedPlan {
  bool by_dimension_1 = false;
  LowRank low_rank;
  bool in_double = false;            // as in LowRankFit
  FlagRuns dead_rows, dead_columns;  // where there is a prediction: as in FixedHead
  Projection u_projection, v_projection;
};

// Looks for a low-rank prediction of `bytes` (contiguous, non-empty uint8) seen as floats of
// `format`, which can spare `spare`, in a tensor of `sizes`. In a parallel region only with a
// OneBlasThread.
FixedPlan plan_fixed(const at::Tensor& bytes, FloatFormat format, Spare spare,
                     const std::vector<std::int64_t>& sizes, const SearchLimits& limits);

// Adds projections on the factors of a past frame to a plan, where they pay. Likewise.
void project_fixed(const PastFactors& past, FixedPlan& plan);

// What is known of a tensor's prediction from that of a tensor like it: weights are those of all
// lines, dead ones too.
struct FixedMemory {
  bool by_dimension_1 = false;
  FitMemory fit;
};

// The same as plan_fixed() with one look, where `memory` has a prediction. Nothing where that does
// not tell.
std::optional<FixedPlan> replan_fixed(const at::Tensor& bytes, FloatFormat format, Spare spare,
                                      const std::vector<std::int64_t>& sizes,
                                      const FixedMemory& memory, const SearchLimits& limits);

// Takes down how a tensor was coded by `plan`.
void remember_fixed(const FixedPlan& plan, const FixedHead& head,
                    const std::vector<std::int64_t>& sizes, FixedMemory& memory);

// A section and what it says before its digits: predicted is method lowrank, else scale.
struct FixedResult {
  Section section;
  std::shared_ptr<const FixedHead> head;  // complete: scales, factors, widths

  bool predicted() const { return head->predicted(); }
};

// A matrix coded by a plan, head and all. What `view` says of a reference counts; `past`: what
// project_fixed() was given, or null.
FixedResult encode_view(const FixedView& view, FloatFormat format, bool may_have_column_scales,
                        const FixedPlan& plan, const PastFactors* past);

// The section of the same `bytes`: the smaller of with and without the plan's prediction. `bytes`
// must not change before the section is written. `past`: what project_fixed() was given, or null.
// `limit`: where every section is surely at least so large, none is made.
std::optional<FixedResult> encode_fixed_section(const at::Tensor& bytes, FloatFormat format,
                                                Spare spare, const std::vector<std::int64_t>& sizes,
                                                const FixedPlan& plan, const PastFactors* past,
                                                std::int64_t limit = INT64_MAX);

// What a section may need to be decoded.
struct SectionNeeds {
  const PastFactors* past = nullptr;  // of the frame that this one names
  at::Tensor reference;               // bytes on the CPU, of as many elements; or undefined
};

// Decodes `size` untrusted bytes of `frame` from `offset` on into a tensor of `sizes`. Raises
// CorruptFrameError or ReferenceMismatchError. Returns the head, complete.
std::shared_ptr<const FixedHead> decode_fixed_section(const at::Tensor& frame, std::int64_t offset,
                                                      std::int64_t size, FloatFormat format,
                                                      Spare spare,
                                                      const std::vector<std::int64_t>& sizes,
                                                      bool predicted, const SectionNeeds& needs,
                                                      const Room& room, const std::string& where);

// What a section holds, without its elements and factors. Raises CorruptFrameError.
FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where);

}  // namespace lmgc::ops
