// Runs one shared function object over an index range where the data live: ATen's threads on the
// CPU, a kernel on CUDA's current stream. The object is the same on both, and so are the results.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
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

// Calls body(begin, end) for ranges that make up [0, count), each of `grain` or more but for one:
// by ATen's threads or, within for_each_tensor(), by those of its threads that have nothing better
// to do. How it is cut depends on how many there are.
void for_each_range(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body);

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
  for_each_range(count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

// The threads of for_each_range() for csrc/core.
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
  OneBlasThread() {
    // ATen sets up a thread when it is first asked here, MKL's number of threads too: before us.
    at::get_num_threads();
    before_ = MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0;
  }
  ~OneBlasThread() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }
  OneBlasThread(const OneBlasThread&) = delete;
  OneBlasThread& operator=(const OneBlasThread&) = delete;

 private:
  int before_ = 0;
};

// Calls body(i) once for every tensor i of `bytes` bytes. On the CPU the threads share tensors, the
// largest first, and then the work on those that are left: what body does by for_each_range() and
// what is built on it. Tensors at work at the same time have 64 MiB together, unless it is one
// alone. On a device they come one after the other.
void for_each_tensor(const c10::Device& device, const std::vector<std::int64_t>& bytes,
                     const std::function<void(std::size_t)>& body);

}  // namespace lmgc::ops
