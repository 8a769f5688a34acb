// Small tensors of one type are coded as one flat tensor: tables and headers cost once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "core/frame.h"

namespace lmgc::ops {

// What a list of tensors is coded as.
struct Joining {
  std::vector<TensorRecord> records;  // types, sizes, checksums, joined tensors
  std::vector<at::Tensor> bytes;      // one a record
};

// Which tensors a frame may join.
enum class Joinable {
  none,
  flat,  // those that the fixed serializer sees no rows in
  all
};

// `inputs`: plain tensors of one device, `bytes` theirs, `checksums` of these. Floats join others
// of about their magnitude.
Joining join(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& bytes,
             const std::vector<std::uint64_t>& checksums, Joinable joinable);

}  // namespace lmgc::ops
