// The contexts of sixteen lanes side by side: LaneContext's numbers in vectors, one slot a word.
// Called only where the processor has AVX-512 F, BW, DQ, VL and VNNI.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, PR 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

using Words = __m512i;

Words all(int value) { return _mm512_set1_epi32(value); }
Words field(const SlotLanes& lanes, int which) { return _mm512_load_si512(lanes.side[which]); }
void put(SlotLanes& lanes, int which, Words value) { _mm512_store_si512(lanes.side[which], value); }
// average + (16 magnitude - average) >> speed
template <unsigned speed>
Words drawn(Words average, Words sixteenths) {
  return _mm512_add_epi32(average, _mm512_srai_epi32(_mm512_sub_epi32(sixteenths, average), speed));
}

// host_magnitudes.of[mark], 0 <= mark < 128.
Words magnitudes_of(Words marks) {
  const Words bytes =
      _mm512_i32gather_epi32(_mm512_and_si512(marks, all(~3)), host_magnitudes.of, 1);
  const Words shift = _mm512_slli_epi32(_mm512_and_si512(marks, all(3)), 3);
  return _mm512_and_si512(_mm512_srlv_epi32(bytes, shift), all(0xFF));
}

// The low bytes of four words.
Words bytes_of(Words a, Words b, Words c, Words d) {
  const Words low = all(0xFF);
  const Words ab =
      _mm512_or_si512(_mm512_and_si512(a, low), _mm512_slli_epi32(_mm512_and_si512(b, low), 8));
  const Words cd =
      _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(c, low), 16), _mm512_slli_epi32(d, 24));
  return _mm512_or_si512(ab, cd);
}

// The sums of sixteen slots' eight words each.
Words sums_of(const std::int32_t (&words)[digit_slots][8]) {
  // Pairs of slots s and s + 8, then of halves, quarters and words.
  Words row[8];
  for (int s = 0; s < 8; ++s) {
    row[s] = _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_load_si256(reinterpret_cast<const __m256i*>(words[s]))),
        _mm256_load_si256(reinterpret_cast<const __m256i*>(words[s + 8])), 1);
  }
  Words two[4], four[2];
  for (int s = 0; s < 4; ++s)
    two[s] = _mm512_add_epi32(_mm512_unpacklo_epi32(row[2 * s], row[2 * s + 1]),
                              _mm512_unpackhi_epi32(row[2 * s], row[2 * s + 1]));
  for (int s = 0; s < 2; ++s)
    four[s] = _mm512_add_epi32(_mm512_unpacklo_epi64(two[2 * s], two[2 * s + 1]),
                               _mm512_unpackhi_epi64(two[2 * s], two[2 * s + 1]));
  // Each quarter of four[0] holds slots 0 to 3 (8 to 11), four[1] slots 4 to 7 (12 to 15).
  const Words even = _mm512_shuffle_i32x4(four[0], four[1], 0x88),
              odd = _mm512_shuffle_i32x4(four[0], four[1], 0xDD);
  return _mm512_shuffle_i32x4(_mm512_add_epi32(even, odd), _mm512_add_epi32(even, odd), 0xD8);
}

// What a slot's neighbours are, into its inputs; their values times the filter's coefficients.
__m256i neighbours_of(LaneContext& own, std::int32_t at, std::int32_t tap, std::int8_t* out) {
  static_assert(sizeof(Trace) == 2 && digit_neighbours == 16);
  const Words offset = _mm512_loadu_si512(own.geometry->offset), position = all(at);
  // 1 to `position` symbols back; from there a gather reads the next trace as well.
  const __mmask16 there = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(offset, all(1)), position);
  const Words both = _mm512_mask_i32gather_epi32(all(usual_magnitude << 8), there,
                                                 _mm512_sub_epi32(position, offset), own.traces, 2);
  const __m256i pairs = _mm512_cvtepi32_epi16(both);
  const __m256i values = _mm256_srai_epi16(_mm256_slli_epi16(pairs, 8), 8),
                magnitudes = _mm256_srai_epi16(pairs, 8);
  _mm256_store_si256(reinterpret_cast<__m256i*>(own.seen), values);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out),
                     _mm256_permute4x64_epi64(_mm256_packs_epi16(values, magnitudes), 0xD8));
  return _mm256_madd_epi16(
      values, _mm256_load_si256(reinterpret_cast<const __m256i*>(own.coefficient[tap])));
}

// Words 8 to 12 of every slot's inputs, and zeros up to the end.
void store_words(const Words (&word)[5], std::int8_t* inputs) {
  const Words zero = _mm512_setzero_si512();
  const Words a = _mm512_unpacklo_epi32(word[0], word[1]),
              b = _mm512_unpackhi_epi32(word[0], word[1]),
              c = _mm512_unpacklo_epi32(word[2], word[3]),
              d = _mm512_unpackhi_epi32(word[2], word[3]);
  const Words e = _mm512_unpacklo_epi32(word[4], zero), f = _mm512_unpackhi_epi32(word[4], zero);
  // [k]: of slots 4 j + k, in the quarter j.
  const Words first[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                          _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)};
  const Words second[4] = {_mm512_unpacklo_epi64(e, zero), _mm512_unpackhi_epi64(e, zero),
                           _mm512_unpacklo_epi64(f, zero), _mm512_unpackhi_epi64(f, zero)};
  for (int k = 0; k < 4; ++k) {
    const auto store = [&](int j, __m128i one, __m128i two) {
      auto* const out = reinterpret_cast<__m128i*>(inputs + (4 * j + k) * input_stride) + 2;
      _mm_store_si128(out, one);
      _mm_store_si128(out + 1, two);
    };
    store(0, _mm512_extracti32x4_epi32(first[k], 0), _mm512_extracti32x4_epi32(second[k], 0));
    store(1, _mm512_extracti32x4_epi32(first[k], 1), _mm512_extracti32x4_epi32(second[k], 1));
    store(2, _mm512_extracti32x4_epi32(first[k], 2), _mm512_extracti32x4_epi32(second[k], 2));
    store(3, _mm512_extracti32x4_epi32(first[k], 3), _mm512_extracti32x4_epi32(second[k], 3));
  }
}

std::int32_t at_most(std::int64_t value, std::int32_t most) {
  return value < most ? static_cast<std::int32_t>(value) : most;
}

}  // namespace

void start_avx512(SlotLanes& lanes, int slot) {
  // Lanes are shorter.
  constexpr std::int32_t never = 1 << 30;
  const LaneContext& own = lanes.context[slot];
  const DigitGeometry& geometry = *own.geometry;
  const bool convolution = geometry.taps > 1;
  const auto set = [&](int which, int value) { lanes.side[which][slot] = value; };
  set(SlotLanes::position, 0);
  set(SlotLanes::tap, own.tap);
  set(SlotLanes::taps, geometry.taps);
  set(SlotLanes::columns, at_most(geometry.columns, never));
  set(SlotLanes::columns_left, at_most(geometry.columns - own.column, never));
  set(SlotLanes::row_left, at_most(geometry.columns, never));
  set(SlotLanes::column, at_most(own.column, 7));
  set(SlotLanes::rows, 0);
  set(SlotLanes::fast, own.fast);
  set(SlotLanes::slow, own.slow);
  set(SlotLanes::ahead, own.ahead);
  set(SlotLanes::ahead_back, geometry.columns > 8 ? at_most(geometry.columns - 8, never) : never);
  set(SlotLanes::tap_step, convolution ? geometry.tap_step : 0);
  set(SlotLanes::learns_tap, convolution ? -1 : 0);
  set(SlotLanes::predicted, geometry.kind == DigitKind::unpredicted ? 0 : -1);
  set(SlotLanes::kind_input, geometry.kind == DigitKind::predicted ? 64 : 0);
  set(SlotLanes::factor_input, geometry.kind == DigitKind::factor ? 64 : 0);
  set(SlotLanes::convolution_input, convolution ? 64 : 0);
  set(SlotLanes::flat_input, geometry.flat ? 64 : 0);
}

void look_avx512(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts) {
  alignas(64) std::int32_t products[digit_slots][8], above[digit_slots] = {};
  for (int slot = 0; slot < active; ++slot) {
    LaneContext& own = lanes.context[slot];
    const Known& known = *lanes.known[slot];
    const std::int32_t at = lanes.side[SlotLanes::position][slot],
                       tap = lanes.side[SlotLanes::tap][slot];
    _mm256_store_si256(reinterpret_cast<__m256i*>(products[slot]),
                       neighbours_of(own, at, tap, inputs + slot * input_stride));
    const std::int32_t row_before = at - lanes.side[SlotLanes::ahead_back][slot];
    if (row_before >= 0) above[slot] = own.traces[row_before].magnitude;
    lanes.side[SlotLanes::tap_energy][slot] = own.tap_energy[tap];
    lanes.side[SlotLanes::width][slot] = known.width;
    lanes.side[SlotLanes::fraction][slot] = known.fraction;
    lanes.side[SlotLanes::level][slot] = known.level;
    contexts[slot] = digit_context_table.of(known, own.geometry->kind);
  }
  const Words position = field(lanes, SlotLanes::position);
  Words ahead = field(lanes, SlotLanes::ahead);
  ahead = _mm512_mask_mov_epi32(
      ahead, _mm512_cmpge_epi32_mask(position, field(lanes, SlotLanes::ahead_back)),
      drawn<3>(ahead, _mm512_slli_epi32(_mm512_load_si512(above), 4)));
  put(lanes, SlotLanes::ahead, ahead);
  const Words sum = _mm512_srai_epi32(_mm512_add_epi32(sums_of(products), all(1 << 13)), 14);
  const Words adaptive = _mm512_max_epi32(_mm512_min_epi32(sum, all(127)), all(-127));
  put(lanes, SlotLanes::adaptive, adaptive);

  const Words level = field(lanes, SlotLanes::level);
  const Words fraction = _mm512_and_si512(
      _mm512_sub_epi32(_mm512_slli_epi32(field(lanes, SlotLanes::fraction), 2), all(62)),
      field(lanes, SlotLanes::predicted));
  const auto sixteenth = [](Words energy) { return _mm512_srai_epi32(energy, 4); };
  const Words rows = field(lanes, SlotLanes::rows);
  const Words word[5] = {
      bytes_of(_mm512_slli_epi32(field(lanes, SlotLanes::width), 3), fraction,
               _mm512_add_epi32(level, level), _mm512_slli_epi32(_mm512_abs_epi32(level), 1)),
      bytes_of(sixteenth(field(lanes, SlotLanes::fast)), sixteenth(field(lanes, SlotLanes::slow)),
               sixteenth(field(lanes, SlotLanes::tap_energy)), sixteenth(ahead)),
      bytes_of(adaptive, magnitudes_of(_mm512_abs_epi32(adaptive)),
               field(lanes, SlotLanes::kind_input), field(lanes, SlotLanes::factor_input)),
      bytes_of(field(lanes, SlotLanes::convolution_input), field(lanes, SlotLanes::flat_input),
               _mm512_add_epi32(_mm512_slli_epi32(rows, 4), _mm512_slli_epi32(rows, 3)),
               _mm512_mullo_epi32(field(lanes, SlotLanes::tap), field(lanes, SlotLanes::tap_step))),
      _mm512_slli_epi32(field(lanes, SlotLanes::column), 4)};
  store_words(word, inputs);
}

namespace {

// mark_of() of symbols that are neither a zero nor an escape: 32 (symbol - 129) + 16 - fraction in
// sixteenths of the width, by products of 64 bits.
Words marks_of(Words values, Words width) {
  const Words quarters = _mm512_setr_epi32(1073741824, 902905651, 759250125, 638450708, 0, 0, 0, 0,
                                           0, 0, 0, 0, 0, 0, 0, 0);
  const Words quarter = _mm512_permutexvar_epi32(_mm512_and_si512(width, all(3)), quarters);
  const Words shift = _mm512_add_epi32(_mm512_srai_epi32(width, 2), all(31));
  const Words size = _mm512_abs_epi32(values);
  const Words one = _mm512_set1_epi64(1);
  const auto rounded = [&](Words product, Words by) {
    return _mm512_srlv_epi64(
        _mm512_add_epi64(product, _mm512_sllv_epi64(one, _mm512_sub_epi64(by, one))), by);
  };
  const Words even = rounded(_mm512_mul_epu32(size, quarter),
                             _mm512_and_si512(shift, _mm512_set1_epi64(0xFFFFFFFF)));
  const Words odd =
      rounded(_mm512_mul_epu32(_mm512_srli_epi64(size, 32), _mm512_srli_epi64(quarter, 32)),
              _mm512_srli_epi64(shift, 32));
  const Words mark =
      _mm512_min_epi32(_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32)), all(127));
  return _mm512_mask_sub_epi32(mark, _mm512_movepi32_mask(values), _mm512_setzero_si512(), mark);
}

}  // namespace

void learn_avx512(SlotLanes& lanes, int active, const std::int32_t* symbols) {
  const Words symbol = _mm512_loadu_si512(symbols);
  const Words values =
      _mm512_sub_epi32(_mm512_slli_epi32(_mm512_sub_epi32(symbol, all(symbol_origin)), 5),
                       _mm512_sub_epi32(field(lanes, SlotLanes::fraction), all(16)));
  const __mmask16 zero =
      static_cast<__mmask16>(_mm512_cmpeq_epi32_mask(symbol, all(symbol_zero)) |
                             _mm512_cmpeq_epi32_mask(symbol, all(symbol_minus_zero)));
  Words mark = marks_of(values, field(lanes, SlotLanes::width));
  mark = _mm512_mask_mov_epi32(mark, _mm512_cmpeq_epi32_mask(symbol, all(symbol_escape)), all(127));
  mark = _mm512_mask_mov_epi32(mark, zero, _mm512_setzero_si512());
  const Words magnitude =
      _mm512_mask_mov_epi32(magnitudes_of(_mm512_abs_epi32(mark)), zero, all(zero_magnitude));
  const Words sixteenths = _mm512_slli_epi32(magnitude, 4);
  Words error = _mm512_sub_epi32(mark, field(lanes, SlotLanes::adaptive));
  error = _mm512_max_epi32(_mm512_min_epi32(error, all(64)), all(-64));
  // No step after a zero.
  error = _mm512_mask_mov_epi32(error, zero, _mm512_setzero_si512());
  const Words tap_energy = field(lanes, SlotLanes::tap_energy);
  const Words learned_tap =
      _mm512_mask_mov_epi32(tap_energy, _mm512_movepi32_mask(field(lanes, SlotLanes::learns_tap)),
                            drawn<3>(tap_energy, sixteenths));
  put(lanes, SlotLanes::fast, drawn<3>(field(lanes, SlotLanes::fast), sixteenths));
  put(lanes, SlotLanes::slow, drawn<5>(field(lanes, SlotLanes::slow), sixteenths));

  alignas(64) std::int32_t traces[digit_slots], errors[digit_slots], energies[digit_slots];
  _mm512_store_si512(
      traces, _mm512_or_si512(_mm512_and_si512(mark, all(0xFF)), _mm512_slli_epi32(magnitude, 8)));
  _mm512_store_si512(errors, error);
  _mm512_store_si512(energies, learned_tap);
  for (int slot = 0; slot < active; ++slot) {
    LaneContext& own = lanes.context[slot];
    const std::int32_t tap = lanes.side[SlotLanes::tap][slot];
    const auto trace = static_cast<std::int16_t>(traces[slot]);
    __builtin_memcpy(own.traces + lanes.side[SlotLanes::position][slot], &trace, sizeof trace);
    own.tap_energy[tap] = static_cast<std::int16_t>(energies[slot]);
    auto* const coefficient = reinterpret_cast<__m256i*>(own.coefficient[tap]);
    const __m256i seen = _mm256_load_si256(reinterpret_cast<const __m256i*>(own.seen));
    const __m256i by = _mm256_set1_epi16(static_cast<std::int16_t>(errors[slot]));
    const __m256i change =
        _mm256_sra_epi16(_mm256_mullo_epi16(by, seen), _mm_cvtsi32_si128(own.geometry->slowness));
    _mm256_store_si256(coefficient,
                       _mm256_max_epi16(_mm256_adds_epi16(_mm256_load_si256(coefficient), change),
                                        _mm256_set1_epi16(-32767)));
  }

  const Words one = all(1), none = _mm512_setzero_si512();
  put(lanes, SlotLanes::position, _mm512_add_epi32(field(lanes, SlotLanes::position), one));
  const Words columns = field(lanes, SlotLanes::columns);
  const Words row_left = _mm512_sub_epi32(field(lanes, SlotLanes::row_left), one);
  const __mmask16 next_row = _mm512_testn_epi32_mask(row_left, row_left);
  put(lanes, SlotLanes::row_left, _mm512_mask_mov_epi32(row_left, next_row, columns));
  const Words rows = field(lanes, SlotLanes::rows);
  put(lanes, SlotLanes::rows,
      _mm512_min_epi32(_mm512_mask_add_epi32(rows, next_row, rows, one), all(4)));
  const Words columns_left = _mm512_sub_epi32(field(lanes, SlotLanes::columns_left), one);
  const __mmask16 wraps = _mm512_testn_epi32_mask(columns_left, columns_left);
  put(lanes, SlotLanes::columns_left, _mm512_mask_mov_epi32(columns_left, wraps, columns));
  put(lanes, SlotLanes::column,
      _mm512_mask_mov_epi32(
          _mm512_min_epi32(_mm512_add_epi32(field(lanes, SlotLanes::column), one), all(7)), wraps,
          none));
  const Words tap = _mm512_add_epi32(field(lanes, SlotLanes::tap), one);
  put(lanes, SlotLanes::tap,
      _mm512_mask_mov_epi32(
          tap, _mm512_cmpeq_epi32_mask(tap, field(lanes, SlotLanes::taps)) | wraps, none));
}

}  // namespace lmgc
