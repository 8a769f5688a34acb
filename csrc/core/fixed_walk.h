// Going through the elements of a live matrix in order, with what both sides know of each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/digit_context.h"
#include "core/fixed_section.h"

namespace lmgc {

inline constexpr std::int64_t block_elements = rans::block_symbols;

// How large a prediction is next to the scale, in quarter octaves above 2^-6 of it, with its sign.
inline std::int8_t level_of(const Prediction& prediction, int scale) {
  if (prediction.value == 0) return 0;
  const bool negative = prediction.value < 0;
  const std::uint64_t magnitude = negative ? 0 - static_cast<std::uint64_t>(prediction.value)
                                           : static_cast<std::uint64_t>(prediction.value);
  const int top = bit_width(magnitude) - 1;
  const int quarters = static_cast<int>(top >= 2 ? magnitude >> (top - 2) : magnitude << (2 - top));
  const int level = clamp_to(4 * (top + prediction.exponent) + (quarters & 3) - scale + 24, 0, 63);
  return static_cast<std::int8_t>(negative ? -level : level);
}

// What both sides know of the elements of one block, one after the other. `predicted`: by a
// product, a reference or both; `product` is null where there is none.
template <bool predicted>
class Walk {
 public:
  Walk(const FixedHead& head, const LiveShape& shape, FloatFormat format, std::int64_t first,
       const std::int64_t* product)
      : head_(head),
        columns_(shape.columns),
        format_(format),
        base_(predicted ? head.low_rank.factors.base() : 0),
        index_(first),
        row_(first / shape.columns),
        column_(first % shape.columns),
        product_(head.predicted() ? product : nullptr) {
    start_row();
  }

  Prediction prediction() const { return prediction((scale() >> 2) - bins_per_scale_bits); }
  // Before there are scales.
  Prediction finest_prediction() const { return prediction(format_.least - format_.mantissa); }
  int scale() const {
    return row_scale_ + (head_.has_column_scales ? head_.scales.columns[column()] : 0);
  }
  Bin bin() const {
    return bin_of(prediction(), scale(), predicted ? Fraction::varies : Fraction::edge, format_);
  }
  // What a prior is told of the element; `bin` is bin().
  Known known(const Bin& bin) const {
    Known known{known_width(bin.width), static_cast<std::uint8_t>(bin.fraction), 0};
    if constexpr (predicted) known.level = level_of(prediction(), scale());
    return known;
  }
  void next() {
    if constexpr (predicted) {
      if (product_ != nullptr) ++product_;
      ++index_;
    }
    if (++column_ == columns_) {
      column_ = 0;
      ++row_;
      start_row();
    }
  }

 private:
  Prediction prediction(int quantum) const {
    if constexpr (!predicted) return {};
    Prediction own;
    if (product_ != nullptr)
      own = {*product_, row_exponent_ + head_.low_rank.column_weights[column()]};
    const Reference& reference = head_.reference;
    if (reference.words == nullptr) return own;
    return predict_by(load_word(reference.words, format_.bytes, index_), reference.factor, own,
                      std::max(quantum, format_.least - format_.mantissa), format_);
  }
  std::size_t column() const { return static_cast<std::size_t>(column_); }
  void start_row() {
    const auto row = static_cast<std::size_t>(row_);
    row_scale_ = row < head_.scales.rows.size() ? head_.scales.rows[row] : 0;
    if constexpr (predicted) {
      const auto& weights = head_.low_rank.row_weights;
      row_exponent_ = base_ + (row < weights.size() ? weights[row] : 0);
    }
  }

  const FixedHead& head_;
  std::int64_t columns_;
  FixedFormat format_;
  int base_;
  std::int64_t index_, row_, column_;
  const std::int64_t* product_;
  int row_scale_ = 0, row_exponent_ = 0;
};

// body(block, first, count, product) for every block; `product` points at the block's predictions.
template <class Body>
void for_each_block(const LiveShape& shape, const Product& product, const Parallel& parallel,
                    const Body& body) {
  parallel((shape.elements + block_elements - 1) / block_elements, [&](std::int64_t block) {
    const std::int64_t first = block * block_elements;
    const std::int64_t count = std::min(block_elements, shape.elements - first);
    std::vector<std::int64_t> predictions(static_cast<std::size_t>(product ? count : 0));
    if (product) product(first, count, predictions.data());
    body(block, first, count, predictions.data());
  });
}

// Appends an element's tail.
inline void put_tail(BitWriter& out, const FixedElement& element) {
  if (element.octaves + element.one > 0) {
    out.put(std::uint64_t{element.one} << element.octaves, element.octaves + element.one);
  }
  if (element.bits <= BitWriter::most_bits) {
    out.put(element.tail, element.bits);
  } else {
    out.put(element.tail & UINT32_MAX, 32);
    out.put(element.tail >> 32, element.bits - 32);
  }
}

}  // namespace lmgc
