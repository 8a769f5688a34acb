// Marks the functions that CPU and CUDA code share, so that both run the same lines.
#pragma once

#if defined(__CUDACC__)
#define LMGC_HD __host__ __device__
#else
#define LMGC_HD
#endif
