#include "core/rice.h"

#include <algorithm>
#include <cstdlib>

#include "core/integer_math.h"

namespace lmgc {
namespace {

constexpr int longest_prefix = 24;  // then the value stands in plain bits
constexpr int plain_bits = 17;

}  // namespace

int AdaptiveRice::parameter() const {
  int k = 0;
  while ((count_ << k) < sum_ && k < 15) ++k;
  return k;
}

void AdaptiveRice::update(std::uint32_t value) {
  sum_ += value;
  if (++count_ == 64) {
    sum_ >>= 1;
    count_ >>= 1;
  }
}

void AdaptiveRice::put(BitWriter& out, std::int32_t signed_value) {
  const auto value =
      static_cast<std::uint32_t>(signed_value >= 0 ? 2 * signed_value : -2 * signed_value - 1);
  const int k = parameter();
  const std::uint32_t prefix = value >> k;
  if (prefix < static_cast<std::uint32_t>(longest_prefix)) {
    out.put((std::uint64_t{1} << prefix) - 1, static_cast<int>(prefix) + 1);
    out.put(value & ((1u << k) - 1), k);
  } else {
    out.put((std::uint64_t{1} << longest_prefix) - 1, longest_prefix);
    out.put(value, plain_bits);
  }
  update(value);
}

std::int32_t AdaptiveRice::get(BitReader& in) {
  const int k = parameter();
  int prefix = 0;
  while (prefix < longest_prefix && in.get(1) != 0) ++prefix;
  const auto value = prefix < longest_prefix ? static_cast<std::uint32_t>(prefix) << k |
                                                   static_cast<std::uint32_t>(in.get(k))
                                             : static_cast<std::uint32_t>(in.get(plain_bits));
  update(value);
  return (value & 1) != 0 ? -static_cast<std::int32_t>((value + 1) / 2)
                          : static_cast<std::int32_t>(value / 2);
}

void write_line(BitWriter& out, const std::vector<std::int16_t>& line) {
  if (line.empty()) return;
  std::int64_t sum = 0, from_previous = 0, from_mean = 0;
  for (const auto value : line) sum += value;
  const auto mean =
      static_cast<std::int32_t>(rounded_quotient(sum, static_cast<std::int64_t>(line.size())));
  std::int32_t previous = mean;
  for (const std::int32_t value : line) {
    from_previous += std::abs(value - previous);
    from_mean += std::abs(value - mean);
    previous = value;
  }
  const bool smooth = from_previous < from_mean;
  out.put(smooth, 1);
  out.put(static_cast<std::uint32_t>(mean) & 0xFFFF, 16);
  AdaptiveRice code;
  std::int32_t predicted = mean;
  for (const std::int32_t value : line) {
    code.put(out, value - predicted);
    if (smooth) predicted = value;
  }
}

bool read_line(BitReader& in, std::vector<std::int16_t>& line) {
  if (line.empty()) return true;
  const bool smooth = in.get(1) != 0;
  std::int32_t predicted = static_cast<std::int16_t>(in.get(16));
  AdaptiveRice code;
  for (auto& item : line) {
    const std::int32_t value = predicted + code.get(in);
    if (!in.ok() || value < INT16_MIN || value > INT16_MAX) return false;
    item = static_cast<std::int16_t>(value);
    if (smooth) predicted = value;
  }
  return true;
}

void write_flags(BitWriter& out, const FlagRuns& flags) {
  AdaptiveRice codes[2];
  bool flag = false;
  for (const std::uint16_t run : flags.runs()) {
    codes[flag].put(out, run);
    flag = !flag;
  }
}

bool read_flags(BitReader& in, std::int64_t lines, FlagRuns& flags) {
  flags = {};
  AdaptiveRice codes[2];
  bool flag = false;
  int empty_runs = 0;
  for (; flags.lines() < lines; flag = !flag) {
    const std::int32_t run = codes[flag].get(in);
    // Only the first run, and the one after a run that was cut, may be empty.
    empty_runs = run == 0 ? empty_runs + 1 : 0;
    if (!in.ok() || run < 0 || empty_runs > 1 || run > lines - flags.lines()) return false;
    flags.append(static_cast<std::uint16_t>(run));
  }
  return true;
}

}  // namespace lmgc
