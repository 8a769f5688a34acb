// Large matrices cut into panels for the threads. Where results depend on the cut, it follows from
// the shapes alone: the same bits with any number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace lmgc::ops {

// a x b. On the CPU in up to eight panels of the longest side, each the work of one thread; sums
// over a side that is cut are added in order.
at::Tensor mm_in_panels(const at::Tensor& a, const at::Tensor& b);

// The dimension along which a matrix's lines are contiguous, or nearly: the other's lines are
// panels in memory.
inline std::int64_t contiguous_side(const at::Tensor& matrix) {
  return matrix.stride(1) <= matrix.stride(0) ? 1 : 0;
}

// body(begin, count) for panels of lines that make up the matrix, (begin, count) of the dimension
// that is not its contiguous_side(). For work on each element alone: the cut is any.
void for_each_panel(const at::Tensor& matrix,
                    const std::function<void(std::int64_t begin, std::int64_t count)>& body);

}  // namespace lmgc::ops
