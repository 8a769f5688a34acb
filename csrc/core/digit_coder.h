// Matrices of symbols, cut into lanes, and who codes them: the box "prior and coder" of method
// `lm`. Lanes are independent of each other, so that any number of them goes side by side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/digit_context.h"

namespace lmgc {

// Symbols that are coded row after row. A decoder writes `symbols`.
struct DigitMatrix {
  DigitGeometry geometry;
  std::int64_t elements = 0;
  const Known* known = nullptr;
  std::uint8_t* symbols = nullptr;
};

// A run of symbols of one matrix: at most most_lane_elements (lanes.h).
struct DigitLane {
  std::int32_t matrix = 0;
  std::int32_t count = 0;
  std::int64_t first = 0;
};

// The bytes of a lane, untrusted.
struct LaneBytes {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
};

using CodedLane = std::vector<std::uint8_t>;

// Codes two digits a symbol, the high one first, by the range coder (range_coder.h). Equal symbols
// give equal bytes however the work is shared.
class DigitCoder {
 public:
  virtual ~DigitCoder() = default;
  virtual std::vector<CodedLane> encode(const std::vector<DigitMatrix>& matrices,
                                        const std::vector<DigitLane>& lanes) const = 0;
  // Any bytes decode to some symbols.
  virtual void decode(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
                      const std::vector<LaneBytes>& bytes) const = 0;
};

}  // namespace lmgc
