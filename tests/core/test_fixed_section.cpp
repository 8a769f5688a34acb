// Whole sections of methods `scale` and `lowrank`: round trips, damage, and how much memory hostile
// bytes may ask for.
#include "core/fixed_section.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "allocations.h"
#include "section_cases.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using test::Bytes, test::Case, test::Sizes, test::Wish;
using test::element_kinds, test::largest_allocation, test::product_of;

Bytes encoded(const Case& tensor, const Parallel& parallel = run_serially) {
  const FixedSection section =
      encode_fixed(tensor.input(), tensor.head, product_of(tensor.head, tensor.shape), parallel);
  Bytes bytes(section.size());
  section.write(bytes.data());
  return bytes;
}

// Reads a section of a tensor like `tensor` and decodes it into exactly as many bytes as it has.
Status decoded(const Bytes& section, const Case& tensor, Bytes& out,
               const Parallel& parallel = run_serially) {
  const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[section.size()]);
  std::copy(section.begin(), section.end(), exact.get());
  FixedSource source;
  const Sizes& sizes = tensor.wish.sizes;
  Status status = read_fixed(exact.get(), section.size(), sizes.data(), sizes.size(),
                             tensor.wish.rank > 0, true, parallel, source);
  if (status != Status::ok) return status;
  const FixedSizes& parts = source.sizes;
  REQUIRE(parts.side + parts.digits + parts.escapes + parts.tails == section.size());
  REQUIRE(source.product_bound < std::uint64_t{1} << most_product_bits);
  const auto size = static_cast<std::size_t>(source.shape.elements) * tensor.wish.format.bytes;
  const std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[size / 8 + 1]);
  status = decode_fixed(source, tensor.wish.format, product_of(source.head, source.shape),
                        words.get(), parallel);
  if (status == Status::ok) {
    const auto* const first = reinterpret_cast<const std::uint8_t*>(words.get());
    out.assign(first, first + size);
  }
  return status;
}

void check_round_trip(const Wish& wish) {
  CAPTURE(wish.kind, wish.sizes, wish.rank, wish.dead, wish.by_dimension_1, wish.may_have_columns);
  CAPTURE(int{wish.format.bytes}, int{wish.format.mantissa_bits});
  const Case tensor(wish);
  const Bytes section = encoded(tensor);
  Bytes back;
  REQUIRE(decoded(section, tensor, back) == Status::ok);
  REQUIRE(back.size() == tensor.bytes());
  REQUIRE(std::memcmp(back.data(), tensor.words.data(), tensor.bytes()) == 0);
}

}  // namespace

TEST_CASE("sections decode to what they were") {
  for (const auto& kind : element_kinds) {
    for (const FloatFormat format : test::float_formats) {
      for (const Sizes& sizes : std::vector<Sizes>{
               {}, {1}, {300}, {1, 20}, {30, 3}, {2, 16}, {40, 50}, {7, 8, 3, 3}, {100, 700}}) {
        if (sizes.empty()) continue;
        const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
        for (const std::int64_t rank : {0, 1, 2}) {
          if (rank > 0 && flat) continue;
          check_round_trip({kind, sizes, format, rank});
          check_round_trip({kind, sizes, format, rank, !flat, false, false});
          if (has_dimension_1_view(sizes.data(), sizes.size()))
            check_round_trip({kind, sizes, format, rank, true, true});
        }
      }
    }
  }
  check_round_trip({"noise", {5, 70000}, float_format(DType::float32), 4});
  check_round_trip({"some special", {70000, 17}, float_format(DType::bfloat16), 3, true});
  check_round_trip({"noise", {60, 40}, float_format(DType::float64), 40});
}

TEST_CASE("a matrix without a live line is a section of flags alone") {
  Case tensor({"noise", {8, 40}});
  tensor.head.dead_rows = FlagRuns(std::vector<bool>(8, true));
  tensor.head.dead_columns = FlagRuns(std::vector<bool>(40, true));
  tensor.shape = live_shape(fixed_shape(tensor.wish.sizes.data(), 2, false), tensor.head);
  REQUIRE(tensor.shape.elements == 0);
  const Bytes section = encoded(tensor);
  CHECK(section.size() < 8);
  Bytes back;
  CHECK(decoded(section, tensor, back) == Status::ok);
  CHECK(back.empty());
}

TEST_CASE("fixed sections do not depend on how work is shared") {
  for (const std::int64_t rank : {0, 3}) {
    for (const auto& kind : element_kinds) {
      const Case tensor({kind, {700, 300}, float_format(DType::float32), rank, true});
      const Bytes section = encoded(tensor);
      CHECK(encoded(tensor, test::run_backwards) == section);
      CHECK(encoded(tensor, test::run_on_threads) == section);
      Bytes one, two;
      REQUIRE(decoded(section, tensor, one, test::run_backwards) == Status::ok);
      REQUIRE(decoded(section, tensor, two, test::run_on_threads) == Status::ok);
      CHECK(one == two);
      CHECK(std::memcmp(one.data(), tensor.words.data(), tensor.bytes()) == 0);
    }
  }
}

TEST_CASE("a good prediction makes a section smaller, column scales do where columns differ") {
  const Wish with{"noise", {200, 300}, float_format(DType::float32), 2};
  const Case predicted(with);
  Case plain(with);
  plain.head.low_rank = {};
  CHECK(encoded(predicted).size() + 20000 < encoded(plain).size());
  Case rows_only = plain;
  rows_only.may_have_columns = false;
  CHECK(encoded(plain).size() < encoded(rows_only).size());
}

TEST_CASE("damaged fixed sections give a status or data, never a crash") {
  std::mt19937_64 random(41);
  for (const auto& [sizes, rank, dead, by_dimension_1] :
       std::vector<std::tuple<Sizes, std::int64_t, bool, bool>>{{{60}, 0, false, false},
                                                                {{6, 17}, 0, false, false},
                                                                {{6, 17}, 0, true, false},
                                                                {{9, 18}, 1, false, false},
                                                                {{12, 20}, 2, true, false},
                                                                {{5, 6, 4}, 3, true, true}}) {
    for (const char* const kind : {"noise", "some special"}) {
      for (const FloatFormat format : test::float_formats) {
        const Case tensor({kind, sizes, format, rank, dead, by_dimension_1});
        const Bytes good = encoded(tensor);
        const std::size_t limit = 64 * good.size() + 8 * tensor.bytes() + (std::size_t{4} << 20);
        Bytes back;
        const auto check = [&](const Bytes& bad) {
          largest_allocation = 0;
          const Status status = decoded(bad, tensor, back);
          if (largest_allocation > limit) FAIL("allocated " << largest_allocation);
          if (bad.size() < good.size() && std::equal(bad.begin(), bad.end(), good.begin()))
            CHECK(status != Status::ok);
        };
        for (std::size_t cut = 0; cut < good.size(); ++cut)
          check(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut)));
        test::for_each_damage(good, 150, check);
        for (int trial = 0; trial < 150; ++trial) {
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

TEST_CASE("sections of another shape give a status, whatever shape the header claims") {
  constexpr std::int64_t kilo = 1 << 10, mega = 1 << 20;
  for (const std::int64_t rank : {0, 2}) {
    const Case tensor({"noise", {12, 20}, float_format(DType::float32), rank, true});
    const Bytes section = encoded(tensor);
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
      for (const bool predicted : {false, true}) {
        CAPTURE(sizes, rank, predicted);
        FixedSource source;
        largest_allocation = 0;
        const Status status = read_fixed(section.data(), section.size(), sizes.data(), sizes.size(),
                                         predicted, true, run_serially, source);
        CHECK(status != Status::ok);
        CHECK(largest_allocation < 65536 * section.size());
      }
    }
  }
}

TEST_CASE("heads that are out of range are refused, and those at the edge of it read") {
  const Case tensor({"noise", {12, 20}, float_format(DType::float32), 2});
  const FixedSection good = encode_fixed(tensor.input(), tensor.head,
                                         product_of(tensor.head, tensor.shape), run_serially);
  const auto changed = [&](auto change) {
    FixedSection section = good;
    change(section.head);
    section.head_bytes = write_fixed_head(section.head);
    Bytes bytes(section.size()), back;
    section.write(bytes.data());
    return decoded(bytes, tensor, back);
  };
  const auto exponents = [&](std::int16_t one, std::int16_t other) {
    return changed([&](FixedHead& head) { head.low_rank.factors.exponents = {one, other}; });
  };
  REQUIRE(changed([](FixedHead&) {}) == Status::ok);
  CHECK(exponents(0, INT16_MAX) == Status::bad_section);
  CHECK(exponents(INT16_MIN, INT16_MAX) == Status::bad_section);
  CHECK(exponents(INT16_MIN, -100) == Status::bad_section);
  CHECK(exponents(-60, 0) == Status::bad_section);  // shifted beyond 2^62
  // Predictions that are beyond every float decode to something.
  CHECK(exponents(INT16_MIN, INT16_MIN) != Status::bad_section);
  CHECK(exponents(INT16_MAX, INT16_MAX) != Status::bad_section);
  for (const std::int64_t rank : {0, 1, 3, 12, 13, 1 << 20}) {
    CAPTURE(rank);
    // One varint names it; lines that follow it are of the true rank.
    Bytes bytes = encoded(tensor), back;
    ByteWriter out;
    out.fixed(bytes[0]);
    out.varint(static_cast<std::uint64_t>(rank));
    out.bytes(bytes.data() + 2, bytes.size() - 2);
    CHECK(decoded(out.take(), tensor, back) != Status::ok);
  }
  for (const std::int16_t width : {INT16_MIN, INT16_MAX}) {
    // Any width is legal, but it is another table than the one that coded the factors.
    CHECK(changed([&](FixedHead& head) { head.low_rank.factors.u.column_widths[0] = width; }) !=
          Status::ok);
  }
  CHECK(changed([](FixedHead& head) { head.scales.rows[3] = INT16_MAX; }) != Status::ok);
  CHECK(changed([](FixedHead& head) {
          // What is written is the difference to the weight: the sum is no 16-bit number.
          head.low_rank.row_weights[0] = 20000;
          head.scales.rows[0] = 20000;
        }) == Status::bad_section);
  CHECK(changed([](FixedHead& head) { head.scales.rows.push_back(0); }) == Status::bad_section);
  CHECK(changed([](FixedHead& head) { head.scales.rows.pop_back(); }) != Status::ok);
  CHECK(changed([](FixedHead& head) { head.by_dimension_1 = true; }) == Status::bad_section);

  Bytes bytes = encoded(tensor), back;
  for (int bit = 5; bit < 8; ++bit) {
    Bytes bad = bytes;
    bad[0] = static_cast<std::uint8_t>(bad[0] | 1 << bit);
    CHECK(decoded(bad, tensor, back) == Status::bad_section);
  }
  const Case plain({"noise", {12, 20}});
  Bytes bad = encoded(plain);
  for (const int flag : {8, 16}) {  // widths of factors, of which there are none
    bad[0] = static_cast<std::uint8_t>(bad[0] | flag);
    CHECK(decoded(bad, plain, back) == Status::bad_section);
  }
}

TEST_CASE("the part of a section before its elements is enough to read it") {
  for (const std::int64_t rank : {0, 2}) {
    const Case tensor({"noise", {12, 20}, float_format(DType::float32), rank, true});
    const Bytes section = encoded(tensor);
    FixedSource whole;
    REQUIRE(read_fixed(section.data(), section.size(), tensor.wish.sizes.data(), 2, rank > 0, true,
                       run_serially, whole) == Status::ok);
    for (std::size_t part = 0; part <= section.size(); ++part) {
      const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[part]);
      std::copy_n(section.begin(), part, exact.get());
      FixedSource source;
      const Status status =
          read_fixed_part(exact.get(), part, section.size(), tensor.wish.sizes.data(), 2, rank > 0,
                          true, run_serially, source);
      REQUIRE(status == (part < whole.sizes.side ? Status::truncated : Status::ok));
      if (status != Status::ok) continue;
      REQUIRE(source.sizes.side == whole.sizes.side);
      REQUIRE(source.sizes.tails == whole.sizes.tails);
      REQUIRE(source.head.scales.rows == whole.head.scales.rows);
      REQUIRE(source.head.low_rank.factors.v.entries == whole.head.low_rank.factors.v.entries);
    }
  }
}

TEST_CASE("random bytes are no fixed section") {
  std::mt19937_64 random(42);
  const Case one({"noise", {12, 20}, float_format(DType::float32), 2});
  const Case other({"noise", {60}, float_format(DType::float16)});
  for (int trial = 0; trial < 20000; ++trial) {
    Bytes bytes(random() % 120);
    for (auto& byte : bytes)
      byte = static_cast<std::uint8_t>(random() % (trial % 3 == 0 ? 256 : trial % 3 == 1 ? 4 : 32));
    Bytes back;
    decoded(bytes, trial % 2 == 0 ? one : other, back);
  }
}
