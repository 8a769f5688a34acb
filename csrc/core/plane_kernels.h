// The inner loops of plane_bytes.cpp in versions for different processors, which all compute the
// same. Internal to it.
#pragma once

#include <cstdint>

namespace lmgc {

// Over words of one element each. Nothing is checked; pointers need no alignment beyond the word's.
template <class Word>
struct PlaneKernels {
  // planes[p][i] = byte p of words[i], of the word rotated left by one bit if `rotated`, for every
  // p whose pointer is not null.
  void (*split)(const Word* words, std::int64_t count, bool rotated, std::uint8_t* const* planes);

  // The inverse; no pointer is null.
  void (*join)(const std::uint8_t* const* planes, std::int64_t count, bool rotated, Word* words);

  // Moves the words that are not zero to the front of `kept`, which has room for `count` and a
  // vector of 64 bytes more; returns how many they are.
  std::int64_t (*keep)(const Word* words, std::int64_t count, Word* kept);

  // Bit i of `mask` = words[i] is not zero, the last byte filled up with zeros; returns the ones.
  std::int64_t (*mask)(const Word* words, std::int64_t count, std::uint8_t* mask);

  // words[i] = the next of `kept` where bit i of `mask` is 1, else zero; `count` is a multiple
  // of 8. Reads up to 64 bytes beyond the kept words that it takes; returns how many those are.
  std::int64_t (*expand)(const Word* kept, const std::uint8_t* mask, std::int64_t count,
                         Word* words);
};

// What every processor can do, for words of 1, 2, 4, 8 and 16 bytes, the last as Word128.
struct Word128 {
  std::uint64_t low, high;
};
template <class Word>
PlaneKernels<Word> portable_plane_kernels();

#if defined(__x86_64__)
// For words of 2 and 4 bytes, where the processor has AVX-512 F, BW, VL, VBMI and VBMI2.
bool has_avx512_bytes();
template <class Word>
PlaneKernels<Word> avx512_plane_kernels();
#endif

}  // namespace lmgc
