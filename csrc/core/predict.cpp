#include "core/predict.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "core/bytes.h"

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

// Writes and reads runs of bits, least significant first.
class BitWriter {
 public:
  void bits(std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i) bit((value >> i) & 1);
  }
  void bit(std::uint32_t value) {
    if (used_ % 8 == 0) out_.push_back(0);
    out_.back() = static_cast<std::uint8_t>(out_.back() | (value << (used_ % 8)));
    ++used_;
  }
  std::vector<std::uint8_t> take() { return std::move(out_); }

 private:
  std::vector<std::uint8_t> out_;
  std::size_t used_ = 0;
};

class BitReader {
 public:
  BitReader(const std::uint8_t* data, std::size_t size) : data_(data), bits_(8 * size) {}
  std::uint32_t bit() {
    if (used_ >= bits_) {
      ok_ = false;
      return 0;
    }
    const std::uint32_t value = (data_[used_ / 8] >> (used_ % 8)) & 1u;
    ++used_;
    return value;
  }
  std::uint32_t bits(int count) {
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) value |= bit() << i;
    return value;
  }
  bool ok() const { return ok_; }
  bool only_padding_left() const { return bits_ - used_ < 8; }

 private:
  const std::uint8_t* data_;
  std::size_t bits_, used_ = 0;
  bool ok_ = true;
};

// Rice code whose parameter follows the running mean of what was coded (as in JPEG-LS): no
// parameter to send.
class AdaptiveRice {
 public:
  int parameter() const {
    int k = 0;
    while ((count_ << k) < sum_ && k < 15) ++k;
    return k;
  }
  void update(std::uint32_t value) {
    sum_ += value;
    if (++count_ == 64) {
      sum_ >>= 1;
      count_ >>= 1;
    }
  }

 private:
  std::uint64_t sum_ = 4, count_ = 1;
};

constexpr int longest_prefix = 24;  // then the value stands in 17 plain bits

void put_rice(BitWriter& out, AdaptiveRice& model, std::int32_t signed_value) {
  const auto value =
      static_cast<std::uint32_t>(signed_value >= 0 ? 2 * signed_value : -2 * signed_value - 1);
  const int k = model.parameter();
  const std::uint32_t prefix = value >> k;
  if (prefix < static_cast<std::uint32_t>(longest_prefix)) {
    for (std::uint32_t i = 0; i < prefix; ++i) out.bit(1);
    out.bit(0);
    out.bits(value & ((1u << k) - 1), k);
  } else {
    for (int i = 0; i < longest_prefix; ++i) out.bit(1);
    out.bits(value, 17);
  }
  model.update(value);
}

std::int32_t get_rice(BitReader& in, AdaptiveRice& model) {
  const int k = model.parameter();
  int prefix = 0;
  while (prefix < longest_prefix && in.bit() != 0) ++prefix;
  const std::uint32_t value = prefix < longest_prefix
                                  ? (static_cast<std::uint32_t>(prefix) << k) | in.bits(k)
                                  : in.bits(17);
  model.update(value);
  return (value & 1) != 0 ? -static_cast<std::int32_t>((value + 1) / 2)
                          : static_cast<std::int32_t>(value / 2);
}

// One direction: a flag says whether each scale is predicted by the one before it (smooth) or by
// the mean.
void put_line(BitWriter& out, const std::vector<std::int16_t>& scales) {
  if (scales.empty()) return;
  std::int64_t sum = 0, from_previous = 0, from_mean = 0;
  for (const auto scale : scales) sum += scale;
  const auto mean = static_cast<std::int32_t>(
      SumLevels::rounded_quotient(sum, static_cast<std::int64_t>(scales.size())));
  std::int32_t previous = mean;
  for (const std::int32_t scale : scales) {
    from_previous += std::abs(scale - previous);
    from_mean += std::abs(scale - mean);
    previous = scale;
  }
  const bool smooth = from_previous < from_mean;
  out.bit(smooth);
  out.bits(static_cast<std::uint32_t>(mean) & 0xFFFF, 16);
  AdaptiveRice model;
  std::int32_t predicted = mean;
  for (const std::int32_t scale : scales) {
    put_rice(out, model, scale - predicted);
    if (smooth) predicted = scale;
  }
}

bool get_line(BitReader& in, std::vector<std::int16_t>& scales) {
  if (scales.empty()) return true;
  const bool smooth = in.bit() != 0;
  std::int32_t predicted = static_cast<std::int16_t>(in.bits(16));
  AdaptiveRice model;
  for (auto& scale : scales) {
    const std::int32_t value = predicted + get_rice(in, model);
    if (!in.ok() || value < INT16_MIN || value > INT16_MAX) return false;
    scale = static_cast<std::int16_t>(value);
    if (smooth) predicted = value;
  }
  return true;
}

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
  put_line(out, scales.rows);
  put_line(out, scales.columns);
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
  const bool good = get_line(in, scales.rows) && get_line(in, scales.columns) && in.ok() &&
                    in.only_padding_left();
  return good ? Status::ok : Status::bad_section;
}

}  // namespace lmgc
