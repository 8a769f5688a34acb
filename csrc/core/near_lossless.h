// Rounding of floats to fewer bits, in integers: to nearest, ties to even, with the same bits on
// every device. Infinities and NaNs, with their payloads, stay, and so do zeros with their signs;
// numbers that are rounded to zero become +0, so that signs of zeros cost nothing. Rounding twice
// is rounding once.
#pragma once

#include <cstdint>

#include "core/fixed.h"
#include "core/float_format.h"
#include "core/host_device.h"

namespace lmgc {

// Magnitude `magnitude` (a finite word without its sign) rounded to a multiple of 2^drop of its
// last bits. `drop` counts from the last bit of the significand and may be any number.
LMGC_HD inline std::uint64_t round_magnitude(std::uint64_t magnitude, std::int64_t drop,
                                             const FixedFormat& format) {
  if (drop <= 0 || magnitude == 0) return magnitude;
  if (drop > format.mantissa + 1) return 0;
  if (drop > format.mantissa) {  // all of the significand: up to twice its leading bit, or nothing
    const std::uint64_t above = format.mantissa_mask() + 1;
    const bool more = magnitude >= above && (magnitude & format.mantissa_mask()) != 0;
    return more ? (magnitude & ~format.mantissa_mask()) + above : 0;
  }
  const std::uint64_t unit = std::uint64_t{1} << drop;
  // The last place that is kept may be that of the implicit bit.
  const std::uint64_t odd =
      drop == format.mantissa ? magnitude > format.mantissa_mask() : magnitude >> drop & 1;
  return (magnitude + unit / 2 - 1 + odd) & ~(unit - 1);  // a carry moves on into the exponent
}

// Keeps the first `bits` explicit bits of mantissas.
struct RoundMantissas {
  const void* words;
  void* out;
  FloatFormat format;
  std::int32_t bits;
  // Whether a relative error of 2^-(bits + 1) is promised for all numbers: subnormal ones keep as
  // many bits, and what would be rounded to infinity stays. Else subnormal numbers lose the same
  // places as all others, and the largest number is the largest of so many bits.
  bool is_bound;

  LMGC_HD void operator()(std::int64_t i) const {
    const FixedFormat own(format);
    const std::uint64_t word = load_word(words, format.bytes, i);
    const std::uint64_t magnitude = word & (own.sign() - 1);
    std::uint64_t rounded = magnitude;
    if (own.exponent_field(word) != own.infinite_field) {
      const std::uint64_t infinite = static_cast<std::uint64_t>(own.infinite_field) << own.mantissa;
      int drop = own.mantissa - bits;
      if (is_bound && own.exponent_field(word) == 0) drop = bit_width(magnitude) - 1 - bits;
      rounded = round_magnitude(magnitude, drop, own);
      if (rounded >= infinite)
        rounded = is_bound ? magnitude : infinite - (std::uint64_t{1} << drop);
    }
    const bool vanished = rounded == 0 && magnitude != 0;
    store_word(out, format.bytes, i, vanished ? 0 : rounded | (word & own.sign()));
  }
};

// Rounds to multiples of powers of two, one for each block of a row.
struct RoundToPowers {
  const void* words;
  void* out;
  FloatFormat format;
  const std::int32_t* exponents;  // of each row the blocks'
  std::int64_t columns, block;    // elements of a row, and of a block of it

  LMGC_HD void operator()(std::int64_t i) const {
    const FixedFormat own(format);
    const std::int64_t blocks = (columns + block - 1) / block;
    const std::int64_t exponent = exponents[i / columns * blocks + i % columns / block];
    const std::uint64_t word = load_word(words, format.bytes, i);
    const std::uint64_t magnitude = word & (own.sign() - 1);
    const int field = own.exponent_field(word);
    std::uint64_t rounded = magnitude;
    if (field != own.infinite_field) {
      const std::int64_t last_bit = (field == 0 ? 1 : field) - own.bias - own.mantissa;
      rounded = round_magnitude(magnitude, exponent - last_bit, own);
      const std::uint64_t infinite = static_cast<std::uint64_t>(own.infinite_field) << own.mantissa;
      if (rounded >= infinite) rounded = magnitude;  // so that the error's bound holds
    }
    const bool vanished = rounded == 0 && magnitude != 0;
    store_word(out, format.bytes, i, vanished ? 0 : rounded | (word & own.sign()));
  }
};

}  // namespace lmgc
