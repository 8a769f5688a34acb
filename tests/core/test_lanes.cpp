// Symbol plans, sections, and lanes coded with a model that knows nothing: everything but the
// language model.
#include "core/lane_coding.h"
#include "core/lane_tails.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace lmgc;

namespace {

SymbolPlan plan_for(const std::vector<std::uint32_t>& words, const SerializeOptions& options,
                    bool bypass = true) {
  const FloatFormat format = float_format(DType::float32);
  const auto elements = static_cast<std::int64_t>(words.size());
  CountSymbols count{words.data(), format, elements, {}, nullptr};
  const std::uint8_t constant[most_symbols] = {};
  complete_plan(format, options, constant, count.plan);
  const std::int64_t blocks = (elements - 1) / CountSymbols::block_elements + 1;
  std::vector<std::uint32_t> counts(static_cast<std::size_t>(blocks * count.stride()));
  count.counts = counts.data();
  std::vector<std::uint64_t> total(static_cast<std::size_t>(count.stride()));
  for (std::int64_t block = 0; block < blocks; ++block) {
    count(block);
    for (std::size_t i = 0; i < total.size(); ++i)
      total[i] += counts[static_cast<std::size_t>(block) * total.size() + i];
  }
  SymbolPlan plan = make_plan(format, options, bypass, total.data());
  std::vector<std::uint32_t> zeros(static_cast<std::size_t>(2 * blocks));
  std::uint64_t with_prefix = 0, zero = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    CountZeros{words.data(), format, elements, plan, zeros.data()}(block);
    with_prefix += zeros[static_cast<std::size_t>(2 * block)];
    zero += zeros[static_cast<std::size_t>(2 * block + 1)];
  }
  set_zero_flag(with_prefix, zero, plan);
  return plan;
}

// Encodes and decodes one lane with uniform logits, as the operators do with a model's.
void require_lane_round_trip(std::vector<std::uint32_t> words, const SymbolPlan& plan) {
  LaneTensor tensor;
  tensor.context.words = words.data();
  tensor.context.format = float_format(DType::float32);
  tensor.plan = plan;
  const Lane lane{0, static_cast<std::int32_t>(words.size()), 0};
  const int values = 1 << plan.bits;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(values) + 1);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> logits(static_cast<std::size_t>(values), 0.0f);

  std::vector<Interval> intervals;
  for (const auto word : words) {
    for (int k = 0; k < plan.coded_count; ++k) {
      intervals.push_back(interval_of(logits.data(), ids.data(), values, 1.0f,
                                      plan.symbol_of(word, plan.coded[k])));
    }
  }
  const std::int64_t zero = 0;
  std::vector<std::uint8_t> coded(static_cast<std::size_t>(lane_bound(plan, lane.count)));
  std::int64_t size = 0;
  EncodeLanes{&tensor, &lane, intervals.data(), &zero, coded.data(), &zero, &size}(0);
  REQUIRE(size <= static_cast<std::int64_t>(coded.size()));
  std::int64_t tails_size = 0;
  MeasureTails{&tensor, &lane, &tails_size}(0);
  std::vector<std::uint8_t> tails(static_cast<std::size_t>(tails_size));
  PackTails{&tensor, &lane, tails.data(), &zero}(0);

  std::vector<std::uint32_t> decoded(words.size(), 0xAAAAAAAAu);
  LaneTensor target = tensor;
  target.context.words = decoded.data();
  void* const out = decoded.data();
  LaneState state;
  StartLanes{coded.data(), &zero, &size, &state}(0);
  std::int64_t token = 0;
  BatchPattern pattern{};
  pattern.vocab_ids = ids.data();
  for (std::int32_t i = 0; i < lane.count; ++i) {
    for (int k = 0; k < plan.coded_count; ++k) {
      StepDecode{
          &target,       &lane,  pattern, i,      plan.coded[k], k == 0, k + 1 == plan.coded_count,
          logits.data(), values, 1.0f,    &state, &token,        &out}(0);
    }
  }
  std::int64_t decoded_tails = 0;
  MeasureTails{&target, &lane, &decoded_tails}(0);
  REQUIRE(decoded_tails == tails_size);
  UnpackTails{&target, &lane, tails.data(), &zero, &out}(0);
  REQUIRE(decoded == words);
}

std::vector<std::uint32_t> gradient(std::size_t count, std::mt19937& random, double zeros,
                                    bool subnormals) {
  std::normal_distribution<float> normal(0.0f, 1e-3f);
  std::vector<std::uint32_t> words(count);
  for (auto& word : words) {
    const float value = normal(random);
    std::memcpy(&word, &value, 4);
    if (random() % 1000 < zeros * 1000) word &= 0x80000000u;
    if (subnormals && random() % 50 == 0) word &= 0x8000FFFFu;
  }
  return words;
}

}  // namespace

TEST_CASE("dense float32: three digits are modelled, five go raw") {
  std::mt19937 random(1);
  const SymbolPlan plan = plan_for(gradient(40000, random, 0, false), {});
  REQUIRE(plan.coded_count == 3);
  REQUIRE(plan.raw_bits == 20);
  REQUIRE_FALSE(plan.elide_zeros);
  REQUIRE((plan.lm_mask | plan.raw_mask) == 0xFFFFFFFFu);
}

TEST_CASE("exact zeros are elided") {
  std::mt19937 random(2);
  const auto words = gradient(40000, random, 0.3, false);
  const SymbolPlan plan = plan_for(words, {});
  REQUIRE(plan.elide_zeros);
  REQUIRE(plan.zero_frequency == cdf_total - 1);  // no subnormals: a zero prefix means zero
  REQUIRE(plan.raw_bits == 20);
}

TEST_CASE("float32 that was bfloat16 has constant digits") {
  std::mt19937 random(3);
  auto words = gradient(40000, random, 0.1, false);
  for (auto& word : words) word &= 0xFFFF0000u;
  const SymbolPlan plan = plan_for(words, {});
  REQUIRE(plan.raw_bits == 4);
  for (int s = 4; s < 8; ++s) REQUIRE(plan.mode[s] == SymbolMode::constant);
  REQUIRE(plan.constant_word == 0);
}

TEST_CASE("without bypass every digit is modelled") {
  std::mt19937 random(4);
  REQUIRE(plan_for(gradient(1000, random, 0.5, true), {}, false).coded_count == 8);
}

TEST_CASE("lanes round-trip") {
  std::mt19937 random(5);
  for (const Separator separator : {Separator::none, Separator::space, Separator::iso_8859_1}) {
    for (const ByteOrder order : {ByteOrder::big, ByteOrder::little}) {
      const SerializeOptions options{separator, 0, order};
      for (const double zeros : {0.0, 0.3, 1.0}) {
        for (const bool subnormals : {false, true}) {
          for (const bool constant : {false, true}) {
            for (const std::size_t count : {1u, 2u, 7u, 1000u, 40000u}) {
              auto words = gradient(count, random, zeros, subnormals);
              if (constant) {
                for (auto& word : words) {
                  if (word & 0x7FFFFFFFu) word = (word & 0xFFFF0FFFu) | 0x7000u;
                }
              }
              require_lane_round_trip(words, plan_for(words, options));
              if (count <= 1000) require_lane_round_trip(words, plan_for(words, options, false));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("windows code every element once, and know what they say they know") {
  for (const WindowKind kind : {WindowKind::disjoint, WindowKind::sliding}) {
    for (const std::int64_t context : {1, 2, 3, 4, 9, 10, 40, 1 << 20}) {
      for (const std::int32_t period_tokens : {1, 3, 11}) {
        for (const std::int32_t period_elements : {1, 3}) {
          const Windows windows = make_windows(kind, context, period_tokens, period_elements);
          REQUIRE(windows.elements % period_elements == 0);
          REQUIRE(windows.overlap % period_elements == 0);
          REQUIRE(windows.stride() > 0);
          REQUIRE((windows.overlap == 0) ==
                  (kind == WindowKind::disjoint || windows.elements == period_elements));
          for (const std::int32_t count : {1, 2, 7, 50, 1000}) {
            std::int32_t coded = 0;
            for_each_window(windows, count,
                            [&](std::int32_t first, std::int32_t known, std::int32_t held) {
                              REQUIRE(first + known == coded);  // where the one before ended
                              REQUIRE(known == (coded == 0 ? 0 : windows.overlap));
                              REQUIRE(held > known);
                              REQUIRE(held <= windows.elements);
                              REQUIRE(windows.codes_from(coded));
                              for (std::int32_t i = coded + 1; i < first + held; ++i)
                                REQUIRE_FALSE(windows.codes_from(i));
                              coded = first + held;
                            });
            REQUIRE(coded == count);
          }
        }
      }
    }
  }
}

TEST_CASE("logits that are not finite are found where a symbol is coded with them") {
  const std::int32_t ids[4] = {3, 1, 0, 2};
  float logits[5] = {1, 2, 3, 4, 5};
  REQUIRE(interval_of(logits, ids, 4, 1.0f, 2).is_valid());
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    logits[4] = value;  // no symbol's
    REQUIRE(interval_of(logits, ids, 4, 1.0f, 2).is_valid());
    for (int i = 0; i < 4; ++i) {
      const float before = logits[i];
      logits[i] = value;
      for (std::uint32_t symbol = 0; symbol < 4; ++symbol)
        REQUIRE_FALSE(interval_of(logits, ids, 4, 1.0f, symbol).is_valid());
      logits[i] = before;
    }
  }
  logits[0] = -std::numeric_limits<float>::infinity();
  REQUIRE(interval_of(logits, ids, 4, 1.0f, 2).is_valid());
  REQUIRE(interval_of(logits, ids, 4, 1.0f, 2).frequency_less_one == 0);

  // The likeliest symbol there can be owns less than what the mark stands for.
  const float certain[2] = {1e30f, -1e30f};
  const std::int32_t both[2] = {0, 1};
  REQUIRE(interval_of(certain, both, 2, 1.0f, 0).is_valid());

  const std::uint32_t words[2] = {0x3f800000, 0x3f800000};
  LaneTensor tensor;
  tensor.context.words = words;
  tensor.context.format = float_format(DType::float32);
  tensor.plan = plan_for({words[0], words[1], 0x40000000, 0x3f000000}, {});
  const Lane lane{0, 2, 0};
  const auto coded = static_cast<std::size_t>(2 * tensor.plan.coded_count);
  std::vector<Interval> intervals(coded, Interval{0, 100});
  const std::int64_t zero = 0;
  std::vector<std::uint8_t> out(static_cast<std::size_t>(lane_bound(tensor.plan, 2)));
  std::int64_t size = 0;
  EncodeLanes{&tensor, &lane, intervals.data(), &zero, out.data(), &zero, &size}(0);
  REQUIRE(size >= 0);
  for (std::size_t i = 0; i < coded; ++i) {
    intervals[i] = Interval::invalid();
    EncodeLanes{&tensor, &lane, intervals.data(), &zero, out.data(), &zero, &size}(0);
    REQUIRE(size == -1);
    intervals[i] = Interval{0, 100};
  }
}

TEST_CASE("sections read back, and every truncation is noticed") {
  std::mt19937 random(6);
  const auto words = gradient(5000, random, 0.2, true);
  LmgcSection section;
  section.plan = plan_for(words, {});
  section.lane_elements = 512;
  section.has_scales = true;
  section.scales = {1, 2, 3, 4, 5};
  for (int i = 0; i < 10; ++i)
    section.lane_sizes.push_back(100 + static_cast<std::uint64_t>(i) * 20);
  auto bytes = write_section(section);
  const std::size_t head = bytes.size();
  bytes.resize(
      head + std::accumulate(section.lane_sizes.begin(), section.lane_sizes.end(), std::size_t{0}) +
      77);
  const FloatFormat format = float_format(DType::float32);
  LmgcSection read;
  REQUIRE(parse_section(bytes.data(), bytes.size(), bytes.size(), format, {}, 5000, read) ==
          Status::ok);
  REQUIRE(read.lane_sizes == section.lane_sizes);
  REQUIRE(read.lanes_offset == head);
  REQUIRE(read.tails_offset == bytes.size() - 77);
  REQUIRE(read.scales == section.scales);
  REQUIRE(read.plan.lm_mask == section.plan.lm_mask);
  REQUIRE(read.plan.raw_mask == section.plan.raw_mask);
  REQUIRE(read.plan.zero_frequency == section.plan.zero_frequency);
  for (std::size_t available = 0; available < head; ++available) {
    REQUIRE(parse_section(bytes.data(), available, bytes.size(), format, {}, 5000, read) ==
            Status::truncated);
    REQUIRE(parse_section(bytes.data(), available, available, format, {}, 5000, read) ==
            Status::bad_section);
  }
  REQUIRE(parse_section(bytes.data(), bytes.size(), bytes.size(), format, {}, 5000 + 512, read) !=
          Status::truncated);
}

TEST_CASE("any bytes are a section or an error") {
  std::mt19937 random(7);
  for (int trial = 0; trial < 20000; ++trial) {
    std::vector<std::uint8_t> bytes(1 + random() % 60);
    for (auto& byte : bytes)
      byte = static_cast<std::uint8_t>(random() % (trial % 2 == 0 ? 256 : 8));
    LmgcSection read;
    const Status status = parse_section(bytes.data(), bytes.size(), bytes.size(),
                                        float_format(DType::float32), {}, 1 + random() % 100, read);
    if (status != Status::ok) continue;
    REQUIRE(read.plan.coded_count >= 1);
    REQUIRE(read.tails_offset <= bytes.size());
  }
}
