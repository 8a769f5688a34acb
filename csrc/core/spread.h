// Where to look at a part of something long that stands for all of it.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace lmgc {

// The i-th of `count` places in [0, total), 0 <= i < count <= total, in order: one in each of
// `count` equal stretches, at a place that looks random, so that no period of the data lines up
// with them.
LMGC_HD constexpr std::int64_t spread_place(std::int64_t i, std::int64_t count,
                                            std::int64_t total) {
  auto hash = static_cast<std::uint32_t>(i + 1) * 0x9E3779B9u;
  hash = (hash ^ hash >> 16) * 0x85EBCA6Bu;
  hash ^= hash >> 13;
  const std::int64_t first = i * total / count, next = (i + 1) * total / count;
  return first + static_cast<std::int64_t>(static_cast<std::uint64_t>(next - first) * hash >> 32);
}

}  // namespace lmgc
