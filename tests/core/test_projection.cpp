// Factors next to those of a past frame: the arithmetic of their means, round trips, damage.
#include "core/projection.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/fixed_factors.h"
#include "core/fixed_section.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using Bytes = std::vector<std::uint8_t>;
__extension__ using Wide = __int128;

std::vector<std::int32_t> random_entries(std::int64_t count, double deviation,
                                         std::mt19937_64& random) {
  std::normal_distribution<double> normal(0, deviation);
  std::vector<std::int32_t> entries;
  for (std::int64_t i = 0; i < count; ++i)
    entries.push_back(static_cast<std::int32_t>(
        std::clamp(std::round(normal(random)), -double{most_factor}, double{most_factor})));
  return entries;
}

std::vector<std::int16_t> random_weights(std::int64_t count, int spread, std::mt19937_64& random) {
  std::vector<std::int16_t> weights;
  for (std::int64_t i = 0; i < count; ++i)
    weights.push_back(
        static_cast<std::int16_t>(static_cast<int>(random() % (2 * spread + 1)) - spread));
  return weights;
}

struct Setting {
  std::int64_t all_lines = 30, past_rank = 6, rank = 5, count = 4;
  double past_deviation = 300, deviation = 40;
  int spread = 2;
  bool dead = false;
};

// A factor, the past one, and some projection.
struct Case {
  explicit Case(const Setting& setting, unsigned seed = 1) : setting(setting) {
    std::mt19937_64 random(seed);
    if (setting.dead) {
      for (std::int64_t i = 0; i < setting.all_lines; ++i) dead.push_back(i % 5 == 2);
      lines = std::count(dead.begin(), dead.end(), false);
    }
    past.entries =
        random_entries(setting.all_lines * setting.past_rank, setting.past_deviation, random);
    past.weights = random_weights(setting.all_lines, setting.spread, random);
    weights = random_weights(lines, setting.spread, random);
    factor.entries = random_entries(lines * setting.rank, setting.deviation, random);
    projection.count = setting.count;
    for (std::int64_t c = 0; c < setting.rank; ++c) projection.projected.push_back(c % 2 == 0);
    const auto components = (setting.rank + 1) / 2;
    projection.steps = random_weights(components, 2, random);
    projection.coefficients.entries = random_entries(components * setting.count, 20, random);
  }

  Setting setting;
  std::int64_t lines = setting.all_lines;
  std::vector<bool> dead;
  PastFactor past;
  std::vector<std::int16_t> weights;
  Factor factor;
  Projection projection;

  bool open(EntryMeans& means) const {
    return means.open(projection, past, setting.past_rank, FlagRuns(dead), weights, run_serially);
  }

  // floor(64 * mean), by the formula.
  std::int64_t mean(std::int64_t line, std::int64_t component) const {
    if (!projection.projected[static_cast<std::size_t>(component)]) return 0;
    std::int64_t whole = line;  // of all lines
    for (std::int64_t i = 0; !dead.empty() && i <= whole; ++i)
      whole += dead[static_cast<std::size_t>(i)];
    const auto place = static_cast<std::size_t>(component / 2);
    Wide sum = 0;
    std::vector<int> norms;
    for (std::int64_t j = 0; j < setting.count; ++j) {
      std::vector<std::int32_t> column;
      for (std::int64_t i = 0; i < setting.all_lines; ++i) {
        if (dead.empty() || !dead[static_cast<std::size_t>(i)])
          column.push_back(past.entries[static_cast<std::size_t>(i * setting.past_rank + j)]);
      }
      norms.push_back(norm_of(column.data(), lines, 1));
    }
    const int most = *std::max_element(norms.begin(), norms.end());
    for (std::int64_t j = 0; j < setting.count; ++j) {
      const auto index = static_cast<std::size_t>(j);
      sum +=
          Wide{past.entries[static_cast<std::size_t>(whole * setting.past_rank + j)]} *
          projection.coefficients.entries[place * static_cast<std::size_t>(setting.count) + index] *
          (Wide{1} << (most - norms[index]));
    }
    const int exponent = projection.steps[place] - most + 6 +
                         past.weights[static_cast<std::size_t>(whole)] -
                         weights[static_cast<std::size_t>(line)];
    const Wide shifted = exponent >= 0 ? sum * (Wide{1} << exponent) : sum >> -exponent;
    return static_cast<std::int64_t>(std::clamp(shifted, Wide{-most_mean}, Wide{most_mean}));
  }
};

}  // namespace

TEST_CASE("means are what the formula says") {
  for (const Setting& setting : std::vector<Setting>{{},
                                                     {30, 6, 5, 6, 1e6, 40, 9, true},
                                                     {12, 3, 1, 1, 1, 1, 0},
                                                     {40, 4, 8, 4, 1e9, 1e9, 3}}) {
    const Case own(setting);
    EntryMeans means;
    REQUIRE(own.open(means));
    const std::int64_t entries = own.lines * setting.rank;
    std::vector<std::int64_t> all(static_cast<std::size_t>(entries));
    means.get(0, entries, all.data());
    for (std::int64_t i = 0; i < entries; ++i)
      REQUIRE(all[static_cast<std::size_t>(i)] == own.mean(i / setting.rank, i % setting.rank));
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, entries / 2, entries - 1}) {
      const std::int64_t count = std::min<std::int64_t>(7, entries - first);
      std::vector<std::int64_t> some(static_cast<std::size_t>(count));
      means.get(first, count, some.data());
      REQUIRE(std::equal(some.begin(), some.end(), all.begin() + first));
    }
  }
}

TEST_CASE("norms are within half an octave, whatever the entries") {
  std::mt19937_64 random(2);
  for (const double deviation : {1.0, 30.0, 4000.0, 1e6, 1e9}) {
    const auto column = random_entries(200, deviation, random);
    double sum = 0;
    for (const double entry : column) sum += entry * entry;
    const double ratio = std::sqrt(sum) / std::exp2(norm_of(column.data(), 200, 1));
    CHECK(ratio > 0.49);
    CHECK(ratio < 1.42);
  }
  const std::vector<std::int32_t> zeros(10), edge(10, -(1 << 30));
  CHECK(norm_of(zeros.data(), 10, 1) == 0);
  CHECK(norm_of(edge.data(), 10, 1) == 32);
}

TEST_CASE("a mean and its bin: every entry near it has a symbol") {
  for (const int tail : {0, 1, 2, 7, 30}) {
    for (const std::int64_t mean : {std::int64_t{0}, std::int64_t{31}, std::int64_t{-33},
                                    std::int64_t{1} << 30, most_mean, -most_mean}) {
      const EntryPlace place = place_of(mean, tail);
      CHECK(place.fraction >= 0);
      CHECK(place.fraction < 32);
      for (const std::int32_t entry : {0, 1, -1, 5000, -123456, 1 << 30, -(1 << 30)}) {
        const EntryDigits digits = split_entry(entry, tail, place.bin);
        BitWriter out;
        out.put(digits.tail, digits.bits);
        const Bytes bytes = out.take();
        BitReader in(bytes.data(), bytes.size());
        CHECK(join_entry(digits.symbol, tail, place.bin, in) == entry);
      }
    }
  }
  // Without a prediction they are in the middle of bin 0.
  CHECK(place_of(0, 0).bin == 0);
  CHECK(place_of(0, 0).fraction == 16);
}

TEST_CASE("projected factors decode to what they were, and are shorter where means are near") {
  for (const bool dead : {false, true}) {
    Case own({400, 6, 7, 5, 300, 40, 0, dead});
    EntryMeans means;
    own.projection.steps.assign(own.projection.steps.size(), 5);
    REQUIRE(own.open(means));
    std::vector<std::int64_t> values(own.factor.entries.size());
    means.get(0, static_cast<std::int64_t>(values.size()), values.data());
    for (std::size_t i = 0; i < values.size(); ++i)  // near the means
      own.factor.entries[i] = own.factor.entries[i] / 8 + static_cast<std::int32_t>(values[i] / 64);
    Factor alone{own.factor.entries, {}, {}};
    choose_widths(alone, own.lines, own.setting.rank);
    choose_projected_widths(means, own.lines, own.setting.rank, own.factor);
    const CodedDigits coded = code_factor(own.factor, own.setting.rank, &means, run_serially);
    CHECK(coded.body_size() + 300 <
          code_factor(alone, own.setting.rank, nullptr, run_serially).body_size());
    Bytes body(coded.body_size());
    coded.write_body(body.data());
    Factor back{{}, own.factor.row_widths, own.factor.column_widths};
    REQUIRE(decode_factor(coded.head, body.data(), own.lines, own.setting.rank, &means, back,
                          test::run_on_threads) == Status::ok);
    CHECK(back.entries == own.factor.entries);
  }
}

TEST_CASE("what does not fit a past factor is refused") {
  const Case own({});
  EntryMeans means;
  Case wrong = own;
  wrong.projection.count = 7;  // more than there were
  CHECK_FALSE(wrong.open(means));
  wrong = own;
  wrong.past.weights.pop_back();  // other lines
  CHECK_FALSE(wrong.open(means));
  wrong = own;
  wrong.projection.coefficients.entries.assign(wrong.projection.coefficients.entries.size(),
                                               1 << 30);
  for (std::size_t i = 0; i < wrong.past.entries.size(); ++i)
    wrong.past.entries[i] = i >= 6 ? 0 : i == 0 ? 1 << 30 : 1;
  CHECK_FALSE(wrong.open(means));  // no bound: columns are 30 octaves below another
}

TEST_CASE("side bits of projections come back, damaged ones give an answer") {
  const Case own({60, 9, 11, 8});
  Projection projection = own.projection;
  choose_widths(projection.coefficients, projection.components(), projection.count);
  BitWriter out;
  write_projection(out, projection);
  const Bytes good = out.take();
  Projection back;
  back.count = projection.count;
  BitReader in(good.data(), good.size());
  REQUIRE(read_projection(in, own.setting.rank, back));
  CHECK(back.projected == projection.projected);
  CHECK(back.steps == projection.steps);
  CHECK(back.coefficients.column_widths == projection.coefficients.column_widths);
  CHECK(back.coefficients.row_widths == projection.coefficients.row_widths);
  test::for_each_damage(good, 500, [&](const Bytes& bad) {
    Projection damaged;
    damaged.count = projection.count;
    BitReader bits(bad.data(), bad.size());
    if (!read_projection(bits, own.setting.rank, damaged)) return;
    REQUIRE(damaged.components() > 0);
    REQUIRE(damaged.components() <= own.setting.rank);
  });
}

TEST_CASE("factors of a section over all lines") {
  FixedHead head;
  head.dead_rows = FlagRuns({false, true, false});
  head.dead_columns = FlagRuns({true, false});
  head.low_rank.factors.rank = 2;
  head.low_rank.factors.u.entries = {1, 2, 3, 4};
  head.low_rank.factors.v.entries = {5, 6};
  head.low_rank.row_weights = {7, 8};
  head.low_rank.column_weights = {9};
  MatrixShape shape;
  shape.rows = 3;
  shape.columns = 2;
  const PastFactors past = past_factors(head, shape);
  CHECK(past.rank == 2);
  CHECK(past.u.entries == std::vector<std::int32_t>{1, 2, 0, 0, 3, 4});
  CHECK(past.u.weights == std::vector<std::int16_t>{7, 0, 8});
  CHECK(past.v.entries == std::vector<std::int32_t>{0, 0, 5, 6});
  CHECK(past.v.weights == std::vector<std::int16_t>{0, 9});
}
