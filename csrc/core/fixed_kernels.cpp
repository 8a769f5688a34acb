#include "core/fixed_kernels.h"

namespace lmgc {

const FixedKernels* fixed_kernels() {
#if defined(__x86_64__)
  static const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  if (has_avx512) return &fixed_kernels_avx512;
#endif
  return nullptr;
}

}  // namespace lmgc
