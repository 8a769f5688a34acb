#include <cuda_runtime.h>

#include "cuda/runtime.h"

namespace lmgc::cuda {

int compiled_runtime_version() noexcept { return CUDART_VERSION; }

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // clears the error, which is otherwise reported by an unrelated later call
    return 0;
  }
  return count;
}

}  // namespace lmgc::cuda
