// Floats of all kinds, for the tests of the fixed serializer and of its sections.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/fixed.h"
#include "core/float_format.h"
#include "core/short_floats.h"

namespace lmgc::test {

inline const std::vector<FloatFormat> float_formats = {
    float_format(DType::float16), float_format(DType::bfloat16), float_format(DType::float32),
    float_format(DType::float64),
    // Short ones, in words of 2 and 4 bytes.
    shortened(float_format(DType::float32), {20, 90}),
    shortened(float_format(DType::float64), {33, 0})};

// The word nearest to a value towards zero; infinity where it is too large.
inline std::uint64_t word_of(double value, const FixedFormat& format) {
  const std::uint64_t sign = std::signbit(value) ? format.sign() : 0;
  const double magnitude = std::abs(value);
  if (magnitude == 0) return sign;
  const auto infinite = static_cast<std::uint64_t>(format.infinite_field) << format.mantissa;
  const int exponent = std::isinf(magnitude) ? 2000 : std::ilogb(magnitude);
  if (exponent + format.bias >= format.infinite_field) return sign | infinite;
  const int top = exponent < format.least ? format.least : exponent;
  const auto significand = static_cast<std::uint64_t>(std::ldexp(magnitude, format.mantissa - top));
  const std::uint64_t field =
      exponent < format.least ? 0 : static_cast<std::uint64_t>(exponent + format.bias);
  return sign | field << format.mantissa | (significand & format.mantissa_mask());
}

// A word of one of many kinds: zeros, subnormals, the extremes, infinities, NaNs, any bits.
inline std::uint64_t some_word(std::mt19937_64& random, const FixedFormat& format) {
  const std::uint64_t sign = random() % 2 == 0 ? format.sign() : 0;
  const auto infinite = static_cast<std::uint64_t>(format.infinite_field) << format.mantissa;
  const std::uint64_t any = random();
  switch (random() % 10) {
    case 0:
      return sign;
    case 1:
      return sign | (any & format.mantissa_mask());  // subnormal
    case 2:
      return sign | 1;
    case 3:
      return sign | format.mantissa_mask();  // the largest of them
    case 4:
      return sign | (format.mantissa_mask() + 1);  // the least normal number
    case 5:
      return sign | (infinite - 1);  // the largest number
    case 6:
      return sign | infinite;
    case 7:
      return sign | infinite | (any & format.mantissa_mask());
    default:  // short formats have fields that no word uses
      if (format.exponent_field(any) > format.infinite_field) return sign | infinite;
      return any & (format.sign() | (format.sign() - 1));
  }
}

}  // namespace lmgc::test
