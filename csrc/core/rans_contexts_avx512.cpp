// 16 lanes of rANS with a table each in a vector of 512 bits. Called only where the processor has
// AVX-512 F, BW and VL.
#include "core/rans_avx512.h"
#include "core/rans_runs.h"

namespace lmgc::rans {
namespace {

__m128i load_16(const std::uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

}  // namespace

std::uint8_t* encode_contexts_run_avx512(const std::uint8_t* symbols, const std::uint8_t* contexts,
                                         std::uint32_t steps, const EncodeEntry* entries,
                                         std::uint32_t* states, std::uint8_t* at) {
  __m512i state[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  const auto* const base = reinterpret_cast<const char*>(entries);
  while (steps-- > 0) {
    for (int half = 1; half >= 0; --half) {
      const std::uint32_t first = 32 * steps + 16 * static_cast<unsigned>(half);
      const __m512i table = _mm512_slli_epi32(_mm512_cvtepu8_epi32(load_16(contexts + first)), 9);
      const __m512i symbol = _mm512_slli_epi32(_mm512_cvtepu8_epi32(load_16(symbols + first)), 1);
      const __m512i index = _mm512_or_si512(table, symbol);  // in units of 8 bytes
      const __m512i reciprocal = _mm512_i32gather_epi32(index, base + 4, 8);
      const __m512i packed = _mm512_i32gather_epi32(index, base + 12, 8);
      state[half] = put_16(state[half], reciprocal, packed, at);
    }
  }
  _mm512_storeu_si512(states, state[0]);
  _mm512_storeu_si512(states + 16, state[1]);
  return at;
}

std::uint32_t decode_contexts_run_avx512(std::uint8_t* symbols, const std::uint8_t* contexts,
                                         std::uint32_t steps, const DecodeEntry* entries,
                                         std::uint32_t* states, const std::uint8_t** at,
                                         const std::uint8_t* end) {
  const __m512i slots = _mm512_set1_epi32(probability_one - 1);
  __m512i state[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(most_lanes); ++step) {
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t first = 32 * step + 16 * static_cast<unsigned>(half);
      const __m512i table =
          _mm512_slli_epi32(_mm512_cvtepu8_epi32(load_16(contexts + first)), probability_bits);
      const __m512i index = _mm512_or_si512(table, _mm512_and_si512(state[half], slots));
      const __m512i entry = _mm512_i32gather_epi32(index, entries, 4);
      state[half] = get_16(state[half], entry, from, symbols + first);
    }
  }
  _mm512_storeu_si512(states, state[0]);
  _mm512_storeu_si512(states + 16, state[1]);
  *at = from;
  return step;
}

}  // namespace lmgc::rans
