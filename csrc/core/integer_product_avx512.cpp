// Tiles of an integer product. Called only where the processor has AVX-512 F and BW.
#include "core/integer_product_avx512.h"

namespace lmgc {
namespace {

struct MultiplyAdd {
  Sums operator()(Sums sum, __m512i line, __m512i columns) const {
    return sum + reinterpret_cast<Sums>(_mm512_madd_epi16(line, columns));
  }
};

}  // namespace

void multiply_tile_avx512(const ProductTile& tile) { multiply_tile_512<MultiplyAdd>(tile); }

}  // namespace lmgc
