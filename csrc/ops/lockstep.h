// The loop behind run_lockstep (lane_group.h).
#pragma once

#include "ops/for_each.h"
#include "ops/lane_group.h"
#include "ops/prior_state.h"

namespace lmgc::ops {

template <class Code>
void run_lockstep(const Prior& prior, const GroupPattern& pattern, const LaneTensor* tensors,
                  const std::vector<Lane>& lanes, const Lane* lanes_device, const Code& code) {
  const at::Device device = prior.device();
  const BatchPattern view = pattern.view();
  const auto floats = on(device, at::kFloat);
  const auto integers = on(device, at::kLong);

  // A state may hold on to what step() was given: tokens and features are made anew for each call.
  auto active = static_cast<std::int64_t>(lanes.size());
  at::Tensor tokens;
  c10::IValue state;
  // Takes the model over one element; see(symbol, logits) writes the symbol's token to `tokens`.
  const auto walk = [&](std::int32_t element, const auto& see) {
    at::Tensor features = at::zeros({active, view.feature_count}, floats);
    for_each(device, active,
             StepFeatures{tensors, lanes_device, view, element, features.data_ptr<float>()}, 64);
    for (const PatternToken& token : pattern.tokens()) {
      if (token.element != element % view.elements) continue;
      if (view.digit_feature >= 0) {
        features = features.clone();
        features.select(1, view.digit_feature).fill_(pattern.digit_of(token));
      }
      const at::Tensor logits = prior.step(tokens, features, state);
      if (token.symbol < 0) {
        tokens = at::full({active}, pattern.separator_id(), integers);
      } else {
        tokens = at::empty({active}, integers);
        see(token.symbol, logits);
      }
    }
  };
  for (std::int32_t element = 0;; ++element) {
    const std::int64_t before = active;
    while (active > 0 && lanes[static_cast<std::size_t>(active - 1)].count <= element) --active;
    if (active == 0) break;
    if (view.windows.codes_from(element)) {
      state = prior.init_state(active);
      tokens = at::full({active}, view.bos, integers);
      const std::int32_t known = element == 0 ? 0 : view.windows.overlap;
      for (std::int32_t before_it = element - known; before_it < element; ++before_it) {
        walk(before_it, [&](std::int32_t symbol, const at::Tensor&) {
          for_each(device, active,
                   StepRecall{tensors, lanes_device, view, before_it, symbol,
                              tokens.data_ptr<std::int64_t>()},
                   64);
        });
      }
    } else if (active != before) {
      state = narrow_state(state, active);
      tokens = tokens.narrow(0, 0, active);
    }
    std::int32_t coded = 0;
    walk(element, [&](std::int32_t symbol, const at::Tensor& logits) {
      ++coded;
      code(element, symbol, coded == 1, coded == view.coded_count, active, logits, tokens);
    });
  }
}

}  // namespace lmgc::ops
