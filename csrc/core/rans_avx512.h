// One step of 16 lanes of rANS in a vector of 512 bits, for the sources compiled for AVX-512 F, BW
// and VL. The functions are static, so that no other source is linked to a copy from there.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header, PR 105593
#endif
#include <immintrin.h>

#include "core/rans.h"

namespace lmgc::rans {

// Puts a symbol into each state and writes the words, so that they end at `at`, which moves to
// where they begin; 32 bytes before it are written over. reciprocal and packed are those of the
// symbols' entries.
static inline __m512i put_16(__m512i state, __m512i reciprocal, __m512i packed, std::uint8_t*& at) {
  const __m512i complement = _mm512_srli_epi32(packed, 17);
  const __m512i bias = _mm512_and_si512(_mm512_srli_epi32(packed, 4), _mm512_set1_epi32(0x1FFF));
  const __m512i shift = _mm512_and_si512(packed, _mm512_set1_epi32(15));
  const __m512i limit = _mm512_slli_epi32(
      _mm512_sub_epi32(_mm512_set1_epi32(probability_one), complement), 31 - probability_bits);

  // The words of the lanes that send, in the order of the lanes, at the end of a vector that ends
  // at `at`: what lies before them is written over later.
  const __mmask16 send = _mm512_cmpge_epu32_mask(state, limit);
  const int count = __builtin_popcount(send);
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i words = _mm512_maskz_compress_epi32(send, state);
  const __m512i rotated =
      _mm512_permutexvar_epi32(_mm512_add_epi32(iota, _mm512_set1_epi32(count)), words);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at - 32), _mm512_cvtepi32_epi16(rotated));
  at -= 2 * count;
  const __m512i x = _mm512_mask_srli_epi32(state, send, state, word_bits);

  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, reciprocal), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(reciprocal, 32));
  const __m512i high = _mm512_mask_blend_epi32(0xAAAA, even, odd);
  const __m512i quotient = _mm512_srlv_epi32(high, shift);
  return _mm512_add_epi32(_mm512_add_epi32(x, bias), _mm512_mullo_epi32(quotient, complement));
}

// Gets symbols from the states, whose entries are `entry`, into symbols[0, 16), and moves `from`
// behind the words that were read; 32 bytes from there on are readable.
static inline __m512i get_16(__m512i state, __m512i entry, const std::uint8_t*& from,
                             std::uint8_t* symbols) {
  const __m512i high = _mm512_srli_epi32(state, probability_bits);
  const __m512i less_one =
      _mm512_and_si512(_mm512_srli_epi32(entry, 8), _mm512_set1_epi32(probability_one - 1));
  const __m512i rest = _mm512_add_epi32(_mm512_add_epi32(_mm512_mullo_epi32(less_one, high), high),
                                        _mm512_srli_epi32(entry, 20));
  const __mmask16 more = _mm512_cmplt_epu32_mask(rest, _mm512_set1_epi32(lower_bound));
  const __m512i words =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  from += 2 * __builtin_popcount(more);
  const __m512i next = _mm512_mask_or_epi32(rest, more, _mm512_slli_epi32(rest, word_bits),
                                            _mm512_maskz_expand_epi32(more, words));
  // Not earlier: stores hold up gathers whose addresses look alike, and this takes half the time.
  _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols), _mm512_cvtepi32_epi8(entry));
  return next;
}

}  // namespace lmgc::rans
