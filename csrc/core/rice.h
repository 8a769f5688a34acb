// Short lines of small integers as side information: adaptive Rice codes, no parameters to send.
#pragma once

#include <cstdint>
#include <vector>

#include "core/bits.h"
#include "core/flag_runs.h"

namespace lmgc {

// The code of one integer after the other; its parameter follows the running mean of what was coded
// (as in JPEG-LS). Writer and reader each have their own.
class AdaptiveRice {
 public:
  // |value| <= most_rice.
  void put(BitWriter& out, std::int32_t value);
  std::int32_t get(BitReader& in);

 private:
  int parameter() const;
  void update(std::uint32_t value);

  std::uint64_t sum_ = 4, count_ = 1;
};
inline constexpr std::int32_t most_rice = 65535;

// A line of integers that are near their mean, or near the one before them, whichever is shorter.
// Nothing for an empty line; at least one bit for each integer.
void write_line(BitWriter& out, const std::vector<std::int16_t>& line);

// Reads line.size() integers from untrusted bits; false when there are none such.
bool read_line(BitReader& in, std::vector<std::int16_t>& line);

// Which of a tensor's lines are empty: a bit at least for each run.
void write_flags(BitWriter& out, const FlagRuns& flags);

// Reads those of `lines` lines from untrusted bits; false when there are none such. Takes 2 bytes
// of memory for each bit that is there, whatever `lines` is.
bool read_flags(BitReader& in, std::int64_t lines, FlagRuns& flags);

}  // namespace lmgc
