// A tensor's compressed bytes before they have a place: how many, and how to write them once there
// is one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace lmgc::ops {

struct Section {
  std::int64_t size = 0;
  std::function<void(const at::Tensor& out)>
      write;  // `out`: 1-D uint8, `size` bytes, on the frame's device
};

}  // namespace lmgc::ops
