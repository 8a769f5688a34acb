// The inner loops of plane_bytes.cpp for words of 2 and 4 bytes in vectors of 512 bits. Called only
// where the processor has AVX-512 F, BW, VL, VBMI and VBMI2.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header, PR 105593
#endif
#include <immintrin.h>

#include "core/plane_kernels.h"

namespace lmgc {
namespace {

// What depends on the width of a word: `own` words fill a vector, and a mask has a bit for each.
template <class Word>
struct Vector;

template <>
struct Vector<std::uint16_t> {
  using Mask = __mmask32;
  static constexpr int own = 32;
  static __m512i load(Mask mask, const void* at) { return _mm512_maskz_loadu_epi16(mask, at); }
  static void store(void* at, Mask mask, __m512i v) { _mm512_mask_storeu_epi16(at, mask, v); }
  static __m512i left(__m512i v) { return _mm512_shldi_epi16(v, v, 1); }
  static __m512i right(__m512i v) { return _mm512_shrdi_epi16(v, v, 1); }
  static Mask not_zero(__m512i v) { return _mm512_test_epi16_mask(v, v); }
  static __m512i compress(Mask mask, __m512i v) { return _mm512_maskz_compress_epi16(mask, v); }
  static __m512i expand(Mask mask, __m512i v) { return _mm512_maskz_expand_epi16(mask, v); }
};

template <>
struct Vector<std::uint32_t> {
  using Mask = __mmask16;
  static constexpr int own = 16;
  static __m512i load(Mask mask, const void* at) { return _mm512_maskz_loadu_epi32(mask, at); }
  static void store(void* at, Mask mask, __m512i v) { _mm512_mask_storeu_epi32(at, mask, v); }
  static __m512i left(__m512i v) { return _mm512_rol_epi32(v, 1); }
  static __m512i right(__m512i v) { return _mm512_ror_epi32(v, 1); }
  static Mask not_zero(__m512i v) { return _mm512_test_epi32_mask(v, v); }
  static __m512i compress(Mask mask, __m512i v) { return _mm512_maskz_compress_epi32(mask, v); }
  static __m512i expand(Mask mask, __m512i v) { return _mm512_maskz_expand_epi32(mask, v); }
};

// Byte p of word i lies at byte sizeof(Word) * i + p of a vector of words, at own * p + i of one of
// planes. The orders say where each byte of the one comes from in the other.
template <class Word>
__m512i order(bool to_planes) {
  constexpr int width = sizeof(Word), own = Vector<Word>::own;
  alignas(64) std::uint8_t from[64];
  for (int p = 0; p < width; ++p) {
    for (int i = 0; i < own; ++i) {
      const int in_words = width * i + p, in_planes = own * p + i;
      if (to_planes) {
        from[in_planes] = static_cast<std::uint8_t>(in_words);
      } else {
        from[in_words] = static_cast<std::uint8_t>(in_planes);
      }
    }
  }
  return _mm512_load_si512(from);
}

// The first `count` words of a vector: all, if it has no more.
template <class Word>
typename Vector<Word>::Mask first_words(std::int64_t count) {
  constexpr int own = Vector<Word>::own;
  return static_cast<typename Vector<Word>::Mask>(count >= own ? (std::uint64_t{1} << own) - 1
                                                               : (std::uint64_t{1} << count) - 1);
}

template <class Word>
void split(const Word* words, std::int64_t count, bool rotated, std::uint8_t* const* planes) {
  using V = Vector<Word>;
  constexpr int own = V::own;
  const __m512i to_planes = order<Word>(true);
  for (std::int64_t i = 0; i < count; i += own) {
    const auto mask = first_words<Word>(count - i);
    __m512i v = V::load(mask, words + i);
    v = _mm512_permutexvar_epi8(to_planes, rotated ? V::left(v) : v);
    if constexpr (own == 32) {
      if (planes[0]) _mm256_mask_storeu_epi8(planes[0] + i, mask, _mm512_castsi512_si256(v));
      if (planes[1]) _mm256_mask_storeu_epi8(planes[1] + i, mask, _mm512_extracti64x4_epi64(v, 1));
    } else {
      if (planes[0]) _mm_mask_storeu_epi8(planes[0] + i, mask, _mm512_castsi512_si128(v));
      if (planes[1]) _mm_mask_storeu_epi8(planes[1] + i, mask, _mm512_extracti32x4_epi32(v, 1));
      if (planes[2]) _mm_mask_storeu_epi8(planes[2] + i, mask, _mm512_extracti32x4_epi32(v, 2));
      if (planes[3]) _mm_mask_storeu_epi8(planes[3] + i, mask, _mm512_extracti32x4_epi32(v, 3));
    }
  }
}

template <class Word>
void join(const std::uint8_t* const* planes, std::int64_t count, bool rotated, Word* words) {
  using V = Vector<Word>;
  constexpr int own = V::own;
  const __m512i to_words = order<Word>(false);
  for (std::int64_t i = 0; i < count; i += own) {
    const auto mask = first_words<Word>(count - i);
    __m512i v;
    if constexpr (own == 32) {
      v = _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(mask, planes[0] + i));
      v = _mm512_inserti64x4(v, _mm256_maskz_loadu_epi8(mask, planes[1] + i), 1);
    } else {
      v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(mask, planes[0] + i));
      v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, planes[1] + i), 1);
      v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, planes[2] + i), 2);
      v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(mask, planes[3] + i), 3);
    }
    v = _mm512_permutexvar_epi8(to_words, v);
    V::store(words + i, mask, rotated ? V::right(v) : v);
  }
}

template <class Word>
std::int64_t keep(const Word* words, std::int64_t count, Word* kept) {
  using V = Vector<Word>;
  const Word* const first = kept;
  for (std::int64_t i = 0; i < count; i += V::own) {
    const __m512i v = V::load(first_words<Word>(count - i), words + i);
    const auto ones = V::not_zero(v);
    _mm512_storeu_si512(kept, V::compress(ones, v));
    kept += __builtin_popcount(ones);
  }
  return kept - first;
}

template <class Word>
std::int64_t mask(const Word* words, std::int64_t count, std::uint8_t* bits) {
  using V = Vector<Word>;
  std::int64_t all = 0;
  for (std::int64_t i = 0; i < count; i += V::own) {
    const auto ones = V::not_zero(V::load(first_words<Word>(count - i), words + i));
    all += __builtin_popcount(ones);
    if (count - i >= V::own) {
      __builtin_memcpy(bits + i / 8, &ones, sizeof ones);
    } else {
      __builtin_memcpy(bits + i / 8, &ones, static_cast<std::size_t>(count - i + 7) / 8);
    }
  }
  return all;
}

template <class Word>
std::int64_t expand(const Word* kept, const std::uint8_t* bits, std::int64_t count, Word* words) {
  using V = Vector<Word>;
  const Word* const first = kept;
  for (std::int64_t i = 0; i < count; i += V::own) {
    const auto mask = first_words<Word>(count - i);
    typename V::Mask ones = 0;
    if (count - i >= V::own) {
      __builtin_memcpy(&ones, bits + i / 8, sizeof ones);
    } else {
      __builtin_memcpy(&ones, bits + i / 8, static_cast<std::size_t>(count - i) / 8);
    }
    V::store(words + i, mask, V::expand(ones, _mm512_loadu_si512(kept)));
    kept += __builtin_popcount(ones);
  }
  return kept - first;
}

}  // namespace

template <class Word>
PlaneKernels<Word> avx512_plane_kernels() {
  return {split<Word>, join<Word>, keep<Word>, mask<Word>, expand<Word>};
}
template PlaneKernels<std::uint16_t> avx512_plane_kernels();
template PlaneKernels<std::uint32_t> avx512_plane_kernels();

}  // namespace lmgc
