// Tiles of an integer product. Called only where the processor has AVX-512 F, BW and VNNI.
#include "core/integer_product_avx512.h"

namespace lmgc {
namespace {

struct MultiplyAdd {
  Sums operator()(Sums sum, __m512i line, __m512i columns) const {
    return reinterpret_cast<Sums>(
        _mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), line, columns));
  }
};

}  // namespace

void multiply_tile_vnni(const ProductTile& tile) { multiply_tile_512<MultiplyAdd>(tile); }

}  // namespace lmgc
