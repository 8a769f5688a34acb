// The `fixed` serializer in vectors of 512 bits: elements to symbols and tails, and back.
#include <cstring>

#include "core/fixed_avx512.h"

namespace lmgc::fixed_avx512 {

// ---- symbols and tails --------------------------------------------------------------------------

namespace {

void put(TailBits& tails, std::uint64_t value, std::uint64_t count) {
  tails.held |= value << tails.used;
  std::memcpy(tails.at, &tails.held, sizeof tails.held);
  tails.used += static_cast<int>(count);
  tails.at += static_cast<unsigned>(tails.used) / 8;
  tails.held >>= tails.used & ~7;
  tails.used %= 8;
}

// Joins pairs of tails that lie `distance` lanes apart, the lower one first.
template <int order>
void join(__m512i& tails, __m512i& counts) {
  tails = _mm512_or_si512(tails, _mm512_sllv_epi64(_mm512_permutex_epi64(tails, order), counts));
  counts = _mm512_add_epi64(counts, _mm512_permutex_epi64(counts, order));
}

// Appends eight tails, several at a time where they are short.
void put_eight(TailBits& out, __m512i tails, __m512i counts) {
  constexpr __mmask8 pairs = 0x55, fours = 0x11;
  const __m512i most = all_64(most_put_bits);
  int step = 1;
  __m512i joined = tails, sums = counts;
  join<0xb1>(joined, sums);
  if ((_mm512_cmpgt_epi64_mask(sums, most) & pairs) == 0) {
    step = 2;
    tails = joined;
    counts = sums;
    join<0x4e>(joined, sums);
    if ((_mm512_cmpgt_epi64_mask(sums, most) & fours) == 0) {
      step = 4;
      tails = joined;
      counts = sums;
    }
  }
  alignas(64) std::uint64_t values[8], lengths[8];
  _mm512_store_si512(values, tails);
  _mm512_store_si512(lengths, counts);
  for (int i = 0; i < 8; i += step) put(out, values[i], lengths[i]);
}

}  // namespace

void split(const FixedRun& run, const FixedBins& bins, const void* words, std::uint8_t* symbols,
           TailBits& tails) {
  const int bits = run.bits;
  const __m512i magnitude_mask = all(static_cast<int>((std::uint32_t{1} << (bits - 1)) - 1));
  const __m512i mantissa_mask = all((1 << run.mantissa) - 1);
  const __m512i implicit = all(1 << run.mantissa);
  const __m512i least = all(run.least), one = all(1);
  const __m128i mantissa_shift = _mm_cvtsi32_si128(run.mantissa);
  for (int i = 0; i < run.count; i += 16) {
    const __mmask16 mask = lanes_from(i, run.count);
    const __m512i word = load_words(mask, words, run.bytes, i);
    const __m512i quantum = _mm512_maskz_loadu_epi32(mask, bins.quantum + i);
    const __m512i place = _mm512_maskz_loadu_epi32(mask, bins.place + i);
    const __m512i magnitude = _mm512_and_si512(word, magnitude_mask);
    const __mmask16 negative =
        _mm512_test_epi32_mask(word, all(static_cast<int>(1u << (bits - 1))));
    const __mmask16 zero = _mm512_cmpeq_epi32_mask(magnitude, all(0));
    const __m512i field = _mm512_srl_epi32(magnitude, mantissa_shift);
    const __mmask16 subnormal = _mm512_cmpeq_epi32_mask(field, all(0));
    const __mmask16 infinite = _mm512_cmpeq_epi32_mask(field, all(run.infinite_field));
    const __m512i below = _mm512_and_si512(word, mantissa_mask);
    const __m512i significand =
        _mm512_mask_or_epi32(below, static_cast<__mmask16>(~subnormal), below, implicit);
    const __m512i exponent = _mm512_sub_epi32(_mm512_max_epi32(field, one), all(run.bias));
    const __m512i down = _mm512_sub_epi32(quantum, _mm512_sub_epi32(exponent, all(run.mantissa)));
    const __m512i n = shift_left(significand, _mm512_sub_epi32(all(0), down));

    // In its bin; or next to zero, where octaves come first.
    const __mmask16 inside = _mm512_cmpgt_epi32_mask(down, all(0));
    const __mmask16 next_to_zero = _mm512_mask_cmpgt_epi32_mask(
        _mm512_mask_cmpeq_epi32_mask(inside, n, all(0)), quantum, least);
    __m512i tail = _mm512_maskz_and_epi32(inside, significand,
                                          _mm512_sub_epi32(_mm512_sllv_epi32(one, down), one));
    __m512i count = _mm512_maskz_mov_epi32(inside, down);
    const __m512i reach = _mm512_sub_epi32(quantum, least);
    __m512i octaves = _mm512_sub_epi32(_mm512_sub_epi32(quantum, one), exponent);
    octaves =
        _mm512_maskz_mov_epi32(next_to_zero, _mm512_mask_mov_epi32(octaves, subnormal, reach));
    const __mmask16 ended = _mm512_mask_cmplt_epi32_mask(
        next_to_zero, octaves, _mm512_min_epi32(reach, all(most_octaves)));
    tail = _mm512_mask_mov_epi32(tail, next_to_zero, below);
    count = _mm512_mask_mov_epi32(count, next_to_zero, all(run.mantissa));

    // Numbers beyond 2^30 are no residual away from any place.
    const __m512i bounded = _mm512_min_epu32(n, all(1 << 30));
    const __m512i own = _mm512_mask_xor_epi32(bounded, negative, bounded, all(-1));
    const __m512i residual = _mm512_sub_epi32(own, place);
    const auto whole = static_cast<__mmask16>(
        ~zero & (infinite | _mm512_cmplt_epi32_mask(down, all(-8)) |
                 _mm512_cmpgt_epi32_mask(octaves, all(most_octaves)) |
                 _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(residual), all(most_residual))));
    __m512i symbol = _mm512_add_epi32(residual, all(symbol_origin));
    symbol = _mm512_mask_mov_epi32(symbol, zero, all(symbol_zero));
    symbol = _mm512_mask_mov_epi32(symbol, static_cast<__mmask16>(zero & negative),
                                   all(symbol_minus_zero));
    symbol = _mm512_mask_mov_epi32(symbol, whole, all(0));
    _mm512_mask_cvtepi32_storeu_epi8(symbols + i, mask, symbol);

    const auto plain = static_cast<__mmask16>(whole | zero);
    octaves = _mm512_mask_mov_epi32(octaves, plain, all(0));
    const __m512i prefix =
        _mm512_maskz_add_epi32(static_cast<__mmask16>(ended & ~plain), octaves, one);
    tail = _mm512_mask_mov_epi32(tail, whole, word);
    count = _mm512_mask_mov_epi32(count, whole, all(bits));
    count = _mm512_mask_mov_epi32(count, static_cast<__mmask16>(zero | ~mask), all(0));
    tail = _mm512_mask_mov_epi32(tail, static_cast<__mmask16>(zero | ~mask), all(0));
    // `prefix` is 0 where no one follows the octaves.
    for (int half = 0; half < 2; ++half) {
      const __m512i zeros = unsigned_half(octaves, half), before = unsigned_half(prefix, half);
      const __m512i length = _mm512_max_epi64(zeros, before);
      const __m512i unary =
          _mm512_maskz_sllv_epi64(_mm512_test_epi64_mask(before, before), all_64(1), zeros);
      put_eight(tails, _mm512_or_si512(unary, _mm512_sllv_epi64(unsigned_half(tail, half), length)),
                _mm512_add_epi64(unsigned_half(count, half), length));
    }
  }
}

// ---- words from symbols and tails ---------------------------------------------------------------

namespace {

// Sums of the lanes before each.
__m512i sums_before(__m512i lanes) {
  const __m512i none = all(0);
  __m512i sums = _mm512_alignr_epi32(lanes, none, 15);
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 15));
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 14));
  sums = _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 12));
  return _mm512_add_epi32(sums, _mm512_alignr_epi32(sums, none, 8));
}

// The bits from `first` on of each lane, at least 57.
__m256i bits_from(const std::uint8_t* data, __m512i first, __m512i count, int half) {
  const __m256i own = half_of(first, half);
  const __m512i loaded = _mm512_i32gather_epi64(_mm256_srli_epi32(own, 3), data, 1);
  const __m512i bits =
      _mm512_srlv_epi64(loaded, _mm512_cvtepu32_epi64(_mm256_and_si256(own, _mm256_set1_epi32(7))));
  const __m512i mask =
      _mm512_sub_epi64(_mm512_sllv_epi64(all_64(1), unsigned_half(count, half)), all_64(1));
  return _mm512_cvtepi64_epi32(_mm512_and_si512(bits, mask));
}

}  // namespace

int join(const FixedRun& run, const FixedBins& bins, const std::uint8_t* symbols, TailSource& tails,
         void* words) {
  constexpr std::uint64_t room = 16 * most_tail_bytes + 2 * sizeof(std::uint64_t);
  const __m512i mantissa_mask = all((1 << run.mantissa) - 1), implicit = all(1 << run.mantissa);
  const __m512i sign = all(static_cast<int>(1u << (run.bits - 1)));
  const __m512i magnitude_mask = all(static_cast<int>((1u << (run.bits - 1)) - 1));
  const __m512i least = all(run.least), mantissa = all(run.mantissa), one = all(1);
  const __m128i mantissa_shift = _mm_cvtsi32_si128(run.mantissa);
  alignas(64) std::int32_t starts[16], limits[16];
  for (int i = 0; i < run.count; i += 16) {
    const std::uint64_t byte = tails.used / 8;
    if (tails.size < room || byte > tails.size - room) return i;
    const std::uint8_t* const data = tails.data + byte;
    const int base = static_cast<int>(tails.used % 8);
    const __mmask16 mask = lanes_from(i, run.count);
    // Lanes that are not there hold zeros, which have no tails.
    const __m512i symbol =
        _mm512_mask_cvtepu8_epi32(all(symbol_zero), mask, _mm_maskz_loadu_epi8(mask, symbols + i));
    const __m512i quantum = _mm512_maskz_loadu_epi32(mask, bins.quantum + i);
    const __mmask16 whole = _mm512_cmpeq_epi32_mask(symbol, all(0));
    const __mmask16 minus_zero = _mm512_cmpeq_epi32_mask(symbol, all(symbol_minus_zero));
    const __mmask16 zero = _mm512_cmpeq_epi32_mask(symbol, all(symbol_zero)) | minus_zero;
    const __m512i place = _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, bins.place + i),
                                           _mm512_sub_epi32(symbol, all(symbol_origin)));
    const __mmask16 negative = _mm512_movepi32_mask(place);
    const __m512i n = _mm512_xor_si512(place, _mm512_srai_epi32(place, 31));
    const __mmask16 no_bin = _mm512_cmpeq_epi32_mask(n, all(0));

    // In a bin away from zero.
    __m512i exponent = _mm512_add_epi32(quantum, _mm512_sub_epi32(all(31), _mm512_lzcnt_epi32(n)));
    exponent = _mm512_max_epi32(_mm512_mask_mov_epi32(exponent, no_bin, least), least);
    const __m512i up = _mm512_add_epi32(_mm512_sub_epi32(quantum, exponent), mantissa);
    __m512i significand = shift_left(n, up);
    __m512i count = _mm512_max_epi32(up, all(0));
    count = _mm512_mask_mov_epi32(count, whole, all(run.bits));
    count = _mm512_mask_mov_epi32(count, zero, all(0));

    // Next to zero: how many octaves come first is only in the bits, one element after the other.
    const auto next_to_zero = static_cast<__mmask16>(
        _mm512_mask_cmpgt_epi32_mask(no_bin, quantum, least) & ~(whole | zero));
    __m512i first = all(0);  // bits of a tail before those of the significand
    if (next_to_zero != 0) {
      const __m512i reach = _mm512_sub_epi32(quantum, least);
      count = _mm512_mask_mov_epi32(count, next_to_zero, mantissa);
      _mm512_store_si512(starts, sums_before(count));
      _mm512_store_si512(limits, _mm512_min_epi32(reach, all(most_octaves)));
      __m512i octaves = all(0);
      int more = base;
      for (unsigned left = next_to_zero; left != 0; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        const int at = starts[lane] + more;
        std::uint64_t bits;
        std::memcpy(&bits, data + at / 8, sizeof bits);
        const int most = limits[lane];
        const int zeros = __builtin_ctzll((bits >> (at % 8)) | std::uint64_t{1} << most);
        const int length = zeros + (zeros < most ? 1 : 0);
        const auto own = static_cast<__mmask16>(1u << lane);
        octaves = _mm512_mask_set1_epi32(octaves, own, zeros);
        first = _mm512_mask_set1_epi32(first, own, length);
        more += length;
      }
      const __mmask16 subnormal = _mm512_mask_cmpeq_epi32_mask(next_to_zero, octaves, reach);
      const __m512i below = _mm512_sub_epi32(_mm512_sub_epi32(quantum, one), octaves);
      exponent = _mm512_mask_mov_epi32(exponent, next_to_zero, below);
      exponent = _mm512_mask_mov_epi32(exponent, subnormal, least);
      significand = _mm512_mask_mov_epi32(significand, next_to_zero, implicit);
      significand = _mm512_mask_mov_epi32(significand, subnormal, all(0));
    }
    const __m512i length = _mm512_add_epi32(first, count);
    const __m512i start = _mm512_add_epi32(sums_before(length), all(base));
    const __m512i at = _mm512_add_epi32(start, first);
    const __m512i tail = _mm512_inserti64x4(_mm512_castsi256_si512(bits_from(data, at, count, 0)),
                                            bits_from(data, at, count, 1), 1);
    const __m512i end = _mm512_add_epi32(start, length);
    tails.used = 8 * byte + static_cast<std::uint64_t>(
                                _mm_extract_epi32(_mm512_extracti32x4_epi32(end, 3), 3));

    significand = _mm512_or_si512(significand, tail);
    const __m512i field = _mm512_maskz_add_epi32(
        _mm512_cmpgt_epi32_mask(significand, mantissa_mask), exponent, all(run.bias));
    __m512i word = _mm512_and_si512(_mm512_or_si512(_mm512_sll_epi32(field, mantissa_shift),
                                                    _mm512_and_si512(significand, mantissa_mask)),
                                    magnitude_mask);
    word = _mm512_mask_or_epi32(word, negative, word, sign);
    word = _mm512_mask_mov_epi32(word, whole, tail);
    word = _mm512_mask_mov_epi32(word, zero, all(0));
    word = _mm512_mask_mov_epi32(word, minus_zero, sign);
    if (run.bytes == 4) {
      _mm512_mask_storeu_epi32(static_cast<std::uint32_t*>(words) + i, mask, word);
    } else {
      _mm512_mask_cvtepi32_storeu_epi16(static_cast<std::uint16_t*>(words) + i, mask, word);
    }
  }
  return run.count;
}

}  // namespace lmgc::fixed_avx512
