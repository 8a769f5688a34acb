// 16 lanes of rANS in a vector of 512 bits. Called only where the processor has AVX-512 F, BW and
// VL.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header, PR 105593
#endif
#include <immintrin.h>

#include "core/rans_runs.h"

namespace lmgc::rans {

std::uint8_t* encode_run_avx512(const std::uint8_t* symbols, std::uint32_t steps,
                                const EncodeEntry* entries, std::uint32_t* states,
                                std::uint8_t* at) {
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
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
      const __m512i complement = _mm512_srli_epi32(packed, 17);
      const __m512i bias =
          _mm512_and_si512(_mm512_srli_epi32(packed, 4), _mm512_set1_epi32(0x1FFF));
      const __m512i shift = _mm512_and_si512(packed, _mm512_set1_epi32(15));
      const __m512i limit = _mm512_slli_epi32(
          _mm512_sub_epi32(_mm512_set1_epi32(probability_one), complement), 31 - probability_bits);

      // The words of the lanes that send, in the order of the lanes, at the end of a vector that
      // ends at `at`: what lies before them is written over later.
      const __mmask16 send = _mm512_cmpge_epu32_mask(state[half], limit);
      const int count = __builtin_popcount(send);
      const __m512i packed_words = _mm512_maskz_compress_epi32(send, state[half]);
      const __m512i rotated =
          _mm512_permutexvar_epi32(_mm512_add_epi32(iota, _mm512_set1_epi32(count)), packed_words);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at - 32), _mm512_cvtepi32_epi16(rotated));
      at -= 2 * count;
      const __m512i x = _mm512_mask_srli_epi32(state[half], send, state[half], word_bits);

      const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, reciprocal), 32);
      const __m512i odd =
          _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(reciprocal, 32));
      const __m512i high = _mm512_mask_blend_epi32(0xAAAA, even, odd);
      const __m512i quotient = _mm512_srlv_epi32(high, shift);
      state[half] =
          _mm512_add_epi32(_mm512_add_epi32(x, bias), _mm512_mullo_epi32(quotient, complement));
    }
  }
  _mm512_storeu_si512(states, state[0]);
  _mm512_storeu_si512(states + 16, state[1]);
  return at;
}

std::uint32_t decode_run_avx512(std::uint8_t* symbols, std::uint32_t steps,
                                const DecodeEntry* entries, std::uint32_t* states,
                                const std::uint8_t** at, const std::uint8_t* end) {
  const __m512i slots = _mm512_set1_epi32(probability_one - 1);
  const __m512i bound = _mm512_set1_epi32(lower_bound);
  __m512i state[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  const std::uint8_t* from = *at;
  std::uint32_t step = 0;
  for (; step < steps && end - from >= most_read(most_lanes); ++step) {
    for (int half = 0; half < 2; ++half) {
      const __m512i x = state[half];
      const __m512i entry = _mm512_i32gather_epi32(_mm512_and_si512(x, slots), entries, 4);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols + 32 * step + 16 * half),
                       _mm512_cvtepi32_epi8(entry));
      const __m512i high = _mm512_srli_epi32(x, probability_bits);
      const __m512i less_one = _mm512_and_si512(_mm512_srli_epi32(entry, 8), slots);
      const __m512i rest = _mm512_add_epi32(
          _mm512_add_epi32(_mm512_mullo_epi32(less_one, high), high), _mm512_srli_epi32(entry, 20));
      const __mmask16 more = _mm512_cmplt_epu32_mask(rest, bound);
      const __m512i words =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
      from += 2 * __builtin_popcount(more);
      state[half] = _mm512_mask_or_epi32(rest, more, _mm512_slli_epi32(rest, word_bits),
                                         _mm512_maskz_expand_epi32(more, words));
    }
  }
  _mm512_storeu_si512(states, state[0]);
  _mm512_storeu_si512(states + 16, state[1]);
  *at = from;
  return step;
}

}  // namespace lmgc::rans
