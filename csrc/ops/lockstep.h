// The loop behind run_lockstep (lane_group.h).
#pragma once

#include "ops/for_each.h"
#include "ops/lane_group.h"

namespace lmgc::ops {

template <class Code>
void run_lockstep(const Prior& prior, const GroupPattern& pattern, const LaneTensor* tensors,
                  const std::vector<Lane>& lanes, const Lane* lanes_device, const Code& code) {
  const at::Device device = prior.device();
  const BatchPattern view = pattern.view();
  const auto all = static_cast<std::int64_t>(lanes.size());
  const at::Tensor all_features =
      at::zeros({all, view.feature_count}, at::TensorOptions().device(device).dtype(at::kFloat));
  const at::Tensor all_tokens =
      at::empty({all}, at::TensorOptions().device(device).dtype(at::kLong));

  std::int64_t active = all;
  at::Tensor features = all_features, tokens = all_tokens;
  c10::IValue state;
  for (std::int32_t element = 0; active > 0; ++element) {
    const std::int64_t before = active;
    while (active > 0 && lanes[static_cast<std::size_t>(active - 1)].count <= element) --active;
    if (active == 0) break;
    const bool new_window = element % pattern.window_elements() == 0;
    if (active != before) {
      features = all_features.narrow(0, 0, active);
      tokens = all_tokens.narrow(0, 0, active);
      if (!new_window) state = narrow_state(state, active);
    }
    if (new_window) {
      state = prior.init_state(active);
      tokens.fill_(view.bos);
    }
    if (view.feature_count > 0) {
      for_each(device, active,
               StepFeatures{tensors, lanes_device, view, element, features.data_ptr<float>()}, 64);
    }
    std::int32_t coded = 0;
    for (const PatternToken& token : pattern.tokens()) {
      if (token.element != element % view.elements) continue;
      if (view.digit_feature >= 0)
        features.select(1, view.digit_feature).fill_(pattern.digit_of(token));
      const at::Tensor logits = prior.step(tokens, features, state);
      if (token.symbol < 0) {
        tokens.fill_(pattern.separator_id());
        continue;
      }
      ++coded;
      code(element, token.symbol, coded == 1, coded == view.coded_count, active, logits, tokens);
    }
  }
}

}  // namespace lmgc::ops
