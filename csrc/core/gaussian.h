// The normal distribution's cumulative function in integers, the same everywhere.
#pragma once

#include <array>
#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

inline constexpr int gaussian_bits = 24;           // of a probability
inline constexpr int gaussian_step_bits = 6;       // table steps of 1/64 of a standard deviation
inline constexpr int gaussian_argument_bits = 14;  // the argument's unit: 2^-14 standard deviations
inline constexpr int gaussian_steps = 6 << gaussian_step_bits;

namespace detail {

// exp(-x), x >= 0, from basic operations only: compilers evaluate it exactly as IEEE 754 says.
constexpr double exp_minus(double x) {
  int halvings = 0;
  while (x > 0.125) {
    x *= 0.5;
    ++halvings;
  }
  double term = 1, sum = 1;
  for (int i = 1; i < 20; ++i) {
    term *= -x / i;
    sum += term;
  }
  while (halvings-- > 0) sum *= sum;
  return sum;
}

// The nearest integers to 2^24 * Phi(i / 64), from Phi(z) = 1/2 + phi(z) (z + z^3/3 + z^5/15 + ...)
constexpr std::array<std::uint32_t, gaussian_steps + 1> gaussian_table() {
  std::array<std::uint32_t, gaussian_steps + 1> table{};
  constexpr double reciprocal_root_two_pi = 0.39894228040143267794;
  for (int i = 0; i <= gaussian_steps; ++i) {
    const double z = static_cast<double>(i) / (1 << gaussian_step_bits);
    double term = z, sum = z;
    for (int n = 3; n < 400; n += 2) {
      term *= z * z / n;
      sum += term;
    }
    const double phi = reciprocal_root_two_pi * exp_minus(z * z / 2);
    table[static_cast<std::size_t>(i)] =
        static_cast<std::uint32_t>((0.5 + phi * sum) * (1 << gaussian_bits) + 0.5);
  }
  return table;
}

}  // namespace detail

inline constexpr std::array<std::uint32_t, gaussian_steps + 1> gaussian_table =
    detail::gaussian_table();

// 2^24 * Phi(z) for z = argument / 2^14, linear between the steps of `table` (gaussian_table, where
// the caller has it). Not decreasing; 0 and 2^24 beyond six standard deviations.
LMGC_HD inline std::uint32_t gaussian_cdf(std::int64_t argument, const std::uint32_t* table) {
  constexpr int fraction_bits = gaussian_argument_bits - gaussian_step_bits;
  const std::int64_t magnitude = argument < 0 ? -argument : argument;
  const std::int64_t step = magnitude >> fraction_bits;
  std::uint32_t upper = 1u << gaussian_bits;
  if (step < gaussian_steps) {
    const std::uint32_t low = table[step], high = table[step + 1];
    const auto fraction = static_cast<std::uint32_t>(magnitude & ((1 << fraction_bits) - 1));
    upper = low + ((high - low) * fraction >> fraction_bits);
  }
  return argument < 0 ? (1u << gaussian_bits) - upper : upper;
}

}  // namespace lmgc
