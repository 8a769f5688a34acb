// Sections of method lm that are damaged or lie: a status or some data, never a read outside, never
// much memory.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "allocations.h"
#include "core/bytes.h"
#include "core/lm_section.h"
#include "lm_cases.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using test::Bytes, test::Case, test::Sizes, test::Encoded;
using test::largest_allocation;
using test::streams_of, test::coded, test::decoded, test::is, test::float32;

}  // namespace

TEST_CASE("damaged sections of method lm give a status or data, never a crash") {
  std::mt19937_64 random(3);
  for (const auto& [sizes, rank, dead, by_dimension_1] :
       std::vector<std::tuple<Sizes, std::int64_t, bool, bool>>{{{60}, 0, false, false},
                                                                {{6, 17}, 0, true, false},
                                                                {{9, 18}, 1, false, false},
                                                                {{5, 6, 4}, 3, true, true}}) {
    for (const char* const kind : {"noise", "some special"}) {
      for (const FloatFormat format : test::float_formats) {
        const Case tensor({kind, sizes, format, rank, dead, by_dimension_1});
        const Bytes good = Encoded(tensor, 25).write();
        const std::size_t limit = 64 * good.size() + 8 * tensor.bytes() + (std::size_t{4} << 20);
        Bytes back;
        const auto check = [&](const Bytes& bad) {
          largest_allocation = 0;
          const Status status = decoded(bad, tensor, back);
          if (largest_allocation > limit) FAIL("allocated " << largest_allocation);
          return status;
        };
        CHECK(check(good) == Status::ok);
        CHECK(is(tensor, back));
        for (std::size_t cut = 0; cut < good.size(); ++cut) {
          if (check(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut))) ==
              Status::ok)
            FAIL("ok when cut at " << cut);
        }
        Bytes longer = good;
        longer.push_back(0);
        CHECK(check(longer) == Status::bad_section);
        test::for_each_damage(good, 100, check);
        for (int trial = 0; trial < 100; ++trial) {
          Bytes bad = good;
          for (int change = 0; change < 1 + trial % 4; ++change) {
            const std::size_t place = random() % (trial % 2 == 0 ? good.size() : 60) % good.size();
            bad[place] = static_cast<std::uint8_t>(random());
          }
          check(bad);
        }
      }
    }
  }
}

TEST_CASE("flags that a section cannot have are refused") {
  Bytes back;
  const auto with_flags = [&](const Case& tensor, const Bytes& good, int flags) {
    Bytes bad = good;
    bad[0] = static_cast<std::uint8_t>(bad[0] ^ flags);
    return decoded(bad, tensor, back);
  };
  const Case plain({"noise", {12, 20}}), predicted({"noise", {12, 20}, float32(), 2}),
      flat({"noise", {60}});
  for (const Case* const tensor : {&plain, &predicted, &flat}) {
    const Bytes good = Encoded(*tensor).write();
    CHECK(decoded(good, *tensor, back) == Status::ok);
    CHECK(with_flags(*tensor, good, 64) == Status::bad_section);
    CHECK(with_flags(*tensor, good, 128) == Status::bad_section);
    CHECK(with_flags(*tensor, good, 1) == Status::bad_section);  // no dimension 1 to group by
    CHECK(with_flags(*tensor, good, 32) != Status::ok);
    CHECK(with_flags(*tensor, good, 2) != Status::ok);
  }
  const Bytes good = Encoded(plain).write();
  CHECK(with_flags(plain, good, 8) == Status::bad_section);  // widths of factors that are not there
  CHECK(with_flags(plain, good, 16) == Status::bad_section);
  CHECK(with_flags(flat, Encoded(flat).write(), 4) == Status::bad_section);

  // Sections of the methods without a prior are none of this one.
  Bytes other = encode_fixed(plain.input(), plain.head, {}, run_serially).head_bytes;
  CHECK(decoded(other, plain, back) != Status::ok);
}

TEST_CASE("sizes of lanes that lie are refused, or give some data") {
  const Case tensor({"noise", {12, 20}, float32(), 2});
  const Encoded good(tensor, 10);
  Bytes back;
  const auto changed = [&](std::size_t stream, auto change) {
    Encoded own = good;
    change(own.streams[stream]);
    return decoded(own.write(), tensor, back);
  };
  REQUIRE(changed(0, [](CodedDigitStream&) {}) == Status::ok);
  for (std::size_t stream = 0; stream < 3; ++stream) {
    CAPTURE(stream);
    for (const std::int64_t lane_elements :
         {std::int64_t{0}, std::int64_t{65537}, std::int64_t{1} << 40, std::int64_t{-1}}) {
      CHECK(changed(stream, [&](CodedDigitStream& own) { own.lane_elements = lane_elements; }) ==
            Status::bad_section);
    }
    // Other lanes than those that follow.
    for (const std::int64_t lane_elements : {1, 7, 1000}) {
      CHECK(changed(stream, [&](CodedDigitStream& own) { own.lane_elements = lane_elements; }) !=
            Status::ok);
    }
    CHECK(changed(stream, [](CodedDigitStream& own) { own.lanes.pop_back(); }) != Status::ok);
    CHECK(changed(stream, [](CodedDigitStream& own) { own.lanes.push_back({}); }) != Status::ok);
    // More bytes than any symbols take.
    CHECK(changed(stream, [](CodedDigitStream& own) { own.lanes[0].resize(4 * 60 + 3); }) ==
          Status::bad_section);
    // Bytes of one lane in the next: other symbols, whose tails may or may not fit.
    changed(stream, [](CodedDigitStream& own) {
      if (own.lanes.size() < 2) return;
      own.lanes[1].insert(own.lanes[1].begin(), own.lanes[0].back());
      own.lanes[0].pop_back();
    });
    changed(stream, [](CodedDigitStream& own) { own.lanes[0].clear(); });
  }
}

TEST_CASE("a lane of a few bytes cannot claim to hold many symbols") {
  // 2 symbols an element; a byte more allows for 24232 digits more.
  const Sizes sizes = {65536};
  const Case tensor({"constant", sizes});
  Encoded own(tensor, 65536);
  Bytes back;
  for (const std::size_t size : {0, 1, 2}) {
    own.streams[0].lanes[0].assign(size, 0);
    const Bytes section = own.write();
    LmSource source;
    const Status status = read_lm(section.data(), section.size(), sizes.data(), 1, source);
    CHECK(status == ((size + 4) * 8 * 3029 < 2 * 65536 ? Status::bad_section : Status::ok));
  }
  REQUIRE(own.streams[0].lanes.size() == 1);
}

TEST_CASE("tails that lie are refused") {
  for (const auto& [kind, rank] :
       std::vector<std::tuple<std::string, std::int64_t>>{{"noise", 0}, {"noise", 2}, {"any", 2}}) {
    const Case tensor({kind, {12, 20}, float32(), rank});
    const Encoded good(tensor, 60);
    Bytes back;
    const auto changed = [&](std::size_t stream, auto change) {
      Encoded own = good;
      change(own.streams[stream].tails[0]);
      return decoded(own.write(), tensor, back);
    };
    for (std::size_t stream = 0; stream < good.streams.size(); ++stream) {
      CAPTURE(kind, rank, stream);
      REQUIRE(good.streams[stream].tails.size() == 1);
      REQUIRE(changed(stream, [](Bytes&) {}) == Status::ok);
      CHECK(changed(stream, [](Bytes& tails) { tails.push_back(0); }) == Status::bad_stream);
      CHECK(changed(stream, [](Bytes& tails) { tails.resize(tails.size() + 1000); }) ==
            Status::bad_stream);
      CHECK(changed(stream, [](Bytes& tails) { tails.resize((16 << 16) + 1); }) ==
            Status::bad_section);
      if (good.streams[stream].tails[0].empty()) continue;
      CHECK(changed(stream, [](Bytes& tails) { tails.pop_back(); }) == Status::bad_stream);
      CHECK(changed(stream, [](Bytes& tails) { tails.clear(); }) == Status::bad_stream);
    }
    Encoded more = good;
    more.streams.back().tails.push_back({});
    CHECK(decoded(more.write(), tensor, back) != Status::ok);
    more.streams.back().tails.clear();
    CHECK(decoded(more.write(), tensor, back) != Status::ok);
  }
}

TEST_CASE("factors that are too large for a product are refused") {
  const Case tensor({"noise", {12, 20}, float32(), 1});
  Encoded own(tensor, 60);
  const auto entry = [&](std::int32_t value) {
    // All entries stand in the tails.
    Factor& u = own.head.low_rank.factors.u;
    std::fill(u.entries.begin(), u.entries.end(), value);
    u.column_widths = {0};
    u.row_widths.clear();
    std::vector<DigitStream> streams = streams_of(tensor, own.head);
    REQUIRE(std::count(streams[0].symbols.begin(), streams[0].symbols.end(), symbol_escape) == 12);
    Bytes back;
    return decoded(write_lm_section(own.head, coded(streams, 60)), tensor, back);
  };
  CHECK(entry(1 << 30) == Status::ok);
  CHECK(entry(-(1 << 30)) == Status::ok);
  CHECK(entry((1 << 30) + 1) == Status::bad_stream);
  CHECK(entry(INT32_MIN) == Status::bad_stream);
  // A component that is shifted beyond 2^62.
  const Case two({"noise", {12, 20}, float32(), 2});
  Encoded other(two, 60);
  other.head.low_rank.factors.exponents = {-60, 0};
  Bytes back;
  CHECK(decoded(other.write(), two, back) == Status::bad_section);
}

TEST_CASE("ranks that lie are refused") {
  const Case tensor({"noise", {12, 20}, float32(), 2});
  const Bytes good = Encoded(tensor, 60).write();
  for (const std::int64_t rank : {0, 1, 3, 12, 13, 1 << 20}) {
    CAPTURE(rank);
    // One varint names it; what follows is of the true rank.
    ByteWriter out;
    out.fixed(good[0]);
    out.varint(static_cast<std::uint64_t>(rank));
    out.bytes(good.data() + 2, good.size() - 2);
    Bytes back;
    CHECK(decoded(out.take(), tensor, back) != Status::ok);
  }
}

TEST_CASE("a section must have the lanes that it announces before there is room for them") {
  // 2^22 elements in as many lanes, of which none follows.
  constexpr std::int64_t elements = 1 << 22;
  const Sizes sizes = {elements};
  FixedHead head;
  head.scales.rows.assign(elements / 256, 0);
  Encoded own;
  own.head = head;
  own.streams.resize(1);
  own.streams[0].lane_elements = 1;
  Bytes section = own.write();
  LmSource source;
  largest_allocation = 0;
  CHECK(read_lm(section.data(), section.size(), sizes.data(), 1, source) == Status::truncated);
  CHECK(largest_allocation < (std::size_t{1} << 18));
  // As long as they have a byte each, they may be as many.
  section.resize(section.size() + elements + elements / 65536);
  source = {};
  CHECK(read_lm(section.data(), section.size(), sizes.data(), 1, source) == Status::ok);
  CHECK(source.residuals.lanes.size() == elements);
  CHECK(largest_allocation <= sizeof(LaneBytes) * elements);
}

TEST_CASE("sections of method lm of another shape give a status, whatever shape is claimed") {
  constexpr std::int64_t kilo = 1 << 10, mega = 1 << 20;
  for (const std::int64_t rank : {0, 2}) {
    const Case tensor({"noise", {12, 20}, float32(), rank, true});
    const Bytes section = Encoded(tensor, 60).write();
    for (const Sizes& sizes : std::vector<Sizes>{{1},
                                                 {20, 12},
                                                 {12, 21},
                                                 {13, 20},
                                                 {240},
                                                 {12, 20, 2},
                                                 {2, 12, 10},
                                                 {mega, mega},
                                                 {mega * mega},
                                                 {2, mega * mega},
                                                 {mega * kilo, 16},
                                                 {16, kilo, mega, kilo},
                                                 {mega, 16, mega},
                                                 {kilo * mega * mega}}) {
      CAPTURE(sizes, rank);
      LmSource source;
      largest_allocation = 0;
      CHECK(read_lm(section.data(), section.size(), sizes.data(), sizes.size(), source) !=
            Status::ok);
      CHECK(largest_allocation < 65536 * section.size());
    }
  }
}

TEST_CASE("random bytes are no section of method lm") {
  std::mt19937_64 random(4);
  for (int trial = 0; trial < 20000; ++trial) {
    Bytes bytes(random() % 120);
    for (auto& byte : bytes)
      byte = static_cast<std::uint8_t>(random() % (trial % 3 == 0 ? 256 : trial % 3 == 1 ? 4 : 32));
    // Often what could be one.
    if (!bytes.empty() && trial % 2 == 0) bytes[0] = trial % 4 == 0 ? 0 : 32;
    Bytes back;
    decoded(bytes, trial % 5 == 0 ? Sizes{3} : Sizes{4, 5}, float32(), back);
  }
}
