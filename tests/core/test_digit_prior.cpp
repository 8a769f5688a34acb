// The bundled prior of method lm: what it refuses to be made of, and its arithmetic against plain
// integers.
#include "core/digit_prior.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/cdf.h"
#include "digit_cases.h"

using namespace lmgc;
using test::PriorCase, test::ReadyPrior, test::Zeros;

namespace {

// ---- the arithmetic as docs/prior.md states it --------------------------------------------------

std::int64_t round_down(std::int64_t value, int bits) {
  const std::int64_t divisor = std::int64_t{1} << bits;
  return value >= 0 ? value / divisor : -((divisor - 1 - value) / divisor);
}

std::vector<std::int64_t> plain_layer(const DigitLayer& layer, const std::vector<std::int64_t>& x) {
  std::vector<std::int64_t> y;
  for (int o = 0; o < layer.outputs; ++o) {
    std::int64_t sum = layer.bias[static_cast<std::size_t>(o)];
    for (int i = 0; i < layer.inputs; ++i)
      sum += layer.weight[static_cast<std::size_t>(o * layer.inputs + i)] *
             x[static_cast<std::size_t>(i)];
    y.push_back(round_down(sum, layer.shift[static_cast<std::size_t>(o)]));
  }
  return y;
}

std::vector<std::int64_t> plain_weights(const PriorCase& prior, const std::int8_t* inputs) {
  std::vector<std::int64_t> x(inputs, inputs + digit_inputs);
  for (int l = 0; l < 2; ++l) {
    x = plain_layer(prior.layers[l], x);
    for (std::int64_t& y : x) y = std::clamp<std::int64_t>(y, 0, 127);
  }
  x = plain_layer(prior.layers[2], x);
  const std::int64_t best = *std::max_element(x.begin(), x.end());
  for (std::int64_t& score : x) {
    const std::int64_t u = std::max<std::int64_t>(score - best + 384, 0);
    score = u == 0 ? 0 : ((32 + u % 32) << (u / 32)) / 32;
  }
  return x;
}

std::vector<std::int64_t> plain_counts(const PriorCase& prior,
                                       const std::vector<std::int64_t>& weights, int context,
                                       int high) {
  std::vector<std::int64_t> n(16, 0);
  for (int digit = 0; digit < 16; ++digit) {
    for (int k = 0; k < prior_components; ++k) {
      const std::int16_t* const own = prior.rows(context, high < 0 ? digit : high) + k * 16;
      std::int64_t part = 0;
      if (high < 0) {
        for (int low = 0; low < 16; ++low) part += own[low];
        part = std::min<std::int64_t>(part, 32767);
      } else {
        part = own[digit];
      }
      n[static_cast<std::size_t>(digit)] += weights[static_cast<std::size_t>(k)] * part;
    }
  }
  if (high < 0) n[0] += 32768 * (weights[10] + weights[11]);
  if (high == 0) {
    n[1] += 32768 * weights[10];
    n[2] += 32768 * weights[11];
  }
  return n;
}

std::string refusal(const PriorCase& of) { return ReadyPrior(of).error; }

PriorCase usual() { return PriorCase(32, 48, 1); }

template <class Change>
std::string refusal_of(Change change) {
  PriorCase own = usual();
  change(own);
  return refusal(own);
}

const std::string wrong_sizes = "its layers do not have the sizes of the architecture";

}  // namespace

TEST_CASE("priors of all sizes are taken") {
  for (const int one : {16, 32, 112, 128}) {
    for (const int two : {16, 128}) {
      CHECK(refusal(PriorCase(one, two, 2)).empty());
      CHECK(refusal(PriorCase(one, two, 3, true)).empty());
    }
  }
  ReadyPrior ready(usual());
  REQUIRE(ready.error.empty());
  const DigitPriorView& view = ready.prior.view();
  CHECK(view.layer[0].inputs == padded_inputs);
  CHECK(view.layer[0].outputs == 32);
  CHECK(view.layer[1].inputs == 32);
  CHECK(view.layer[1].outputs == 48);
  CHECK(view.layer[2].inputs == 48);
  CHECK(view.layer[2].outputs == prior_scores);
}

TEST_CASE("layers of other sizes are refused") {
  for (const int hidden : {8, 24, 144, 17}) {
    CHECK(refusal(PriorCase(hidden, 16, 4)) == wrong_sizes);
    CHECK(refusal(PriorCase(16, hidden, 4)) == wrong_sizes);
  }
  CHECK(refusal(PriorCase(0, 16, 4)) == wrong_sizes);
  const auto resized = [](auto change) { return refusal_of(change); };
  for (std::size_t l = 0; l < 3; ++l) {
    CAPTURE(l);
    CHECK(resized([l](PriorCase& own) { own.layers[l].weight.pop_back(); }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l].weight.push_back(0); }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l].bias.pop_back(); }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l].shift.push_back(0); }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l].inputs += 1; }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l].outputs = -own.layers[l].outputs; }) ==
          wrong_sizes);
    CHECK(resized([l](PriorCase& own) { own.layers[l] = {}; }) == wrong_sizes);
    CHECK(resized([l](PriorCase& own) {
            // Consistent in itself, but not with its neighbours.
            DigitLayer& layer = own.layers[l];
            layer.inputs += 16;
            layer.weight.resize(static_cast<std::size_t>(layer.inputs * layer.outputs));
          }) == wrong_sizes);
  }
  CHECK(resized([](PriorCase& own) {
          DigitLayer& layer = own.layers[2];
          layer.outputs += 4;
          layer.weight.resize(static_cast<std::size_t>(layer.inputs * layer.outputs));
          layer.bias.resize(16);
          layer.shift.resize(16);
        }) == wrong_sizes);
}

TEST_CASE("numbers that the kernels' arithmetic does not hold are refused") {
  CHECK(refusal_of([](PriorCase&) {}).empty());
  for (std::size_t l = 0; l < 3; ++l) {
    CAPTURE(l);
    CHECK_FALSE(refusal_of([l](PriorCase& own) { own.layers[l].weight.back() = -128; }).empty());
    CHECK(refusal_of([l](PriorCase& own) { own.layers[l].weight.back() = -127; }).empty());
    for (const std::int32_t shift : {-1, 25, 32, INT32_MIN, INT32_MAX})
      CHECK_FALSE(refusal_of([&](PriorCase& own) { own.layers[l].shift.back() = shift; }).empty());
    for (const std::int32_t shift : {0, 24})
      CHECK(refusal_of([&](PriorCase& own) { own.layers[l].shift.back() = shift; }).empty());
    // |W| 128 + |b| may be 2^24 - 1, and no more.
    for (const int sign : {-1, 1}) {
      const auto with_sum = [&](std::int32_t sum) {
        return refusal_of([&](PriorCase& own) {
          DigitLayer& layer = own.layers[l];
          for (int i = 0; i < layer.inputs; ++i)
            sum -=
                128 *
                std::abs(int{layer.weight[layer.weight.size() - 1 - static_cast<std::size_t>(i)]});
          layer.bias.back() = sign * sum;
        });
      };
      CHECK(with_sum((1 << 24) - 1).empty());
      CHECK_FALSE(with_sum(1 << 24).empty());
    }
    for (const std::int32_t bias : {INT32_MIN, INT32_MAX})
      CHECK_FALSE(refusal_of([&](PriorCase& own) { own.layers[l].bias.front() = bias; }).empty());
  }
}

TEST_CASE("tables that are no distributions are refused") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 20; ++trial) {
    PriorCase own = usual();
    std::int16_t& entry = own.table[random() % own.table.size()];
    const std::int16_t before = entry;
    entry = static_cast<std::int16_t>(before ^ 1);
    CHECK_FALSE(refusal(own).empty());
    entry = static_cast<std::int16_t>(-1 - before);
    CHECK_FALSE(refusal(own).empty());
    entry = before;
    CHECK(refusal(own).empty());
  }
  // A negative entry that another makes good.
  PriorCase own = usual();
  own.table[0] = static_cast<std::int16_t>(own.table[0] - 20000);
  own.table[1] = static_cast<std::int16_t>(own.table[1] + 20000);
  CHECK_FALSE(refusal(own).empty());
  // A sum that is right modulo 2^16 only.
  own = usual();
  for (std::size_t i = 0; i < 3; ++i) own.table[4 + i] = static_cast<std::int16_t>(21845 + i % 2);
  CHECK_FALSE(refusal(own).empty());
}

TEST_CASE("a prior can be set again") {
  const PriorCase first(128, 16, 6), second(16, 32, 7);
  DigitPrior prior;
  REQUIRE(prior.set(first.layers, first.table.data()).empty());
  REQUIRE(prior.set(second.layers, second.table.data()).empty());
  std::mt19937 random(8);
  const auto inputs = test::some_inputs(50, random);
  for (int i = 0; i < 50; ++i) {
    std::int16_t weights[prior_scores];
    component_weights(prior.view(), inputs.data() + i * padded_inputs, weights);
    const auto expected = plain_weights(second, inputs.data() + i * padded_inputs);
    REQUIRE(std::equal(expected.begin(), expected.end(), weights));
  }
}

TEST_CASE("scores are logarithms of weights, in 32nds of an octave") {
  CHECK(score_weight(0, 0) == 4096);
  CHECK(score_weight(-1000, -1000) == 4096);
  CHECK(score_weight(0, 384) == 0);
  CHECK(score_weight(0, 383) == 1);
  CHECK(score_weight(-(1 << 24), (1 << 24) - 1) == 0);
  for (int below = 0; below < 500; ++below) {
    const int weight = score_weight(100 - below, 100);
    const int u = std::max(384 - below, 0);
    REQUIRE(weight == (u == 0 ? 0 : ((32 + u % 32) << (u / 32)) >> 5));
    if (below > 0) REQUIRE(weight <= score_weight(101 - below, 100));
    // A line between powers of two is at most 0.0861 octaves above the logarithm.
    if (below < 200) REQUIRE(std::log2(weight) == Approx(12 - below / 32.0).margin(0.09));
    if (below % 32 == 0 && below <= 384) REQUIRE(weight == (below < 384 ? 4096 >> below / 32 : 0));
  }
}

TEST_CASE("logarithms of counts rise and are true to a unit") {
  std::int32_t before = -1;
  double worst = 0;
  bool rises = true;
  for (std::int32_t count = 1; count < 1 << 24; ++count) {
    const std::int32_t own = count_log2(count);
    rises = rises && own >= before;
    before = own;
    if (count < 70000 || count % 61 == 0)
      worst = std::max(worst, std::abs(own - 256 * std::log2(static_cast<double>(count))));
  }
  CHECK(rises);
  CHECK(worst <= 1);
  for (int bit = 0; bit < 24; ++bit) CHECK(count_log2(1 << bit) == 256 * bit);
}

TEST_CASE("frequencies are those of a mixture of the table's rows") {
  std::mt19937 random(9);
  for (const bool extreme : {false, true}) {
    for (const Zeros zeros : {Zeros::some, Zeros::never, Zeros::always}) {
      const PriorCase own(extreme ? 128 : 32, 64, 10, extreme, zeros);
      const ReadyPrior ready(own);
      REQUIRE(ready.error.empty());
      const DigitPriorView& view = ready.prior.view();
      const auto inputs = test::some_inputs(40, random);
      for (int i = 0; i < 40; ++i) {
        const std::int8_t* const x = inputs.data() + i * padded_inputs;
        std::int16_t weights[prior_scores];
        component_weights(view, x, weights);
        const auto expected_weights = plain_weights(own, x);
        REQUIRE(std::equal(expected_weights.begin(), expected_weights.end(), weights));
        REQUIRE(*std::max_element(weights, weights + prior_scores) == 4096);
        if (zeros != Zeros::some) {
          const int zero = zeros == Zeros::never ? 0 : 4096;
          REQUIRE(weights[10] == zero);
          REQUIRE(weights[11] == zero);
        }
        for (int trial = 0; trial < 40; ++trial) {
          const auto context = static_cast<int>(random() % digit_contexts);
          const auto high = trial < 17 ? trial - 1 : static_cast<int>(random() % 17) - 1;
          const auto n = plain_counts(own, expected_weights, context, high);
          std::int32_t counts[digits_of];
          digit_counts(view, context, high, weights, counts);
          REQUIRE(std::equal(n.begin(), n.end(), counts));
          std::vector<float> logits;
          for (const std::int64_t count : n)
            logits.push_back(
                static_cast<float>(count_log2(static_cast<std::int32_t>(count / 256) + 1)));
          std::uint32_t expected[digits_of], frequency[digits_of];
          logits_to_frequencies(logits.data(), nullptr, digits_of, 1.0f, expected);
          digit_frequencies(view, context, high, weights, frequency);
          std::uint32_t sum = 0;
          for (int d = 0; d < digits_of; ++d) {
            REQUIRE(frequency[d] == expected[d]);
            REQUIRE(frequency[d] >= 1);
            sum += frequency[d];
          }
          REQUIRE(sum == cdf_total);
        }
      }
    }
  }
}

TEST_CASE("counts stay in 31 bits whatever the weights") {
  // All components at their best, all in one symbol: the largest sum there can be.
  PriorCase own = usual();
  for (int l = 0; l < 3; ++l) {
    std::fill(own.layers[l].weight.begin(), own.layers[l].weight.end(), std::int8_t{0});
    std::fill(own.layers[l].bias.begin(), own.layers[l].bias.end(), 0);
  }
  std::fill(own.table.begin(), own.table.end(), std::int16_t{0});
  for (int context = 0; context < digit_contexts; ++context) {
    for (int k = 0; k < prior_components; ++k) {
      const auto row = static_cast<std::size_t>(context * digits_of * prior_components + k) * 16;
      own.table[row + 1] = 32767;
      own.table[row] = 1;
    }
  }
  const ReadyPrior ready(own);
  REQUIRE(ready.error.empty());
  const std::int8_t inputs[padded_inputs] = {};
  std::int16_t weights[prior_scores];
  component_weights(ready.prior.view(), inputs, weights);
  for (const std::int16_t weight : weights) CHECK(weight == 4096);
  std::int32_t counts[digits_of];
  digit_counts(ready.prior.view(), 0, -1, weights, counts);
  CHECK(counts[0] == 10 * 4096 * 32767 + 2 * 4096 * 32768);
  CHECK(*std::max_element(counts + 1, counts + 16) == 0);
  std::uint32_t frequency[digits_of];
  counts_to_frequencies(counts, frequency);
  CHECK(frequency[0] > cdf_total - 32);
  digit_counts(ready.prior.view(), 0, 0, weights, counts);
  CHECK(counts[1] == 10 * 4096 * 32767 + 4096 * 32768);
  CHECK(counts[2] == 4096 * 32768);
  CHECK(counts[0] == 10 * 4096);
}
