// Row and column scales of a tensor, estimated where the tensor lives.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/predict.h"

namespace lmgc::ops {

// Geometric-mean scales by three rounds of alternating exact integer means. `values` is contiguous,
// non-empty, and of a float type of `format`. The result is the same on every device.
Scales estimate_scales(const at::Tensor& values, FloatFormat format, const MatrixShape& shape);

// Scales where features are computed; undefined or empty: none.
struct DeviceScales {
  at::Tensor rows, columns;
};
DeviceScales upload_scales(const Scales& scales, const at::Device& device);

// A tensor as features see it, all of whose bits are known. `words` lies where the scales lie.
TensorContext tensor_context(const void* words, FloatFormat format, const MatrixShape& shape,
                             const DeviceScales& scales);

}  // namespace lmgc::ops
