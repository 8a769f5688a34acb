// A tensor's compressed bytes before they have a place: how many, and how to write them once there
// is one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace lmgc::ops {

struct Section {
  std::int64_t size = 0;
  // `out`: 1-D uint8, `size` bytes, on the frame's device.
  std::function<void(const at::Tensor& out)> write;
  // Null, or to be called after write() of all sections of a frame: writes what others only took
  // note of, for all of them at once.
  std::function<void()> finish = nullptr;
};

}  // namespace lmgc::ops
