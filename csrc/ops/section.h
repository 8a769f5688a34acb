// A tensor's compressed bytes before they have a place, and a tensor's own before they have one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace lmgc::ops {

// How many bytes a section takes, and how to write them once there is a place.
struct Section {
  std::int64_t size = 0;
  // `out`: 1-D uint8, `size` bytes, on the frame's device.
  std::function<void(const at::Tensor& out)> write;
  // Null, or to be called after write() of all sections of a frame: writes what others only took
  // note of, for all of them at once.
  std::function<void()> finish = nullptr;
};

// Allocates the bytes that a section decodes to, 1-D uint8. Decoders ask for them once, when all
// that the section's head says was checked: a section that lies about its size takes no memory for
// it.
using Room = std::function<at::Tensor()>;

}  // namespace lmgc::ops
