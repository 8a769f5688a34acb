// Host tables on the device that works with them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace lmgc::ops {

inline at::TensorOptions on(const at::Device& device, at::ScalarType type) {
  return at::TensorOptions().device(device).dtype(type);
}

// Trivially copyable items in a uint8 tensor on `device`.
template <class T>
at::Tensor upload(const std::vector<T>& items, const at::Device& device) {
  at::Tensor host = at::empty({static_cast<std::int64_t>(items.size() * sizeof(T))}, at::kByte);
  if (!items.empty()) std::memcpy(host.data_ptr(), items.data(), items.size() * sizeof(T));
  return host.to(device);
}

template <class T>
T* items_of(const at::Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.data_ptr());
}

}  // namespace lmgc::ops
