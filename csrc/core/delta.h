// Elements predicted by those of a *reference*, a tensor of the same shape that both sides hold (a
// checkpoint of some steps before, the model that was fine-tuned), and by a low-rank product on top
// of that: the product then predicts the difference. docs/format.md, section 6.11.
//
// The sum of both is taken in integers, in 32nds of the bins: what is finer changes no symbol's
// place, and neither number has to have the other's precision.
#pragma once

#include <cstdint>

#include "core/fixed.h"
#include "core/float_format.h"

namespace lmgc {

inline constexpr std::uint32_t delta_one = 1u << 16;  // of a reference's factor

// What is told of the reference, and where it is.
struct Reference {
  bool is_there = false;
  std::uint32_t checksum = 0;         // low half of checksum() of its bytes
  std::uint32_t factor = delta_one;   // elements are about this many 65536ths of its own
  const void* words = nullptr;        // its live matrix, in the format that is coded
};

namespace detail {

// floor(value * 2^exponent), within +-2^60.
inline std::int64_t in_units(std::int64_t value, int exponent) {
  constexpr std::int64_t most = std::int64_t{1} << 60;
  if (exponent <= 0) return std::clamp(value >> (exponent < -63 ? 63 : -exponent), -most, most);
  if (value == 0) return 0;
  if (exponent > 60 || value > most >> exponent || value < -(most >> exponent))
    return value > 0 ? most : -most;
  return value * (std::int64_t{1} << exponent);
}

}  // namespace detail

// The prediction of an element from the reference's `word` and a product, for bins that are not
// finer than 2^quantum. Infinities and NaNs predict nothing.
inline Prediction predict_by(std::uint64_t word, std::uint32_t factor, const Prediction& product,
                             int quantum, const FixedFormat& format) {
  constexpr int fraction_bits = 5;
  const int field = format.exponent_field(word);
  if (field == format.infinite_field) return product;
  const std::uint64_t significand =
      (word & format.mantissa_mask()) | (field == 0 ? 0 : format.mantissa_mask() + 1);
  const int ulp = (field == 0 ? 1 : field) - format.bias - format.mantissa;
  const auto scaled = static_cast<std::int64_t>(
      static_cast<unsigned __int128>(significand) * factor >> 16);  // below 2^(mantissa + 2)
  const int unit = (quantum > ulp ? quantum : ulp) - fraction_bits;
  const std::int64_t own = detail::in_units(
      (word & format.sign()) != 0 ? -scaled : scaled, ulp - unit);
  return {own + detail::in_units(product.value, product.exponent - unit), unit};
}

}  // namespace lmgc
