// 8 lanes of rANS in a vector of 256 bits. Called only where the processor has AVX2.
#include "core/rans_avx2.h"

#include "core/rans_runs.h"

namespace lmgc::rans {

namespace {

template <int blocks>
std::uint32_t decode_run(BlockRun* runs, std::uint32_t steps) {
  constexpr int vectors = most_lanes / 8;
  const __m256i slots = _mm256_set1_epi32(probability_one - 1);
  __m256i state[blocks][vectors];
  BlockRun own[blocks];  // a copy: stores of symbols might change the original
  for (int b = 0; b < blocks; ++b) {
    own[b] = runs[b];
    for (int v = 0; v < vectors; ++v) {
      state[b][v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(runs[b].states + 8 * v));
    }
  }
  std::uint32_t step = 0;
  for (; step < steps; ++step) {
    bool sure = true;
    for (int b = 0; b < blocks; ++b) sure &= own[b].end - own[b].at >= most_read(most_lanes);
    if (!sure) break;
    __m256i entry[blocks][vectors];
    for (int v = 0; v < vectors; ++v) {
      for (int b = 0; b < blocks; ++b) {
        const __m256i index = _mm256_and_si256(state[b][v], slots);
        entry[b][v] =
            _mm256_i32gather_epi32(reinterpret_cast<const int*>(own[b].entries), index, 4);
        state[b][v] = get_8(state[b][v], entry[b][v], own[b].at);
      }
    }
    for (int b = 0; b < blocks; ++b) store_symbols(entry[b], own[b].symbols + 32 * step);
  }
  for (int b = 0; b < blocks; ++b) {
    for (int v = 0; v < vectors; ++v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(runs[b].states + 8 * v), state[b][v]);
    }
    runs[b].at = own[b].at;
  }
  return step;
}

}  // namespace

std::uint32_t decode_run_avx2(BlockRun* runs, int blocks, std::uint32_t steps) {
  return blocks == 1 ? decode_run<1>(runs, steps) : decode_run<2>(runs, steps);
}

}  // namespace lmgc::rans
