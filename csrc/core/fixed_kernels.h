// What the `fixed` serializer does with many elements of a row at a time, where the processor has
// vectors for it: the numbers of fixed.h and residual_scales.h, for formats of up to 32 bits.
// Included by files that are compiled for newer processors: it brings no inline functions of its
// own.
#pragma once

#include <cstdint>

namespace lmgc {

inline constexpr int run_elements = 512;

// What both sides know of a stretch of up to run_elements elements of one row.
struct FixedRun {
  const std::int64_t* product = nullptr;         // null: no prediction, and the context is `edge`
  const std::int16_t* column_scales = nullptr;   // null: zeros
  const std::int16_t* column_weights = nullptr;  // with a prediction
  int row_scale = 0, row_exponent = 0;
  int count = 0;
  // Of the format: bytes (2 or 4), bits of a word and of its mantissa, bias, the exponent of the
  // smallest normal number, the exponent field of infinities. Words of a short one are no floats of
  // the processor.
  int bytes = 0, bits = 0, mantissa = 0, bias = 0, least = 0, infinite_field = 0;
  bool is_short = false;
};

// Of each of the elements what bin_of() says.
struct FixedBins {
  std::int32_t quantum[run_elements], place[run_elements];
  std::uint8_t contexts[run_elements];
};

// Where tails go: below 8 bits of `held` wait for their byte.
struct TailBits {
  std::uint8_t* at = nullptr;
  std::uint64_t held = 0;
  int used = 0;
};
inline constexpr int most_tail_bytes = 7;  // of an element

// Where tails come from: `used` bits of `size` bytes have been read.
struct TailSource {
  const std::uint8_t* data = nullptr;
  std::uint64_t size = 0, used = 0;
};

struct FixedKernels {
  void (*bins)(const FixedRun& run, FixedBins& bins);
  // residual_level() of each element.
  void (*levels)(const FixedRun& run, const void* words, std::int16_t* levels);
  // Symbols and tails of split_element(); up to most_tail_bytes an element and 8 more are
  // overwritten at tails.at.
  void (*split)(const FixedRun& run, const FixedBins& bins, const void* words,
                std::uint8_t* symbols, TailBits& tails);
  // Words of join_element() for the first elements, and how many these are: it ends where the tails
  // of the next few might lie beyond the end.
  int (*join)(const FixedRun& run, const FixedBins& bins, const std::uint8_t* symbols,
              TailSource& tails, void* words);
  // Adds level_term() of the levels of one row, and how many have one, to *sum and *counted;
  // `others` (null: zeros) are the columns' levels, `own` the row's.
  void (*row_terms)(const std::int16_t* levels, const std::int32_t* others, std::int32_t own,
                    std::int64_t count, bool refine, std::int64_t* sum, std::int64_t* counted);
  // The same for `columns` columns, up to 32, of rows that lie `stride` levels apart; `others` are
  // the rows' levels, `own` the columns'.
  void (*column_terms)(const std::int16_t* levels, std::int64_t stride, std::int64_t rows,
                       const std::int32_t* others, const std::int32_t* own, int columns,
                       bool refine, std::int64_t* sums, std::int64_t* counted);
  // What a prior is told of each element, Known in digit_context.h: three bytes each.
  void (*known)(const FixedRun& run, std::int8_t* known);
  // predict_by() of delta.h: values and exponents of predictions by the words and the factor of a
  // reference, and the product if there is one, for bins that fit the scales or (`is_finest`) are
  // as fine as the format. Where a value is zero, so is its exponent.
  void (*refer)(const FixedRun& run, const void* words, std::uint32_t factor, bool is_finest,
                std::int64_t* values, std::int16_t* exponents);
};

// Those for this processor, or null.
const FixedKernels* fixed_kernels();

#if defined(__x86_64__)
extern const FixedKernels fixed_kernels_avx512;  // needs AVX-512 F, BW, CD, DQ and VL
#endif

}  // namespace lmgc
