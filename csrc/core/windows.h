// Windows: a lane is longer than what a prior can look back at, so its state starts anew every so
// often. docs/format.md, section 7.4, specifies where.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

// Codes are part of the format.
enum class WindowKind : std::uint8_t {
  disjoint = 0,  // a window begins where the one before ends, and knows nothing of it
  sliding = 1    // a window begins with the last part of the one before, as known context
};
inline constexpr int window_kinds = 2;

struct Windows {
  std::int32_t elements = 1;  // of a window: whole periods of the tokens' pattern
  std::int32_t overlap = 0;   // of them, whole periods too: known already, but for the lane's first

  // Elements from one window's beginning to the next one's.
  LMGC_HD std::int32_t stride() const { return elements - overlap; }
  // Whether a window codes its first element there, an index within the lane.
  LMGC_HD bool codes_from(std::int32_t element) const {
    return element == 0 || (element >= elements && (element - elements) % stride() == 0);
  }
};

// A period has `period_tokens` tokens of `period_elements` elements.
inline Windows make_windows(WindowKind kind, std::int64_t max_context, std::int32_t period_tokens,
                            std::int32_t period_elements) {
  constexpr std::int64_t most_periods = 1 << 16;
  std::int64_t periods = max_context / period_tokens;
  periods = periods < 1 ? 1 : periods > most_periods ? most_periods : periods;
  Windows windows;
  windows.elements = static_cast<std::int32_t>(periods) * period_elements;
  if (kind == WindowKind::sliding)
    windows.overlap = static_cast<std::int32_t>(periods / 2) * period_elements;
  return windows;
}

// body(first, known, count) for every window of a lane of `lane_elements`: its first element within
// the lane, how many elements it begins with that are known, and how many it has with them.
template <class Body>
void for_each_window(const Windows& windows, std::int32_t lane_elements, const Body& body) {
  std::int32_t known = 0;
  for (std::int32_t first = 0; first + known < lane_elements; first += windows.stride()) {
    const std::int32_t left = lane_elements - first;
    body(first, known, left < windows.elements ? left : windows.elements);
    known = windows.overlap;
  }
}

}  // namespace lmgc
