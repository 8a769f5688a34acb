// Shapes, scales and context features.
#include "core/predict.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

using namespace lmgc;

namespace {

MatrixShape shape_of(const std::vector<std::int64_t>& sizes) {
  return matrix_shape(sizes.data(), sizes.size());
}

}  // namespace

TEST_CASE("tensors as matrices") {
  const MatrixShape convolution = shape_of({128, 64, 3, 3});
  REQUIRE(convolution.rows == 128);
  REQUIRE(convolution.columns == 576);
  REQUIRE(convolution.taps == 9);
  REQUIRE_FALSE(convolution.flat);
  REQUIRE(convolution.has_column_scales);

  REQUIRE(shape_of({8, 64}).has_column_scales == false);  // too few rows to pay for them
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{}, {1000}, {1, 1000}, {500, 3}, {64, 1, 3, 3}}) {
    const MatrixShape flat = shape_of(sizes);
    REQUIRE(flat.flat);
    REQUIRE(flat.columns == 256);
    REQUIRE(flat.rows == (flat.elements + 255) / 256);
    REQUIRE_FALSE(flat.has_column_scales);
  }
  REQUIRE(shape_of({5, 0, 7}).elements == 0);
}

TEST_CASE("levels are eighths of an octave") {
  const FloatFormat single = float_format(DType::float32);
  REQUIRE(level_of(0x3f800000, single) == 127 * 8);      // 1.0
  REQUIRE(level_of(0x40000000, single) == 128 * 8);      // 2.0
  REQUIRE(level_of(0x3fc00000, single) == 127 * 8 + 4);  // 1.5
  REQUIRE(level_of(0xbf800000, single) == 127 * 8);      // the sign does not count
  REQUIRE(level_of(0x80000000, single) == 0);
  REQUIRE(level_of(0x7fffffff, single) == max_level(single));
  REQUIRE(level_of(0x3c00, float_format(DType::float16)) == 15 * 8);
  REQUIRE(level_of(0x3ff0000000000000, float_format(DType::float64)) == 1023 * 8);
}

TEST_CASE("linear magnitudes are 8 at the reference and double every octave") {
  REQUIRE(linear_magnitude(0) == 8);
  REQUIRE(linear_magnitude(8) == 16);
  REQUIRE(linear_magnitude(12) == 24);
  REQUIRE(linear_magnitude(-8) == 4);
  REQUIRE(linear_magnitude(-63) == 0);
  REQUIRE(linear_magnitude(63) == 127);
  for (int relative = -63; relative < 63; ++relative)
    REQUIRE(linear_magnitude(relative) <= linear_magnitude(relative + 1));
}

TEST_CASE("features name neighbours that exist") {
  const std::vector<std::int64_t> sizes = {4, 20};
  const MatrixShape shape = shape_of(sizes);
  std::vector<std::uint32_t> words(80);
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = (127u << 23) + static_cast<std::uint32_t>(i << 20);  // i levels above 1.0
  words[21] = 0;
  words[22] |= 0x80000000u;
  std::vector<std::int16_t> rows(4, 127 * 4);  // the level of 1.0
  TensorContext tensor;
  tensor.words = words.data();
  tensor.row_scales = rows.data();
  tensor.columns = 20;
  tensor.offsets = neighbour_offsets(shape);
  tensor.format = float_format(DType::float32);
  tensor.flat = false;

  const std::vector<std::string> names = {"reference",   "flat",        "left1.level",
                                          "left2.level", "left2.value", "left3.level",
                                          "above.level", "digit"};
  std::vector<Feature> features(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) REQUIRE(find_feature(names[i], features[i]));
  std::vector<float> out(names.size(), -1.0f);
  compute_features(tensor, features.data(), static_cast<int>(features.size()), 24, 0, out.data());
  REQUIRE(out == std::vector<float>{127 * 8, 0, 23, 22, -static_cast<float>(linear_magnitude(22)),
                                    -64, 4, -1});

  // In a lane that begins at 23 only left1 exists.
  compute_features(tensor, features.data(), static_cast<int>(features.size()), 24, 23, out.data());
  REQUIRE(out == std::vector<float>{127 * 8, 0, 23, 0, 0, 0, 0, -1});

  Feature feature;
  for (const char* name : {"", "left5.level", "left1", "left1.size", ".level", "above.", "Digit"})
    REQUIRE_FALSE(find_feature(name, feature));
}

TEST_CASE("sums of levels give the geometric mean and skip zeros") {
  const FloatFormat format = float_format(DType::float32);
  const std::vector<std::uint32_t> words = {127u << 23, 129u << 23,  0, 0x80000000u,
                                            0,          0x80000000u, 0, 0};
  std::int32_t out[2];
  SumLevels sum{words.data(), format, 8, 2, 4, true, nullptr, -7, out};
  sum(0);
  sum(1);
  REQUIRE(out[0] == 128 * 8);
  REQUIRE(out[1] == -7);  // a row of zeros
  REQUIRE(rounded_quotient(-3, 2) == -1);
  REQUIRE(rounded_quotient(3, 2) == 2);
  REQUIRE(rounded_quotient(-5, 3) == -2);
}

TEST_CASE("scales read back as they were written") {
  std::mt19937 random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const std::vector<std::int64_t> sizes = {2 + static_cast<std::int64_t>(random() % 60),
                                             16 + static_cast<std::int64_t>(random() % 50)};
    const MatrixShape shape = shape_of(sizes);
    Scales scales;
    scales.rows.resize(static_cast<std::size_t>(shape.rows));
    scales.columns.resize(static_cast<std::size_t>(shape.has_column_scales ? shape.columns : 0));
    const unsigned spread = trial % 3 == 0 ? 65536 : trial % 3 == 1 ? 1 : 20;
    for (auto* line : {&scales.rows, &scales.columns}) {
      for (auto& scale : *line)
        scale = static_cast<std::int16_t>(random() % spread + (spread == 65536 ? 0 : 450));
    }
    const auto bytes = write_scales(scales);
    Scales read;
    REQUIRE(read_scales(bytes.data(), bytes.size(), shape, read) == Status::ok);
    REQUIRE(read.rows == scales.rows);
    REQUIRE(read.columns == scales.columns);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      REQUIRE(read_scales(bytes.data(), size, shape, read) != Status::ok);
    auto longer = bytes;
    longer.push_back(0);
    REQUIRE(read_scales(longer.data(), longer.size(), shape, read) != Status::ok);
  }
}

TEST_CASE("any bytes are scales or an error") {
  std::mt19937 random(2);
  const MatrixShape shape = shape_of({40, 30});
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<std::uint8_t> bytes(random() % 100);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(trial % 2 == 0 ? random() : 0xFF);
    Scales scales;
    read_scales(bytes.data(), bytes.size(), shape, scales);
  }
}
