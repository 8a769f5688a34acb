// Element types as the codec sees them: floats through their bits, every other type as plain bytes.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

// Codes are part of the frame format (docs/format.md) and never change. The order of the
// enumerators is free.
enum class DType : std::uint8_t {
  float16 = 0,
  bfloat16 = 1,
  float32 = 2,
  float64 = 3,
  uint8 = 16,
  int8 = 17,
  int16 = 18,
  int32 = 19,
  int64 = 20,
  bool8 = 21,
  complex32 = 22,
  complex64 = 23,
  complex128 = 24,
  uint16 = 25,
  uint32 = 26,
  uint64 = 27,
  float8_e4m3fn = 32,
  float8_e5m2 = 33,
  float8_e4m3fnuz = 34,
  float8_e5m2fnuz = 35,
  float8_e8m0fnu = 36,
};

// The bit layout of one element: sign (1), exponent, mantissa, from the most significant bit down.
// A type that is not one of the four floats has exponent_bits == 0 and is seen as `bytes` plain
// bytes. Formats of short floats (short_floats.h) need not fill their bytes, and their exponents
// begin higher.
struct FloatFormat {
  std::uint8_t bytes;
  std::uint8_t exponent_bits;
  std::uint8_t mantissa_bits;
  std::uint16_t skipped_exponents = 0;  // at the lower end: numbers there are subnormal

  constexpr bool operator==(const FloatFormat&) const = default;
  LMGC_HD constexpr bool is_float() const { return exponent_bits != 0; }
  LMGC_HD constexpr int bits() const {
    return is_float() ? 1 + exponent_bits + mantissa_bits : 8 * bytes;
  }
};

// {0, 0, 0} for a code that is not a DType.
constexpr FloatFormat float_format(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return {2, 5, 10};
    case DType::bfloat16:
      return {2, 8, 7};
    case DType::float32:
      return {4, 8, 23};
    case DType::float64:
      return {8, 11, 52};
    case DType::uint8:
    case DType::int8:
    case DType::bool8:
    case DType::float8_e4m3fn:
    case DType::float8_e5m2:
    case DType::float8_e4m3fnuz:
    case DType::float8_e5m2fnuz:
    case DType::float8_e8m0fnu:
      return {1, 0, 0};
    case DType::int16:
    case DType::uint16:
      return {2, 0, 0};
    case DType::int32:
    case DType::uint32:
    case DType::complex32:
      return {4, 0, 0};
    case DType::int64:
    case DType::uint64:
    case DType::complex64:
      return {8, 0, 0};
    case DType::complex128:
      return {16, 0, 0};
  }
  return {0, 0, 0};
}

// Whether a format of floats is none of the four that DType has.
constexpr bool is_short(FloatFormat format) {
  return format != float_format(DType::float16) && format != float_format(DType::bfloat16) &&
         format != float_format(DType::float32) && format != float_format(DType::float64);
}

// "float32", "int8", ...: torch's names without the prefix; "unknown" for a code that is not a
// DType.
const char* name(DType dtype);

// Element `index` of an array of `bytes`-wide little-endian elements, as an integer. bytes is 1, 2,
// 4 or 8.
LMGC_HD inline std::uint64_t load_word(const void* data, int bytes, std::int64_t index) {
  switch (bytes) {
    case 1:
      return static_cast<const std::uint8_t*>(data)[index];
    case 2:
      return static_cast<const std::uint16_t*>(data)[index];
    case 4:
      return static_cast<const std::uint32_t*>(data)[index];
    default:
      return static_cast<const std::uint64_t*>(data)[index];
  }
}

LMGC_HD inline void store_word(void* data, int bytes, std::int64_t index, std::uint64_t word) {
  switch (bytes) {
    case 1:
      static_cast<std::uint8_t*>(data)[index] = static_cast<std::uint8_t>(word);
      break;
    case 2:
      static_cast<std::uint16_t*>(data)[index] = static_cast<std::uint16_t>(word);
      break;
    case 4:
      static_cast<std::uint32_t*>(data)[index] = static_cast<std::uint32_t>(word);
      break;
    default:
      static_cast<std::uint64_t*>(data)[index] = word;
  }
}

}  // namespace lmgc
