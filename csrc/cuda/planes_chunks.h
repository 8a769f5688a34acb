// What encoder and decoder of method `planes` share on the host: sizes of elements as constants,
// and the masks of many tensors. Internal to csrc/cuda/planes and planes_decoder.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "cuda/memory.h"
#include "cuda/planes_jobs.h"

namespace lmgc::cuda {

inline std::int64_t chunks_of(std::int64_t elements) {
  return (elements + chunk_elements - 1) / chunk_elements;
}

// Calls body(width) for every size of elements, as a constant, until one fails.
template <class Body>
int for_each_width(const Body& body) {
  if (int error = body(std::integral_constant<int, 1>{})) return error;
  if (int error = body(std::integral_constant<int, 2>{})) return error;
  if (int error = body(std::integral_constant<int, 4>{})) return error;
  if (int error = body(std::integral_constant<int, 8>{})) return error;
  return body(std::integral_constant<int, 16>{});
}

// The masks of tensors, and what there is to know of their chunks.
class ChunkCounts {
 public:
  // `elements` of each tensor.
  int allocate_for(const std::vector<std::int64_t>& elements, const Allocate& allocate);

  std::uint32_t* mask(std::size_t k) const { return masks_ + first_[k] * warp_lanes; }
  // The counts of tensor k's chunks, and after add_up() the kept elements before each, those of
  // other tensors included.
  std::int64_t* counts(std::size_t k) const { return counts_ + first_[k]; }

  // kept[k]: the ones of mask k. Waits.
  int add_up(const Allocate& allocate, void* stream, std::vector<std::int64_t>& kept) const;

 private:
  std::vector<std::int64_t> first_;  // chunk of each tensor, and how many there are
  std::uint32_t* masks_ = nullptr;
  std::int64_t* counts_ = nullptr;
};

}  // namespace lmgc::cuda
