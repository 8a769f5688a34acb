#include "core/plane_bytes.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lmgc {
namespace {

constexpr std::int64_t tile = 2048;  // elements whose words stay in the first-level cache

struct Word128 {
  std::uint64_t low, high;
};

bool is_zero(Word128 word) { return (word.low | word.high) == 0; }
template <class Word>
bool is_zero(Word word) {
  return word == 0;
}

// ---- split --------------------------------------------------------------------------------------

template <bool rotated, class Word>
void split_words(const Word* words, std::int64_t count, std::uint8_t* const* planes) {
  for (int plane = 0; plane < static_cast<int>(sizeof(Word)); ++plane) {
    std::uint8_t* const out = planes[plane];
    if (out == nullptr) continue;
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

template <bool rotated, class Word>
void split_tiles(const Word* words, std::int64_t count, std::uint8_t* const* planes) {
  std::uint8_t* at[most_planes];
  std::copy(planes, planes + sizeof(Word), at);
  for (std::int64_t done = 0; done < count; done += tile) {
    split_words<rotated>(words + done, std::min(tile, count - done), at);
    for (std::size_t p = 0; p < sizeof(Word); ++p) at[p] += at[p] ? tile : 0;
  }
}

template <bool rotated, class Word>
std::int64_t split_kept(const Word* words, std::int64_t count, std::uint8_t* const* planes) {
  std::uint8_t* at[most_planes];
  std::copy(planes, planes + sizeof(Word), at);
  Word kept[tile];
  std::int64_t all = 0;
  for (std::int64_t done = 0; done < count; done += tile) {
    const std::int64_t end = std::min(done + tile, count);
    std::int64_t own = 0;
    for (std::int64_t i = done; i < end; ++i) {
      kept[own] = words[i];
      own += is_zero(words[i]) ? 0 : 1;
    }
    split_words<rotated>(kept, own, at);
    for (std::size_t p = 0; p < sizeof(Word); ++p) at[p] += at[p] ? own : 0;
    all += own;
  }
  return all;
}

// ---- join ---------------------------------------------------------------------------------------

template <bool rotated, class Word>
void join_words(const std::uint8_t* const* planes, std::int64_t count, Word* __restrict out) {
  if constexpr (sizeof(Word) == 16) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(out);
    for (int plane = 0; plane < 16; ++plane) {
      const std::uint8_t* const in = planes[plane];
      for (std::int64_t i = 0; i < count; ++i) bytes[16 * i + plane] = in[i];
    }
  } else {
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
}

template <class Word>
void expand_bits(const Word*& words, const std::uint8_t* mask, std::int64_t first,
                 std::int64_t last, Word* out) {
  for (std::int64_t i = first; i < last; ++i) {
    const bool kept = mask[i >> 3] >> (i & 7) & 1;
    out[i] = kept ? *words : Word{};
    words += kept ? 1 : 0;
  }
}

// Reads one word beyond those that the mask asks for.
template <class Word>
void expand(const Word* words, const std::uint8_t* mask, std::int64_t first, std::int64_t last,
            Word* out) {
  const std::int64_t whole_first = std::min((first + 7) & ~std::int64_t{7}, last);
  const std::int64_t whole_last = std::max(last & ~std::int64_t{7}, whole_first);
  expand_bits(words, mask, first, whole_first, out);
  for (std::int64_t i = whole_first; i < whole_last; i += 8) {
    const std::uint8_t bits = mask[i >> 3];
    if (bits == 0xFF) {
      std::memcpy(out + i, words, 8 * sizeof(Word));
      words += 8;
    } else if (bits == 0) {
      std::memset(static_cast<void*>(out + i), 0, 8 * sizeof(Word));
    } else {
      for (int j = 0; j < 8; ++j) {
        const bool kept = bits >> j & 1;
        out[i + j] = kept ? *words : Word{};
        words += kept ? 1 : 0;
      }
    }
  }
  expand_bits(words, mask, whole_last, last, out);
}

template <bool rotated, class Word>
void join_kept(const std::uint8_t* const* planes, const std::uint8_t* mask, std::int64_t first,
               std::int64_t last, Word* out) {
  const std::uint8_t* at[most_planes];
  std::copy(planes, planes + sizeof(Word), at);
  Word words[tile + 1];
  words[0] = Word{};
  while (first < last) {
    const std::int64_t end = std::min(last, (first + tile) & ~std::int64_t{7});
    const std::int64_t aligned = first & ~std::int64_t{7};
    std::int64_t ones = count_ones(mask, aligned, end - aligned);
    if (first != aligned) {
      ones -= std::popcount(static_cast<unsigned>(mask[first >> 3] & ((1 << (first & 7)) - 1)));
    }
    join_words<rotated>(at, ones, words);
    words[ones] = Word{};
    expand(words, mask, first, end, out);
    for (std::size_t p = 0; p < sizeof(Word); ++p) at[p] += ones;
    first = end;
  }
}

// Calls body(rotated, words) with the constant and the pointer type that fit the format.
template <class Pointer, class Body>
auto with_words(FloatFormat format, Pointer data, Body body) {
  constexpr bool constant = std::is_const_v<std::remove_pointer_t<Pointer>>;
  const auto typed = [&]<class Word>(Word) {
    using Words = std::conditional_t<constant, const Word*, Word*>;
    return static_cast<Words>(data);
  };
  using Rotated = std::true_type;
  using Plain = std::false_type;
  switch (format.bytes) {
    case 1:
      return body(Plain{}, typed(std::uint8_t{}));
    case 2:
      return format.is_float() ? body(Rotated{}, typed(std::uint16_t{}))
                               : body(Plain{}, typed(std::uint16_t{}));
    case 4:
      return format.is_float() ? body(Rotated{}, typed(std::uint32_t{}))
                               : body(Plain{}, typed(std::uint32_t{}));
    case 8:
      return format.is_float() ? body(Rotated{}, typed(std::uint64_t{}))
                               : body(Plain{}, typed(std::uint64_t{}));
    default:
      return body(Plain{}, typed(Word128{}));
  }
}

}  // namespace

void split_planes(const void* data, std::int64_t first, std::int64_t count, FloatFormat format,
                  std::uint8_t* const* planes) {
  with_words(format, data, [&](auto rotated, const auto* words) {
    split_tiles<rotated.value>(words + first, count, planes);
  });
}

std::int64_t split_kept_planes(const void* data, std::int64_t first, std::int64_t count,
                               FloatFormat format, std::uint8_t* const* planes) {
  return with_words(format, data, [&](auto rotated, const auto* words) {
    return split_kept<rotated.value>(words + first, count, planes);
  });
}

void join_planes(const std::uint8_t* const* planes, std::int64_t count, FloatFormat format,
                 void* out, std::int64_t first) {
  with_words(format, out, [&](auto rotated, auto* words) {
    join_words<rotated.value>(planes, count, words + first);
  });
}

std::int64_t mask_zeros(const void* data, std::int64_t first, std::int64_t count,
                        FloatFormat format, std::uint8_t* mask) {
  return with_words(format, data, [&](auto, const auto* words) {
    words += first;
    std::int64_t ones = 0;
    for (std::int64_t i = 0; i < count; i += 8) {
      const std::int64_t own = std::min<std::int64_t>(8, count - i);
      unsigned bits = 0;
      for (std::int64_t j = 0; j < own; ++j) bits |= (is_zero(words[i + j]) ? 0u : 1u) << j;
      mask[i >> 3] = static_cast<std::uint8_t>(bits);
      ones += std::popcount(bits);
    }
    return ones;
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
  with_words(format, out, [&](auto rotated, auto* words) {
    join_kept<rotated.value>(planes, mask, first, last, words);
  });
}

}  // namespace lmgc
