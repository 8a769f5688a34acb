// The kernels of method `planes`. Internal to planes.cu.
#pragma once

#include <cstdint>

#include "core/float_format.h"
#include "core/planes.h"
#include "cuda/kernel.cuh"

namespace lmgc::cuda {

inline constexpr unsigned threads = 128;
inline constexpr std::int64_t chunk = 4096;  // elements whose kept ones are counted together
static_assert(chunk == threads * warp_size);
inline constexpr unsigned scan_threads = 1024;

// ---- one element --------------------------------------------------------------------------------

// An element of `bytes` bytes as a plain integer, in the lower half alone up to 8 bytes.
template <int bytes>
struct Element {
  static constexpr int sign = 8 * (bytes < 8 ? bytes : 8) - 1;
  std::uint64_t low = 0, high = 0;

  __device__ static Element load(const void* data, std::int64_t i) {
    Element element;
    if constexpr (bytes == 16) {
      const auto* words = static_cast<const std::uint64_t*>(data) + 2 * i;
      element.low = words[0];
      element.high = words[1];
    } else {
      element.low = load_word(data, bytes, i);
    }
    return element;
  }
  __device__ void store(void* data, std::int64_t i) const {
    if constexpr (bytes == 16) {
      auto* words = static_cast<std::uint64_t*>(data) + 2 * i;
      words[0] = low;
      words[1] = high;
    } else {
      store_word(data, bytes, i, low);
    }
  }
  __device__ bool is_zero() const { return (low | high) == 0; }
  // Rotations of floats, which have at most 8 bytes; bits above the element become anything.
  __device__ void rotate_left() { low = low << 1 | low >> sign; }
  __device__ void rotate_right() { low = low >> 1 | low << sign; }
  __device__ std::uint8_t byte(int plane) const {
    return static_cast<std::uint8_t>(plane < 8 ? low >> (8 * plane) : high >> (8 * (plane - 8)));
  }
  __device__ void set_byte(int plane, std::uint64_t value) {
    (plane < 8 ? low : high) |= value << (8 * (plane % 8));
  }
};

struct Targets {
  std::uint8_t* plane[most_planes];  // null: not wanted
};
struct Sources {
  const std::uint8_t* plane[most_planes];  // null: the plane is constant
  std::uint8_t constant[most_planes];
};

template <int bytes>
__device__ void split_element(Element<bytes> element, bool is_float, const Targets& to,
                              std::int64_t i) {
  if (is_float) element.rotate_left();
  for (int plane = 0; plane < bytes; ++plane) {
    if (to.plane[plane] != nullptr) to.plane[plane][i] = element.byte(plane);
  }
}

template <int bytes>
__device__ Element<bytes> join_element(const Sources& from, bool is_float, std::int64_t i) {
  Element<bytes> element;
  for (int plane = 0; plane < bytes; ++plane) {
    const std::uint8_t* const own = from.plane[plane];
    element.set_byte(plane, own == nullptr ? from.constant[plane] : own[i]);
  }
  if (is_float) element.rotate_right();
  return element;
}

// ---- kernels ------------------------------------------------------------------------------------

template <int bytes>
__global__ void gather_sample(const void* data, std::int64_t elements, void* sample) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < sample_size(elements))
    Element<bytes>::load(data, sample_element(i, elements)).store(sample, i);
}

template <int bytes>
__global__ void split_all(const void* data, std::int64_t elements, bool is_float, Targets to) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < elements) split_element(Element<bytes>::load(data, i), is_float, to, i);
}

template <int bytes>
__global__ void join_all(const Sources from, std::int64_t elements, bool is_float, void* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < elements) join_element<bytes>(from, is_float, i).store(out, i);
}

// A thread block makes the mask of one chunk, word by word, and counts its ones in counts[chunk +
// 1].
template <int bytes>
__global__ void mask_chunks(const void* data, std::int64_t elements, std::uint32_t* mask,
                            std::int64_t* counts) {
  __shared__ unsigned ones;
  if (threadIdx.x == 0) ones = 0;
  __syncthreads();
  const std::int64_t first = blockIdx.x * chunk;
  unsigned own = 0;
  for (std::int64_t i = first + threadIdx.x; i < first + chunk; i += threads) {
    const bool kept = i < elements && !Element<bytes>::load(data, i).is_zero();
    const unsigned word = __ballot_sync(whole_warp, kept);
    if (lane_index() == 0 && i < elements) {
      mask[i / warp_size] = word;
      own += static_cast<unsigned>(__popc(word));
    }
  }
  if (lane_index() == 0) atomicAdd(&ones, own);
  __syncthreads();
  if (threadIdx.x == 0) counts[blockIdx.x + 1] = ones;
}

// The ones of word `word` of a mask among the first `elements` elements.
__device__ inline std::uint32_t mask_word(const std::uint32_t* mask, std::int64_t elements,
                                          std::int64_t word) {
  const std::int64_t left = elements - word * warp_size;
  if (left <= 0) return 0;
  return left >= warp_size ? mask[word] : mask[word] & ((1u << left) - 1);
}

// The same counts of a mask that was decoded.
inline __global__ void count_chunks(const std::uint32_t* mask, std::int64_t elements,
                                    std::int64_t* counts) {
  __shared__ unsigned ones;
  if (threadIdx.x == 0) ones = 0;
  __syncthreads();
  const std::int64_t word = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  atomicAdd(&ones, static_cast<unsigned>(__popc(mask_word(mask, elements, word))));
  __syncthreads();
  if (threadIdx.x == 0) counts[blockIdx.x + 1] = ones;
}

// Inclusive sums of all[0, count), in place, by one thread block: each thread its own stretch.
inline __global__ void add_up(std::int64_t* all, std::int64_t count) {
  __shared__ std::int64_t sums[scan_threads];
  const std::int64_t stretch = (count + scan_threads - 1) / scan_threads;
  const std::int64_t first = min(count, threadIdx.x * stretch), last = min(count, first + stretch);
  std::int64_t sum = 0;
  for (std::int64_t i = first; i < last; ++i) sum += all[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int64_t before = 0;
    for (unsigned t = 0; t < scan_threads; ++t) {
      const std::int64_t own = sums[t];
      sums[t] = before;
      before += own;
    }
  }
  __syncthreads();
  sum = sums[threadIdx.x];
  for (std::int64_t i = first; i < last; ++i) all[i] = sum += all[i];
}

// The words of this thread block's chunk of the mask, and the kept elements of the chunk before
// each.
struct ChunkMask {
  std::uint32_t words[threads];
  std::uint32_t before[threads];
};
__device__ inline void load_chunk(const std::uint32_t* mask, std::int64_t elements,
                                  ChunkMask& own) {
  const std::int64_t word = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  own.words[threadIdx.x] = mask_word(mask, elements, word);
  __syncthreads();
  unsigned before = 0;
  for (unsigned t = threadIdx.x & ~(warp_size - 1); t < threadIdx.x; ++t) {
    before += static_cast<unsigned>(__popc(own.words[t]));
  }
  for (unsigned t = 0; t < (threadIdx.x & ~(warp_size - 1)); ++t) {
    before += static_cast<unsigned>(__popc(own.words[t]));
  }
  own.before[threadIdx.x] = before;
  __syncthreads();
}

template <int bytes>
__global__ void split_kept(const void* data, std::int64_t elements, bool is_float,
                           const std::uint32_t* mask, const std::int64_t* kept_before, Targets to) {
  __shared__ ChunkMask own;
  load_chunk(mask, elements, own);
  for (unsigned w = threadIdx.x / warp_size; w < threads; w += threads / warp_size) {
    const std::int64_t i = blockIdx.x * chunk + w * warp_size + lane_index();
    const unsigned word = own.words[w];
    if ((word >> lane_index() & 1) == 0) continue;
    split_element(Element<bytes>::load(data, i), is_float, to,
                  kept_before[blockIdx.x] + own.before[w] + lanes_before(word));
  }
}

template <int bytes>
__global__ void join_kept(const Sources from, std::int64_t elements, bool is_float,
                          const std::uint32_t* mask, const std::int64_t* kept_before, void* out) {
  __shared__ ChunkMask own;
  load_chunk(mask, elements, own);
  for (unsigned w = threadIdx.x / warp_size; w < threads; w += threads / warp_size) {
    const std::int64_t i = blockIdx.x * chunk + w * warp_size + lane_index();
    if (i >= elements) continue;
    const unsigned word = own.words[w];
    Element<bytes> element;
    if ((word >> lane_index() & 1) != 0) {
      element = join_element<bytes>(from, is_float,
                                    kept_before[blockIdx.x] + own.before[w] + lanes_before(word));
    }
    element.store(out, i);
  }
}

}  // namespace lmgc::cuda
