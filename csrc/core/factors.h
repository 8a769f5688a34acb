// The side information of the low-rank predictor: two integer matrices, U (rows x rank) and V
// (columns x rank), and an exponent for each component. Element (i, j) of the prediction is
//
//   sum over c of u[i][c] * v[j][c] * 2^(exponent[c] - base)     times 2^base, base = min exponent
//
// an exact integer below 2^62, which any order of summation and any arithmetic that is exact gives.
// Entries are coded as residuals of width column_width[c] + 2 * row_width[i], in quarter octaves.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/bits.h"
#include "core/digits.h"
#include "core/parallel.h"
#include "core/status.h"

namespace lmgc {

inline constexpr std::int64_t most_factor = std::int64_t{1} << 30;  // in magnitude
inline constexpr int most_product_bits = 62;

// How an entry is told: by a symbol that has a width within the tables, and low bits as a tail.
struct EntryShape {
  int width;  // at most most_width, but for entries beyond most_factor
  int tail_bits;
};
struct EntryDigits {
  int symbol;
  std::uint32_t tail;
  int bits;  // tail_bits; 32 after an escape
};
// The bin that holds what an entry is predicted to be (0 without a prediction), and where in it, in
// 32nds. Bins are 2^tail_bits wide; that of number 0 is centred on 0.
struct EntryPlace {
  std::int64_t bin = 0;
  int fraction = 0;
};
inline constexpr int mean_fraction_bits = 6;
inline constexpr std::int64_t most_mean = std::int64_t{1} << 40;
// `mean` is in 64ths, within +-most_mean.
constexpr EntryPlace place_of(std::int64_t mean, int tail_bits) {
  // The bin's lower edge lies half a unit below its least integer.
  const std::int64_t half = tail_bits > 0 ? std::int64_t{1} << (tail_bits - 1) : 0;
  const std::int64_t at = (mean + (half << mean_fraction_bits) + 32) >> (tail_bits + 1);
  return {at >> 5, static_cast<int>(at & 31)};
}
EntryDigits split_entry(std::int32_t entry, int tail_bits, std::int64_t bin);
// The way back, total: what is read may lie beyond most_factor.
std::int64_t join_entry(int symbol, int tail_bits, std::int64_t bin, BitReader& tails);

// A matrix of factors, `lines` x `rank`, row after row.
struct Factor {
  std::vector<std::int32_t> entries;
  std::vector<std::int16_t> row_widths;     // half octaves, one a line; or empty: all 0
  std::vector<std::int16_t> column_widths;  // quarter octaves, one a component

  EntryShape shape_of(std::int64_t line, std::int64_t component) const;
};

struct Factors {
  std::int64_t rank = 0;
  std::vector<std::int16_t> exponents;  // one a component
  Factor u, v;

  int base() const;  // the least exponent
};

// Row and column widths that suit the entries. Row widths are left out where they do not pay.
void choose_widths(Factor& factor, std::int64_t lines, std::int64_t rank);

class EntryMeans;  // projection.h

// The kind of a factor's contexts.
constexpr Fraction factor_kind(bool projected) {
  return projected ? Fraction::varies : Fraction::middle;
}

// `means`: what the entries are predicted to be; null: zero, all of them.
CodedDigits code_factor(const Factor& factor, std::int64_t rank, const EntryMeans* means,
                        const Parallel& parallel);

// Decodes `lines` x `rank` entries from an untrusted body; widths are set already. ok or
// bad_stream.
Status decode_factor(const DigitsHead& head, const std::uint8_t* body, std::int64_t lines,
                     std::int64_t rank, const EntryMeans* means, Factor& factor,
                     const Parallel& parallel);

// Writes elements [first, first + count) of a product (row after row, in units of 2^base) to `out`,
// from any thread.
using Product = std::function<void(std::int64_t first, std::int64_t count, std::int64_t* out)>;

// A bound on the magnitude of every partial sum of the product, in any order, in units of 2^base;
// 2^most_product_bits when there is none below.
std::uint64_t product_bound(const Factors& factors, const Parallel& parallel);

// entry * 2^gain. Where a product_bound() holds it fits, unless the other factor's entries of this
// component are all zero: any number will do then.
constexpr std::int64_t with_gain(std::int32_t entry, int gain) {
  return gain < 64
             ? static_cast<std::int64_t>(static_cast<std::uint64_t>(std::int64_t{entry}) << gain)
             : 0;
}

// Elements [first, first + count) of the product, row after row, in units of 2^base. The bound is
// below 2^most_product_bits.
void multiply_factors(const Factors& factors, std::int64_t columns, std::int64_t first,
                      std::int64_t count, std::int64_t* out);

}  // namespace lmgc
