// Tiles of an integer product in vectors of 256 bits. Called only where the processor has AVX2.
#include <immintrin.h>

#include <cstring>

#include "core/integer_product_tiles.h"

namespace lmgc {
namespace {

typedef std::int32_t Sums __attribute__((vector_size(32)));

void store_quarter(std::int64_t* out, __m128i sums, __m128i shift, __m256i added) {
  const __m256i shifted = _mm256_sll_epi64(_mm256_cvtepi32_epi64(sums), shift);
  const __m256i before = _mm256_maskload_epi64(reinterpret_cast<const long long*>(out), added);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_add_epi64(before, shifted));
}

// The first `rows` rows of one group of columns: all their sums are in registers at once, for which
// GCC needs to be told to unroll and that the loop is not empty.
template <int rows>
void multiply_rows(const ProductTile& tile, int group) {
  Sums sums[rows][2];
#pragma GCC unroll 6
  for (int row = 0; row < rows; ++row) sums[row][0] = sums[row][1] = Sums{};
  const std::int16_t* u = tile.u;
  const std::int64_t u_stride = tile.u_stride;
  const ColumnPairs* v = tile.v + group;
  std::int64_t left = tile.pairs;
  do {
    const auto* const columns = reinterpret_cast<const __m256i*>(v);
    const __m256i low = _mm256_load_si256(columns), high = _mm256_load_si256(columns + 1);
#pragma GCC unroll 6
    for (int row = 0; row < rows; ++row) {
      std::int32_t both;
      std::memcpy(&both, u + row * u_stride, sizeof both);
      const __m256i line = _mm256_set1_epi32(both);
      sums[row][0] += reinterpret_cast<Sums>(_mm256_madd_epi16(line, low));
      sums[row][1] += reinterpret_cast<Sums>(_mm256_madd_epi16(line, high));
    }
    u += 2;
    v += tile.v_stride;
  } while (--left > 0);
  const __m128i shift = _mm_cvtsi32_si128(tile.shift);
  const __m256i added = _mm256_set1_epi64x(tile.add ? -1 : 0);
#pragma GCC unroll 6
  for (int row = 0; row < rows; ++row) {
    std::int64_t* const out = tile.out + row * tile.out_stride + group_columns * group;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const auto sum = reinterpret_cast<__m256i>(sums[row][half]);
      store_quarter(out + 8 * half, _mm256_castsi256_si128(sum), shift, added);
      store_quarter(out + 8 * half + 4, _mm256_extracti128_si256(sum, 1), shift, added);
    }
  }
}

}  // namespace

void multiply_tile_avx2(const ProductTile& whole) {
  ProductTile tile = whole;
  while (tile.rows > 0) {
    const std::int64_t steps = (tile.rows + most_tile_rows - 1) / most_tile_rows;
    const std::int64_t rows = (tile.rows + steps - 1) / steps;
    for (int group = 0; group < tile.groups; ++group) {
      switch (rows) {
        case 1:
          multiply_rows<1>(tile, group);
          break;
        case 2:
          multiply_rows<2>(tile, group);
          break;
        case 3:
          multiply_rows<3>(tile, group);
          break;
        case 4:
          multiply_rows<4>(tile, group);
          break;
        case 5:
          multiply_rows<5>(tile, group);
          break;
        default:
          multiply_rows<6>(tile, group);
          break;
      }
    }
    tile.u += tile.u_stride * rows;
    tile.out += tile.out_stride * rows;
    tile.rows -= rows;
  }
}

}  // namespace lmgc
