// The host's side; the device's is checksum_jobs.h.
#include "cuda/checksum.h"

#include "cuda/checksum_jobs.h"
#include "cuda/launch.h"

namespace lmgc::cuda {

int checksums_of(const std::vector<ByteString>& all, const Allocate& allocate, void* stream,
                 std::vector<std::uint64_t>& checksums) {
  checksums.assign(all.size(), 0);
  std::uint64_t* sums = nullptr;
  const std::size_t sums_size = all.size() * sizeof *sums;
  if (int error = allocate_array(allocate, all.size(), &sums)) return error;
  if (int error = clear(sums, sums_size, stream)) return error;
  TaskListBuilder<SumBlocks::Bytes> list;
  for (std::size_t k = 0; k < all.size(); ++k) {
    const SumBlocks::Bytes own{all[k].data, all[k].size, sums + k};
    list.add(own, (own.words() + SumBlocks::block_words - 1) / SumBlocks::block_words);
  }
  if (int error = list.launch_warps<SumBlocks>(allocate, stream)) return error;
  if (int error = download(checksums.data(), sums, sums_size, stream)) return error;
  for (std::size_t k = 0; k < all.size(); ++k)
    checksums[k] = checksum_finish(checksums[k], static_cast<std::uint64_t>(all[k].size));
  return 0;
}

}  // namespace lmgc::cuda
