#include "ops/checksum.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>

#include "core/checksum.h"
#include "ops/for_each.h"

#ifdef LMGC_WITH_CUDA
#include "cuda/checksum.h"
#include "ops/device_memory.h"
#endif

namespace lmgc::ops {

std::uint64_t checksum_of(const at::Tensor& tensor) {
  if (tensor.is_cuda()) return checksums_of({tensor})[0];
  constexpr std::int64_t block = 1 << 15, grain = 8;  // grain: blocks worth a thread
  const auto size = static_cast<std::int64_t>(tensor.nbytes());
  if (size == 0) return checksum_finish(0, 0);
  const auto* data = static_cast<const std::uint8_t*>(tensor.data_ptr());
  std::atomic<std::uint64_t> sum{0};
  for_each_range((size - 1) / block + 1, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * block, last = std::min(end * block, size);
    sum += checksum_sum(data + first, static_cast<std::size_t>(last - first),
                        static_cast<std::uint64_t>(first / 8));
  });
  return checksum_finish(sum, static_cast<std::uint64_t>(size));
}

std::vector<std::uint64_t> checksums_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::uint64_t> checksums(tensors.size());
  if (tensors.empty()) return checksums;
#ifdef LMGC_WITH_CUDA
  if (tensors[0].is_cuda()) {
    std::vector<cuda::ByteString> all;
    for (const at::Tensor& tensor : tensors) {
      all.push_back({static_cast<const std::uint8_t*>(tensor.data_ptr()),
                     static_cast<std::int64_t>(tensor.nbytes())});
    }
    DeviceMemory memory(tensors[0].device());
    check_cuda(cuda::checksums_of(all, memory.allocate(), stream_of(tensors[0]), checksums));
    return checksums;
  }
#endif
  std::vector<std::int64_t> sizes;
  for (const at::Tensor& tensor : tensors)
    sizes.push_back(static_cast<std::int64_t>(tensor.nbytes()));
  for_each_tensor(tensors[0].device(), sizes,
                  [&](std::size_t i) { checksums[i] = checksum_of(tensors[i]); });
  return checksums;
}

}  // namespace lmgc::ops
