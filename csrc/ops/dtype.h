// torch's element types <-> the codec's, and tensors as plain bytes.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "core/float_format.h"

namespace lmgc::ops {

// Raises a ValueError that names the type (quantized, sub-byte, ...) if the codec has none for it.
DType dtype_of(at::ScalarType type);

// Raises a ValueError for an element type that this torch does not have.
at::ScalarType scalar_type(DType dtype);

// `tensor` with its elements one after the other in C order, as they read (conjugation and negation
// done); a copy only where it has to be. Raises a ValueError, with `what` ("the tensor") as its
// subject, if there is no such thing: a sparse tensor, an element type that the codec does not
// have, a device other than CPU and CUDA.
at::Tensor plain(const at::Tensor& tensor, const char* what);

// The bytes of a contiguous tensor: a 1-D uint8 view, empty for an empty tensor. Autograd knows
// nothing of it.
at::Tensor bytes_of(const at::Tensor& tensor);

// The bytes [first, first + size) of a contiguous 1-D uint8 tensor that has them, likewise.
at::Tensor part_of(const at::Tensor& bytes, std::int64_t first, std::int64_t size);

// Copies the bytes of one contiguous uint8 tensor into another of the same size and device.
void copy_bytes(const at::Tensor& from, const at::Tensor& to);

}  // namespace lmgc::ops
