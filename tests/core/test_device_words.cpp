// What kernels do with one element at a time, launched on an emulated device: rounding, short
// floats, scales and features. Expected is what doubles and the plain functions say.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/near_lossless.h"
#include "core/predict.h"
#include "core/residual_scales.h"
#include "core/short_floats.h"
#include "cuda/launch.h"
#include "emulated_device.h"
#include "fixed_cases.h"

namespace {

using namespace lmgc;
using test::EmulatedDevice;

const std::vector<FloatFormat> plain_formats = {
    float_format(DType::float16), float_format(DType::bfloat16), float_format(DType::float32),
    float_format(DType::float64)};

std::size_t index_of(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<std::uint64_t> some_words(FloatFormat format, std::int64_t count) {
  std::mt19937_64 random(static_cast<std::uint64_t>(count) + format.mantissa_bits);
  std::vector<std::uint64_t> words;
  for (std::int64_t i = 0; i < count; ++i)
    words.push_back(test::some_word(random, FixedFormat(format)));
  return words;
}

// Elements in memory of a device, of exactly their size.
class Elements {
 public:
  Elements(EmulatedDevice& device, FloatFormat format, std::int64_t count)
      : format_(format), data_(device.allocate(index_of(count) * format.bytes)) {}
  Elements(EmulatedDevice& device, FloatFormat format, const std::vector<std::uint64_t>& words)
      : Elements(device, format, static_cast<std::int64_t>(words.size())) {
    for (std::size_t i = 0; i < words.size(); ++i)
      store_word(data_, format.bytes, static_cast<std::int64_t>(i), words[i]);
  }
  void* data() const { return data_; }
  std::uint64_t operator[](std::int64_t i) const { return load_word(data_, format_.bytes, i); }

 private:
  FloatFormat format_;
  void* data_;
};

template <class Body>
void launch(std::int64_t count, const Body& body) {
  REQUIRE(cuda::launch(count, body, nullptr) == 0);
}

// ---- rounding -----------------------------------------------------------------------------------

// A finite value to the nearest multiple of 2^exponent, ties to even.
double rounded(double value, int exponent) {
  const double multiple = std::ldexp(value, -exponent);
  return std::abs(multiple) < 0x1p53 ? std::ldexp(std::nearbyint(multiple), exponent) : value;
}

// The word of a rounded value, which fits the format; zeros that others became have no sign.
std::uint64_t word_of_rounded(double value, std::uint64_t word, const FixedFormat& format) {
  if (value == 0) return (word & (format.sign() - 1)) == 0 ? word : 0;
  return test::word_of(value, format);
}

double largest(const FixedFormat& format, int bits) {
  return std::ldexp(2 - std::exp2(-bits), format.infinite_field - 1 - format.bias);
}

std::uint64_t rounded_mantissa(std::uint64_t word, int bits, bool is_bound, FloatFormat of) {
  const FixedFormat format(of);
  if (format.exponent_field(word) == format.infinite_field) return word;
  const double value = value_of(word, format);
  if (value == 0) return word;
  const int own = std::ilogb(value);
  const double result = rounded(
      value, (is_bound ? own : std::max(own, format.least)) - std::min(bits, format.mantissa));
  if (std::abs(result) > largest(format, format.mantissa))
    return is_bound ? word : test::word_of(std::copysign(largest(format, bits), value), format);
  return word_of_rounded(result, word, format);
}

std::uint64_t rounded_to_power(std::uint64_t word, int exponent, FloatFormat of) {
  const FixedFormat format(of);
  if (format.exponent_field(word) == format.infinite_field) return word;
  const double result = rounded(value_of(word, format), exponent);
  return std::abs(result) > largest(format, format.mantissa)
             ? word
             : word_of_rounded(result, word, format);
}

}  // namespace

TEST_CASE("the device rounds mantissas to nearest") {
  for (const FloatFormat format : plain_formats) {
    const std::vector<std::uint64_t> words = some_words(format, 3000);
    const auto count = static_cast<std::int64_t>(words.size());
    for (int bits = 0; bits <= format.mantissa_bits; bits += 1 + bits / 8) {
      for (const bool is_bound : {false, true}) {
        EmulatedDevice device;
        const Elements from(device, format, words), to(device, format, count);
        launch(count, RoundMantissas{from.data(), to.data(), format, bits, is_bound});
        for (std::int64_t i = 0; i < count; ++i) {
          CAPTURE(int{format.bytes}, int{format.mantissa_bits}, bits, is_bound, from[i]);
          REQUIRE(to[i] == rounded_mantissa(from[i], bits, is_bound, format));
        }
      }
    }
  }
}

TEST_CASE("the device rounds blocks of rows to powers of two") {
  constexpr std::int64_t rows = 9, columns = 70, block = 32, blocks = 3;
  for (const FloatFormat format : plain_formats) {
    const FixedFormat own(format);
    const std::vector<std::uint64_t> words = some_words(format, rows * columns);
    // From below all bits to above all numbers.
    std::vector<std::int32_t> exponents;
    const int below = own.least - own.mantissa - 3, above = own.bias + 4;
    for (int k = 0; k < rows * blocks; ++k)
      exponents.push_back(below + (above - below) * k / (rows * blocks - 1));
    EmulatedDevice device;
    const Elements from(device, format, words), to(device, format, rows * columns);
    launch(rows * columns,
           RoundToPowers{from.data(), to.data(), format, device.put(exponents), columns, block});
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const std::int32_t exponent = exponents[index_of(i / columns * blocks + i % columns / block)];
      CAPTURE(int{format.bytes}, int{format.mantissa_bits}, exponent, from[i]);
      REQUIRE(to[i] == rounded_to_power(from[i], exponent, format));
    }
  }
}

// ---- short floats -------------------------------------------------------------------------------

TEST_CASE("what bits are used is found stretch by stretch") {
  for (const FloatFormat format : plain_formats) {
    for (const std::int64_t count :
         {std::int64_t{1}, FindUsedBits::stretch, 2 * FindUsedBits::stretch + 5}) {
      std::vector<std::uint64_t> words = some_words(format, count);
      for (std::int64_t i = 0; i < count; ++i)  // less is used in each than in the one before
        words[index_of(i)] &= ~std::uint64_t{0} << (3 + 2 * (i / FindUsedBits::stretch));
      EmulatedDevice device;
      const Elements from(device, format, words);
      const std::int64_t stretches = (count + FindUsedBits::stretch - 1) / FindUsedBits::stretch;
      auto* const found = device.room<UsedBits>(index_of(stretches));
      const FindUsedBits job{from.data(), format, count, found};
      for (std::int64_t s = 0; s < stretches; ++s) job(s);
      for (std::int64_t s = 0; s < stretches; ++s) {
        std::uint64_t bits = 0;
        double lowest = std::numeric_limits<double>::infinity();  // the largest power in all
        const FixedFormat own(format);
        const std::int64_t end = std::min(count, (s + 1) * FindUsedBits::stretch);
        for (std::int64_t i = s * FindUsedBits::stretch; i < end; ++i) {
          bits |= from[i];
          if (own.exponent_field(from[i]) == own.infinite_field) continue;
          const double value = std::abs(value_of(from[i], own));
          if (value == 0) continue;
          double power = std::ldexp(1, std::max(std::ilogb(value), own.least) - own.mantissa);
          while (std::fmod(value, 2 * power) == 0) power *= 2;
          lowest = std::min(lowest, power);
        }
        REQUIRE(found[s].bits == bits);
        const bool none = std::isinf(lowest);
        REQUIRE(found[s].lowest ==
                (none ? INT64_MAX : std::ilogb(lowest) + own.bias + own.mantissa));
      }
    }
  }
}

TEST_CASE("the device shortens words as one by one, and lengthens them") {
  for (const auto& [format, spare] :
       std::vector<std::pair<FloatFormat, Spare>>{{float_format(DType::float16), {5, 12}},
                                                  {float_format(DType::bfloat16), {4, 0}},
                                                  {float_format(DType::float32), {16, 0}},
                                                  {float_format(DType::float32), {20, 90}},
                                                  {float_format(DType::float64), {33, 0}},
                                                  {float_format(DType::float64), {44, 900}}}) {
    REQUIRE(suits(spare, format));
    const ShortFloats floats{format, shortened(format, spare)};
    // Words that are those of short ones.
    std::vector<std::uint64_t> words;
    for (const std::uint64_t word : some_words(floats.coded, 1000))
      words.push_back(floats.lengthen(word));
    const auto count = static_cast<std::int64_t>(words.size());
    EmulatedDevice device;
    const Elements whole(device, format, words), coded(device, floats.coded, count),
        back(device, format, count);
    launch(count, ShortenWords{floats, whole.data(), coded.data()});
    launch(count, LengthenWords{floats, coded.data(), back.data()});
    for (std::int64_t i = 0; i < count; ++i) {
      REQUIRE(coded[i] == floats.shorten(words[index_of(i)]));
      REQUIRE(back[i] == words[index_of(i)]);
    }
  }
}

// ---- scales and features ------------------------------------------------------------------------

TEST_CASE("the device sums levels up to means over rows and columns") {
  for (const FloatFormat format : plain_formats) {
    constexpr std::int64_t rows = 12, columns = 33, elements = rows * columns - 7;
    std::vector<std::uint64_t> words = some_words(format, elements);
    const FixedFormat own(format);
    for (std::int64_t i = 0; i < columns; ++i) words[index_of(3 * columns + i)] &= own.sign();
    EmulatedDevice device;
    const Elements from(device, format, words);
    for (const bool by_row : {true, false}) {
      for (const bool with_other : {false, true}) {
        const std::int64_t lines = by_row ? rows : columns, length = by_row ? columns : rows;
        std::vector<std::int32_t> other;
        for (std::int64_t i = 0; with_other && i < length; ++i)
          other.push_back(static_cast<std::int32_t>(37 * i % 100) - 40);
        auto* const out = device.room<std::int32_t>(index_of(lines));
        launch(lines, SumLevels{from.data(), format, elements, rows, columns, by_row,
                                with_other ? device.put(other) : nullptr, -5, out});
        for (std::int64_t line = 0; line < lines; ++line) {
          double sum = 0;
          int counted = 0;
          for (std::int64_t i = 0; i < length; ++i) {
            const std::int64_t at = by_row ? line * columns + i : i * columns + line;
            if (at >= elements || (from[at] & (own.sign() - 1)) == 0) continue;
            sum += level_of(from[at], format) - (with_other ? other[index_of(i)] : 0);
            ++counted;
          }
          CAPTURE(by_row, with_other, line);
          REQUIRE(std::abs(counted == 0 ? out[line] + 5.0 : out[line] - sum / counted) <= 0.5);
        }
      }
    }
  }
}

TEST_CASE("the device finds the features of all elements of a tensor") {
  constexpr std::int64_t lane_elements = 50;
  std::vector<Feature> features;
  for (const std::string name : {"reference", "flat", "taps", "exponent_bits", "mantissa_bits",
                                 "left1.level", "left2.value", "above.level", "above.value"}) {
    features.emplace_back();
    REQUIRE(find_feature(name, features.back()));
  }
  const auto count = static_cast<int>(features.size());
  for (const FloatFormat format : plain_formats) {
    const std::vector<std::int64_t> sizes = {6, 20};
    const MatrixShape shape = matrix_shape(sizes.data(), sizes.size());
    EmulatedDevice device;
    const Elements words(device, format, some_words(format, shape.elements));
    std::vector<std::int16_t> rows(index_of(shape.rows)), columns(index_of(shape.columns));
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] = static_cast<std::int16_t>(4 * FixedFormat(format).bias + static_cast<int>(i));
    for (std::size_t i = 0; i < columns.size(); ++i)
      columns[i] = static_cast<std::int16_t>(static_cast<int>(i % 5) - 2);
    TensorContext tensor;
    tensor.words = words.data();
    tensor.row_scales = device.put(rows);
    tensor.column_scales = device.put(columns);
    tensor.columns = shape.columns;
    tensor.offsets = neighbour_offsets(shape);
    tensor.format = format;
    tensor.flat = false;
    const std::size_t all = index_of(shape.elements) * features.size();
    auto* const out = device.put(std::vector<float>(all));
    launch(shape.elements,
           FeaturesOfTensor{tensor, device.put(features), count, lane_elements, out});
    for (std::int64_t i = 0; i < shape.elements; ++i) {
      std::vector<float> own(features.size());
      compute_features(tensor, features.data(), count, i, i / lane_elements * lane_elements,
                       own.data());
      REQUIRE(device.get(out + i * count, features.size()) == own);
      REQUIRE(own[0] == static_cast<float>(tensor.reference(i)));
    }
  }
}
