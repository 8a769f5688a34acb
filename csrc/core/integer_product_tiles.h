// The inner loops of integer_product.cpp in versions for different processors, which all compute
// the same. Internal to it; the sources that are compiled for newer processors include it, so it
// has no inline function.
#pragma once

#include <cstdint>

namespace lmgc {

inline constexpr int group_columns = 16;
inline constexpr int most_groups = 4;  // a panel: as many as go into a tile beside each other
inline constexpr int most_tile_rows = 6;

// Two terms of 16 columns of v: both of the first column, both of the second, ...
struct alignas(64) ColumnPairs {
  std::int16_t entries[2 * group_columns];
};

// A product of `rows` rows and 16 * groups columns: row i is u + u_stride * i, of 2 * pairs
// entries, and terms 2 k and 2 k + 1 of the columns are v[k * v_stride + group]. Element (i, j),
// times 2^shift, is put into out[i * out_stride + j] or added to it, modulo 2^64. Sums of products
// fit 32 bits, and no entry is -32768.
struct ProductTile {
  const std::int16_t* u;
  std::int64_t u_stride;
  const ColumnPairs* v;
  std::int64_t v_stride;
  std::int64_t pairs;  // 1 or more
  int shift;           // 0 to 63
  bool add;
  std::int64_t rows;
  int groups;  // 1 to most_groups
  std::int64_t* out;
  std::int64_t out_stride;
};

using TileRun = void (*)(const ProductTile& tile);

void multiply_tile_portable(const ProductTile& tile);
#if defined(__x86_64__)
bool has_product_avx2();
bool has_product_avx512();
bool has_product_vnni();
void multiply_tile_avx2(const ProductTile& tile);
void multiply_tile_avx512(const ProductTile& tile);
void multiply_tile_vnni(const ProductTile& tile);
#endif

}  // namespace lmgc
