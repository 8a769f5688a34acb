// The product of integer factors (factors.h) in 16-bit integers and 32-bit sums, where they
// suffice: exact, and several times as fast as a floating-point product.
#pragma once

#include <cstdint>
#include <vector>

#include "core/factors.h"
#include "core/integer_product_tiles.h"
#include "core/parallel.h"

namespace lmgc {

// Factors packed for multiplication.
class IntegerProduct {
 public:
  // Whether these factors can be multiplied so: `bound`, their product_bound(), is below 2^31, and
  // the entries of u and v are at most 32767 in magnitude once each component's gain, 2^(exponent -
  // base), is put on the one or the other or shared between them.
  static bool fits(const Factors& factors, std::uint64_t bound);

  // Of factors that fit, of rank 1 or more; copies them. v has `columns` lines.
  IntegerProduct(const Factors& factors, std::int64_t columns, const Parallel& parallel);

  // Elements [first, first + count) of the product, row after row, in units of 2^base: what
  // multiply_factors gives. From any thread.
  void multiply(std::int64_t first, std::int64_t count, std::int64_t* out) const;

 private:
  std::int64_t columns_, pairs_;  // of components; of an odd rank the last one is half zero
  std::vector<std::int16_t> u_;   // row after row, 2 * pairs_ entries each
  // Panel after panel of up to 64 columns; in a panel, pair after pair of components.
  std::vector<ColumnPairs> v_;
  TileRun run_;
};

}  // namespace lmgc
