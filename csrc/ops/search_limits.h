// How long the encoder looks for a prediction: what `effort` means.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>

namespace lmgc::ops {

inline constexpr std::int64_t usual_effort = 5;

struct SearchLimits {
  std::int64_t most_components = 0;  // that a look takes; time is as elements times these
  std::int64_t most_exact_side = 0;  // of matrices whose singular vectors are all computed
  int iterations = 0;                // of a subspace, from the first look on
  bool reweighs = false;             // looks again in weights of what the first look leaves
  bool every_view = false;           // all views of a tensor to the end, not the most promising one
};

// `effort`: 1, the quickest, to 9, the smallest; a ValueError otherwise.
inline SearchLimits search_limits(std::int64_t effort) {
  constexpr SearchLimits limits[] = {
      {8, 16, 1, false, false},  {24, 32, 1, true, false},   {48, 96, 1, true, false},
      {96, 192, 1, true, false}, {256, 320, 1, true, false}, {320, 448, 1, true, true},
      {448, 640, 1, true, true}, {640, 1024, 2, true, true}, {1 << 20, 2048, 2, true, true},
  };
  TORCH_CHECK_VALUE(effort >= 1 && effort <= 9, "effort is ", effort, ": it goes from 1 to 9");
  return limits[effort - 1];
}

}  // namespace lmgc::ops
