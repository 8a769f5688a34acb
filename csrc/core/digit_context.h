// What method `lm` knows of a symbol (two hexadecimal digits of the `fixed` serializer) before it
// is coded: its width and place, and the symbols before it in its lane, as small integers. A prior
// asks for them by name; docs/prior.md, "Context features of method lm", defines each.
//
// A symbol that is coded leaves a *mark*: its residual in sixteenths of its width, a signed byte.
// Marks are comparable wherever they come from, because every width is its own line's.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/host_device.h"
#include "core/mixture.h"

#if defined(__SSE2__) && !defined(__CUDA_ARCH__)
#include <emmintrin.h>
#define LMGC_DIGIT_SSE2 1
#endif

namespace lmgc {

// What a matrix of symbols holds.
enum class DigitKind : std::uint8_t {
  unpredicted = 0,  // residuals of method scale
  predicted = 1,    // residuals of a low-rank prediction
  factor = 2        // entries of a factor
};

// What both sides know of one symbol.
struct Known {
  std::int8_t width = 0;      // of its distribution, in quarter octaves of bins, -16 to 15
  std::uint8_t fraction = 0;  // where in its bin the prediction lies, in 32nds
  std::int8_t level = 0;      // of the prediction next to the scale, quarter octaves + 24, +-63
};

inline constexpr int least_known_width = -16;
inline constexpr int most_known_width = 15;

LMGC_HD constexpr std::int8_t known_width(int width) {
  return static_cast<std::int8_t>(width < least_known_width  ? least_known_width
                                  : width > most_known_width ? most_known_width
                                                             : width);
}

// Contexts of all kinds, side by side: those of Fraction::varies, then those of Fraction::edge.
inline constexpr int digit_contexts = most_contexts + (most_width - least_width + 1);

LMGC_HD constexpr int digit_context(const Known& known, DigitKind kind) {
  return kind == DigitKind::unpredicted ? most_contexts + context_of(known.width, 0, Fraction::edge)
                                        : context_of(known.width, known.fraction, Fraction::varies);
}

// digit_context() by one look into a table.
struct DigitContextTable {
  static constexpr int widths = most_known_width - least_known_width + 1;
  std::uint8_t rows[2][widths][32];

  [[gnu::always_inline]] std::int32_t of(const Known& known, DigitKind kind) const {
    return rows[kind == DigitKind::unpredicted][known.width - least_known_width][known.fraction];
  }
};
constexpr DigitContextTable make_digit_context_table() {
  DigitContextTable table{};
  for (int width = least_known_width; width <= most_known_width; ++width) {
    for (int fraction = 0; fraction < 32; ++fraction) {
      const Known known{static_cast<std::int8_t>(width), static_cast<std::uint8_t>(fraction), 0};
      table.rows[0][width - least_known_width][fraction] =
          static_cast<std::uint8_t>(digit_context(known, DigitKind::predicted));
      table.rows[1][width - least_known_width][fraction] =
          static_cast<std::uint8_t>(digit_context(known, DigitKind::unpredicted));
    }
  }
  return table;
}
inline constexpr DigitContextTable digit_context_table = make_digit_context_table();

// ---- marks --------------------------------------------------------------------------------------

inline constexpr int zero_mark = -128;      // of an exact zero, either sign
inline constexpr int usual_magnitude = 26;  // of a neighbour that does not exist
inline constexpr int zero_magnitude = -32;

// The nearest integer to 8 log2(1 + i).
struct MagnitudeTable {
  std::int8_t of[128];
};
inline constexpr MagnitudeTable host_magnitudes = {
    {0,  8,  13, 16, 19, 21, 22, 24, 25, 27, 28, 29, 30, 30, 31, 32, 33, 33, 34, 35, 35, 36,
     36, 37, 37, 38, 38, 38, 39, 39, 40, 40, 40, 41, 41, 41, 42, 42, 42, 43, 43, 43, 43, 44,
     44, 44, 44, 45, 45, 45, 45, 46, 46, 46, 46, 46, 47, 47, 47, 47, 47, 48, 48, 48, 48, 48,
     49, 49, 49, 49, 49, 49, 50, 50, 50, 50, 50, 50, 50, 51, 51, 51, 51, 51, 51, 51, 52, 52,
     52, 52, 52, 52, 52, 52, 53, 53, 53, 53, 53, 53, 53, 53, 53, 54, 54, 54, 54, 54, 54, 54,
     54, 54, 55, 55, 55, 55, 55, 55, 55, 55, 55, 55, 56, 56, 56, 56, 56, 56}};
#if defined(__CUDACC__)
__device__ constexpr MagnitudeTable device_magnitudes = host_magnitudes;
#endif

LMGC_HD inline int mark_value(int mark) { return mark == zero_mark ? 0 : mark; }
LMGC_HD inline int mark_magnitude(int mark) {
  if (mark == zero_mark) return zero_magnitude;
  const int size = mark < 0 ? -mark : mark;
#if defined(__CUDA_ARCH__)
  return device_magnitudes.of[size];
#else
  return host_magnitudes.of[size];
#endif
}

LMGC_HD inline int mark_of(int symbol, const Known& known) {
  if (symbol == symbol_zero || symbol == symbol_minus_zero) return zero_mark;
  if (symbol == symbol_escape) return 127;
  // round(2^30 * 2^(-i / 4))
  constexpr std::int64_t quarter_powers[4] = {1073741824, 902905651, 759250125, 638450708};
  const int value = 32 * (symbol - symbol_origin) + 16 - known.fraction;
  const int shift = 31 + (known.width >> 2);
  const std::int64_t size = value < 0 ? -value : value;
  std::int64_t mark =
      (size * quarter_powers[known.width & 3] + (std::int64_t{1} << (shift - 1))) >> shift;
  mark = mark > 127 ? 127 : mark;
  return static_cast<int>(value < 0 ? -mark : mark);
}

// ---- geometry -----------------------------------------------------------------------------------

inline constexpr int digit_neighbours = 16;

// What is kept of a coded symbol: its mark's value and magnitude, as neighbours see them.
struct Trace {
  std::int8_t value, magnitude;
};
inline constexpr int most_digit_taps = 64;

// How the symbols of a matrix lie to each other.
struct DigitGeometry {
  std::int64_t columns = 1;
  std::int32_t taps = 1;  // columns from one channel to the next, 1: none
  DigitKind kind = DigitKind::unpredicted;
  bool flat = false;
  std::int32_t tap_step = 64;  // of the input that tells the place in a kernel: 64 / taps
  std::int32_t slowness = 4;   // of the adaptive prediction: how far its steps are shifted down
  std::int32_t offset[digit_neighbours] = {};  // how many symbols back; below 1: never there
};

// `taps` as far as it suits the columns.
DigitGeometry digit_geometry(std::int64_t columns, std::int64_t taps, DigitKind kind, bool flat);

// ---- features -----------------------------------------------------------------------------------

// `digit` and `context`, then what networks take: 16 values, 16 magnitudes, 17 others.
inline constexpr int digit_inputs = 2 * digit_neighbours + 17;
inline constexpr int digit_feature_count = 2 + digit_inputs;
// Names in order; the first is "digit".
extern const std::array<std::string_view, digit_feature_count> digit_feature_names;
// The index of a name; -1 when there is none.
int find_digit_feature(std::string_view name);

LMGC_HD constexpr int clamp_to(int value, int least, int most) {
  return value < least ? least : value > most ? most : value;
}

// The feature with this index, of a symbol's digit 0 (high) or 1; `inputs` as LaneContext gives
// them.
LMGC_HD inline std::int16_t digit_feature(int feature, int digit, const Known& known,
                                          DigitKind kind, const std::int8_t* inputs) {
  return static_cast<std::int16_t>(feature == 0   ? digit
                                   : feature == 1 ? digit_context(known, kind)
                                                  : inputs[feature - 2]);
}

// The symbols of one lane so far. Start, and then for each symbol in order: inputs(), update().
// `traces` has room for all symbols of the lane.
struct LaneContext {
  const DigitGeometry* geometry = nullptr;
  Trace* traces = nullptr;
  std::int32_t position = 0;  // in the lane
  std::int32_t tap = 0;       // column mod taps
  std::int32_t rows = 0;      // position / columns, at most 4
  std::int64_t column = 0;
  std::int64_t next_row = 0;                   // the position where `rows` grows
  std::int32_t fast = 0, slow = 0, ahead = 0;  // energies: averages of 16 magnitude
  std::int32_t adaptive = 0;
  // Of the adaptive prediction: a set for each place in a kernel.
  alignas(32) std::int16_t coefficient[most_digit_taps][digit_neighbours] = {};
  alignas(32) std::int16_t seen[digit_neighbours] = {};  // the neighbours' values
  std::int16_t tap_energy[most_digit_taps];

  static constexpr int usual_energy = 16 * usual_magnitude;

  LMGC_HD void start(const DigitGeometry& of, std::int64_t first, Trace* room) {
    *this = LaneContext{};
    geometry = &of;
    traces = room;
    column = first % of.columns;
    tap = static_cast<std::int32_t>(column % of.taps);
    next_row = of.columns;
    fast = slow = ahead = usual_energy;
    for (int i = 0; i < of.taps; ++i) tap_energy[i] = usual_energy;
  }

  // Writes what networks take, digit_inputs bytes, for the next symbol.
  LMGC_HD void inputs(const Known& known, std::int8_t* out) {
    const DigitGeometry& own = *geometry;
    const std::int64_t look = own.columns - 8;
    if (look >= 1 && position >= look)
      ahead += (16 * traces[position - look].magnitude - ahead) >> 3;
    look_around(out);
    adaptive = clamp_to((weighted_sum() + (1 << 13)) >> 14, -127, 127);
    const bool convolution = own.taps > 1;
    const auto put = [out](int i, int value) {
      out[2 * digit_neighbours + i] = static_cast<std::int8_t>(value);
    };
    put(0, 8 * known.width);
    put(1, own.kind == DigitKind::unpredicted ? 0 : 4 * known.fraction - 62);
    put(2, 2 * known.level);
    put(3, 2 * (known.level < 0 ? -known.level : known.level));
    put(4, fast >> 4);
    put(5, slow >> 4);
    put(6, (convolution ? tap_energy[tap] : usual_energy) >> 4);
    put(7, ahead >> 4);
    put(8, adaptive);
    put(9, mark_magnitude(adaptive));
    put(10, own.kind == DigitKind::predicted ? 64 : 0);
    put(11, own.kind == DigitKind::factor ? 64 : 0);
    put(12, convolution ? 64 : 0);
    put(13, own.flat ? 64 : 0);
    put(14, 24 * rows);
    put(15, convolution ? tap * own.tap_step : 0);
    put(16, 16 * static_cast<int>(column < 7 ? column : 7));
  }

  // Takes the symbol in.
  LMGC_HD void update(const Known& known, int symbol) {
    const int mark = mark_of(symbol, known);
    const int value = mark_value(mark), magnitude = mark_magnitude(mark);
    traces[position] = {static_cast<std::int8_t>(value), static_cast<std::int8_t>(magnitude)};
    if (mark != zero_mark) {
      adapt(clamp_to(value - adaptive, -64, 64));
    }
    fast += (16 * magnitude - fast) >> 3;
    slow += (16 * magnitude - slow) >> 5;
    if (geometry->taps > 1) {
      const int before = tap_energy[tap];
      tap_energy[tap] = static_cast<std::int16_t>(before + ((16 * magnitude - before) >> 3));
    }
    ++position;
    if (position == next_row && rows < 4) {
      ++rows;
      next_row += geometry->columns;
    }
    if (++tap == geometry->taps) tap = 0;
    if (++column == geometry->columns) {
      column = 0;
      tap = 0;
    }
  }

 private:
  // Fills `seen`, and the neighbours' values and magnitudes of the inputs.
  LMGC_HD void look_around(std::int8_t* out) {
    const std::int32_t* const offset = geometry->offset;
    // Without a branch: where lanes are short, rows above come into reach at every other position.
    const Trace missing{0, std::int8_t{usual_magnitude}};
    const auto trace = [&](int n) {
      const bool there = offset[n] > 0 && offset[n] <= position;
      return there ? traces + (position - offset[n]) : &missing;
    };
#if defined(LMGC_DIGIT_SSE2)
    __m128i half[2];
    for (int h = 0; h < 2; ++h) {
      const auto both = [&](int n) {
        std::int16_t bits;
        memcpy(&bits, trace(8 * h + n), sizeof bits);
        return bits;
      };
      half[h] =
          _mm_set_epi16(both(7), both(6), both(5), both(4), both(3), both(2), both(1), both(0));
    }
    const auto value = [](__m128i both) { return _mm_srai_epi16(_mm_slli_epi16(both, 8), 8); };
    const auto magnitude = [](__m128i both) { return _mm_srai_epi16(both, 8); };
    const __m128i low = value(half[0]), high = value(half[1]);
    _mm_store_si128(reinterpret_cast<__m128i*>(seen), low);
    _mm_store_si128(reinterpret_cast<__m128i*>(seen) + 1, high);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packs_epi16(low, high));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + digit_neighbours),
                     _mm_packs_epi16(magnitude(half[0]), magnitude(half[1])));
#else
    for (int n = 0; n < digit_neighbours; ++n) {
      const Trace own = *trace(n);
      seen[n] = own.value;
      out[n] = own.value;
      out[digit_neighbours + n] = own.magnitude;
    }
#endif
  }

  // The adaptive prediction: least mean squares over the neighbours' values, in integers.
  LMGC_HD std::int32_t weighted_sum() const {
#if defined(LMGC_DIGIT_SSE2)
    const auto* const c = reinterpret_cast<const __m128i*>(coefficient[tap]);
    const auto* const s = reinterpret_cast<const __m128i*>(seen);
    __m128i sum = _mm_add_epi32(_mm_madd_epi16(_mm_load_si128(c), _mm_load_si128(s)),
                                _mm_madd_epi16(_mm_load_si128(c + 1), _mm_load_si128(s + 1)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(sum);
#else
    std::int32_t sum = 0;
    for (int n = 0; n < digit_neighbours; ++n) sum += coefficient[tap][n] * seen[n];
    return sum;
#endif
  }
  // error * seen is below 2^13: 16 bits hold it.
  LMGC_HD void adapt(int error) {
#if defined(LMGC_DIGIT_SSE2)
    const __m128i by = _mm_set1_epi16(static_cast<std::int16_t>(error));
    const __m128i least = _mm_set1_epi16(-32767);
    for (int half = 0; half < 2; ++half) {
      auto* const c = reinterpret_cast<__m128i*>(coefficient[tap]) + half;
      const __m128i s = _mm_load_si128(reinterpret_cast<const __m128i*>(seen) + half);
      const __m128i change = _mm_srai_epi16(_mm_mullo_epi16(by, s), geometry->slowness);
      _mm_store_si128(c, _mm_max_epi16(_mm_adds_epi16(_mm_load_si128(c), change), least));
    }
#else
    for (int n = 0; n < digit_neighbours; ++n) {
      std::int16_t& own = coefficient[tap][n];
      own = static_cast<std::int16_t>(
          clamp_to(own + ((error * seen[n]) >> geometry->slowness), -32767, 32767));
    }
#endif
  }
};

}  // namespace lmgc
