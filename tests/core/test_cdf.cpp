// Logits -> integer distribution: Kraft equality for anything a model may say.
#include "core/cdf.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace lmgc;

namespace {

constexpr float natural = 256 / 0.69314718f;  // logits in nats

std::vector<std::uint32_t> frequencies(const std::vector<float>& logits,
                                       float steps_per_unit = natural) {
  std::vector<std::uint32_t> result(logits.size());
  logits_to_frequencies(logits.data(), nullptr, static_cast<int>(logits.size()), steps_per_unit,
                        result.data());
  return result;
}

void require_distribution(const std::vector<std::uint32_t>& frequency) {
  REQUIRE(std::accumulate(frequency.begin(), frequency.end(), std::uint64_t{0}) == cdf_total);
  for (const auto f : frequency) REQUIRE(f >= 1);
}

}  // namespace

TEST_CASE("random logits of any size give a distribution") {
  std::mt19937 random(1);
  for (const int symbols : {2, 3, 16, 17, 256}) {
    for (const float spread : {0.0f, 1e-6f, 0.1f, 1.0f, 10.0f, 1e3f, 1e30f}) {
      std::normal_distribution<float> normal(0.0f, spread == 0.0f ? 1.0f : spread);
      for (int trial = 0; trial < 50; ++trial) {
        std::vector<float> logits(static_cast<std::size_t>(symbols));
        for (auto& logit : logits) logit = spread == 0.0f ? 3.0f : normal(random);
        require_distribution(frequencies(logits));
      }
    }
  }
}

TEST_CASE("extreme logits give a distribution") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float most = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<float> values = {inf, -inf, nan, most, -most, tiny, 0.0f, -0.0f, 1.0f};
  std::mt19937 random(2);
  for (const int symbols : {2, 16, 256}) {
    for (const float value : values)
      require_distribution(
          frequencies(std::vector<float>(static_cast<std::size_t>(symbols), value)));
    for (int trial = 0; trial < 2000; ++trial) {
      std::vector<float> logits(static_cast<std::size_t>(symbols));
      for (auto& logit : logits) logit = values[random() % values.size()];
      require_distribution(frequencies(logits));
    }
  }
}

TEST_CASE("a certain symbol gets everything but one for each other") {
  std::vector<float> logits(16, -std::numeric_limits<float>::infinity());
  logits[5] = 0.0f;
  const auto frequency = frequencies(logits);
  REQUIRE(frequency[5] == cdf_total - 15);
  require_distribution(frequency);
}

TEST_CASE("frequencies follow softmax") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> logits(16);
    double sum = 0;
    for (auto& logit : logits) sum += std::exp(static_cast<double>(logit = normal(random)));
    const auto frequency = frequencies(logits);
    for (std::size_t i = 0; i < 16; ++i) {
      const double expected = std::exp(static_cast<double>(logits[i])) / sum;
      REQUIRE(frequency[i] / 65536.0 == Approx(expected).epsilon(0.01).margin(20 / 65536.0));
    }
  }
}

TEST_CASE("token ids choose the logits") {
  std::vector<float> logits(40, 100.0f);
  std::vector<std::int32_t> ids = {30, 7, 12};
  logits[30] = 0.0f;
  logits[7] = 1.0f;
  logits[12] = 2.0f;
  std::uint32_t chosen[3];
  logits_to_frequencies(logits.data(), ids.data(), 3, natural, chosen);
  const auto direct = frequencies({0.0f, 1.0f, 2.0f});
  for (std::size_t i = 0; i < 3; ++i) REQUIRE(chosen[i] == direct[i]);
}

TEST_CASE("the exponential table is within 2 of 2^26 parts") {
  for (std::uint32_t k = 0; k < cdf_steps_per_octave; ++k) {
    REQUIRE(std::abs(static_cast<double>(exp2_step(k)) - std::exp2(26.0 - k / 256.0)) <= 4.0);
  }
  REQUIRE(exp2_weight(26 * 256) == 0);
  REQUIRE(exp2_weight(25 * 256) == 2);
}
