// What the fuzz targets share: taking their inputs apart, formats and shapes, and the verdict.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/fixed_section.h"
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

// Words that a format has, made of any bytes, over and over: one word of each byte, or of as many
// as it has.
inline std::unique_ptr<std::uint8_t[]> words_from(const std::vector<std::uint8_t>& bytes,
                                                  bool word_of_byte, std::int64_t elements,
                                                  FloatFormat plain) {
  const FixedFormat format(plain);
  auto words = filled(static_cast<std::size_t>(elements) * plain.bytes, 0);
  std::size_t next = 0;
  for (std::int64_t i = 0; i < elements && !bytes.empty(); ++i) {
    std::uint64_t word = 0;
    for (int k = 0; k < (word_of_byte ? 1 : plain.bytes); ++k)
      word |= std::uint64_t{bytes[next++ % bytes.size()]} << 8 * k;
    if (word_of_byte) word *= 0x0101010101010101;
    word &= format.sign() | (format.sign() - 1);
    if (format.exponent_field(word) > format.infinite_field)  // short formats leave some unused
      word = static_cast<std::uint64_t>(format.infinite_field) << format.mantissa;
    store_word(words.get(), plain.bytes, i, word);
  }
  return words;
}

inline Product product_of(const Factors& factors, std::int64_t columns) {
  if (factors.rank == 0) return {};
  return [&factors, columns](std::int64_t first, std::int64_t count, std::int64_t* out) {
    multiply_factors(factors, columns, first, count, out);
  };
}

}  // namespace lmgc::fuzz
