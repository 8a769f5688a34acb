// 16 lanes of rANS in a vector of 512 bits. Called only where the processor has AVX-512 F, BW and
// VL.
#include "core/rans_avx512.h"

#include "core/rans_runs.h"

namespace lmgc::rans {

std::uint8_t* encode_run_avx512(const std::uint8_t* symbols, std::uint32_t steps,
                                const EncodeEntry* entries, std::uint32_t* states,
                                std::uint8_t* at) {
  __m512i state[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  const auto* const base = reinterpret_cast<const char*>(entries);
  while (steps-- > 0) {
    for (int half = 1; half >= 0; --half) {
      const __m128i bytes =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols + 32 * steps + 16 * half));
      // offsets of entries in units of 8 bytes
      const __m512i index = _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 1);
      const __m512i reciprocal = _mm512_i32gather_epi32(index, base + 4, 8);
      const __m512i packed = _mm512_i32gather_epi32(index, base + 12, 8);
      state[half] = put_16(state[half], reciprocal, packed, at);
    }
  }
  _mm512_storeu_si512(states, state[0]);
  _mm512_storeu_si512(states + 16, state[1]);
  return at;
}

namespace {

template <int blocks>
std::uint32_t decode_run(BlockRun* runs, std::uint32_t steps) {
  const __m512i slots = _mm512_set1_epi32(probability_one - 1);
  __m512i state[blocks][2];
  BlockRun own[blocks];  // a copy: stores of symbols might change the original
  for (int b = 0; b < blocks; ++b) {
    own[b] = runs[b];
    for (int half = 0; half < 2; ++half)
      state[b][half] = _mm512_loadu_si512(runs[b].states + 16 * half);
  }
  std::uint32_t step = 0;
  for (; step < steps; ++step) {
    bool sure = true;
    for (int b = 0; b < blocks; ++b) sure &= own[b].end - own[b].at >= most_read(most_lanes);
    if (!sure) break;
    for (int half = 0; half < 2; ++half) {
      for (int b = 0; b < blocks; ++b) {
        const __m512i index = _mm512_and_si512(state[b][half], slots);
        const __m512i entry = _mm512_i32gather_epi32(index, own[b].entries, 4);
        state[b][half] =
            get_16(state[b][half], entry, own[b].at, own[b].symbols + 32 * step + 16 * half);
      }
    }
  }
  for (int b = 0; b < blocks; ++b) {
    for (int half = 0; half < 2; ++half)
      _mm512_storeu_si512(runs[b].states + 16 * half, state[b][half]);
    runs[b].at = own[b].at;
  }
  return step;
}

}  // namespace

std::uint32_t decode_run_avx512(BlockRun* runs, int blocks, std::uint32_t steps) {
  return blocks == 1 ? decode_run<1>(runs, steps) : decode_run<2>(runs, steps);
}

}  // namespace lmgc::rans
