#include "core/digit_context.h"

#include <algorithm>

namespace lmgc {

const std::array<std::string_view, digit_feature_count> digit_feature_names = {
    "digit",
    "context",
    "left1.value",
    "left2.value",
    "left3.value",
    "tap_before.value",
    "tap.value",
    "tap_after.value",
    "tap2.value",
    "tap3.value",
    "above_left.value",
    "above.value",
    "above_right.value",
    "above_ahead.value",
    "above_behind.value",
    "above2.value",
    "above3.value",
    "above4.value",
    "left1.magnitude",
    "left2.magnitude",
    "left3.magnitude",
    "tap_before.magnitude",
    "tap.magnitude",
    "tap_after.magnitude",
    "tap2.magnitude",
    "tap3.magnitude",
    "above_left.magnitude",
    "above.magnitude",
    "above_right.magnitude",
    "above_ahead.magnitude",
    "above_behind.magnitude",
    "above2.magnitude",
    "above3.magnitude",
    "above4.magnitude",
    "width",
    "fraction",
    "prediction",
    "prediction_size",
    "energy_left",
    "energy_row",
    "energy_tap",
    "energy_above",
    "adaptive",
    "adaptive_size",
    "predicted",
    "factor",
    "convolution",
    "flat",
    "rows_above",
    "tap_index",
    "column",
};

int find_digit_feature(std::string_view name) {
  const auto found = std::find(digit_feature_names.begin(), digit_feature_names.end(), name);
  return found == digit_feature_names.end() ? -1
                                            : static_cast<int>(found - digit_feature_names.begin());
}

DigitGeometry digit_geometry(std::int64_t columns, std::int64_t taps, DigitKind kind, bool flat) {
  DigitGeometry geometry;
  geometry.columns = columns;
  const bool suits = taps >= 2 && taps <= most_digit_taps && columns % taps == 0 && columns > taps;
  geometry.taps = suits ? static_cast<std::int32_t>(taps) : 1;
  geometry.tap_step = 64 / geometry.taps;
  geometry.kind = kind;
  geometry.flat = flat;
  // Each place in a kernel sees only a part of the symbols, and the entries of factors have more in
  // common than residuals.
  if (suits) geometry.slowness = kind == DigitKind::factor ? 2 : 3;
  const std::int64_t p = geometry.taps, c = columns;
  const std::int64_t convolution[digit_neighbours] = {
      1,     2, 3,     p - 1, p,     p + 1, 2 * p, 3 * p,  //
      c + 1, c, c - 1, c - p, c + p, 2 * c, 3 * c, 4 * c};
  const std::int64_t matrix[digit_neighbours] = {
      1,     2, 3,     4,     5,     6,     7,     8,  //
      c + 1, c, c - 1, c - 2, c + 2, 2 * c, 3 * c, 4 * c};
  const std::int64_t* const offsets = suits ? convolution : matrix;
  // Lanes are short: what lies further back than they reach is never there.
  for (int n = 0; n < digit_neighbours; ++n) {
    geometry.offset[n] =
        static_cast<std::int32_t>(std::clamp<std::int64_t>(offsets[n], 0, INT32_MAX));
  }
  return geometry;
}

}  // namespace lmgc
