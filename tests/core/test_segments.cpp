#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "core/histogram.h"
#include "core/segment_kernels.h"
#include "core/segments.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using lmgc::test::byte_kinds;
using lmgc::test::some_bytes;

}  // namespace

TEST_CASE("histograms count every byte") {
  for (const auto& kind : byte_kinds) {
    for (const std::size_t size : {0, 1, 7, 8, 9, 1000, 4099}) {
      const std::vector<std::uint8_t> data = some_bytes(kind, size);
      std::vector<std::uint64_t> expected(256), counts(256);
      for (const std::uint8_t byte : data) ++expected[byte];
      Histogram histogram;
      histogram.add(data.data(), static_cast<std::int64_t>(size / 3));
      histogram.add(data.data() + size / 3, static_cast<std::int64_t>(size - size / 3));
      histogram.add_to(counts.data());
      CHECK(counts == expected);
    }
  }
}

TEST_CASE("every segment names the cheapest table, and is counted there") {
  for (const auto& kind : byte_kinds) {
    for (const int segment_bits : {5, 6, 7, 8}) {
      for (const std::int64_t size : {100, 5000, 70001, 140000}) {
        const std::vector<std::uint8_t> data = some_bytes(kind, static_cast<std::size_t>(size));
        const std::int64_t length = std::int64_t{1} << segment_bits;
        const TableCosts costs =
            choose_tables(data.data(), size >> segment_bits, segment_bits, size);
        const std::int64_t segments = (size + length - 1) >> segment_bits;
        std::vector<std::uint8_t> names(static_cast<std::size_t>(segments), 77);
        std::array<rans::Counts, most_tables> counts, expected{};
        name_tables(data.data(), size, segment_bits, costs, run_serially, names.data(), counts);
        for (std::int64_t s = 0; s < segments; ++s) {
          std::vector<std::uint64_t> sums(static_cast<std::size_t>(costs.tables));
          for (std::int64_t i = s * length; i < std::min(size, (s + 1) * length); ++i) {
            for (int t = 0; t < costs.tables; ++t) sums[t] += costs.cost[data[i]][t];
            ++expected[names[s]][data[i]];
          }
          REQUIRE(names[s] == std::min_element(sums.begin(), sums.end()) - sums.begin());
        }
        for (int t = 0; t < costs.tables; ++t) CHECK(counts[t] == expected[t]);
      }
    }
  }
}

#if defined(__x86_64__)
TEST_CASE("the version of naming for newer processors computes the same") {
  if (!has_avx512_vbmi()) return;
  std::mt19937 random(3);
  const auto costs = std::make_unique<NameCosts>();
  std::vector<std::uint16_t> rows(256 * 16);
  for (const int tables : {2, 3, 4, 5, 8, 9, 13, 16}) {
    for (const unsigned most : {255u, 3u, 1u}) {  // the last two make ties
      for (const unsigned symbols : {20u, 127u, 256u}) {
        std::fill(rows.begin(), rows.end(), std::uint16_t{255});
        std::fill_n(costs->columns[0], sizeof costs->columns, std::uint8_t{255});
        for (int symbol = 0; symbol < 256; ++symbol) {
          for (int t = 0; t < tables; ++t) {
            const unsigned cost = most == 1 ? 255 : 255 - random() % most;
            rows[16 * symbol + t] = static_cast<std::uint16_t>(cost);
            costs->columns[t][symbol] = static_cast<std::uint8_t>(cost);
          }
        }
        costs->rows = reinterpret_cast<const std::uint16_t(*)[16]>(rows.data());
        costs->tables = tables;
        for (const int length : {64, 128, 256}) {
          std::vector<std::uint8_t> data(40 * static_cast<std::size_t>(length));
          for (auto& byte : data) byte = static_cast<std::uint8_t>(random() % symbols);
          std::vector<std::uint8_t> expected(40), names(40);
          name_run_portable(data.data(), 40, length, *costs, expected.data());
          name_run_avx512(data.data(), 40, length, *costs, names.data());
          CAPTURE(tables, most, symbols, length);
          CHECK(names == expected);
        }
      }
    }
  }
}
#endif
