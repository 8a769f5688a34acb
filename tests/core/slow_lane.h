// The features of method lm from the words of docs/prior.md, as slow as plain, for the tests of
// digit_context.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/digit_context.h"

namespace lmgc::test {

using Wide = unsigned __int128;

inline Wide power(Wide base, int exponent) {
  Wide result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

inline int round_down(int value, int divisor) {
  return value >= 0 ? value / divisor : -((divisor - 1 - value) / divisor);
}
inline int within(int value, int least, int most) { return std::min(std::max(value, least), most); }

// 8 log2(1 + i) to the nearest integer.
inline int slow_magnitude(int i) {
  int m = 0;
  while (power(2, 2 * m + 1) < power(1 + static_cast<unsigned>(i), 16)) ++m;
  return m;
}

inline int slow_context(const Known& known, DigitKind kind) {
  const int width = within(known.width, -12, 11);
  if (kind == DigitKind::unpredicted) return 124 + 11 - width;
  const auto parts = [](int w) { return w >= 8 ? 1 : w >= 4 ? 2 : w >= 0 ? 4 : 8; };
  int context = known.fraction * parts(width) / 32;
  for (int wider = 11; wider > width; --wider) context += parts(wider);
  return context;
}

struct Role {
  const char* name;
  std::int64_t convolution, matrix;
};

// A lane, told in the words of the documentation: nothing is kept but marks and averages.
class SlowLane {
 public:
  SlowLane(std::int64_t columns, std::int64_t taps, DigitKind kind, bool flat, std::int64_t first)
      : columns_(columns), kind_(kind), flat_(flat), first_(first) {
    taps_ = taps >= 2 && taps <= 64 && columns % taps == 0 && columns > taps ? taps : 1;
    tap_energy_.assign(static_cast<std::size_t>(taps_), 416);
    coefficients_.assign(static_cast<std::size_t>(taps_), std::vector<int>(16, 0));
    const std::int64_t p = taps_, c = columns;
    roles_ = {{"left1", 1, 1},
              {"left2", 2, 2},
              {"left3", 3, 3},
              {"tap_before", p - 1, 4},
              {"tap", p, 5},
              {"tap_after", p + 1, 6},
              {"tap2", 2 * p, 7},
              {"tap3", 3 * p, 8},
              {"above_left", c + 1, c + 1},
              {"above", c, c},
              {"above_right", c - 1, c - 1},
              {"above_ahead", c - p, c - 2},
              {"above_behind", c + p, c + 2},
              {"above2", 2 * c, 2 * c},
              {"above3", 3 * c, 3 * c},
              {"above4", 4 * c, 4 * c}};
  }

  // Names and values of all features, the high digit's.
  void features(const Known& known, std::vector<std::string>* names, std::vector<int>& values) {
    const auto t = static_cast<std::int64_t>(marks_.size());
    const auto put = [&](const char* name, int value) {
      if (names != nullptr) names->push_back(name);
      values.push_back(value);
    };
    values.clear();
    if (columns_ >= 9 && t >= columns_ - 8)
      ahead_ += round_down(16 * magnitude_at(columns_ - 8) - ahead_, 8);
    long sum = 0;
    for (std::size_t n = 0; n < 16; ++n)
      sum += static_cast<long>(own_coefficients()[n]) * value_at(offset(roles_[n]));
    const long rounded = sum + 8192;
    adaptive_ = within(
        static_cast<int>(rounded >= 0 ? rounded / 16384 : -((16383 - rounded) / 16384)), -127, 127);

    put("digit", 0);
    put("context", slow_context(known, kind_));
    for (const Role& role : roles_)
      put(names == nullptr ? "" : (std::string(role.name) + ".value").c_str(),
          value_at(offset(role)));
    for (const Role& role : roles_)
      put(names == nullptr ? "" : (std::string(role.name) + ".magnitude").c_str(),
          magnitude_at(offset(role)));
    put("width", 8 * known.width);
    put("fraction", kind_ == DigitKind::unpredicted ? 0 : 4 * known.fraction - 62);
    put("prediction", 2 * known.level);
    put("prediction_size", 2 * std::abs(known.level));
    put("energy_left", round_down(fast_, 16));
    put("energy_row", round_down(slow_, 16));
    put("energy_tap", round_down(taps_ > 1 ? tap_energy_[tap()] : 416, 16));
    put("energy_above", round_down(ahead_, 16));
    put("adaptive", adaptive_);
    put("adaptive_size", slow_magnitudes()[static_cast<std::size_t>(std::abs(adaptive_))]);
    put("predicted", kind_ == DigitKind::predicted ? 64 : 0);
    put("factor", kind_ == DigitKind::factor ? 64 : 0);
    put("convolution", taps_ > 1 ? 64 : 0);
    put("flat", flat_ ? 64 : 0);
    put("rows_above", 24 * static_cast<int>(std::min<std::int64_t>(t / columns_, 4)));
    put("tap_index", taps_ > 1 ? static_cast<int>(tap()) * static_cast<int>(64 / taps_) : 0);
    put("column", 16 * static_cast<int>(std::min<std::int64_t>(column(), 7)));
  }

  void update(const Known& known, int symbol) {
    const int mark = slow_mark(known, symbol);
    const int value = mark == -128 ? 0 : mark;
    if (symbol != 1 && symbol != 2) {
      const int error = within(value - adaptive_, -64, 64);
      const int slowness = taps_ == 1 ? 16 : kind_ == DigitKind::factor ? 4 : 8;
      for (std::size_t n = 0; n < 16; ++n) {
        int& own = own_coefficients()[n];
        own =
            within(own + round_down(error * value_at(offset(roles_[n])), slowness), -32767, 32767);
      }
    }
    const int g = 16 * magnitude_of(mark);
    fast_ += round_down(g - fast_, 8);
    slow_ += round_down(g - slow_, 32);
    if (taps_ > 1) tap_energy_[tap()] += round_down(g - tap_energy_[tap()], 8);
    marks_.push_back(mark);
  }

  // Of the next symbol's place in the kernel.
  std::vector<int>& own_coefficients() { return coefficients_[tap()]; }

 private:
  static const std::vector<int>& slow_magnitudes() {
    static const std::vector<int> table = [] {
      std::vector<int> all;
      for (int i = 0; i < 128; ++i) all.push_back(slow_magnitude(i));
      return all;
    }();
    return table;
  }
  static int magnitude_of(int mark) {
    return mark == -128 ? -32 : slow_magnitudes()[static_cast<std::size_t>(std::abs(mark))];
  }
  static int slow_mark(const Known& known, int symbol) {
    if (symbol == 1 || symbol == 2) return -128;
    if (symbol == 0) return 127;
    const long quarter[4] = {1073741824, 902905651, 759250125, 638450708};
    const int v = 32 * (symbol - 129) + 16 - known.fraction;
    const int octaves = round_down(known.width, 4);
    const long half = 1L << (30 + octaves);
    const long q = (std::abs(v) * quarter[known.width - 4 * octaves] + half) / (2 * half);
    return static_cast<int>(std::min(127L, q)) * (v < 0 ? -1 : 1);
  }
  std::int64_t offset(const Role& role) const { return taps_ > 1 ? role.convolution : role.matrix; }
  std::int64_t column() const {
    return (first_ + static_cast<std::int64_t>(marks_.size())) % columns_;
  }
  std::size_t tap() const { return static_cast<std::size_t>(column() % taps_); }
  bool there(std::int64_t back) const {
    return back >= 1 && back <= static_cast<std::int64_t>(marks_.size());
  }
  int mark_at(std::int64_t back) const {
    return marks_[marks_.size() - static_cast<std::size_t>(back)];
  }
  int value_at(std::int64_t back) const {
    return there(back) && mark_at(back) != -128 ? mark_at(back) : 0;
  }
  int magnitude_at(std::int64_t back) const {
    return there(back) ? magnitude_of(mark_at(back)) : 26;
  }

  std::int64_t columns_, taps_;
  DigitKind kind_;
  bool flat_;
  std::int64_t first_;
  std::vector<Role> roles_;
  std::vector<int> marks_, tap_energy_;
  std::vector<std::vector<int>> coefficients_;
  int fast_ = 416, slow_ = 416, ahead_ = 416, adaptive_ = 0;
};

}  // namespace lmgc::test
