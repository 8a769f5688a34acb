// Tiles of an integer product in vectors of 512 bits, for the sources compiled for AVX-512 F and
// BW. MultiplyAdd is a type of the including source, so that no other one is linked to a copy from
// there.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "core/integer_product_tiles.h"

namespace lmgc {

// 16 sums. With __m512i, which has 8 elements, GCC 12 copies the sums in every step.
typedef std::int32_t Sums __attribute__((vector_size(64)));

static inline void store_half(std::int64_t* out, __m256i sums, __m128i shift, __mmask8 added) {
  const __m512i shifted = _mm512_sll_epi64(_mm512_cvtepi32_epi64(sums), shift);
  _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_maskz_loadu_epi64(added, out), shifted));
}

// The first `rows` rows of a tile: all their sums are in registers at once, for which GCC needs to
// be told to unroll and that the loop is not empty.
template <class MultiplyAdd, int rows, int groups>
static void multiply_rows(const ProductTile& tile) {
  Sums sums[rows][groups];
#pragma GCC unroll 6
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
    for (int group = 0; group < groups; ++group) sums[row][group] = Sums{};
  }
  const std::int16_t* u = tile.u;
  const std::int64_t u_stride = tile.u_stride;
  const ColumnPairs* v = tile.v;
  std::int64_t left = tile.pairs;
  do {
    __m512i columns[groups];
#pragma GCC unroll 4
    for (int group = 0; group < groups; ++group) columns[group] = _mm512_load_si512(v + group);
#pragma GCC unroll 6
    for (int row = 0; row < rows; ++row) {
      std::int32_t both;
      std::memcpy(&both, u + row * u_stride, sizeof both);
      const __m512i line = _mm512_set1_epi32(both);
#pragma GCC unroll 4
      for (int group = 0; group < groups; ++group)
        sums[row][group] = MultiplyAdd()(sums[row][group], line, columns[group]);
    }
    u += 2;
    v += tile.v_stride;
  } while (--left > 0);
  const __m128i shift = _mm_cvtsi32_si128(tile.shift);
  const __mmask8 added = tile.add ? 0xff : 0;
#pragma GCC unroll 6
  for (int row = 0; row < rows; ++row) {
    std::int64_t* const out = tile.out + row * tile.out_stride;
#pragma GCC unroll 4
    for (int group = 0; group < groups; ++group) {
      const auto sum = reinterpret_cast<__m512i>(sums[row][group]);
      std::int64_t* const own = out + group_columns * group;
      store_half(own, _mm512_castsi512_si256(sum), shift, added);
      store_half(own + group_columns / 2, _mm512_extracti64x4_epi64(sum, 1), shift, added);
    }
  }
}

template <class MultiplyAdd, int rows>
static void multiply_groups(const ProductTile& tile) {
  switch (tile.groups) {
    case 1:
      return multiply_rows<MultiplyAdd, rows, 1>(tile);
    case 2:
      return multiply_rows<MultiplyAdd, rows, 2>(tile);
    case 3:
      return multiply_rows<MultiplyAdd, rows, 3>(tile);
    default:
      return multiply_rows<MultiplyAdd, rows, 4>(tile);
  }
}

template <class MultiplyAdd>
static void multiply_tile_512(ProductTile tile) {
  while (tile.rows > 0) {
    // About as many rows in each step: one alone would wait for its own sums.
    const std::int64_t steps = (tile.rows + most_tile_rows - 1) / most_tile_rows;
    const std::int64_t rows = (tile.rows + steps - 1) / steps;
    switch (rows) {
      case 1:
        multiply_groups<MultiplyAdd, 1>(tile);
        break;
      case 2:
        multiply_groups<MultiplyAdd, 2>(tile);
        break;
      case 3:
        multiply_groups<MultiplyAdd, 3>(tile);
        break;
      case 4:
        multiply_groups<MultiplyAdd, 4>(tile);
        break;
      case 5:
        multiply_groups<MultiplyAdd, 5>(tile);
        break;
      default:
        multiply_groups<MultiplyAdd, 6>(tile);
        break;
    }
    tile.u += tile.u_stride * rows;
    tile.out += tile.out_stride * rows;
    tile.rows -= rows;
  }
}

}  // namespace lmgc
