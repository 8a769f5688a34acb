// The probe: what a prior makes of a fixed input. It tells two models apart, or two ways of
// computing one (docs/format.md, section 8), and finds priors that do not keep their contract.
#include <algorithm>
#include <functional>
#include <vector>

#include "core/cdf.h"
#include "core/checksum.h"
#include "ops/native_prior.h"
#include "ops/prior.h"
#include "ops/prior_state.h"

namespace lmgc::ops {
namespace {

constexpr const char* hex_digits = "0123456789abcdef";

struct ProbeInput {
  at::Tensor tokens;    // int64 [rows, T]
  at::Tensor features;  // float32 [rows, T, F]
};

// What a feature is at position t of an element that begins with `first`; `before` is what it was
// at the position before.
using FeatureValue =
    std::function<float(std::size_t feature, std::int64_t t, bool first, float before)>;

ProbeInput make_input(const Prior& prior, std::size_t feature_count, std::int64_t digits,
                      const std::function<std::uint64_t(std::uint64_t)>& random,
                      const FeatureValue& value) {
  constexpr std::int64_t rows = 4;
  const std::int64_t tokens_per_row =
      prior.max_context() < digits
          ? prior.max_context()
          : std::min<std::int64_t>(prior.max_context() / digits, 5) * digits;
  const auto count = static_cast<std::int64_t>(feature_count);
  at::Tensor tokens = at::empty({rows, tokens_per_row}, at::kLong);
  at::Tensor features = at::zeros({rows, tokens_per_row, count}, at::kFloat);
  auto* token = tokens.data_ptr<std::int64_t>();
  auto* feature = features.data_ptr<float>();
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t t = 0; t < tokens_per_row; ++t, ++token, feature += count) {
      *token = t == 0 ? prior.bos() : prior.token(std::string(1, hex_digits[random(16)]));
      for (std::size_t i = 0; i < feature_count; ++i) {
        const bool first = t % digits == 0;
        const float before = first ? static_cast<float>(random(96)) - 64.0f
                                   : feature[static_cast<std::int64_t>(i) - count];
        feature[i] = value(i, t, first, before);
      }
    }
  }
  return {tokens.to(prior.device()), features.to(prior.device())};
}

// A fixed input: for method lmgc with the shape of float32 gradients, three digits of which are
// coded; for method lm with two digits an element.
ProbeInput probe_input(const Prior& prior) {
  std::uint64_t counter = 0;
  const auto random = [&counter](std::uint64_t below) {
    return checksum_finish(++counter, 7) % below;
  };
  if (prior.for_elements()) {
    const auto value = [&](std::size_t i, std::int64_t t, bool first, float before) -> float {
      switch (prior.features()[i].kind) {
        case Feature::digit:
          return static_cast<float>(t % 3);
        case Feature::exponent_bits:
          return 8;
        case Feature::mantissa_bits:
          return 23;
        case Feature::reference:
          return first ? static_cast<float>(800 + random(200)) : before;
        case Feature::taps:
          return 9;
        case Feature::flat:
          return 0;
        case Feature::neighbour_level:
        case Feature::neighbour_value:
          break;
      }
      return before;
    };
    return make_input(prior, prior.features().size(), 3, random, value);
  }
  const auto value = [&](std::size_t i, std::int64_t t, bool first, float before) -> float {
    const std::string_view name =
        digit_feature_names[static_cast<std::size_t>(prior.digit_features()[i])];
    if (name == "digit") return static_cast<float>(t % 2);
    if (name == "context") return first ? static_cast<float>(random(digit_contexts)) : before;
    return before;
  };
  return make_input(prior, prior.digit_features().size(), 2, random, value);
}

std::uint64_t hash_of(const Prior& prior, const at::Tensor& logits) {
  std::int32_t ids[16];
  for (int i = 0; i < 16; ++i)
    ids[i] = static_cast<std::int32_t>(prior.token(std::string(1, hex_digits[i])));
  const at::Tensor host = logits.cpu();
  const std::int64_t vocabulary = host.size(2);
  std::uint32_t frequencies[16];
  std::uint64_t hash = 0;
  for (std::int64_t i = 0; i < host.size(0) * host.size(1); ++i) {
    logits_to_frequencies(host.data_ptr<float>() + i * vocabulary, ids, 16, prior.steps_per_unit(),
                          frequencies);
    hash = checksum_word(
        hash ^ checksum(reinterpret_cast<const std::uint8_t*>(frequencies), sizeof frequencies),
        static_cast<std::uint64_t>(i));
  }
  return hash;
}

// NaN is the same as NaN here.
bool same_bits(const at::Tensor& one, const at::Tensor& two) {
  return at::equal(one.view(at::kInt), two.view(at::kInt));
}

}  // namespace

std::uint64_t Prior::probe() const {
  const std::scoped_lock lock(probe_mutex_);
  if (!probe_) {
    const ProbeInput input = probe_input(*this);
    probe_ = hash_of(*this, forward(input.tokens, input.features));
  }
  return *probe_;
}

Prior::Steps Prior::run_steps(const at::Tensor& tokens, const at::Tensor& features) const {
  const std::int64_t rows = tokens.size(0), positions = tokens.size(1);
  std::vector<at::Tensor> logits;
  std::int64_t bytes = 0, growth = 0;
  c10::IValue state = init_state(rows);
  for (std::int64_t t = 0; t < positions; ++t) {
    // A state may hold on to what step() is given: no views of one tensor.
    logits.push_back(step(tokens.select(1, t).clone(), features.select(1, t).clone(), state));
    const std::int64_t before = bytes;
    bytes = bytes_of_state(state);
    growth = t == 0 ? 0 : std::max<std::int64_t>(bytes - before, 0);
  }
  return {at::stack(logits, 1), (bytes + growth * (max_context_ - positions)) / rows};
}

std::int64_t Prior::state_bytes() const {
  const std::scoped_lock lock(probe_mutex_);
  if (!state_bytes_) {
    const ProbeInput input = probe_input(*this);
    state_bytes_ = run_steps(input.tokens, input.features).state_bytes;
  }
  return *state_bytes_;
}

void Prior::check_repeatable() const {
  const std::scoped_lock lock(probe_mutex_);
  if (repeatable_) return;
  const auto [tokens, features] = probe_input(*this);
  const at::Tensor logits = forward(tokens, features);
  const Steps steps = run_steps(tokens, features);
  const bool twice = same_bits(logits, forward(tokens, features)) &&
                     same_bits(steps.logits, run_steps(tokens, features).logits);
  TORCH_CHECK_VALUE(twice,
                    "two calls of this prior with the same input differ (dropout? random numbers? "
                    "something it remembers?): what it codes could not be decoded");
  if (portable_) {
    TORCH_CHECK_VALUE(
        same_bits(logits, steps.logits),
        "this prior says that it is portable, but its step does not give the logits of its forward "
        "bit for bit: frames made with it would not decode. Correct it, or set portable to False");
    for (std::int64_t row = 0; row < tokens.size(0); ++row) {
      const at::Tensor alone = forward(tokens.narrow(0, row, 1), features.narrow(0, row, 1));
      TORCH_CHECK_VALUE(
          same_bits(alone, logits.narrow(0, row, 1)),
          "this prior says that it is portable, but its logits depend on how many rows are "
          "computed "
          "at a time: frames made with it would not decode. Correct it, or set portable to False");
    }
  }
  if (native_) {
    TORCH_CHECK_VALUE(native_agrees(*native_, *this, tokens, features, logits),
                      "this prior declares the architecture '", digit_prior_architecture,
                      "', but computes other logits");
  }
  probe_ = hash_of(*this, logits);
  state_bytes_ = steps.state_bytes;
  repeatable_ = true;
}

}  // namespace lmgc::ops
