// Logarithms and quotients in integers, for results that depend on no floating-point library.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

// The unit of log2_fixed: 256ths of a bit.
inline constexpr int log2_fraction_bits = 8;

namespace detail {

// log2(1 + (i + 1/2) / 256) in 256ths of a bit, by repeated squaring.
constexpr std::array<std::uint8_t, 256> log2_fractions() {
  std::array<std::uint8_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint64_t x =
        (std::uint64_t{512 + 2 * i + 1} << 31) >> 9;  // [1, 2) with 31 fractional bits
    std::uint32_t fraction = 0;
    for (int bit = 0; bit < log2_fraction_bits; ++bit) {
      x = (x * x) >> 31;
      fraction <<= 1;
      if (x >> 32) {
        fraction |= 1;
        x >>= 1;
      }
    }
    table[i] = static_cast<std::uint8_t>(fraction);
  }
  return table;
}

inline constexpr std::array<std::uint8_t, 256> log2_fraction_table = log2_fractions();

}  // namespace detail

// log2(x) in 256ths of a bit, to within 1/128 bit; 0 for x == 0. Not decreasing in x.
constexpr std::uint32_t log2_fixed(std::uint64_t x) {
  if (x == 0) return 0;
  const int exponent = std::bit_width(x) - 1;
  const std::uint64_t mantissa = exponent >= 8 ? x >> (exponent - 8) : x << (8 - exponent);
  if ((x & (x - 1)) == 0) return static_cast<std::uint32_t>(exponent) << log2_fraction_bits;
  return (static_cast<std::uint32_t>(exponent) << log2_fraction_bits) +
         detail::log2_fraction_table[mantissa & 0xFF];
}

// log2_fixed of small numbers, which are the rule among counts.
inline constexpr int small_logs = 1024;
namespace detail {
constexpr std::array<std::uint16_t, small_logs> log2_small() {
  std::array<std::uint16_t, small_logs> table{};
  for (std::uint64_t x = 0; x < small_logs; ++x)
    table[x] = static_cast<std::uint16_t>(log2_fixed(x));
  return table;
}
inline constexpr std::array<std::uint16_t, small_logs> log2_small_table = log2_small();
}  // namespace detail
inline std::uint32_t log2_of_count(std::uint64_t count) {
  return count < small_logs ? detail::log2_small_table[count] : log2_fixed(count);
}

// The integer nearest to sum / count, halves up; count > 0.
LMGC_HD constexpr std::int64_t rounded_quotient(std::int64_t sum, std::int64_t count) {
  const std::int64_t doubled = 2 * sum + count, twice = 2 * count;
  return doubled >= 0 ? doubled / twice : -((-doubled + twice - 1) / twice);
}

}  // namespace lmgc
