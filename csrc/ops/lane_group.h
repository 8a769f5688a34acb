// What encoder and decoder of method `lmgc` share: groups of lanes and their tables on the device.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "core/lane_coding.h"
#include "ops/lmgc.h"
#include "ops/prior.h"
#include "ops/scales.h"
#include "ops/upload.h"

namespace lmgc::ops {

// Running sums: where each of consecutive blocks begins; one more entry than sizes, the total last.
std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& sizes);

// The tokens that a model sees of every lane of a group.
class GroupPattern {
 public:
  // Raises a ValueError when the prior's vocabulary lacks a token.
  GroupPattern(const Prior& prior, const SymbolPlan& plan, int element_bytes,
               const SerializeOptions& options, WindowKind window);

  const BatchPattern& view() const { return view_; }  // device pointers
  const std::vector<PatternToken>& tokens() const { return tokens_; }
  int digit_of(const PatternToken& token) const { return plan_.digit_of(token.symbol); }
  std::int64_t separator_id() const { return vocab_ids_.back(); }

 private:
  SymbolPlan plan_;  // of any tensor of the group: they differ in what is not modelled only
  std::vector<PatternToken> tokens_;
  std::vector<std::int32_t> vocab_ids_;
  BatchPattern view_{};
  at::Tensor tokens_device_, vocab_device_, coded_device_, features_device_;
};

// Whether any of the prior's features depends on the scales.
bool wants_scales(const Prior& prior);

// The indices of `plans` with the same modelled symbols and formats, in order of first appearance.
std::vector<std::vector<std::size_t>> group_by_plan(const std::vector<FloatFormat>& formats,
                                                    const std::vector<SymbolPlan>& plans);

// The device's tensor as lanes see it.
LaneTensor lane_tensor(const LmgcTensor& tensor, const SymbolPlan& plan,
                       const DeviceScales& scales);

// Cuts `elements` into lanes of `lane_elements`.
void append_lanes(std::int32_t tensor, std::int64_t elements, std::int64_t lane_elements,
                  std::vector<Lane>& lanes);

// Lane numbers, longest lane first, otherwise in order: lanes that end leave from the back of the
// batch.
std::vector<std::int32_t> longest_first(const std::vector<Lane>& lanes);

// Estimated bytes that a lane takes while step() runs, the model's state at the end of a window
// among them; the model's intermediates are guessed at a multiple of what goes in and out.
std::int64_t lane_bytes(const Prior& prior);

// One pass over a batch of lanes in the order in which a decoder must go: element by element,
// symbol by symbol, all lanes at once. At every window the model's state is fresh, and is told of
// the known elements with which the window begins. `lanes` is sorted longest first and lies at
// `lanes_device` too.
//   code(element, symbol, first, last, active, logits, tokens): takes the logits [active, V] of one
//   symbol of the first `active` lanes, and writes the symbol's tokens [active].
template <class Code>
void run_lockstep(const Prior& prior, const GroupPattern& pattern, const LaneTensor* tensors,
                  const std::vector<Lane>& lanes, const Lane* lanes_device, const Code& code);

}  // namespace lmgc::ops

#include "ops/lockstep.h"
