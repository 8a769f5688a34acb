// The `fixed` serializer: a float as a whole number of *bins* away from its prediction (the
// residual, two hexadecimal digits), and the bits that are left of it inside its bin (the tail).
//
// Bins are 2^Q wide. Q comes from the scale of the element's row and column, and is never finer
// than the last bit of the prediction or of the format. The bin number keeps the sign: n for
// n * 2^Q <= x < (n + 1) * 2^Q, and -1 - n for -x there. docs/format.md, section 6.
#pragma once

#include <bit>
#include <cstdint>

#include "core/float_format.h"
#include "core/host_device.h"
#include "core/mixture.h"

namespace lmgc {

inline constexpr int quarters_per_octave = 4;  // scales are in quarter octaves
inline constexpr int bins_per_scale_bits = 2;  // a scale of 2^0 has bins of 2^-2
// Octaves below the bin next to zero that a tail can tell; smaller values are written whole.
inline constexpr int most_octaves = 24;

// What of a float format the serializer needs.
struct FixedFormat {
  int mantissa;  // explicit bits
  int bias;
  int least;           // exponent of the smallest normal number
  int infinite_field;  // of infinities and NaNs
  int bits;
  int bytes;

  LMGC_HD constexpr explicit FixedFormat(FloatFormat format)
      : mantissa(format.mantissa_bits),
        bias((1 << (format.exponent_bits - 1)) - 1 - format.skipped_exponents),
        least(1 - bias),
        infinite_field((1 << format.exponent_bits) - 1 - format.skipped_exponents),
        bits(format.bits()),
        bytes(format.bytes) {}
  LMGC_HD constexpr std::uint64_t mantissa_mask() const {
    return (std::uint64_t{1} << mantissa) - 1;
  }
  LMGC_HD constexpr std::uint64_t sign() const { return std::uint64_t{1} << (bits - 1); }
  LMGC_HD constexpr int exponent_field(std::uint64_t word) const {
    return static_cast<int>((word & (sign() - 1)) >> mantissa);
  }
};

LMGC_HD constexpr int bit_width(std::uint64_t x) {
#if defined(__CUDA_ARCH__)
  return 64 - __clzll(static_cast<long long>(x));
#else
  return static_cast<int>(std::bit_width(x));
#endif
}

// An element's prediction, value * 2^exponent.
struct Prediction {
  std::int64_t value = 0;  // above -2^63
  int exponent = 0;
};

// What both sides know of an element before it is coded.
struct Bin {
  int quantum = 0;         // Q
  int context = 0;         // of the residual's table
  std::int64_t place = 0;  // the number of the bin that holds the prediction; |place| < 2^53
  int width = 0;           // the scale in bins: 2^(width / 4), not clamped
  int fraction = 0;        // where in its bin the prediction lies, in 32nds
};

// `scale`: of the residual, in quarter octaves, |scale| < 2^17.
LMGC_HD inline Bin bin_of(const Prediction& prediction, int scale, Fraction kind,
                          const FixedFormat& format) {
  int quantum = (scale >> 2) - bins_per_scale_bits;
  const int finest = format.least - format.mantissa;
  quantum = quantum < finest ? finest : quantum;
  const bool negative = prediction.value < 0;
  const std::uint64_t magnitude = negative ? 0 - static_cast<std::uint64_t>(prediction.value)
                                           : static_cast<std::uint64_t>(prediction.value);
  std::int64_t place = 0;
  int fraction = 0;
  if (magnitude != 0) {
    const int ulp = bit_width(magnitude) - 1 + prediction.exponent - format.mantissa;
    quantum = quantum < ulp ? ulp : quantum;
    const int down = quantum - prediction.exponent;
    if (down <= 0) {
      place = static_cast<std::int64_t>(magnitude << -down);  // below 2^(mantissa + 1)
    } else {
      place = down < 64 ? static_cast<std::int64_t>(magnitude >> down) : 0;
      fraction = static_cast<int>(down < 5    ? magnitude << (5 - down)
                                  : down < 69 ? magnitude >> (down - 5)
                                              : 0) &
                 31;
    }
    if (negative) {
      place = -1 - place;
      fraction = 31 - fraction;
    }
  }
  const int width = scale - quarters_per_octave * quantum;
  return {quantum, context_of(width, fraction, kind), place, width, fraction};
}

// ---- one element --------------------------------------------------------------------------------

struct FixedElement {
  int symbol = symbol_escape;
  // The tail: next to zero `octaves` zeros and, where there could have been more, a one; then
  // `bits` bits.
  int octaves = 0;
  bool one = false;
  int bits = 0;
  std::uint64_t tail = 0;
};

// An element that no symbol can tell: the symbol is symbol_escape, the tail the whole word.
LMGC_HD inline FixedElement whole_word(std::uint64_t word, const FixedFormat& format) {
  FixedElement element;
  element.bits = format.bits;
  element.tail = word;
  return element;
}

LMGC_HD inline FixedElement split_element(std::uint64_t word, const Bin& bin,
                                          const FixedFormat& format) {
  FixedElement element;
  const bool negative = (word & format.sign()) != 0;
  if ((word & (format.sign() - 1)) == 0) {
    element.symbol = negative ? symbol_minus_zero : symbol_zero;
    return element;
  }
  const int field = format.exponent_field(word);
  if (field == format.infinite_field) return whole_word(word, format);
  const int exponent = (field == 0 ? 1 : field) - format.bias;
  const std::uint64_t significand =
      (word & format.mantissa_mask()) | (field == 0 ? 0 : format.mantissa_mask() + 1);

  // |x| = significand * 2^(exponent - mantissa)
  const int down = bin.quantum - (exponent - format.mantissa);
  std::uint64_t n = 0;
  if (down <= 0) {
    if (-down > 8) return whole_word(word, format);  // further from any prediction than a residual
    n = significand << -down;
  } else {
    n = down < 64 ? significand >> down : 0;
    if (n != 0 || bin.quantum <= format.least) {
      element.bits = down;
      element.tail = significand & ((std::uint64_t{1} << down) - 1);
    } else {
      const int reach =
          bin.quantum - format.least;  // octaves of normal numbers below the bin's end
      element.octaves = field == 0 ? reach : bin.quantum - 1 - exponent;
      if (element.octaves > most_octaves) return whole_word(word, format);
      element.one = element.octaves < (reach < most_octaves ? reach : most_octaves);
      element.bits = format.mantissa;
      element.tail = significand & format.mantissa_mask();
    }
  }
  const std::int64_t place =
      negative ? -1 - static_cast<std::int64_t>(n) : static_cast<std::int64_t>(n);
  const std::int64_t residual = place - bin.place;
  if (residual < -most_residual || residual > most_residual) return whole_word(word, format);
  element.symbol = static_cast<int>(residual) + symbol_origin;
  return element;
}

// Takes an element back from its symbol and its tail. Total: any symbol and any tail give a word,
// though not one that an encoder would have written so. `Tail` has
//   std::uint64_t bits(int count)   the next bits, 0 <= count <= 64
//   int octaves(int most)           the zeros before the next one, at most `most` (<= most_octaves)
template <class Tail>
LMGC_HD inline std::uint64_t join_element(int symbol, const Bin& bin, const FixedFormat& format,
                                          Tail& tail) {
  if (symbol == symbol_zero) return 0;
  if (symbol == symbol_minus_zero) return format.sign();
  if (symbol == symbol_escape) return tail.bits(format.bits);
  const std::int64_t place = bin.place + (symbol - symbol_origin);
  const bool negative = place < 0;
  const auto n = static_cast<std::uint64_t>(negative ? -1 - place : place);
  int exponent = 0;
  std::uint64_t significand = 0;
  if (n == 0 && bin.quantum > format.least) {
    const int reach = bin.quantum - format.least;
    const int octaves = tail.octaves(reach < most_octaves ? reach : most_octaves);
    exponent = bin.quantum - 1 - octaves;
    significand = tail.bits(format.mantissa);
    if (octaves == reach) {
      exponent = format.least;
    } else {
      significand |= format.mantissa_mask() + 1;
    }
  } else {
    const int top = n == 0 ? format.least : bin.quantum + bit_width(n) - 1;
    exponent = top < format.least ? format.least : top;
    const int up = bin.quantum - (exponent - format.mantissa);
    significand = up >= 0 ? n << up | tail.bits(up) : n >> -up;
  }
  const std::uint64_t field =
      significand > format.mantissa_mask() ? static_cast<std::uint64_t>(exponent + format.bias) : 0;
  return ((field << format.mantissa | (significand & format.mantissa_mask())) &
          (format.sign() - 1)) |
         (negative ? format.sign() : 0);
}

}  // namespace lmgc
