#include "ops/checksum.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>

#include "core/checksum_blocks.h"
#include "ops/for_each.h"

namespace lmgc::ops {

std::uint64_t checksum_of(const at::Tensor& tensor) {
  const auto size = static_cast<std::int64_t>(tensor.nbytes());
  if (size == 0) return checksum_finish(0, 0);
  const auto* data = static_cast<const std::uint8_t*>(tensor.data_ptr());
  const std::int64_t blocks = (size - 1) / SumBlocks::block_bytes + 1;
  if (tensor.is_cpu()) {
    constexpr std::int64_t grain = 8;  // blocks worth a thread
    std::atomic<std::uint64_t> sum{0};
    at::parallel_for(0, blocks, grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * SumBlocks::block_bytes;
      const std::int64_t last = std::min(end * SumBlocks::block_bytes, size);
      sum += checksum_sum(data + first, static_cast<std::size_t>(last - first),
                          static_cast<std::uint64_t>(first / 8));
    });
    return checksum_finish(sum, static_cast<std::uint64_t>(size));
  }
  const at::Tensor sums = at::empty({blocks}, tensor.options().dtype(at::kLong));
  for_each(tensor.device(), blocks,
           SumBlocks{data, size, reinterpret_cast<std::uint64_t*>(sums.data_ptr<std::int64_t>())});
  // Two's complement: int64 sums wrap as the unsigned ones do.
  return checksum_finish(static_cast<std::uint64_t>(sums.sum().item<std::int64_t>()),
                         static_cast<std::uint64_t>(size));
}

}  // namespace lmgc::ops
