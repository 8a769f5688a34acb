#include "core/predict.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "core/rice.h"

namespace lmgc {
namespace {

constexpr std::int64_t flat_columns = 256;
constexpr std::int64_t least_columns = 16;
constexpr std::int64_t least_rows_for_column_scales = 16;

// In the order of NeighbourOffsets.
constexpr std::array<std::string_view, neighbours> neighbour_names = {
    "left1",           "left2",      "left3",
    "left4",           "tap_before", "tap",
    "tap_after",       "tap2",       "tap3",
    "above_before",    "above",      "above_after",
    "above_tap_after", "above2",     "above_tap_before",
    "above2_tap"};

constexpr std::array<std::string_view, 6> plain_names = {
    "digit", "exponent_bits", "mantissa_bits", "reference", "taps", "flat"};

}  // namespace

MatrixShape matrix_shape(const std::int64_t* sizes, std::size_t dimensions) {
  MatrixShape shape;
  shape.elements = 1;
  for (std::size_t i = 0; i < dimensions; ++i) shape.elements *= sizes[i];
  if (shape.elements == 0) return shape;
  const std::int64_t rest = dimensions == 0 ? 1 : shape.elements / sizes[0];
  shape.flat = dimensions < 2 || sizes[0] < 2 || rest < least_columns;
  if (shape.flat) {
    shape.columns = flat_columns;
    shape.rows = (shape.elements - 1) / flat_columns + 1;
    return shape;
  }
  shape.rows = sizes[0];
  shape.columns = rest;
  shape.taps = rest / sizes[1];
  shape.has_column_scales = shape.rows >= least_rows_for_column_scales;
  return shape;
}

NeighbourOffsets neighbour_offsets(const MatrixShape& shape) {
  const std::int64_t c = shape.columns, p = shape.taps;
  if (p > 1)
    return {{1, 2, 3, 4, p - 1, p, p + 1, 2 * p, 3 * p, c - 1, c, c + 1, c + p, 2 * c, c - p,
             2 * c + p}};
  return {{1, 2, 3, 4, 5, 6, 7, 8, 9, c - 1, c, c + 1, c + 2, 2 * c, c - 2, 2 * c + 1}};
}

bool find_feature(std::string_view name, Feature& feature) {
  for (std::size_t i = 0; i < plain_names.size(); ++i) {
    if (name == plain_names[i]) {
      feature = {static_cast<Feature::Kind>(i), 0};
      return true;
    }
  }
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view kind = name.substr(dot + 1);
  if (kind != "level" && kind != "value") return false;
  const auto found = std::find(neighbour_names.begin(), neighbour_names.end(), name.substr(0, dot));
  if (found == neighbour_names.end()) return false;
  feature = {kind == "level" ? Feature::neighbour_level : Feature::neighbour_value,
             static_cast<std::uint8_t>(found - neighbour_names.begin())};
  return true;
}

std::vector<std::uint8_t> write_scales(const Scales& scales) {
  BitWriter out;
  write_line(out, scales.rows);
  write_line(out, scales.columns);
  return out.take();
}

Status read_scales(const std::uint8_t* data, std::size_t size, const MatrixShape& shape,
                   Scales& scales) {
  // Every scale takes at least one bit: a short section cannot announce many.
  const auto rows = static_cast<std::uint64_t>(shape.rows);
  const auto columns = static_cast<std::uint64_t>(shape.has_column_scales ? shape.columns : 0);
  if (rows + columns > 8 * static_cast<std::uint64_t>(size)) return Status::bad_section;
  scales.rows.assign(rows, 0);
  scales.columns.assign(columns, 0);
  BitReader in(data, size);
  const bool good = read_line(in, scales.rows) && read_line(in, scales.columns) && in.ok() &&
                    in.only_padding_left();
  return good ? Status::ok : Status::bad_section;
}

}  // namespace lmgc
