// Runs one shared function object over an index range where the data live: ATen's threads on the
// CPU, a kernel on CUDA's current stream. The object is the same on both, and so are the results.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/Device.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/parallel.h"

#ifdef LMGC_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/launch.h"
#endif

// MKL's, where torch brings it.
extern "C" int MKL_Set_Num_Threads_Local(int threads) __attribute__((weak));

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

// What ATen's functions shall do in this library whatever the caller's context: no autograd, no
// autocast, and none of the bookkeeping of inference mode, which threads of a pool do not inherit.
class PlainDispatch {
  const at::AutoDispatchBelowADInplaceOrView plain_;
  const c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
};

// For a thread of a parallel region that calls BLAS and LAPACK. ATen tells MKL to start its threads
// in regions as well (mkl_set_dynamic(0)): there they are none, and LAPACK's may wait for each
// other for ever.
class OneBlasThread {
 public:
  OneBlasThread() : before_(MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0) {}
  ~OneBlasThread() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }
  OneBlasThread(const OneBlasThread&) = delete;
  OneBlasThread& operator=(const OneBlasThread&) = delete;

 private:
  int before_;
};

// body(i) once for every tensor i of `bytes` bytes. On the CPU, small tensors share the threads,
// one thread each; large ones come one after the other and have all threads to themselves (parallel
// regions do not nest).
template <class Body>
void for_each_tensor(const c10::Device& device, const std::vector<std::int64_t>& bytes,
                     const Body& body) {
  constexpr std::int64_t large = std::int64_t{4} << 20;
  constexpr std::int64_t worth_a_thread = std::int64_t{1} << 16;  // bytes: it must be woken
  std::vector<std::size_t> small;
  std::int64_t small_bytes = 0;
  const PlainDispatch plain;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (!device.is_cpu() || bytes[i] >= large) {
      body(i);
    } else {
      small.push_back(i);
      small_bytes += bytes[i];
    }
  }
  // Largest first, dealt out: no thread is left with a long one at the end.
  std::stable_sort(small.begin(), small.end(),
                   [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
  const auto count = static_cast<std::int64_t>(small.size());
  const auto workers = std::min<std::int64_t>(std::min<std::int64_t>(at::get_num_threads(), count),
                                              1 + small_bytes / worth_a_thread);
  at::parallel_for(0, workers, 1, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain_here;
    const OneBlasThread one_thread;
    for (std::int64_t worker = begin; worker < end; ++worker) {
      for (std::int64_t k = worker; k < count; k += workers)
        body(small[static_cast<std::size_t>(k)]);
    }
  });
}

}  // namespace lmgc::ops
