// How csrc/core shares work among threads it does not own: the caller brings the threads (ATen's in
// the operators, none in plain tests). Results never depend on how many there are.
#pragma once

#include <cstdint>
#include <functional>

namespace lmgc {

// Calls body(i) once for every i in [0, count), in any order, from any number of threads, and
// returns when all are done. Bodies are coarse (tens of microseconds and more) and must not throw.
using Parallel =
    std::function<void(std::int64_t count, const std::function<void(std::int64_t)>& body)>;

inline void run_serially(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace lmgc
