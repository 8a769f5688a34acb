// Sections of method lm: round trips, their streams, what both sides know, and lanes.
#include "core/lm_section.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "core/fixed_walk.h"
#include "core/lanes.h"
#include "lm_cases.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using test::Bytes, test::Case, test::Sizes, test::Wish, test::Encoded;
using test::complete_head, test::streams_of, test::coded, test::decoded, test::is;
using test::element_kinds, test::product_of, test::float32;

void check_round_trip(const Wish& wish, std::int64_t lane_elements = 0) {
  CAPTURE(wish.kind, wish.sizes, wish.rank, wish.dead, wish.by_dimension_1, wish.may_have_columns,
          int{wish.format.bytes}, int{wish.format.mantissa_bits}, lane_elements);
  const Case tensor(wish);
  const Bytes section = Encoded(tensor, lane_elements).write();
  Bytes back;
  REQUIRE(decoded(section, tensor, back) == Status::ok);
  REQUIRE(is(tensor, back));
}

}  // namespace

TEST_CASE("sections of method lm decode to what they were") {
  for (const auto& kind : element_kinds) {
    for (const FloatFormat format : test::float_formats) {
      for (const Sizes& sizes :
           std::vector<Sizes>{{1}, {300}, {1, 20}, {30, 3}, {2, 16}, {20, 31}, {7, 8, 3, 3}}) {
        const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
        for (const std::int64_t rank : {0, 2}) {
          if (rank > 0 && (flat || sizes[0] < rank)) continue;
          check_round_trip({kind, sizes, format, rank}, 50);
          check_round_trip({kind, sizes, format, rank, !flat, false, false}, 50);
          if (has_dimension_1_view(sizes.data(), sizes.size()))
            check_round_trip({kind, sizes, format, rank, true, true}, 50);
        }
      }
    }
  }
  check_round_trip({"some special", {70, 1001}, float32(), 3}, 1000);  // two blocks
  check_round_trip({"noise", {40, 60}, float_format(DType::float64), 40}, 1);
  check_round_trip({"some special", {33, 17}, float_format(DType::bfloat16), 3, true});
  check_round_trip({"zeros", {3, 4, 5}, float_format(DType::float16)}, 65536);
}

TEST_CASE("a matrix without a live line is a section of side information alone") {
  Case tensor({"noise", {8, 40}});
  tensor.head.dead_rows = FlagRuns(std::vector<bool>(8, true));
  tensor.head.dead_columns = FlagRuns(std::vector<bool>(40, true));
  tensor.shape = live_shape(fixed_shape(tensor.wish.sizes.data(), 2, false), tensor.head);
  REQUIRE(tensor.shape.elements == 0);
  Bytes section = Encoded(tensor).write(), back;
  CHECK(section.size() < 8);
  CHECK(decoded(section, tensor, back) == Status::ok);
  CHECK(back.empty());
  section.push_back(0);
  CHECK(decoded(section, tensor, back) == Status::bad_section);
  section.pop_back();
  section[0] = static_cast<std::uint8_t>(section[0] | 32);  // predicted, of rank whatever follows
  CHECK(decoded(section, tensor, back) != Status::ok);
}

TEST_CASE("sections of method lm do not depend on how work is shared") {
  for (const std::int64_t rank : {0, 3}) {
    const Case tensor({"some special", {210, 330}, float32(), rank, true});
    const FixedHead head = complete_head(tensor);
    std::vector<DigitStream> streams = streams_of(tensor, head);
    const Bytes section = write_lm_section(head, coded(streams, 777));
    std::vector<DigitStream> others = streams_of(tensor, head, test::run_on_threads);
    CHECK(write_lm_section(head, coded(others, 777, test::run_on_threads, 4)) == section);
    Bytes one, two;
    const Sizes& sizes = tensor.wish.sizes;
    REQUIRE(decoded(section, sizes, float32(), one, test::run_backwards, 3) == Status::ok);
    REQUIRE(decoded(section, sizes, float32(), two, test::run_on_threads, 2) == Status::ok);
    CHECK(is(tensor, one));
    CHECK(one == two);
  }
}

TEST_CASE("decoders know of symbols what encoders knew") {
  for (const std::int64_t rank : {0, 2}) {
    const Case tensor({"some special", {6, 5, 3, 3}, float32(), rank, true, rank > 0});
    const Encoded own(tensor, 40);
    const Bytes section = own.write();
    LmSource source;
    const Sizes& sizes = tensor.wish.sizes;
    REQUIRE(read_lm(section.data(), section.size(), sizes.data(), sizes.size(), source) ==
            Status::ok);
    const std::vector<DigitStream> streams = streams_of(tensor, own.head);
    const auto check = [](const std::vector<Known>& one, const std::vector<Known>& other) {
      REQUIRE(one.size() == other.size());
      CHECK(std::memcmp(one.data(), other.data(), one.size() * sizeof one[0]) == 0);
    };
    FixedSource& fixed = source.fixed;
    Factors& factors = fixed.head.low_rank.factors;
    if (rank > 0) {
      check(factor_known(factors.u, fixed.shape.rows, rank, run_serially), streams[0].known);
      check(factor_known(factors.v, fixed.shape.columns, rank, run_serially), streams[1].known);
      factors.u.entries = own.head.low_rank.factors.u.entries;
      factors.v.entries = own.head.low_rank.factors.v.entries;
    }
    check(residual_known(fixed, float32(), product_of(fixed.head, fixed.shape), run_serially),
          streams.back().known);
    std::uint64_t bodies = 0;
    for (const CodedDigitStream& stream : own.streams) {
      for (const auto* const parts : {&stream.lanes, &stream.tails}) {
        for (const auto& part : *parts) bodies += part.size();
      }
    }
    CHECK(source.side == section.size() - bodies);
  }
}

TEST_CASE("factors are coded component after component") {
  const Case tensor({"noise", {9, 4, 3, 3}, float32(), 3});
  const FixedHead head = complete_head(tensor);
  const std::vector<DigitStream> streams = streams_of(tensor, head);
  REQUIRE(streams.size() == 3);
  CHECK(streams[0].geometry.columns == 9);
  CHECK(streams[0].geometry.taps == 1);
  CHECK(streams[0].geometry.kind == DigitKind::factor);
  CHECK(streams[1].geometry.columns == 36);
  CHECK(streams[1].geometry.taps == 9);
  CHECK(streams[1].geometry.kind == DigitKind::factor);
  CHECK(streams[2].geometry.columns == 36);
  CHECK(streams[2].geometry.taps == 9);
  CHECK(streams[2].geometry.kind == DigitKind::predicted);
  for (const auto& [stream, factor, lines] :
       {std::tuple(&streams[0], &head.low_rank.factors.u, std::int64_t{9}),
        std::tuple(&streams[1], &head.low_rank.factors.v, std::int64_t{36})}) {
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t i = 0; i < lines; ++i) {
        const EntryShape shape = factor->shape_of(i, c);
        const auto at = static_cast<std::size_t>(c * lines + i);
        const std::int32_t entry = factor->entries[static_cast<std::size_t>(i * 3 + c)];
        CHECK(stream->symbols[at] == split_entry(entry, shape.tail_bits, 0).symbol);
        CHECK(stream->known[at].width == known_width(shape.width));
        CHECK(stream->known[at].fraction == 16);
        CHECK(stream->known[at].level == 0);
      }
    }
  }
}

TEST_CASE("a prediction's level is its logarithm next to the scale") {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const auto magnitude = static_cast<std::int64_t>((random() >> 2) >> (random() % 62));
    const Prediction prediction{random() % 2 == 0 ? magnitude : -magnitude,
                                static_cast<int>(random() % 60) - 40};
    const int scale = static_cast<int>(random() % 200) - 100;
    int expected = 0;
    if (magnitude != 0) {
      // The bits of the magnitude, the leading one first, and zeros.
      std::string bits;
      for (std::int64_t rest = magnitude; rest != 0; rest /= 2)
        bits.insert(bits.begin(), rest % 2 == 0 ? '0' : '1');
      const int top = static_cast<int>(bits.size()) - 1;
      bits += "00";
      const int two = 2 * (bits[1] - '0') + (bits[2] - '0');
      expected = std::clamp(4 * (top + prediction.exponent) + two - scale + 24, 0, 63);
      if (prediction.value < 0) expected = -expected;
    }
    REQUIRE(level_of(prediction, scale) == expected);
  }
}

TEST_CASE("taps are the elements of a convolution's kernel") {
  const auto taps = [](const Sizes& sizes) { return taps_of(sizes.data(), sizes.size()); };
  CHECK(taps({}) == 1);
  CHECK(taps({5}) == 1);
  CHECK(taps({5, 6}) == 1);
  CHECK(taps({5, 6, 7}) == 7);
  CHECK(taps({5, 6, 7, 3}) == 21);
}

TEST_CASE("lanes have whole rows where they fit") {
  for (const std::int64_t columns : {1, 2, 9, 100, 256, 5000, 8192, 40000, 65536, 65537, 1 << 30}) {
    for (const std::int64_t wish : {0, 1, 7, 100, 8192, 50000, 65536}) {
      CAPTURE(columns, wish);
      const std::int64_t own = lane_elements_of(columns, wish);
      CHECK(own >= 1);
      CHECK(own <= static_cast<std::int64_t>(most_lane_elements));
      const std::int64_t about = wish == 0 ? lane_elements_of(1, 0) : wish;
      CHECK((own == about || own % columns == 0));
      CHECK(std::abs(own - about) <= columns / 2);
    }
  }
  CHECK(lane_elements_of(100, 220) == 200);
  CHECK(lane_elements_of(100, 250) == 300);
  CHECK(lane_elements_of(100, 40) == 40);
  std::vector<DigitLane> lanes;
  append_digit_lanes(3, 100, 40, lanes);
  append_digit_lanes(4, 40, 40, lanes);
  append_digit_lanes(5, 1, 40, lanes);
  REQUIRE(lanes.size() == 5);
  for (const auto& [i, matrix, first, count] : std::vector<std::tuple<int, int, int, int>>{
           {0, 3, 0, 40}, {1, 3, 40, 40}, {2, 3, 80, 20}, {3, 4, 0, 40}, {4, 5, 0, 1}}) {
    const DigitLane& lane = lanes[static_cast<std::size_t>(i)];
    CHECK(lane.matrix == matrix);
    CHECK(lane.first == first);
    CHECK(lane.count == count);
  }
}
