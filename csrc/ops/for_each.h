// Runs one shared function object over an index range where the data live: ATen's threads on the
// CPU, a kernel on CUDA's current stream. The object is the same on both, and so are the results.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/Device.h>

#include <cstdint>

#include "core/parallel.h"

#ifdef LMGC_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
#endif

namespace lmgc::ops {

// Raises an error unless this build can work on `device`: the CPU always, CUDA when it was built
// in.
void check_device(const c10::Device& device, const char* what);

// body(i) for every i in [0, count). `grain`: the least number of calls worth a thread on the CPU.
// On CUDA it returns as soon as the kernel is enqueued.
template <class Body>
void for_each([[maybe_unused]] const c10::Device& device, std::int64_t count, const Body& body,
              std::int64_t grain = 1) {
  if (count <= 0) return;
#ifdef LMGC_WITH_CUDA
  if (device.is_cuda()) {
    void* stream = c10::cuda::getCurrentCUDAStream(device.index()).stream();
    C10_CUDA_CHECK(static_cast<cudaError_t>(cuda::launch(count, body, stream)));
    return;
  }
#endif
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

// ATen's threads for csrc/core.
Parallel aten_parallel();

}  // namespace lmgc::ops
