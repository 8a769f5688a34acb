// Adaptive Rice codes: numbers, lines, and flags as runs.
#include "core/rice.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

using namespace lmgc;

namespace {

using Line = std::vector<std::int16_t>;

Line line_of(const std::string& kind, std::size_t size) {
  std::mt19937 random(static_cast<unsigned>(size) + 17);
  Line line(size);
  int walk = -300;
  for (std::size_t i = 0; i < size; ++i) {
    const auto value = static_cast<int>(random());
    walk = std::clamp(walk + value % 4, -2000, 2000);
    if (kind == "constant") line[i] = -123;
    if (kind == "smooth") line[i] = static_cast<std::int16_t>(walk);
    if (kind == "near the mean") line[i] = static_cast<std::int16_t>(480 + value % 20);
    if (kind == "any") line[i] = static_cast<std::int16_t>(value);
    if (kind == "extremes by turns") line[i] = i % 2 == 0 ? INT16_MIN : INT16_MAX;
    if (kind == "extremes") line[i] = value % 2 == 0 ? INT16_MIN : INT16_MAX;
    if (kind == "least") line[i] = INT16_MIN;
    if (kind == "greatest") line[i] = INT16_MAX;
    if (kind == "one differs") line[i] = i == size / 2 ? INT16_MAX : -5;
  }
  return line;
}

const std::vector<std::string> line_kinds = {
    "constant", "smooth", "near the mean", "any",        "extremes by turns",
    "extremes", "least",  "greatest",      "one differs"};
const std::vector<std::size_t> line_sizes = {0, 1, 2, 3, 7, 63, 64, 65, 300, 5000};

std::vector<std::uint8_t> written(const Line& line) {
  BitWriter out;
  write_line(out, line);
  return out.take();
}

std::vector<std::uint8_t> written(const std::vector<bool>& flags) {
  BitWriter out;
  write_flags(out, FlagRuns(flags));
  return out.take();
}

}  // namespace

TEST_CASE("Rice codes give back every number that they can tell") {
  std::mt19937 random(4);
  for (int trial = 0; trial < 300; ++trial) {
    const int bits = trial % 17;
    std::vector<std::int32_t> values(random() % 500);
    BitWriter out;
    AdaptiveRice writer, reader;
    for (auto& value : values) {
      // Seldom something far larger than what the code got used to.
      const bool jump = random() % 50 == 0;
      value = static_cast<std::int32_t>(random() % ((jump ? most_rice : (1 << bits) - 1) + 1));
      if (jump) value = most_rice;
      if (random() % 2 == 0) value = -value;
      writer.put(out, value);
    }
    const auto bytes = out.take();
    BitReader in(bytes.data(), bytes.size());
    for (const std::int32_t value : values) REQUIRE(reader.get(in) == value);
    REQUIRE(in.only_padding_left());
  }
}

TEST_CASE("lines read back as they were written, one behind the other") {
  BitWriter out;
  std::size_t numbers = 0;
  for (const auto& kind : line_kinds) {
    for (const std::size_t size : line_sizes) {
      CAPTURE(kind, size);
      const Line line = line_of(kind, size);
      const auto bytes = written(line);
      REQUIRE(8 * bytes.size() >= size);  // what readers count on before they allocate
      REQUIRE(bytes.empty() == line.empty());
      BitReader in(bytes.data(), bytes.size());
      Line back(size, 99);
      REQUIRE(read_line(in, back));
      REQUIRE(back == line);
      REQUIRE(in.only_padding_left());
      write_line(out, line);
      numbers += size;
    }
  }
  const auto bytes = out.take();
  BitReader in(bytes.data(), bytes.size());
  for (const auto& kind : line_kinds) {
    for (const std::size_t size : line_sizes) {
      Line back(size);
      REQUIRE(read_line(in, back));
      REQUIRE(back == line_of(kind, size));
    }
  }
  REQUIRE(in.only_padding_left());
}

TEST_CASE("lines are short where they are simple") {
  REQUIRE(written(line_of("constant", 5000)).size() <= 5000 / 8 + 5);
  REQUIRE(written(line_of("smooth", 5000)).size() <= 5000 * 4 / 8);
  REQUIRE(written(line_of("near the mean", 5000)).size() <= 5000 * 7 / 8);
  REQUIRE(written(line_of("any", 5000)).size() <= 5000 * 20 / 8);
}

TEST_CASE("lines that are cut are refused") {
  for (const auto& kind : line_kinds) {
    for (const std::size_t size : {1, 3, 65, 300}) {
      const auto bytes = written(line_of(kind, size));
      for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
        const std::vector<std::uint8_t> part(bytes.begin(),
                                             bytes.begin() + static_cast<std::ptrdiff_t>(cut));
        BitReader in(part.data(), part.size());
        Line back(size);
        REQUIRE_FALSE(read_line(in, back));
      }
    }
  }
}

TEST_CASE("flags read back as they were written") {
  std::mt19937 random(5);
  for (const std::size_t size :
       {0, 1, 2, 5, 100, 65534, 65535, 65536, 65537, 131070, 131071, 200000, 400001}) {
    for (int kind = 0; kind < 8; ++kind) {
      CAPTURE(size, kind);
      std::vector<bool> flags(size);
      for (std::size_t i = 0; i < size; ++i) {
        flags[i] = kind == 0   ? false
                   : kind == 1 ? true
                   : kind == 2 ? i < size / 2
                   : kind == 3 ? i > size / 2
                   : kind == 4 ? i + 1 == size
                   : kind == 5 ? i % 2 == 0
                   : kind == 6 ? random() % 100 == 0
                               : i / 65535 % 2 == 1;
      }
      const auto bytes = written(flags);
      REQUIRE(8 * bytes.size() >= size / 65536);
      BitReader in(bytes.data(), bytes.size());
      FlagRuns back;
      REQUIRE(read_flags(in, static_cast<std::int64_t>(size), back));
      REQUIRE(back.flags() == flags);
      REQUIRE(back.set() == std::count(flags.begin(), flags.end(), true));
      REQUIRE(back.set() + back.clear() == static_cast<std::int64_t>(size));
      REQUIRE(in.only_padding_left());
      if (!bytes.empty()) {
        BitReader cut(bytes.data(), bytes.size() - 1);
        REQUIRE_FALSE(read_flags(cut, static_cast<std::int64_t>(size), back));
      }
    }
  }
}

TEST_CASE("runs of flags that lie are refused") {
  const auto refused = [](const std::vector<std::int32_t>& runs, std::int64_t size) {
    BitWriter out;
    AdaptiveRice codes[2];
    for (std::size_t i = 0; i < runs.size(); ++i) codes[i % 2].put(out, runs[i]);
    const auto bytes = out.take();
    BitReader in(bytes.data(), bytes.size());
    FlagRuns flags;
    return !read_flags(in, size, flags);
  };
  CHECK_FALSE(refused({10}, 10));
  CHECK_FALSE(refused({0, 10}, 10));
  CHECK(refused({9}, 10));   // and then the end
  CHECK(refused({11}, 10));  // longer than the line
  CHECK(refused({5, 6}, 10));
  CHECK(refused({-1, 10}, 10));  // of negative length
  CHECK(refused({5, -5, 10}, 10));
  CHECK(refused({0, 0, 10}, 10));  // and then nothing, again and again
  CHECK(refused({5, 0, 0, 5}, 10));
}

TEST_CASE("flags take memory for their runs, whatever the number of lines") {
  for (const std::uint8_t byte : {0x00, 0x55, 0xFF, 0x7F}) {
    const std::vector<std::uint8_t> bytes(1000, byte);
    BitReader in(bytes.data(), bytes.size());
    FlagRuns flags;
    CHECK_FALSE(read_flags(in, INT64_MAX, flags));
    CHECK(flags.runs().size() <= 8 * bytes.size());
  }
  // A great many lines that a few bytes do tell of.
  constexpr std::int64_t lines = std::int64_t{1} << 34;
  FlagRuns flags;
  flags.append(0);
  for (std::int64_t left = lines; left > 0; left -= FlagRuns::longest) {
    flags.append(static_cast<std::uint16_t>(std::min(left, FlagRuns::longest)));
    if (left > FlagRuns::longest) flags.append(0);
  }
  BitWriter out;
  write_flags(out, flags);
  const auto bytes = out.take();
  CHECK(bytes.size() < 700'000);
  BitReader in(bytes.data(), bytes.size());
  FlagRuns back;
  REQUIRE(read_flags(in, lines, back));
  CHECK(back.set() == lines);
  CHECK(back.clear() == 0);
  CHECK(back.runs() == flags.runs());
}

TEST_CASE("any bytes are a line, flags, or an error") {
  std::mt19937 random(6);
  for (int trial = 0; trial < 4000; ++trial) {
    std::vector<std::uint8_t> bytes(random() % 200);
    for (auto& byte : bytes) {
      byte = static_cast<std::uint8_t>(trial % 4 == 0   ? 0
                                       : trial % 4 == 1 ? 0xFF
                                       : trial % 4 == 2 ? 1u << random() % 8
                                                        : random());
    }
    BitReader one(bytes.data(), bytes.size());
    Line line(random() % 2000);
    if (read_line(one, line)) REQUIRE(one.ok());
    BitReader other(bytes.data(), bytes.size());
    FlagRuns flags;
    if (read_flags(other, static_cast<std::int64_t>(random() % 1000000), flags))
      REQUIRE(other.ok());
  }
}
