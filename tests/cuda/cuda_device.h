// The current CUDA device, as the tests of csrc/cuda see one.
#pragma once

#include <cuda_runtime.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <vector>

#include "cuda/runtime.h"

namespace lmgc::test {

// Its memory lives as long as this.
class CudaDevice {
 public:
  CudaDevice() = default;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() {
    for (void* pointer : all_) cudaFree(pointer);
  }
  void* allocate(std::size_t bytes) {
    void* pointer = nullptr;
    REQUIRE(cudaMalloc(&pointer, bytes + 1) == cudaSuccess);
    all_.push_back(pointer);
    return pointer;
  }
  void read(void* host, const void* device, std::size_t bytes) {
    REQUIRE(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
  }
  void write(void* device, const void* host, std::size_t bytes) {
    REQUIRE(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
  }

 private:
  std::vector<void*> all_;
};

inline bool no_device() {
  if (cuda::device_count() > 0) return false;
  WARN("there is no CUDA device here: nothing is tested");
  return true;
}

}  // namespace lmgc::test
