// Runs of bits: what was put comes back, and untrusted ends are respected.
#include "core/bits.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

using namespace lmgc;

namespace {

std::uint64_t low_bits(std::uint64_t value, int count) {
  return value & ((std::uint64_t{1} << count) - 1);
}

// Bytes on the heap, not one more than there are: a sanitizer sees who reads behind them.
struct Exact {
  explicit Exact(const std::vector<std::uint8_t>& bytes)
      : size(bytes.size()), data(new std::uint8_t[size]) {
    std::copy(bytes.begin(), bytes.end(), data.get());
  }
  BitReader reader() const { return {data.get(), size}; }

  std::size_t size;
  std::unique_ptr<std::uint8_t[]> data;
};

}  // namespace

TEST_CASE("bits of any width come back") {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<std::pair<std::uint64_t, int>> items(random() % 60);
    std::uint64_t total = 0;
    BitWriter out;
    for (auto& [value, count] : items) {
      count = trial % 3 == 0 ? BitWriter::most_bits
                             : static_cast<int>(random() % (BitWriter::most_bits + 1));
      value = low_bits(trial % 5 == 0 ? ~0ull : random(), count);
      out.put(value, count);
      total += static_cast<unsigned>(count);
    }
    const Exact bytes(out.take());
    REQUIRE(bytes.size == (total + 7) / 8);
    BitReader in = bytes.reader();
    for (const auto& [value, count] : items) REQUIRE(in.get(count) == value);
    REQUIRE(in.ok());
    REQUIRE(in.only_padding_left());
    REQUIRE(in.get(static_cast<int>(8 * bytes.size - total)) == 0);
    REQUIRE(in.ok());
    REQUIRE(in.get(1) == 0);
    REQUIRE_FALSE(in.ok());
  }
}

TEST_CASE("a writer is empty after its bytes were taken") {
  BitWriter out;
  REQUIRE(out.take().empty());
  for (const int width : {3, 0, 8, 9, 56}) {
    for (int round = 0; round < 3; ++round) {
      out.put(low_bits(5, width), width);
      out.put(low_bits(1, width), width);
      const auto bytes = out.take();
      REQUIRE(bytes.size() == (2 * static_cast<std::size_t>(width) + 7) / 8);
      if (width > 0) REQUIRE((bytes[0] & 7) == 5);
      REQUIRE(out.take().empty());
    }
  }
}

TEST_CASE("unary numbers end with a one, the largest one without") {
  std::mt19937 random(2);
  for (int most = 0; most <= 55; ++most) {
    std::vector<int> numbers;
    BitWriter out;
    for (int i = 0; i < 200; ++i) {
      const int zeros =
          i <= most ? i : static_cast<int>(random() % (static_cast<unsigned>(most) + 1));
      if (zeros < most) {
        out.put(std::uint64_t{1} << zeros, zeros + 1);
      } else {
        out.put(0, most);
      }
      out.put(random() % 8, 3);  // so that they begin anywhere in a byte
      numbers.push_back(zeros);
    }
    const Exact bytes(out.take());
    BitReader in = bytes.reader();
    for (const int zeros : numbers) {
      REQUIRE(in.get_unary(most) == zeros);
      in.get(3);
    }
    REQUIRE(in.only_padding_left());
  }
}

TEST_CASE("reads past the end fail and go on failing") {
  std::mt19937_64 random(3);
  for (std::size_t size = 0; size < 20; ++size) {
    std::vector<std::uint8_t> ones(size, 0xFF);
    const Exact bytes(ones);
    for (int count = 1; count <= BitWriter::most_bits; ++count) {
      BitReader in = bytes.reader();
      const std::size_t whole = 8 * size / static_cast<unsigned>(count);
      for (std::size_t i = 0; i < whole; ++i) REQUIRE(in.get(count) == low_bits(~0ull, count));
      REQUIRE(in.ok());
      REQUIRE(in.get(count) == 0);
      for (int again = 0; again < 20; ++again) {
        REQUIRE_FALSE(in.ok());
        REQUIRE_FALSE(in.only_padding_left());
        REQUIRE(in.get(static_cast<int>(random() % 57)) == 0);
        REQUIRE(in.get_unary(static_cast<int>(random() % 56)) == 0);
      }
    }
  }
}

TEST_CASE("a unary number that does not end within the bytes fails") {
  for (std::size_t size = 0; size < 9; ++size) {
    const Exact zeros(std::vector<std::uint8_t>(size, 0));
    for (int most = 0; most <= 55; ++most) {
      BitReader in = zeros.reader();
      // Up to `most` zeros need no one behind them.
      const bool fits = static_cast<std::size_t>(most) <= 8 * size;
      REQUIRE(in.get_unary(most) == (fits ? most : 0));
      REQUIRE(in.ok() == fits);
    }
  }
}

TEST_CASE("padding is less than a byte and zero") {
  const std::vector<std::uint8_t> bytes = {0b00000101, 0b00000000};
  BitReader one(bytes.data(), 1);
  REQUIRE_FALSE(one.only_padding_left());
  one.get(2);
  REQUIRE_FALSE(one.only_padding_left());  // the third bit is set
  one.get(1);
  REQUIRE(one.only_padding_left());
  one.get(5);
  REQUIRE(one.only_padding_left());

  BitReader both(bytes.data(), 2);
  both.get(3);
  REQUIRE_FALSE(both.only_padding_left());  // a byte and more
  both.get(5);
  REQUIRE_FALSE(both.only_padding_left());  // a whole byte of zeros
  both.get(1);
  REQUIRE(both.only_padding_left());
  REQUIRE(BitReader(bytes.data(), 0).only_padding_left());
  REQUIRE(BitReader(nullptr, 0).only_padding_left());
}
