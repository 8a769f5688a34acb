// What the CUDA runtime says about this machine. Plain C++: includable without nvcc.
#pragma once

namespace lmgc::cuda {

// Version of the CUDA runtime this library was compiled with, e.g. 13000 for 13.0.
int compiled_runtime_version() noexcept;

// Number of usable devices; 0 where there is no driver.
int device_count() noexcept;

}  // namespace lmgc::cuda
