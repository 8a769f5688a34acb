// Short floats: what the elements of a tensor leave unused of their format is left out before they
// are coded. Floats that were made of shorter ones, or rounded to fewer bits, have mantissa bits
// that are 0 in every element; and where all are multiples of a power of two, small numbers have no
// bits below that: they are the subnormal ones of a format whose exponents begin higher.
// docs/format.md, section 6.10.
#pragma once

#include <cstdint>

#include "core/fixed.h"
#include "core/float_format.h"
#include "core/host_device.h"

namespace lmgc {

inline constexpr int least_mantissa_bits = 3;  // of a short format: levels look at so many

struct Spare {
  std::uint8_t mantissa_bits = 0;  // 0: there is nothing to spare, and exponents is 0, too
  std::uint16_t exponents = 0;     // at the lower end

  constexpr bool any() const { return mantissa_bits != 0; }
};

// Whether elements of this format may have it.
constexpr bool suits(Spare spare, FloatFormat whole) {
  if (!spare.any()) return spare.exponents == 0;
  const int most_exponents = (1 << whole.exponent_bits) - 3;  // one of normal numbers is left
  return whole.is_float() && spare.mantissa_bits + least_mantissa_bits <= whole.mantissa_bits &&
         spare.exponents <= most_exponents;
}

// The format of the short words, which lie in the fewest of 2, 4 or 8 bytes.
constexpr FloatFormat shortened(FloatFormat whole, Spare spare) {
  FloatFormat format = whole;
  format.mantissa_bits = static_cast<std::uint8_t>(whole.mantissa_bits - spare.mantissa_bits);
  format.skipped_exponents = spare.exponents;
  format.bytes = format.bits() <= 16 ? 2 : format.bits() <= 32 ? 4 : 8;
  return format;
}

// Words of `whole` and of `coded`, the format that it is shortened() to.
struct ShortFloats {
  FloatFormat whole, coded;

  LMGC_HD int spare_bits() const { return whole.mantissa_bits - coded.mantissa_bits; }
  LMGC_HD static std::uint64_t sign(FloatFormat format) {
    return std::uint64_t{1} << (format.bits() - 1);
  }

  // Of a word that can be told shortly.
  LMGC_HD std::uint64_t shorten(std::uint64_t word) const {
    const std::uint64_t magnitude = word & (sign(whole) - 1);
    const std::uint64_t field = magnitude >> whole.mantissa_bits;
    const std::uint64_t skipped = coded.skipped_exponents;
    std::uint64_t result = 0;
    if (field > skipped) {
      result = (magnitude >> spare_bits()) - (skipped << coded.mantissa_bits);
    } else {
      const std::uint64_t implicit = std::uint64_t{field != 0} << whole.mantissa_bits;
      const std::uint64_t significand =
          (magnitude & ((std::uint64_t{1} << whole.mantissa_bits) - 1)) | implicit;
      const std::uint64_t down =
          skipped + static_cast<std::uint64_t>(spare_bits()) - (field == 0 ? 0 : field - 1);
      result = down < 64 ? significand >> down : 0;
    }
    return result | ((word & sign(whole)) != 0 ? sign(coded) : 0);
  }

  // The way back, of any short word.
  LMGC_HD std::uint64_t lengthen(std::uint64_t word) const {
    const std::uint64_t magnitude = word & (sign(coded) - 1);
    const std::uint64_t field = magnitude >> coded.mantissa_bits;
    const std::uint64_t skipped = coded.skipped_exponents;
    std::uint64_t result = 0;
    if (field > 0 || skipped == 0) {
      result = (magnitude << spare_bits()) + (skipped << whole.mantissa_bits);
    } else if (magnitude != 0) {
      // The leading one moves to the place of the implicit bit, one exponent for each place, as far
      // as there are exponents.
      const int down = coded.mantissa_bits + 1 - bit_width(magnitude);
      const int exponents = coded.skipped_exponents;
      const int up = down <= exponents ? down : exponents;
      const int own = down <= exponents ? exponents - down + 1 : 0;
      const std::uint64_t significand = magnitude << (up + spare_bits());
      result = (significand & ((std::uint64_t{1} << whole.mantissa_bits) - 1)) |
               static_cast<std::uint64_t>(own) << whole.mantissa_bits;
    }
    return (result & (sign(whole) - 1)) | ((word & sign(coded)) != 0 ? sign(whole) : 0);
  }
};

// ---- tensors ------------------------------------------------------------------------------------

// What the words of one stretch of a tensor have in common, for spare_of().
struct UsedBits {
  std::uint64_t bits = 0;           // set in one of them
  std::int64_t lowest = INT64_MAX;  // exponent field of the lowest bit of all finite numbers

  LMGC_HD void take(std::uint64_t word, const FixedFormat& format) {
    bits |= word;
    const int field = format.exponent_field(word);
    if ((word & (format.sign() - 1)) == 0 || field == format.infinite_field) return;
    const std::uint64_t significand =
        (word & format.mantissa_mask()) | (field == 0 ? 0 : format.mantissa_mask() + 1);
    const int low = bit_width(significand & (0 - significand)) - 1 + (field == 0 ? 1 : field);
    lowest = low < lowest ? low : lowest;
  }
  LMGC_HD void take(const UsedBits& other) {
    bits |= other.bits;
    lowest = other.lowest < lowest ? other.lowest : lowest;
  }
};

// One call a stretch.
struct FindUsedBits {
  static constexpr std::int64_t stretch = 4096;
  const void* words;
  FloatFormat format;
  std::int64_t elements;
  UsedBits* out;

  LMGC_HD void operator()(std::int64_t i) const {
    const FixedFormat own(format);
    const std::int64_t first = i * stretch;
    const std::int64_t last = first + stretch < elements ? first + stretch : elements;
    UsedBits used;
    for (std::int64_t k = first; k < last; ++k) used.take(load_word(words, format.bytes, k), own);
    out[i] = used;
  }
};

// What elements with these bits can spare. Nothing where no number is finite and not zero: there is
// nothing to gain.
constexpr Spare spare_of(const UsedBits& used, FloatFormat format) {
  const int most = format.mantissa_bits - least_mantissa_bits;
  int bits = 0;
  while (bits < most && (used.bits >> bits & 1) == 0) ++bits;
  if (bits == 0 || used.lowest == INT64_MAX) return {};
  // Numbers whose lowest bits are 2^g are subnormal below 2^(g + mantissa bits).
  const std::int64_t exponents = used.lowest - bits - 1;
  const std::int64_t most_exponents = (1 << format.exponent_bits) - 3;
  const std::int64_t skipped = exponents < most_exponents ? exponents : most_exponents;
  return {static_cast<std::uint8_t>(bits), static_cast<std::uint16_t>(skipped > 0 ? skipped : 0)};
}

// One call an element.
struct ShortenWords {
  ShortFloats floats;
  const void* words;
  void* out;

  LMGC_HD void operator()(std::int64_t i) const {
    store_word(out, floats.coded.bytes, i, floats.shorten(load_word(words, floats.whole.bytes, i)));
  }
};

struct LengthenWords {
  ShortFloats floats;
  const void* words;
  void* out;

  LMGC_HD void operator()(std::int64_t i) const {
    store_word(out, floats.whole.bytes, i,
               floats.lengthen(load_word(words, floats.coded.bytes, i)));
  }
};

}  // namespace lmgc
