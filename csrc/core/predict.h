// What both sides know about an element before it is coded: the tensor's shape as a matrix, its row
// and column scales (side information), and the neighbours already decoded. From these come the
// `context_features` a prior may ask for.
//
// Levels measure magnitude in eighths of an octave, straight from the bits of a float: level =
// exponent field * 8 + the top three mantissa bits (piecewise linear between powers of two).
// Everything here is integer arithmetic.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/float_format.h"
#include "core/host_device.h"
#include "core/integer_math.h"
#include "core/status.h"

namespace lmgc {

inline constexpr int levels_per_octave = 8;
inline constexpr int levels_per_scale_step = 2;  // scales are stored in quarter octaves
inline constexpr int neighbours = 16;

// A tensor seen as a matrix: dimension 0 by the rest. Tensors with one dimension, one row, or rows
// shorter than 16 are `flat`: rows of 256 consecutive elements without column scales.
struct MatrixShape {
  std::int64_t elements = 0;
  std::int64_t rows = 0;     // the last one may be short when flat
  std::int64_t columns = 1;  // elements in a row, >= 1
  std::int64_t taps = 1;     // elements of one kernel: the product of the sizes after dimension 1
  bool flat = true;
  bool has_column_scales = false;
};

// `sizes` holds `dimensions` non-negative sizes whose product fits int64.
MatrixShape matrix_shape(const std::int64_t* sizes, std::size_t dimensions);

// How many elements back each neighbour lies; an entry <= 0 is a neighbour that this shape does not
// have.
struct NeighbourOffsets {
  std::int64_t back[neighbours];
};
NeighbourOffsets neighbour_offsets(const MatrixShape& shape);

// Magnitude of a word in levels; 0 for zero (and for the smallest subnormals).
LMGC_HD inline std::int32_t level_of(std::uint64_t word, FloatFormat format) {
  const std::uint64_t magnitude = word & ((std::uint64_t{1} << (format.bits() - 1)) - 1);
  return static_cast<std::int32_t>(magnitude >> (format.mantissa_bits - 3));
}

LMGC_HD constexpr std::int32_t max_level(FloatFormat format) {
  return (8 << format.exponent_bits) - 1;
}

// One tensor as the feature functions see it. `words` holds the elements, of which only the bits in
// `known` are looked at: those that the decoder has when it needs them.
struct TensorContext {
  const void* words = nullptr;
  std::uint64_t known = ~std::uint64_t{0};
  const std::int16_t* row_scales =
      nullptr;  // quarter octaves, one a row; null: no scales (reference is 0)
  const std::int16_t* column_scales = nullptr;  // null: none
  std::int64_t columns = 1;
  NeighbourOffsets offsets{};
  FloatFormat format{};
  std::uint8_t taps = 1;  // at most 16
  bool flat = true;

  LMGC_HD std::int32_t reference(std::int64_t index) const {
    if (row_scales == nullptr) return 0;
    const std::int64_t row = index / columns;
    std::int32_t scale = row_scales[row];
    if (column_scales != nullptr) scale += column_scales[index - row * columns];
    const std::int32_t level = scale * levels_per_scale_step;
    return level < 0 ? 0 : level > max_level(format) ? max_level(format) : level;
  }
};

// A feature a prior may ask for. The kinds up to `flat` have no neighbour.
struct Feature {
  enum Kind : std::uint8_t {
    digit,
    exponent_bits,
    mantissa_bits,
    reference,
    taps,
    flat,
    neighbour_level,
    neighbour_value
  };
  Kind kind;
  std::uint8_t neighbour;  // index into NeighbourOffsets
};

// The feature called `name`; false when there is none. docs/prior.md lists the names.
bool find_feature(std::string_view name, Feature& feature);

// Signed linear magnitude of a neighbour `relative` levels above the reference: 8 at the reference,
// at most 127.
LMGC_HD inline std::int32_t linear_magnitude(std::int32_t relative) {
  const std::int32_t octave = relative >> 3;
  const std::int32_t fraction = levels_per_octave + (relative & 7);
  const std::int32_t value = octave >= 0 ? fraction << octave : fraction >> -octave;
  return value > 127 ? 127 : value;
}

// A neighbour as features tell of it.
struct NeighbourView {
  std::int32_t level = 0;  // above the reference, within [-63, 63]; -64: zero; 0: there is none
  std::int32_t value = 0;  // signed linear magnitude; 0: zero or none
};

// The neighbour of element `index` that lies `back` elements before it, if it is in the same lane.
LMGC_HD inline NeighbourView view_neighbour(const TensorContext& tensor, std::int64_t index,
                                            std::int64_t back, std::int64_t lane_first,
                                            std::int32_t reference) {
  if (!tensor.format.is_float() || back <= 0 || back > index - lane_first) return {};
  const std::uint64_t word =
      load_word(tensor.words, tensor.format.bytes, index - back) & tensor.known;
  const std::uint64_t sign = std::uint64_t{1} << (tensor.format.bits() - 1);
  if ((word & (sign - 1)) == 0) return {-64, 0};
  const std::int32_t relative = level_of(word, tensor.format) - reference;
  const std::int32_t level = relative < -63 ? -63 : relative > 63 ? 63 : relative;
  const std::int32_t magnitude = linear_magnitude(level);
  return {level, (word & sign) != 0 ? -magnitude : magnitude};
}

// Writes the `count` features of element `index` to `out`; `digit` is left as it is. `lane_first`
// is the first element of its lane: neighbours before it do not exist. `index` is within the
// tensor.
LMGC_HD inline void compute_features(const TensorContext& tensor, const Feature* features,
                                     int count, std::int64_t index, std::int64_t lane_first,
                                     float* out) {
  const std::int32_t reference = tensor.reference(index);
  NeighbourView views[neighbours];
  std::uint32_t viewed = 0;  // priors ask for both the level and the value of a neighbour
  for (int i = 0; i < count; ++i) {
    const Feature feature = features[i];
    switch (feature.kind) {
      case Feature::digit:
        break;
      case Feature::exponent_bits:
        out[i] = tensor.format.exponent_bits;
        break;
      case Feature::mantissa_bits:
        out[i] = tensor.format.mantissa_bits;
        break;
      case Feature::reference:
        out[i] = static_cast<float>(reference);
        break;
      case Feature::taps:
        out[i] = tensor.taps;
        break;
      case Feature::flat:
        out[i] = tensor.flat ? 1.0f : 0.0f;
        break;
      case Feature::neighbour_level:
      case Feature::neighbour_value:
        if ((viewed >> feature.neighbour & 1u) == 0) {
          viewed |= 1u << feature.neighbour;
          views[feature.neighbour] = view_neighbour(
              tensor, index, tensor.offsets.back[feature.neighbour], lane_first, reference);
        }
        out[i] = static_cast<float>(feature.kind == Feature::neighbour_level
                                        ? views[feature.neighbour].level
                                        : views[feature.neighbour].value);
        break;
    }
  }
}

// All features of every element of a tensor that is known already; one call an element. `digit`
// stays zero.
struct FeaturesOfTensor {
  TensorContext tensor;
  const Feature* features;
  int count;
  std::int64_t lane_elements;
  float* out;  // [elements][count], zeroed

  LMGC_HD void operator()(std::int64_t index) const {
    compute_features(tensor, features, count, index, index - index % lane_elements,
                     out + index * count);
  }
};

// ---- scales ------------------------------------------------------------------------------------

// Row and column scales in quarter octaves. `columns` is empty when the shape has none.
struct Scales {
  std::vector<std::int16_t> rows;
  std::vector<std::int16_t> columns;
};

// Integer sums over one row or column (`index`) of the level of its non-zero elements less the
// other direction's current estimate: the mean log-magnitude, exactly and in any order. Run rows
// and columns alternately.
struct SumLevels {
  const void* words;
  FloatFormat format;
  std::int64_t elements, rows, columns;
  bool by_row;                // else by column
  const std::int32_t* other;  // estimates of the other direction, in levels; null: zeros
  std::int32_t fallback;      // estimate of a line without non-zero elements
  std::int32_t* out;          // one a line, in levels

  LMGC_HD void operator()(std::int64_t line) const {
    std::int64_t sum = 0, count = 0;
    const std::int64_t length = by_row ? columns : rows;
    const std::uint64_t magnitude_mask = (std::uint64_t{1} << (format.bits() - 1)) - 1;
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t index = by_row ? line * columns + i : i * columns + line;
      if (index >= elements) break;
      const std::uint64_t word = load_word(words, format.bytes, index);
      if ((word & magnitude_mask) == 0) continue;
      sum += level_of(word, format) - (other != nullptr ? other[i] : 0);
      ++count;
    }
    out[line] = count == 0 ? fallback : static_cast<std::int32_t>(rounded_quotient(sum, count));
  }
};

// Levels to quarter octaves, nearest, halves up.
LMGC_HD constexpr std::int16_t scale_from_level(std::int32_t level) {
  return static_cast<std::int16_t>((level + 1) >> 1);
}

// Side information: adaptive Rice codes of differences. `write_scales` appends to a byte string;
// `read_scales` takes untrusted bytes, which it must consume exactly.
std::vector<std::uint8_t> write_scales(const Scales& scales);
Status read_scales(const std::uint8_t* data, std::size_t size, const MatrixShape& shape,
                   Scales& scales);

}  // namespace lmgc
