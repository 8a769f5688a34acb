#include "core/fixed_kernels.h"

#include "core/isa.h"

namespace lmgc {

const FixedKernels* fixed_kernels() {
#if defined(__x86_64__)
  if (has_isa(isa_avx512f | isa_avx512bw | isa_avx512cd | isa_avx512dq | isa_avx512vl))
    return &fixed_kernels_avx512;
#endif
  return nullptr;
}

}  // namespace lmgc
