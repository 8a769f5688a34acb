// A device that is the CPU: memory.h's copies and launch.h's launches as plain loops
// (emulated_device.cpp), so that csrc/cuda runs here but for a warp's own instructions. Threads,
// warps and blocks run one after the other, from the last to the first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/memory.h"

namespace lmgc::test {

// Memory that nobody has cleared, of exactly the size that was asked for.
class EmulatedDevice {
 public:
  void* allocate(std::size_t bytes) {
    all_.emplace_back(std::malloc(bytes), std::free);
    if (bytes != 0) std::memset(all_.back().get(), 0xA5, bytes);
    return all_.back().get();
  }
  void read(void* host, const void* device, std::size_t bytes) {
    if (bytes != 0) std::memcpy(host, device, bytes);
  }
  void write(void* device, const void* host, std::size_t bytes) {
    if (bytes != 0) std::memcpy(device, host, bytes);
  }
  // A copy of an array in its memory, and back.
  template <class T>
  T* put(const std::vector<T>& host) {
    void* const there = allocate(host.size() * sizeof(T));
    write(there, host.data(), host.size() * sizeof(T));
    return static_cast<T*>(there);
  }
  template <class T>
  T* room(std::size_t count) {
    return static_cast<T*>(allocate(count * sizeof(T)));
  }
  template <class T>
  std::vector<T> get(const T* there, std::size_t count) {
    std::vector<T> host(count);
    read(host.data(), there, count * sizeof(T));
    return host;
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> all_;
};

// One whose memory runs out.
class ScarceDevice {
 public:
  // The next `count` allocations succeed, and no more.
  void allow(int count) { left_ = count; }
  cuda::Allocate allocate() {
    return [this](std::size_t bytes) -> void* {
      return left_-- > 0 ? device_.allocate(bytes) : nullptr;
    };
  }
  EmulatedDevice& device() { return device_; }

  // How many allocations `body` takes: calls it with more and more of them until it returns 0.
  // -1 if it returns something else than cuda::out_of_memory() before, or never 0.
  template <class Body>
  int needed(const Body& body) {
    for (int count = 0; count < 200; ++count) {
      allow(count);
      const int error = body();
      if (error == 0) return count;
      if (error != cuda::out_of_memory()) break;
    }
    return -1;
  }

 private:
  EmulatedDevice device_;
  int left_ = 0;
};

// How often the host has waited for the device (download()), and how many launches there were,
// since the program began.
struct DeviceCounts {
  std::int64_t waits = 0, launches = 0;
};
DeviceCounts device_counts();

}  // namespace lmgc::test
