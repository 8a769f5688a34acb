// Tensors of any shape and words, with everything that an encoder of their sections is told.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "../core/section_cases.h"
#include "fuzz_bytes.h"

namespace lmgc::fuzz {

// A product of small factors, or of none where no bound holds.
inline LowRank take_low_rank(FuzzBytes& input, const LiveShape& shape, std::int64_t rank) {
  LowRank low_rank;
  Factors& factors = low_rank.factors;
  factors.rank = std::min({rank, shape.rows, shape.columns});
  if (factors.rank == 0) return {};
  const int shift = input.take<std::uint8_t>() % 24;  // entries stay within most_factor
  const auto seed = input.take<std::uint32_t>();
  const auto entry = [&](std::int64_t i) {
    const auto byte = static_cast<std::int8_t>((seed >> i % 24) + static_cast<std::uint64_t>(i));
    return static_cast<std::int32_t>(byte) * (1 << shift);
  };
  for (std::int64_t c = 0; c < factors.rank; ++c)
    factors.exponents.push_back(input.take<std::int8_t>());
  for (std::int64_t i = 0; i < shape.rows * factors.rank; ++i)
    factors.u.entries.push_back(entry(i));
  for (std::int64_t i = 0; i < shape.columns * factors.rank; ++i)
    factors.v.entries.push_back(entry(i + 7));
  for (std::int64_t i = 0; i < shape.rows; ++i)
    low_rank.row_weights.push_back(static_cast<std::int16_t>(entry(i) >> shift));
  for (std::int64_t i = 0; i < shape.columns; ++i)
    low_rank.column_weights.push_back(static_cast<std::int16_t>(entry(i + 3) >> shift));
  const bool bound = product_bound(factors, run_serially) < std::uint64_t{1} << most_product_bits;
  return bound ? low_rank : LowRank{};
}

inline bool is_flat(const std::vector<std::int64_t>& sizes) {
  return matrix_shape(sizes.data(), sizes.size()).flat;
}

// A tensor but for its words. No sizes: there is none.
struct TensorInput {
  test::Case tensor;
  bool words_of_byte = false;
  std::uint8_t flags = 0;  // all of them
};

// A format, sizes, 1 byte of the rank, 1 byte of flags (1: by dimension 1, 2: dead lines, 4: column
// scales, 16: words of one byte each; others are the target's), what take_low_rank() takes.
inline TensorInput take_tensor(FuzzBytes& input) {
  TensorInput taken;
  test::Case& tensor = taken.tensor;
  tensor.wish.format = take_float_format(input);
  tensor.wish.sizes = take_sizes(input);
  const auto rank = input.take<std::uint8_t>() % 4;
  const auto flags = taken.flags = input.take<std::uint8_t>();
  taken.words_of_byte = (flags & 16) != 0;
  const test::Sizes& sizes = tensor.wish.sizes;
  if (sizes.empty()) return taken;
  FixedHead& head = tensor.head;
  head.by_dimension_1 = (flags & 1) != 0 && has_dimension_1_view(sizes.data(), sizes.size());
  const MatrixShape whole = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  if ((flags & 2) != 0 && !whole.flat) {
    std::vector<bool> rows, columns;
    for (std::int64_t i = 0; i < whole.rows; ++i) rows.push_back(i % 3 == 1);
    for (std::int64_t i = 0; i < whole.columns; ++i) columns.push_back(i % 5 == 2);
    head.dead_rows = FlagRuns(rows);
    head.dead_columns = FlagRuns(columns);
  }
  tensor.shape = live_shape(whole, head);
  tensor.may_have_columns = (flags & 4) != 0 && !whole.flat;
  if (rank > 0 && !whole.flat) head.low_rank = take_low_rank(input, tensor.shape, rank);
  return taken;
}

// Words that a format has, made of any bytes, over and over: one word of each byte, or of as many
// as it has. In memory of exactly their size.
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

// The tensor's words, where a case has them.
inline void set_words(const std::vector<std::uint8_t>& bytes, TensorInput& taken) {
  test::Case& tensor = taken.tensor;
  const auto words =
      words_from(bytes, taken.words_of_byte, tensor.shape.elements, tensor.wish.format);
  tensor.words.resize(tensor.bytes() / sizeof tensor.words[0] + 1);
  std::memcpy(tensor.words.data(), words.get(), tensor.bytes());
}

}  // namespace lmgc::fuzz
