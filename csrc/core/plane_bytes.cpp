#include "core/plane_bytes.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "core/isa.h"
#include "core/plane_kernels.h"

namespace lmgc {
namespace {

constexpr std::int64_t tile = 2048;  // elements whose words stay in the first-level cache

bool is_zero(Word128 word) { return (word.low | word.high) == 0; }
template <class Word>
bool is_zero(Word word) {
  return word == 0;
}

// ---- the loops that every processor can run -----------------------------------------------------

template <bool rotated, class Word>
void split_tile(const Word* words, std::int64_t count, std::uint8_t* const* planes,
                std::int64_t first) {
  for (int plane = 0; plane < static_cast<int>(sizeof(Word)); ++plane) {
    if (planes[plane] == nullptr) continue;
    std::uint8_t* const out = planes[plane] + first;
    if constexpr (sizeof(Word) == 16) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(words) + plane;
      for (std::int64_t i = 0; i < count; ++i) out[i] = bytes[16 * i];
    } else if (rotated && plane == 0) {
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint8_t>(words[i] << 1 | words[i] >> (8 * sizeof(Word) - 1));
      }
    } else {
      const int shift = 8 * plane - (rotated ? 1 : 0);
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = static_cast<std::uint8_t>(words[i] >> shift);
    }
  }
}

template <class Word>
void split(const Word* words, std::int64_t count, bool rotated, std::uint8_t* const* planes) {
  const auto own = rotated ? split_tile<true, Word> : split_tile<false, Word>;
  for (std::int64_t first = 0; first < count; first += tile) {
    own(words + first, std::min(tile, count - first), planes, first);
  }
}

template <bool rotated, class Word>
void join_words(const std::uint8_t* const* planes, std::int64_t count, Word* __restrict out) {
  const std::uint8_t* p[sizeof(Word)];
  std::copy(planes, planes + sizeof(Word), p);
  for (std::int64_t i = 0; i < count; ++i) {
    Word word = 0;
    for (std::size_t plane = 0; plane < sizeof(Word); ++plane) {
      word = static_cast<Word>(word | static_cast<Word>(p[plane][i]) << (8 * plane));
    }
    out[i] = rotated ? std::rotr(word, 1) : word;
  }
}

template <class Word>
void join(const std::uint8_t* const* planes, std::int64_t count, bool rotated, Word* words) {
  if constexpr (sizeof(Word) == 16) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(words);
    for (int plane = 0; plane < 16; ++plane) {
      const std::uint8_t* const in = planes[plane];
      for (std::int64_t i = 0; i < count; ++i) bytes[16 * i + plane] = in[i];
    }
  } else {
    (rotated ? join_words<true, Word> : join_words<false, Word>)(planes, count, words);
  }
}

template <class Word>
std::int64_t keep(const Word* words, std::int64_t count, Word* kept) {
  std::int64_t own = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    kept[own] = words[i];
    own += is_zero(words[i]) ? 0 : 1;
  }
  return own;
}

template <class Word>
std::int64_t mask(const Word* words, std::int64_t count, std::uint8_t* mask) {
  std::int64_t ones = 0;
  for (std::int64_t i = 0; i < count; i += 8) {
    const std::int64_t own = std::min<std::int64_t>(8, count - i);
    unsigned bits = 0;
    for (std::int64_t j = 0; j < own; ++j) bits |= (is_zero(words[i + j]) ? 0u : 1u) << j;
    mask[i >> 3] = static_cast<std::uint8_t>(bits);
    ones += std::popcount(bits);
  }
  return ones;
}

template <class Word>
std::int64_t expand(const Word* kept, const std::uint8_t* mask, std::int64_t count, Word* words) {
  const Word* const first = kept;
  for (std::int64_t i = 0; i < count; i += 8) {
    const std::uint8_t bits = mask[i >> 3];
    if (bits == 0xFF) {
      std::memcpy(words + i, kept, 8 * sizeof(Word));
      kept += 8;
    } else if (bits == 0) {
      std::memset(static_cast<void*>(words + i), 0, 8 * sizeof(Word));
    } else {
      for (int j = 0; j < 8; ++j) {
        const bool is_kept = bits >> j & 1;
        words[i + j] = is_kept ? *kept : Word{};
        kept += is_kept ? 1 : 0;
      }
    }
  }
  return kept - first;
}

// The loops for this processor.
template <class Word>
const PlaneKernels<Word>& kernels() {
  static const PlaneKernels<Word> best = [] {
#if defined(__x86_64__)
    if constexpr (sizeof(Word) == 2 || sizeof(Word) == 4) {
      if (has_avx512_bytes()) return avx512_plane_kernels<Word>();
    }
#endif
    return portable_plane_kernels<Word>();
  }();
  return best;
}

// ---- kept elements ------------------------------------------------------------------------------

// Words of a tile, and what the loops read or write beyond.
template <class Word>
using Tile = Word[static_cast<std::size_t>(tile) + 64 / sizeof(Word)];

template <class Word>
std::int64_t split_kept(const Word* words, std::int64_t count, bool rotated,
                        std::uint8_t* const* planes) {
  std::uint8_t* at[most_planes];
  std::copy(planes, planes + sizeof(Word), at);
  Tile<Word> kept;
  std::int64_t all = 0;
  for (std::int64_t done = 0; done < count; done += tile) {
    const std::int64_t own = kernels<Word>().keep(words + done, std::min(tile, count - done), kept);
    kernels<Word>().split(kept, own, rotated, at);
    for (std::size_t p = 0; p < sizeof(Word); ++p) at[p] += at[p] ? own : 0;
    all += own;
  }
  return all;
}

// Elements that share their byte of the mask with others.
template <class Word>
const Word* expand_bits(const Word* kept, const std::uint8_t* mask, std::int64_t first,
                        std::int64_t last, Word* out) {
  for (std::int64_t i = first; i < last; ++i) {
    const bool is_kept = mask[i >> 3] >> (i & 7) & 1;
    out[i] = is_kept ? *kept : Word{};
    kept += is_kept ? 1 : 0;
  }
  return kept;
}

template <class Word>
void join_kept(const std::uint8_t* const* planes, bool rotated, const std::uint8_t* mask,
               std::int64_t first, std::int64_t last, Word* out) {
  const std::uint8_t* at[most_planes];
  std::copy(planes, planes + sizeof(Word), at);
  Tile<Word> words = {};
  while (first < last) {
    const std::int64_t end = std::min(last, (first + tile) & ~std::int64_t{7});
    const std::int64_t aligned = first & ~std::int64_t{7};
    std::int64_t ones = count_ones(mask, aligned, end - aligned);
    if (first != aligned) {
      ones -= std::popcount(static_cast<unsigned>(mask[first >> 3] & ((1 << (first & 7)) - 1)));
    }
    kernels<Word>().join(at, ones, rotated, words);
    const std::int64_t whole_first = std::min((first + 7) & ~std::int64_t{7}, end);
    const std::int64_t whole_last = std::max(end & ~std::int64_t{7}, whole_first);
    const Word* kept = expand_bits(words, mask, first, whole_first, out);
    kept += kernels<Word>().expand(kept, mask + whole_first / 8, whole_last - whole_first,
                                   out + whole_first);
    expand_bits(kept, mask, whole_last, end, out);
    for (std::size_t p = 0; p < sizeof(Word); ++p) at[p] += ones;
    first = end;
  }
}

// Calls body(rotated, words) with whether elements of the format are rotated and the pointer type
// that fits them.
template <class Pointer, class Body>
auto with_words(FloatFormat format, Pointer data, Body body) {
  constexpr bool constant = std::is_const_v<std::remove_pointer_t<Pointer>>;
  const auto typed = [&]<class Word>(Word) {
    using Words = std::conditional_t<constant, const Word*, Word*>;
    return static_cast<Words>(data);
  };
  const bool rotated = format.is_float() && format.bytes > 1 && format.bytes <= 8;
  switch (format.bytes) {
    case 1:
      return body(rotated, typed(std::uint8_t{}));
    case 2:
      return body(rotated, typed(std::uint16_t{}));
    case 4:
      return body(rotated, typed(std::uint32_t{}));
    case 8:
      return body(rotated, typed(std::uint64_t{}));
    default:
      return body(rotated, typed(Word128{}));
  }
}

template <class Words>
using WordOf = std::remove_const_t<std::remove_pointer_t<Words>>;

}  // namespace

template <class Word>
PlaneKernels<Word> portable_plane_kernels() {
  return {split<Word>, join<Word>, keep<Word>, mask<Word>, expand<Word>};
}
template PlaneKernels<std::uint16_t> portable_plane_kernels();
template PlaneKernels<std::uint32_t> portable_plane_kernels();

#if defined(__x86_64__)
bool has_avx512_bytes() {
  return has_isa(isa_avx512f | isa_avx512bw | isa_avx512vl | isa_avx512vbmi | isa_avx512vbmi2);
}
#endif

void split_planes(const void* data, std::int64_t first, std::int64_t count, FloatFormat format,
                  std::uint8_t* const* planes) {
  with_words(format, data, [&](bool rotated, auto* words) {
    kernels<WordOf<decltype(words)>>().split(words + first, count, rotated, planes);
  });
}

std::int64_t split_kept_planes(const void* data, std::int64_t first, std::int64_t count,
                               FloatFormat format, std::uint8_t* const* planes) {
  return with_words(format, data, [&](bool rotated, auto* words) {
    return split_kept(words + first, count, rotated, planes);
  });
}

void join_planes(const std::uint8_t* const* planes, std::int64_t count, FloatFormat format,
                 void* out, std::int64_t first) {
  with_words(format, out, [&](bool rotated, auto* words) {
    kernels<WordOf<decltype(words)>>().join(planes, count, rotated, words + first);
  });
}

std::int64_t mask_zeros(const void* data, std::int64_t first, std::int64_t count,
                        FloatFormat format, std::uint8_t* mask) {
  return with_words(format, data, [&](bool, auto* words) {
    return kernels<WordOf<decltype(words)>>().mask(words + first, count, mask);
  });
}

std::int64_t count_ones(const std::uint8_t* mask, std::int64_t first, std::int64_t count) {
  const std::uint8_t* at = mask + first / 8;
  std::int64_t ones = 0;
  for (; count >= 64; count -= 64, at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    ones += std::popcount(word);
  }
  for (; count >= 8; count -= 8, ++at) ones += std::popcount(static_cast<unsigned>(*at));
  if (count > 0) ones += std::popcount(static_cast<unsigned>(*at & ((1 << count) - 1)));
  return ones;
}

void join_kept_planes(const std::uint8_t* const* planes, FloatFormat format,
                      const std::uint8_t* mask, std::int64_t first, std::int64_t last, void* out) {
  with_words(format, out, [&](bool rotated, auto* words) {
    join_kept(planes, rotated, mask, first, last, words);
  });
}

}  // namespace lmgc
