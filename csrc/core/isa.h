// The vector units that kernels may use: those of this processor, unless the environment variable
// LMGC_ISA allows fewer. What is computed is the same with all of them; to allow fewer is for tests
// of just that, and for finding out whether a kernel is to blame for a fault.
//
// LMGC_ISA=scalar   none: every subject's plain loop
// LMGC_ISA=avx2     AVX2 alone
// LMGC_ISA=avx512   all that the processor has, as without it
#pragma once

#include <cstdint>

namespace lmgc {

// Extensions of x86-64 that files named _avx2, _avx512 and _vnni are compiled for, to be combined.
enum Isa : std::uint32_t {
  isa_avx2 = 1 << 0,
  isa_avx512f = 1 << 1,
  isa_avx512bw = 1 << 2,
  isa_avx512cd = 1 << 3,
  isa_avx512dq = 1 << 4,
  isa_avx512vl = 1 << 5,
  isa_avx512vbmi = 1 << 6,
  isa_avx512vbmi2 = 1 << 7,
  isa_avx512vnni = 1 << 8,
};

// Whether kernels may use all of `needed`. The only place that asks the processor; LMGC_ISA is read
// when the first kernel is chosen, and a word other than the three allows all (the Python package
// refuses it). Other architectures have none of them.
bool has_isa(std::uint32_t needed);

}  // namespace lmgc
