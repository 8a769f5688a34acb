// Tensors of all formats and kinds, for the tests of method `planes` on every device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/float_format.h"
#include "core/planes.h"

namespace lmgc::test {

inline const std::vector<FloatFormat> formats = {
    float_format(DType::uint8),    float_format(DType::int16),   float_format(DType::float16),
    float_format(DType::bfloat16), float_format(DType::int32),   float_format(DType::float32),
    float_format(DType::int64),    float_format(DType::float64), float_format(DType::complex128),
};

inline const std::vector<std::string> tensor_kinds = {"zero",     "constant", "random",
                                                      "gradient", "few zero", "rows zero",
                                                      "one left", "special",  "zero seen"};

// `elements` elements of a format, aligned for it.
struct Tensor {
  Tensor(const std::string& kind, std::int64_t elements, FloatFormat format)
      : elements(elements), format(format), words(std::max<std::size_t>(1, (bytes() + 7) / 8)) {
    std::mt19937_64 random(static_cast<unsigned>(elements) + format.bytes);
    auto* data = reinterpret_cast<std::uint8_t*>(words.data());
    for (std::int64_t i = 0; i < elements; ++i) {
      std::uint64_t parts[2] = {random(), random()};
      const std::uint64_t exponent =
          110 + static_cast<unsigned>(std::countl_zero(random())) + (i / 1000) % 5 * 6;
      bool zero = kind == "zero" || (kind == "one left" && i != elements / 2);
      if (kind == "few zero") zero = random() % 50 == 0;
      if (kind == "rows zero") zero = (i / 300) % 3 != 0 || random() % 3 == 0;
      if (kind == "constant") parts[0] = parts[1] = 0x0123456789ABCDEF;
      if (kind == "gradient" || kind.find("zero") != std::string::npos) {
        const int shift = format.bits() >= 64 ? 55 : format.bits() - 9;
        parts[0] = (parts[0] & ((std::uint64_t{1} << std::max(shift, 0)) - 1)) |
                   exponent << std::max(shift, 0);
      }
      if (kind == "special") {  // -0, infinities, NaNs with payload, subnormals
        const std::uint64_t choices[] = {
            0,          std::uint64_t{1} << (8 * std::min<int>(format.bytes, 8) - 1),
            ~0ull,      0x7F800000,
            0x7FC00001, 0xFF80,
            1,          0x7FF0000000000000};
        parts[0] = choices[random() % 8];
        parts[1] = choices[random() % 8];
      }
      if (zero) parts[0] = parts[1] = 0;
      std::memcpy(data + static_cast<std::size_t>(i) * format.bytes, parts, format.bytes);
    }
    for (std::int64_t i = 0; kind == "zero seen" && i < sample_size(elements); ++i) {
      std::memset(data + static_cast<std::size_t>(sample_element(i, elements)) * format.bytes, 0,
                  format.bytes);  // and random elsewhere
    }
  }
  std::size_t bytes() const { return static_cast<std::size_t>(elements) * format.bytes; }

  std::int64_t elements;
  FloatFormat format;
  std::vector<std::uint64_t> words;
};

}  // namespace lmgc::test
