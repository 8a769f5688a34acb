// Scales of the rows and columns of a matrix of residuals: alternating root mean squares, in
// integers (encoder only). Magnitudes are levels, eighths of an octave, as in predict.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/fixed.h"
#include "core/float_format.h"
#include "core/host_device.h"
#include "core/parallel.h"
#include "core/predict.h"

namespace lmgc {

inline constexpr std::int16_t no_level = INT16_MIN;  // of zeros, infinities and NaNs

// 2^exponent, exact from -1022 to 1023 and clamped to that range.
LMGC_HD inline double power_of_two(int exponent) {
  const int clamped = exponent < -1022 ? -1022 : exponent > 1023 ? 1023 : exponent;
  const std::uint64_t bits = static_cast<std::uint64_t>(clamped + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A finite word's value as a double.
LMGC_HD inline double value_of(std::uint64_t word, const FixedFormat& format) {
  if (format.bits == 64) {
    double value;
    memcpy(&value, &word, sizeof value);
    return value;
  }
  const int field = format.exponent_field(word);
  const std::uint64_t significand =
      (word & format.mantissa_mask()) | (field == 0 ? 0 : format.mantissa_mask() + 1);
  const int exponent = (field == 0 ? 1 : field) - format.bias - format.mantissa;
  double magnitude = static_cast<double>(significand) * power_of_two(exponent);
  if (exponent < -1022) magnitude *= power_of_two(exponent + 1022);  // short float64
  return (word & format.sign()) != 0 ? -magnitude : magnitude;
}

// The level of a residual, from a double's bits. Differences of doubles are the same everywhere.
LMGC_HD inline std::int16_t residual_level(std::uint64_t word, const Prediction& prediction,
                                           const FixedFormat& format) {
  if (format.exponent_field(word) == format.infinite_field) return no_level;
  double residual = value_of(word, format);
  if (prediction.value != 0) {
    // In two steps: the power alone may be out of a double's range.
    const int half = prediction.exponent / 2;
    residual -= static_cast<double>(prediction.value) * power_of_two(half) *
                power_of_two(prediction.exponent - half);
  }
  std::uint64_t bits;
  memcpy(&bits, &residual, sizeof bits);
  bits &= ~(std::uint64_t{1} << 63);
  if (bits == 0 || bits >> 52 == 2047) return no_level;
  return static_cast<std::int16_t>(static_cast<std::int32_t>(bits >> 49) - 1023 * 8);
}

// 2^16 * 4^(level / 8), for levels within [-64, 64], and clamped to that.
LMGC_HD inline std::uint64_t energy(std::int32_t level) {
  constexpr std::uint32_t quarters[4] = {65536, 77936, 92682, 110218};
  const std::int32_t clamped = level < -64 ? -64 : level > 64 ? 64 : level;
  const std::int32_t octave = clamped >> 2;
  const std::uint64_t fraction = quarters[clamped & 3];
  return octave >= 0 ? fraction << octave : fraction >> -octave;
}

// A line's scale from `sum`, the energies of its `count` residuals relative to `current`: a level.
LMGC_HD inline std::int32_t refined_level(std::int32_t current, std::uint64_t sum,
                                          std::uint64_t count) {
  if (sum == 0 || count == 0) return current - 64;
  const auto log = static_cast<std::int32_t>(log2_fixed(sum)) -
                   static_cast<std::int32_t>(log2_fixed(count)) - (16 << log2_fraction_bits);
  return current + ((4 * log + (1 << (log2_fraction_bits - 1))) >> log2_fraction_bits);
}

// ---- sums over lines ----------------------------------------------------------------------------

// One pass over all levels: for every row, or for every column, what its levels sum up to. First
// the levels less those of the other direction's lines, later (`refine`) the energies of what is
// left of them when both directions' are taken off.
struct LevelPass {
  bool by_row;
  bool refine;
  const std::int32_t* rows;     // the lines' levels as yet
  const std::int32_t* columns;  // null: zeros
};

// What an element that has a level adds to the sum of its line, whose level is `own`.
LMGC_HD inline std::int64_t level_term(std::int32_t level, std::int32_t other, std::int32_t own,
                                       bool refine) {
  const std::int32_t rest = level - other;
  if (!refine) return rest;
  const std::uint64_t value = energy(rest - own);
  return static_cast<std::int64_t>(value > UINT32_MAX ? UINT32_MAX : value);
}

// Of one line: the sum of its terms, and how many elements have a level.
struct LineSum {
  std::int64_t sum = 0, counted = 0;
};

// ---- scales -------------------------------------------------------------------------------------

struct ResidualShape {
  std::int64_t elements, rows, columns;
  std::int32_t floor;  // the least level that a scale can have
};

// Row scales, and column scales where `may_have_columns` and they pay, from one pass over the
// levels after the other, by whoever has them: while there is a pass() that is due, sums of
// lines() lines are to be given to take().
class ResidualScales {
 public:
  ResidualScales(const ResidualShape& shape, bool may_have_columns);

  bool done() const { return estimates_.back().done(); }
  // Valid until take().
  LevelPass pass() const { return due().pass(); }
  std::int64_t lines() const { return pass().by_row ? shape_.rows : shape_.columns; }
  void take(const LineSum* sums) { due().take(shape_, sums); }

  // When it is done.
  bool has_columns() const { return best().has_columns(); }
  Scales scales() const { return best().scales(shape_.floor); }

 private:
  // By turns the levels of rows and, where there are any, of columns.
  class Estimate {
   public:
    Estimate(const ResidualShape& shape, bool with_columns);
    bool has_columns() const { return !columns_.empty(); }
    bool done() const { return passes_ == (has_columns() ? 2 : 1) * rounds; }
    LevelPass pass() const;
    void take(const ResidualShape& shape, const LineSum* sums);
    // The bits that the scales cost every element, in eighths, and their own.
    std::int64_t cost(const ResidualShape& shape) const;
    Scales scales(std::int32_t floor) const;

   private:
    static constexpr int rounds = 3;
    int passes_ = 0;  // done
    std::vector<std::int32_t> rows_, columns_;
  };

  const Estimate& due() const {
    return estimates_.front().done() ? estimates_.back() : estimates_.front();
  }
  Estimate& due() { return estimates_.front().done() ? estimates_.back() : estimates_.front(); }
  const Estimate& best() const;

  ResidualShape shape_;
  std::vector<Estimate> estimates_;  // one, or with and without columns
};

struct ResidualMatrix {
  const std::int16_t* levels;  // row after row
  std::int64_t elements, rows, columns;
  std::int32_t floor;
};

// The same of levels in memory.
Scales residual_scales(const ResidualMatrix& matrix, bool may_have_columns, bool& has_columns,
                       const Parallel& parallel);

}  // namespace lmgc
