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

// On the CPU: a matrix coded by a plan, head and all. What `view` says of a reference counts;
// `past`: what project_fixed() was given, or null.
FixedResult encode_view(const FixedView& view, FloatFormat format, bool may_have_column_scales,
                        const FixedPlan& plan, const PastFactors* past);

// A tensor to be coded, as plan_fixed() saw it.
struct FixedTensor {
  const at::Tensor& bytes;  // must not change before the section is written
  FloatFormat format;
  Spare spare;
  const std::vector<std::int64_t>& sizes;
  const FixedPlan& plan;
  const PastFactors* past = nullptr;  // what project_fixed() was given
  bool all_live = false;              // as in Survey

  FloatFormat coded_format() const { return shortened(format, spare); }
  bool has_prediction() const { return plan.low_rank.factors.rank != 0; }
  // What is coded by the plan's prediction, and what is without one: the matrix by dimension 0,
  // which may have column scales unless it is flat.
  FixedView predicted_view() const;
  FixedView plain_view() const;
  bool is_flat() const { return matrix_shape(sizes.data(), sizes.size()).flat; }
  // What a section of plain_view() is at least, if its matrix has so many elements.
  std::int64_t least_size(std::int64_t elements) const;
};
// The head of a view, but for scales and digits.
FixedHead head_by(const FixedView& view, const FixedPlan& plan);

// On the CPU: the section of a tensor, the smaller of with and without the plan's prediction.
// `limit`: where every section is surely at least so large, none is made.
std::optional<FixedResult> encode_fixed_section(const FixedTensor& tensor,
                                                std::int64_t limit = INT64_MAX);

// On CUDA: the sections of tensors, in the same few launches for all. Their memory, 4.1 bytes an
// element and twice the tails for each section that was tried, is kept for as long as one of them.
std::vector<FixedResult> encode_fixed_sections(const std::vector<FixedTensor>& tensors);

// A section of a frame to be decoded: untrusted bytes [offset, offset + size).
struct FixedCodedTensor {
  Room room;
  FloatFormat format;
  Spare spare;
  const std::vector<std::int64_t>& sizes;
  bool predicted;
  const PastFactors* past;  // of the frame that this one names; or null
  std::int64_t offset, size;
  std::string where;
};

// On the CPU. `reference`: bytes of as many elements, or undefined. Raises CorruptFrameError or
// ReferenceMismatchError. Returns the head, complete.
std::shared_ptr<const FixedHead> decode_fixed_section(const at::Tensor& frame,
                                                      const FixedCodedTensor& tensor,
                                                      const at::Tensor& reference);

// On CUDA: all of them, in the same few launches. Raises and returns the same.
std::vector<std::shared_ptr<const FixedHead>> decode_fixed_sections(
    const at::Tensor& frame, const std::vector<FixedCodedTensor>& tensors);

// What a section holds, without its elements and factors. Raises CorruptFrameError.
FixedSource read_fixed_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                               const std::vector<std::int64_t>& sizes, bool predicted,
                               const std::string& where);

}  // namespace lmgc::ops
