#include "cuda/memory.h"

#include <cuda_runtime.h>

namespace lmgc::cuda {

int out_of_memory() { return cudaErrorMemoryAllocation; }

int upload(void* device, const void* host, std::size_t bytes, void* stream) {
  if (bytes == 0) return cudaSuccess;
  // from pageable memory this returns when the bytes are in a staging buffer
  return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                         static_cast<cudaStream_t>(stream));
}

int download(void* host, const void* device, std::size_t bytes, void* stream) {
  if (bytes != 0) {
    const cudaError_t error = cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                                              static_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) return error;
  }
  return cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
}

int clear(void* device, std::size_t bytes, void* stream) {
  if (bytes == 0) return cudaSuccess;
  return cudaMemsetAsync(device, 0, bytes, static_cast<cudaStream_t>(stream));
}

}  // namespace lmgc::cuda
