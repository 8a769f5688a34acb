#include "cuda/planes_chunks.h"

#include "cuda/launch.h"

namespace lmgc::cuda {
namespace {

// counts[0, count) become the sums of those before each.
int add_up(std::int64_t* counts, std::int64_t count, const Allocate& allocate, void* stream) {
  const std::int64_t stretches = (count + SumStretches::stretch - 1) / SumStretches::stretch;
  if (stretches == 1) return launch_warps(1, AddUp{counts, count, count, nullptr}, stream);
  const auto sums_size = static_cast<std::size_t>(stretches) * sizeof(std::int64_t);
  std::int64_t* sums = nullptr;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(stretches), &sums))
    return error;
  if (int error = clear(sums, sums_size, stream)) return error;
  if (int error = launch_warps(stretches, SumStretches{counts, count, sums}, stream)) return error;
  if (int error = launch_warps(1, AddUp{sums, stretches, stretches, nullptr}, stream)) return error;
  return launch_warps(stretches, AddUp{counts, count, SumStretches::stretch, sums}, stream);
}

}  // namespace

int ChunkCounts::allocate_for(const std::vector<std::int64_t>& elements, const Allocate& allocate) {
  first_.assign(1, 0);
  for (const std::int64_t own : elements) first_.push_back(first_.back() + chunks_of(own));
  const auto chunks = static_cast<std::size_t>(first_.back());
  if (int error = allocate_array(allocate, chunks * warp_lanes, &masks_)) return error;
  return allocate_array(allocate, chunks + 1, &counts_);
}

int ChunkCounts::add_up(const Allocate& allocate, void* stream,
                        std::vector<std::int64_t>& kept) const {
  const std::int64_t chunks = first_.back();
  std::int64_t *places = nullptr, *sums = nullptr;
  if (int error = clear(counts_ + chunks, sizeof *counts_, stream)) return error;
  if (int error = cuda::add_up(counts_, chunks + 1, allocate, stream)) return error;
  if (int error = upload_array(first_, allocate, stream, &places)) return error;
  if (int error = allocate_array(allocate, first_.size(), &sums)) return error;
  const PickSums job{counts_, places, sums};
  if (int error = launch(static_cast<std::int64_t>(first_.size()), job, stream)) return error;
  std::vector<std::int64_t> before(first_.size());
  if (int error = download(before.data(), sums, before.size() * sizeof before[0], stream))
    return error;
  kept.clear();
  for (std::size_t k = 0; k + 1 < before.size(); ++k) kept.push_back(before[k + 1] - before[k]);
  return 0;
}

}  // namespace lmgc::cuda
