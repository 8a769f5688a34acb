// The exact product of integer factors (factors.h) in 16-bit integers and 32-bit sums, several
// times as fast as in doubles or in 64 bits. integer_product_plan.h says how it is cut.
#pragma once

#include <cstdint>
#include <vector>

#include "core/factors.h"
#include "core/integer_product_plan.h"
#include "core/integer_product_tiles.h"
#include "core/parallel.h"

namespace lmgc {

// Factors packed for multiplication.
class IntegerProduct {
 public:
  // Copies factors of rank 1 or more, v of `columns` lines, entries at most most_factor in
  // magnitude. `bound` is their product_bound(), below 2^most_product_bits. Takes at most eight
  // times their memory, and about half of it where no entry needs more than 15 bits.
  IntegerProduct(const Factors& factors, std::int64_t columns, std::uint64_t bound,
                 const Parallel& parallel);

  // Elements [first, first + count) of the product, row after row, in units of 2^base: what
  // multiply_factors gives. From any thread.
  void multiply(std::int64_t first, std::int64_t count, std::int64_t* out) const;

 private:
  // Pairs of terms [first, first + count) of a line; of an odd number of terms the last is zero.
  struct Layer {
    std::int64_t first, count;
    int shift;
  };

  void multiply_tile(ProductTile tile) const;

  std::int64_t columns_, pairs_ = 0;  // of all layers
  std::vector<Layer> layers_;
  std::vector<std::int16_t> u_;  // row after row, 2 * pairs_ entries each
  // Panel after panel of up to 64 columns; in a panel, pair after pair of terms.
  std::vector<ColumnPairs> v_;
  TileRun run_layer_;
};

// The product of factors as a function, which keeps its own copy of them: IntegerProduct's.
Product exact_product(const Factors& factors, std::int64_t columns, std::uint64_t bound,
                      const Parallel& parallel);

}  // namespace lmgc
