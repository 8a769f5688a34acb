// Sixteen range coders side by side: RangeEncoder::put() and RangeDecoder's target() and take().
// Called only where the processor has AVX-512 F, BW, DQ, VL and VNNI.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

using Words = __m512i;

// Numbers of 64 bits, of eight slots each.
constexpr int eight = 8;
Words wide(const Words& words, int half) {
  return _mm512_cvtepu32_epi64(half == 0 ? _mm512_castsi512_si256(words)
                                         : _mm512_extracti64x4_epi64(words, 1));
}
Words load(const std::uint64_t* from, int half) { return _mm512_load_si512(from + eight * half); }
void store(std::uint64_t* to, int half, Words x) { _mm512_store_si512(to + eight * half, x); }

// Where the digits' intervals begin, and how long they are.
struct Intervals {
  Words start, frequency;
};
Intervals intervals_of(const SlotStarts& starts, Words digits) {
  const Words slot = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const Words at = _mm512_add_epi32(_mm512_slli_epi32(digits, 4), slot);
  static_assert(digit_slots == 16);
  const Words start = _mm512_i32gather_epi32(at, starts.of, 4),
              end = _mm512_i32gather_epi32(at, starts.of + digit_slots, 4);
  return {start, _mm512_sub_epi32(end, start)};
}

Words least_range() { return _mm512_set1_epi64(std::int64_t{1} << 48); }

// floor(code / part), at most 2^16 - 1; 2^32 <= part < 2^48.
Words targets_of(Words code, Words part) {
  // Below 2^32, off by one at most.
  Words guess =
      _mm512_cvttpd_epu64(_mm512_div_pd(_mm512_cvtepu64_pd(code), _mm512_cvtepu64_pd(part)));
  const Words rest = _mm512_sub_epi64(code, _mm512_mullo_epi64(guess, part));
  const Words one = _mm512_set1_epi64(1);
  guess = _mm512_mask_add_epi64(guess, _mm512_cmpge_epi64_mask(rest, part), guess, one);
  guess = _mm512_mask_sub_epi64(guess, _mm512_movepi64_mask(rest), guess, one);
  return _mm512_min_epu64(guess, _mm512_set1_epi64(cdf_total - 1));
}

}  // namespace

void encode_avx512(SlotCoders& coders, int active, const SlotStarts& starts,
                   const std::int32_t* digits) {
  const Intervals of = intervals_of(starts, _mm512_loadu_si512(digits));
  alignas(64) std::uint64_t words[digit_slots];
  unsigned carries = 0, due = 0;
  for (int half = 0; half < 2; ++half) {
    const Words part = _mm512_srli_epi64(load(coders.range, half), cdf_bits);
    const Words more = _mm512_mullo_epi64(part, wide(of.start, half));
    const Words low = _mm512_add_epi64(load(coders.low, half), more);
    const Words range = _mm512_mullo_epi64(part, wide(of.frequency, half));
    const __mmask8 small = _mm512_cmplt_epu64_mask(range, least_range());
    carries |= static_cast<unsigned>(_mm512_cmplt_epu64_mask(low, more)) << (eight * half);
    due |= static_cast<unsigned>(small) << (eight * half);
    store(words, half, _mm512_srli_epi64(low, 48));
    store(coders.low, half, _mm512_mask_slli_epi64(low, small, low, 16));
    store(coders.range, half, _mm512_mask_slli_epi64(range, small, range, 16));
  }
  for (carries &= (1u << active) - 1; carries != 0; carries &= carries - 1) {
    // The code is below 1, so a carry always finds a byte below 255 to stop at.
    std::uint8_t* last = coders.out[__builtin_ctz(carries)] - 1;
    while (*last == 0xFF) *last-- = 0;
    ++*last;
  }
  // Written whether they are due or not: no branch to mispredict.
  for (int slot = 0; slot < active; ++slot) {
    std::uint8_t* const out = coders.out[slot];
    const std::uint16_t word = __builtin_bswap16(static_cast<std::uint16_t>(words[slot]));
    __builtin_memcpy(out, &word, sizeof word);
    coders.out[slot] = out + 2 * (due >> slot & 1);
  }
}

void decode_avx512(SlotCoders& coders, int active, const SlotStarts& starts, std::int32_t* digits) {
  Words part[2], target[2];
  for (int half = 0; half < 2; ++half) {
    part[half] = _mm512_srli_epi64(load(coders.range, half), cdf_bits);
    target[half] = targets_of(load(coders.low, half), part[half]);
  }
  const Words targets = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(target[0])),
                                           _mm512_cvtepi64_epi32(target[1]), 1);
  // The last digit that starts at or before its target.
  Words digit = _mm512_setzero_si512();
  const Words one = _mm512_set1_epi32(1);
  for (int d = 1; d < digits_of; ++d) {
    const Words start = _mm512_load_si512(starts.of + d * digit_slots);
    digit = _mm512_mask_add_epi32(digit, _mm512_cmple_epi32_mask(start, targets), digit, one);
  }
  _mm512_storeu_si512(digits, digit);
  const Intervals of = intervals_of(starts, digit);
  unsigned due = 0;
  for (int half = 0; half < 2; ++half) {
    const Words code = _mm512_sub_epi64(load(coders.low, half),
                                        _mm512_mullo_epi64(part[half], wide(of.start, half)));
    const Words range = _mm512_mullo_epi64(part[half], wide(of.frequency, half));
    const __mmask8 small = _mm512_cmplt_epu64_mask(range, least_range());
    due |= static_cast<unsigned>(small) << (eight * half);
    store(coders.low, half, _mm512_mask_slli_epi64(code, small, code, 16));
    store(coders.range, half, _mm512_mask_slli_epi64(range, small, range, 16));
  }
  for (due &= (1u << active) - 1; due != 0; due &= due - 1) {
    const int slot = __builtin_ctz(due);
    const std::uint8_t* const in = coders.in[slot];
    const auto left = coders.end[slot] - in;
    // Bytes past the end read as zero.
    coders.low[slot] |= static_cast<std::uint64_t>(left > 0 ? in[0] : 0) << 8 |
                        static_cast<std::uint64_t>(left > 1 ? in[1] : 0);
    coders.in[slot] = in + (left > 2 ? 2 : left);
  }
}

}  // namespace lmgc
