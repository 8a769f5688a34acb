// Range coder lanes: round trips, overhead, carries, hostile bytes.
#include "core/range_coder.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

using namespace lmgc;

namespace {

struct Symbol {
  std::uint32_t start, frequency;
};

std::vector<std::uint8_t> encode(const std::vector<Symbol>& symbols) {
  std::vector<std::uint8_t> lane(
      static_cast<std::size_t>(lane_bound(static_cast<std::int64_t>(symbols.size()))));
  RangeEncoder coder;
  coder.out = lane.data();
  for (const auto& symbol : symbols) coder.put(symbol.start, symbol.frequency);
  const std::int64_t size = coder.finish();
  REQUIRE(size <= static_cast<std::int64_t>(lane.size()));
  lane.resize(static_cast<std::size_t>(size));
  return lane;
}

void require_round_trip(const std::vector<Symbol>& symbols) {
  const std::vector<std::uint8_t> lane = encode(symbols);
  double bits = 0;
  RangeDecoder coder;
  coder.start(lane.data(), static_cast<std::int64_t>(lane.size()));
  for (const auto& symbol : symbols) {
    const std::uint32_t target = coder.target();
    REQUIRE(target >= symbol.start);
    REQUIRE(target < symbol.start + symbol.frequency);
    coder.take(symbol.start, symbol.frequency);
    bits += 16 - std::log2(static_cast<double>(symbol.frequency));
  }
  REQUIRE(static_cast<double>(lane.size()) <= bits / 8 + 2.001);  // the end of a lane: two bytes
}

}  // namespace

TEST_CASE("lanes of random symbols decode, with at most two bytes too many") {
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<Symbol> symbols(trial < 100 ? trial % 7 : random() % 300);
    const unsigned kind = random() % 4;
    for (auto& symbol : symbols) {
      symbol.start = random() % cdf_total;
      if (kind == 1) symbol.start = 0;
      if (kind == 2) symbol.start = cdf_total - 1;  // the top of the range: carries
      const std::uint32_t room = cdf_total - symbol.start;
      symbol.frequency = kind == 3 ? room : 1 + random() % room;
    }
    require_round_trip(symbols);
  }
}

TEST_CASE("carries run through long runs of 255") {
  for (int length = 1; length < 40; ++length) {
    // Symbols at the very top keep the code at 0.FFFF...; then one at the end of a wide range
    // carries.
    std::vector<Symbol> symbols(static_cast<std::size_t>(length), Symbol{cdf_total - 1, 1});
    for (const std::uint32_t last : {0u, 1u, 32768u, 65535u}) {
      symbols.push_back({last, cdf_total - last});
      symbols.push_back({cdf_total / 2, 3});
      require_round_trip(symbols);
    }
  }
}

TEST_CASE("a lane of certain symbols is empty") {
  REQUIRE(encode(std::vector<Symbol>(1000, Symbol{0, cdf_total})).empty());
  REQUIRE(encode({}).empty());
}

TEST_CASE("a lane's bytes bound its symbols") {
  for (const std::size_t count : {1u, 1000u, 30000u, 300000u}) {
    for (const std::uint32_t start : {0u, 15u}) {
      const auto lane = encode(std::vector<Symbol>(count, Symbol{start, cdf_total - 15}));
      REQUIRE(count <= most_symbols_in_lane(lane.size()));
      REQUIRE(10 * count + 4 * 8 * 30290 >= most_symbols_in_lane(lane.size()));
    }
  }
}

TEST_CASE("any bytes decode to some symbols without reading past the end") {
  std::mt19937 random(4);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<std::uint8_t> lane(random() % 20);
    for (auto& byte : lane) byte = static_cast<std::uint8_t>(random());
    if (trial % 3 == 0) std::fill(lane.begin(), lane.end(), std::uint8_t{255});
    std::vector<std::uint32_t> frequency(16);
    RangeDecoder coder;
    coder.start(lane.data(), static_cast<std::int64_t>(lane.size()));
    for (int i = 0; i < 100; ++i) {
      std::uint32_t left = cdf_total - 16;
      for (auto& f : frequency) {
        const std::uint32_t extra = random() % (left + 1);
        f = 1 + extra;
        left -= extra;
      }
      frequency[0] += left;
      std::uint32_t first;
      const int symbol = find_symbol(frequency.data(), 16, coder.target(), first);
      REQUIRE(symbol >= 0);
      REQUIRE(symbol < 16);
      coder.take(first, frequency[static_cast<std::size_t>(symbol)]);
      REQUIRE(coder.position <= coder.size);
    }
  }
}
