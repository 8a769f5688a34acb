// The heads of sections, down to the host. Plain C++: includable without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cuda/memory.h"

namespace lmgc::cuda {

// Bytes data[0, size) in device memory.
struct DeviceSection {
  const std::uint8_t* data;
  std::size_t size;
};

// Reads the first `size` bytes of section k. False when it needs more of them.
using ReadHead = std::function<bool(std::size_t k, const std::uint8_t* bytes, std::size_t size)>;

// Calls read() for all sections with `first` bytes of each, or all of a shorter one, and again with
// sixteen times as many for those that need more, up to all that there are. Waits once each time.
int read_heads(const std::vector<DeviceSection>& sections, std::size_t first,
               const Allocate& allocate, void* stream, const ReadHead& read);

}  // namespace lmgc::cuda
