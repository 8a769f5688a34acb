#include "ops/for_each.h"

#include <c10/util/Exception.h>
#include <omp.h>
#include <pthread.h>

// Of OpenMP 5; not in what torch brought before 2.7.
extern "C" int omp_pause_resource_all(omp_pause_resource_t kind) __attribute__((weak));

namespace lmgc::ops {
namespace {

// A forked process has none of its parent's threads, but GNU's OpenMP believes that it has those of
// the pool, and would wait for them for ever. So the pool of the thread that forks ends before, and
// both processes start another when they need one. Where it cannot be ended, the forked process
// computes with one thread.
void end_pool() {
  if (omp_pause_resource_all) omp_pause_resource_all(omp_pause_soft);
}
void use_one_thread() {
  if (omp_pause_resource_all) return;
  omp_set_num_threads(1);
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(1);
}
[[maybe_unused]] const int registered = pthread_atfork(end_pool, nullptr, use_one_thread);

}  // namespace

void check_device(const c10::Device& device, const char* what) {
  if (device.is_cpu()) return;
  TORCH_CHECK_VALUE(device.is_cuda(), what, " is on ", device.str(),
                    ": lmgc works on CPU and CUDA tensors; move it with .cpu()");
#ifndef LMGC_WITH_CUDA
  TORCH_CHECK(false, what, " is on ", device.str(),
              ", but lmgc_torch was built without CUDA (`python -m lmgc_torch` says why); move it "
              "with .cpu()");
#endif
}

Parallel aten_parallel() {
  return [](std::int64_t count, const std::function<void(std::int64_t)>& body) {
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(i);
    });
  };
}

}  // namespace lmgc::ops
