// Checksums: of pieces, of changed bytes, and by vectors.
#include "core/checksum.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <vector>

using namespace lmgc;

TEST_CASE("checksums of pieces add up, and every changed byte changes them") {
  std::vector<std::uint8_t> data(1000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::uint8_t>(i * 37);
  for (const std::size_t cut : {8u, 16u, 512u, 992u}) {
    REQUIRE(checksum_sum(data.data(), cut) +
                checksum_sum(data.data() + cut, data.size() - cut, cut / 8) ==
            checksum_sum(data.data(), data.size()));
  }
  const std::uint64_t before = checksum(data.data(), data.size());
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] ^= 1;
    REQUIRE(checksum(data.data(), data.size()) != before);
    data[i] ^= 1;
  }
  REQUIRE(checksum(data.data(), 999) != checksum(data.data(), 1000));
}

TEST_CASE("the processor's fastest checksum is the plain sum") {
  std::vector<std::uint8_t> data(700);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::uint8_t>(i * i * 31 + i);
  for (std::size_t offset = 0; offset < 9; ++offset) {
    for (std::size_t size = 0; size + offset <= data.size(); size += 1 + size / 7) {
      std::uint64_t sum = 0;
      for (std::size_t at = 0; at < size; at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, data.data() + offset + at, size - at < 8 ? size - at : 8);
        sum += checksum_word(word, 5 + at / 8);
      }
      REQUIRE(checksum_sum(data.data() + offset, size, 5) == sum);
    }
  }
}
