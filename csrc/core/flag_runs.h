// Which of many lines are flagged, as alternating runs: memory for the runs alone, so that a few
// bytes which announce a great many lines take no more than they justify.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lmgc {

class FlagRuns {
 public:
  static constexpr std::int64_t longest = 65535;  // longer ones are cut by an empty one

  FlagRuns() = default;
  explicit FlagRuns(const std::vector<bool>& flags) {
    bool flag = false;
    for (std::size_t i = 0; i < flags.size(); flag = !flag) {
      std::size_t end = i;
      while (end < flags.size() && flags[end] == flag && end - i < longest) ++end;
      append(static_cast<std::uint16_t>(end - i));
      i = end;
    }
  }

  // The next run, the first one of lines that are not flagged.
  void append(std::uint16_t run) {
    (runs_.size() % 2 == 0 ? clear_ : set_) += run;
    runs_.push_back(run);
  }
  const std::vector<std::uint16_t>& runs() const { return runs_; }

  std::int64_t lines() const { return clear_ + set_; }
  bool empty() const { return lines() == 0; }
  // How many lines are flagged, and how many are not.
  std::int64_t set() const { return set_; }
  std::int64_t clear() const { return clear_; }

  // body(line) for every line that is not flagged, in order.
  template <class Body>
  void for_each_clear(const Body& body) const {
    std::int64_t line = 0;
    bool flag = false;
    for (const std::uint16_t run : runs_) {
      for (std::int64_t i = line; !flag && i < line + run; ++i) body(i);
      line += run;
      flag = !flag;
    }
  }

  std::vector<bool> flags() const {
    std::vector<bool> flags(static_cast<std::size_t>(lines()), true);
    for_each_clear([&](std::int64_t line) { flags[static_cast<std::size_t>(line)] = false; });
    return flags;
  }

 private:
  std::vector<std::uint16_t> runs_;
  std::int64_t clear_ = 0, set_ = 0;
};

// body(line) for every line of `lines` that is not dead; `dead` is empty where none is.
template <class Body>
void for_each_live(const FlagRuns& dead, std::int64_t lines, const Body& body) {
  if (!dead.empty()) return dead.for_each_clear(body);
  for (std::int64_t line = 0; line < lines; ++line) body(line);
}

}  // namespace lmgc
