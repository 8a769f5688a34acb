// 8 lanes of rANS in a vector of 256 bits. Called only where the processor has AVX2.
#include "core/rans_avx2.h"

#include "core/rans_runs.h"

namespace lmgc::rans {

std::uint32_t decode_run_avx2(std::uint8_t* symbols, std::uint32_t steps,
                              const DecodeEntry* entries, std::uint32_t* states,
                              const std::uint8_t** at, const std::uint8_t* end) {
  constexpr int vectors = most_lanes / 8;
  const __m256i slots = _mm256_set1_epi32(probability_one - 1);
  const auto* const base = reinterpret_cast<const int*>(entries);
  __m256i state[vectors];
  for (int v = 0; v < vectors; ++v) {
    state[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + 8 * v));
  }
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(most_lanes); ++step) {
    __m256i entry[vectors];
    for (int v = 0; v < vectors; ++v) {
      const __m256i index = _mm256_and_si256(state[v], slots);
      entry[v] = _mm256_i32gather_epi32(base, index, 4);
      state[v] = get_8(state[v], entry[v], from);
    }
    store_symbols(entry, symbols + 32 * step);
  }
  for (int v = 0; v < vectors; ++v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + 8 * v), state[v]);
  }
  *at = from;
  return step;
}

}  // namespace lmgc::rans
