#include "ops/digit_coders.h"

#include "core/digit_engine.h"
#include "ops/digit_module.h"
#include "ops/for_each.h"
#ifdef LMGC_WITH_CUDA
#include "ops/digit_device.h"
#endif

namespace lmgc::ops {

std::unique_ptr<DigitCoder> digit_coder(const Prior& prior, std::int64_t memory_limit,
                                        std::int64_t batch_lanes) {
  const DigitPrior* const native = prior.native();
  if (native == nullptr) return module_coder(prior, memory_limit, batch_lanes);
#ifdef LMGC_WITH_CUDA
  if (prior.device().is_cuda()) return device_coder(native->view(), prior.device());
#endif
  return std::make_unique<DigitEngine>(native->view(), aten_parallel(), at::get_num_threads());
}

}  // namespace lmgc::ops
