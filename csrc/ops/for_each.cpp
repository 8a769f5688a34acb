#include "ops/for_each.h"

#include <c10/util/Exception.h>

namespace lmgc::ops {

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
