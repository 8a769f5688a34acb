// What the fuzz targets share: taking their inputs apart, formats and sizes, and the verdict.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/float_format.h"
#include "core/short_floats.h"

namespace lmgc::fuzz {

// An input, read from its front. Beyond its end there are zeros. seeds.py writes this layout.
class FuzzBytes {
 public:
  FuzzBytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <class T>
  T take() {
    T value{};
    const std::size_t count = std::min(sizeof(T), size_);
    if (count > 0) std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }

  // What was not taken, in a piece of memory of exactly that size.
  std::vector<std::uint8_t> rest() const {
    std::vector<std::uint8_t> bytes;
    bytes.reserve(size_);
    bytes.insert(bytes.end(), data_, data_ + size_);
    return bytes;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// What does not hold is a bug: the input is kept.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// One of the four floats, or a short one of it: 4 bytes.
inline FloatFormat take_float_format(FuzzBytes& input) {
  const FloatFormat whole = float_format(static_cast<DType>(input.take<std::uint8_t>() % 4));
  Spare spare;
  spare.mantissa_bits = input.take<std::uint8_t>();
  spare.exponents = input.take<std::uint16_t>();
  return suits(spare, whole) ? shortened(whole, spare) : whole;
}

// Up to four sizes of 2 bytes each; empty for a tensor that has no elements, or too many.
inline std::vector<std::int64_t> take_sizes(FuzzBytes& input) {
  constexpr std::int64_t most_elements = 1 << 15;  // two blocks
  std::vector<std::int64_t> sizes(1 + input.take<std::uint8_t>() % 4);
  std::int64_t elements = 1;
  for (auto& size : sizes) {
    size = input.take<std::uint16_t>();
    elements = std::min(elements * size, most_elements + 1);
  }
  if (elements == 0 || elements > most_elements) sizes.clear();
  return sizes;
}

// Memory of exactly `size` bytes, filled, aligned for every element type.
inline std::unique_ptr<std::uint8_t[]> filled(std::size_t size, std::uint8_t value) {
  std::unique_ptr<std::uint8_t[]> bytes(new std::uint8_t[size]);
  std::fill_n(bytes.get(), size, value);
  return bytes;
}

}  // namespace lmgc::fuzz
