// Tensors surveyed by csrc/cuda on some device (device_cases.h says what it has): what is found
// must be what a look at every element finds.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <vector>

#include "cuda/survey.h"
#include "cuda/survey_jobs.h"
#include "fixed_cases.h"

namespace lmgc::test {

struct SurveyCase {
  FloatFormat format;
  std::int64_t rows, columns;
  bool is_matrix;
  std::vector<std::uint64_t> words;

  std::int64_t elements() const { return rows * columns; }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * format.bytes; }
};

// `dead`: how many of eight lines are zeros in both directions. `spare`: low bits without use.
inline SurveyCase survey_case(FloatFormat format, std::int64_t rows, std::int64_t columns,
                              unsigned dead, int spare, bool is_matrix = true) {
  SurveyCase own{format, rows, columns, is_matrix, {}};
  own.words.resize(own.bytes() / 8 + 1);
  const FixedFormat fixed(format);
  std::mt19937_64 random(static_cast<std::uint64_t>(rows * 7 + columns) + dead);
  std::vector<bool> dead_rows, dead_columns;
  for (std::int64_t i = 0; i < rows; ++i) dead_rows.push_back(random() % 8 < dead);
  for (std::int64_t i = 0; i < columns; ++i) dead_columns.push_back(random() % 8 < dead);
  for (std::int64_t i = 0; i < own.elements(); ++i) {
    const std::uint64_t word = some_word(random, fixed) >> spare << spare;
    const bool zero = dead_rows[static_cast<std::size_t>(i / columns)] ||
                      dead_columns[static_cast<std::size_t>(i % columns)];
    store_word(own.words.data(), format.bytes, i, zero ? 0 : word);
  }
  return own;
}

template <class Device>
void check_survey(Device&& device, const std::vector<SurveyCase>& cases, std::int64_t most) {
  std::vector<cuda::SurveyedTensor> tensors;
  for (const SurveyCase& own : cases) {
    void* const words = device.allocate(own.bytes());
    device.write(words, own.words.data(), own.bytes());
    tensors.push_back({words, own.format, own.elements(), own.is_matrix ? own.rows : 0,
                       own.is_matrix ? own.columns : 0});
  }
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::Survey> surveys;
  REQUIRE(cuda::survey(tensors, most, allocate, nullptr, surveys) == 0);
  REQUIRE(surveys.size() == cases.size());
  for (std::size_t k = 0; k < cases.size(); ++k) {
    const SurveyCase& own = cases[k];
    CAPTURE(k, own.rows, own.columns, int{own.format.bytes});
    UsedBits used;
    for (std::int64_t i = 0; i < std::min(most, own.elements()); ++i)
      used.take(load_word(own.words.data(), own.format.bytes, i), FixedFormat(own.format));
    CHECK(surveys[k].used.bits == used.bits);
    CHECK(surveys[k].used.lowest == used.lowest);
    // A line is told live by its first few elements.
    const auto lives = [&](std::int64_t first, std::int64_t step, std::int64_t count) {
      bool any = false;
      for (std::int64_t i = 0; i < std::min(count, cuda::SurveyLines::few); ++i)
        any |= load_word(own.words.data(), own.format.bytes, first + i * step) != 0;
      return any;
    };
    bool all_live = own.is_matrix;
    for (std::int64_t row = 0; row < own.rows; ++row)
      all_live &= lives(row * own.columns, 1, own.columns);
    for (std::int64_t column = 0; column < own.columns; ++column)
      all_live &= lives(column, own.columns, own.rows);
    CHECK(surveys[k].all_live == all_live);
  }
}

inline std::vector<SurveyCase> survey_cases() {
  std::vector<SurveyCase> cases;
  for (const FloatFormat format : float_formats) {
    cases.push_back(survey_case(format, 1, 1, 0, 0, false));
    cases.push_back(survey_case(format, 1, 9000, 0, 3, false));
    cases.push_back(survey_case(format, 40, 300, 0, 0));
    cases.push_back(survey_case(format, 40, 300, 1, 2));
    cases.push_back(survey_case(format, 2, 16, 0, 1));
    cases.push_back(survey_case(format, 700, 17, 0, 0));
    cases.push_back(survey_case(format, 33, 65, 8, 0));  // nothing but zeros
  }
  return cases;
}

}  // namespace lmgc::test
