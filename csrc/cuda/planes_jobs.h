// What the device does for method `planes`, for many tensors in one launch: function objects for
// launch() and launch_warps(), which hold device pointers only. Internal to csrc/cuda and its
// tests.
#pragma once

#include <cstdint>

#include "core/float_format.h"
#include "core/host_device.h"
#include "core/planes.h"
#include "core/warp.h"
#include "cuda/task_list.h"

namespace lmgc::cuda {

// Elements whose kept ones are counted together, by one warp: a word of the mask for each lane.
inline constexpr std::int64_t chunk_elements = warp_lanes * warp_lanes;

// ---- one element --------------------------------------------------------------------------------

// An element of `bytes` bytes as a plain integer, in the lower half alone up to 8 bytes.
template <int bytes>
struct Element {
  static constexpr int sign = 8 * (bytes < 8 ? bytes : 8) - 1;
  std::uint64_t low = 0, high = 0;

  LMGC_HD static Element load(const void* data, std::int64_t i) {
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
  LMGC_HD void store(void* data, std::int64_t i) const {
    if constexpr (bytes == 16) {
      auto* words = static_cast<std::uint64_t*>(data) + 2 * i;
      words[0] = low;
      words[1] = high;
    } else {
      store_word(data, bytes, i, low);
    }
  }
  LMGC_HD bool is_zero() const { return (low | high) == 0; }
  // Rotations of floats, which have at most 8 bytes; bits above the element become anything.
  LMGC_HD void rotate_left() { low = low << 1 | low >> sign; }
  LMGC_HD void rotate_right() { low = low >> 1 | low << sign; }
  LMGC_HD std::uint8_t byte(int plane) const {
    return static_cast<std::uint8_t>(plane < 8 ? low >> (8 * plane) : high >> (8 * (plane - 8)));
  }
  LMGC_HD void set_byte(int plane, std::uint64_t value) {
    (plane < 8 ? low : high) |= value << (8 * (plane % 8));
  }
};

// Rows of a chunk (32 elements, one a lane) that are loaded before the first of them is stored:
// stores to bytes might change anything, and no load would be moved across them.
template <int bytes>
inline constexpr std::uint32_t rows_ahead = bytes == 16 ? 2 : 4;

// ---- masks --------------------------------------------------------------------------------------

// Which elements of a tensor are not zero, a bit each, and how many of each chunk. A warp a chunk.
template <int bytes>
struct MaskChunks {
  struct Tensor {
    const void* data;
    std::int64_t elements;
    std::uint32_t* mask;   // 32 words a chunk
    std::int64_t* counts;  // one a chunk
    std::int64_t first_task = 0;
  };
  TaskList<Tensor> tensors;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Tensor own = tensors.item_of(task);
    const std::int64_t chunk = task - own.first_task, first = chunk * chunk_elements;
    constexpr std::uint32_t ahead = rows_ahead<bytes>;
    typename Warp::template PerLane<std::uint32_t> words, ones;
    for (std::uint32_t row = 0; row < warp_lanes; row += ahead) {
      typename Warp::template PerLane<bool> kept[ahead];
      warp.each([&](std::uint32_t lane) {
        for (std::uint32_t k = 0; k < ahead; ++k) {
          const std::int64_t i = first + (row + k) * warp_lanes + lane;
          kept[k][lane] = i < own.elements && !Element<bytes>::load(own.data, i).is_zero();
        }
      });
      for (std::uint32_t k = 0; k < ahead; ++k) {
        const std::uint32_t word = warp.ballot(kept[k]);
        warp.each([&](std::uint32_t lane) {
          if (lane == row + k) words[lane] = word;
        });
      }
    }
    warp.each([&](std::uint32_t lane) {
      own.mask[chunk * warp_lanes + lane] = words[lane];
      ones[lane] = count_ones(words[lane]);
    });
    const std::uint32_t all = warp.sum(ones);
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) own.counts[chunk] = all;
    });
  }
};

// Word `word` of a mask of `elements` elements, without what is behind them; all of them are kept
// where there is no mask.
LMGC_HD inline std::uint32_t mask_word(const std::uint32_t* mask, std::int64_t elements,
                                       std::int64_t word) {
  const std::int64_t left = elements - word * warp_lanes;
  if (left <= 0) return 0;
  const std::uint32_t there = left >= warp_lanes ? ~0u : (1u << left) - 1;
  return mask == nullptr ? there : mask[word] & there;
}

// The counts of masks that were decoded.
struct CountChunks {
  struct Tensor {
    const std::uint32_t* mask;
    std::int64_t elements;
    std::int64_t* counts;
    std::int64_t first_task = 0;
  };
  TaskList<Tensor> tensors;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Tensor own = tensors.item_of(task);
    const std::int64_t chunk = task - own.first_task;
    typename Warp::template PerLane<std::uint32_t> ones;
    warp.each([&](std::uint32_t lane) {
      ones[lane] = count_ones(mask_word(own.mask, own.elements, chunk * warp_lanes + lane));
    });
    const std::uint32_t all = warp.sum(ones);
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) own.counts[chunk] = all;
    });
  }
};

// ---- sums of many counts ------------------------------------------------------------------------

// sums[s], zero before, becomes the sum of stretch s of all[0, count); a warp each.
struct SumStretches {
  static constexpr std::int64_t stretch = 1024;
  const std::int64_t* all;
  std::int64_t count;
  std::int64_t* sums;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t s) const {
    const std::int64_t end = (s + 1) * stretch < count ? (s + 1) * stretch : count;
    typename Warp::template PerLane<std::int64_t> own;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t i = s * stretch + lane; i < end; i += warp_lanes) own[lane] += all[i];
    });
    warp.add_all(sums + s, own);
  }
};

// all[i] becomes the sum of those before it in its stretch of all[0, count), and before[s] for
// stretch s, if there are several; a warp each.
struct AddUp {
  std::int64_t* all;
  std::int64_t count, stretch;
  const std::int64_t* before;  // null: nothing

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t s) const {
    const std::int64_t end = (s + 1) * stretch < count ? (s + 1) * stretch : count;
    std::int64_t sum = before == nullptr ? 0 : before[s];
    typename Warp::template PerLane<std::int64_t> own, sums;
    for (std::int64_t first = s * stretch; first < end; first += warp_lanes) {
      warp.each(
          [&](std::uint32_t lane) { own[lane] = first + lane < end ? all[first + lane] : 0; });
      const std::int64_t row = warp.sums_before(own, sums);
      warp.each([&](std::uint32_t lane) {
        if (first + lane < end) all[first + lane] = sum + sums[lane];
      });
      sum += row;
    }
  }
};

// out[i] = all[places[i]], one call each.
struct PickSums {
  const std::int64_t* all;
  const std::int64_t* places;
  std::int64_t* out;

  LMGC_HD void operator()(std::int64_t i) const { out[i] = all[places[i]]; }
};

// ---- planes -------------------------------------------------------------------------------------

// A tensor, as split and join see it.
struct PlanesTensor {
  std::int64_t elements;
  const std::uint32_t* mask;        // null: all elements are kept
  const std::int64_t* kept_before;  // each chunk's first element among the kept ones: up to a
                                    // constant, which is that of the first chunk
  bool is_float;
  std::int64_t first_task = 0;  // a task a chunk
};

// The kept elements of a chunk: a word of the mask for each lane, and how many come before it.
template <class Warp>
struct KeptChunk {
  typename Warp::template PerLane<std::uint32_t> words, before;
  std::int64_t first;  // of them, among those of the tensor

  LMGC_HD KeptChunk(const Warp& warp, const PlanesTensor& tensor, std::int64_t chunk)
      : first(tensor.mask == nullptr ? chunk * chunk_elements
                                     : tensor.kept_before[chunk] - tensor.kept_before[0]) {
    typename Warp::template PerLane<std::uint32_t> ones;
    warp.each([&](std::uint32_t lane) {
      words[lane] = mask_word(tensor.mask, tensor.elements, chunk * warp_lanes + lane);
      ones[lane] = count_ones(words[lane]);
    });
    warp.sums_before(ones, before);
  }
};

// Splits the kept elements into planes, a warp a chunk.
template <int bytes>
struct SplitChunks {
  struct Tensor : PlanesTensor {
    const void* data;
    std::uint8_t* planes[bytes];  // null: not wanted
  };
  TaskList<Tensor> tensors;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Tensor own = tensors.item_of(task);
    const std::int64_t chunk = task - own.first_task;
    const KeptChunk<Warp> kept(warp, own, chunk);
    constexpr std::uint32_t ahead = rows_ahead<bytes>;
    for (std::uint32_t row = 0; row < warp_lanes; row += ahead) {
      std::uint32_t words[ahead], any = 0;
      std::int64_t places[ahead];
      for (std::uint32_t k = 0; k < ahead; ++k) {
        any |= words[k] = warp.value_of(kept.words, row + k);
        places[k] = kept.first + warp.value_of(kept.before, row + k);
      }
      if (any == 0) continue;
      warp.each([&](std::uint32_t lane) {
        Element<bytes> elements[ahead];
        for (std::uint32_t k = 0; k < ahead; ++k) {
          if ((words[k] >> lane & 1) != 0) {
            elements[k] = Element<bytes>::load(
                own.data, chunk * chunk_elements + (row + k) * warp_lanes + lane);
          }
        }
        for (std::uint32_t k = 0; k < ahead; ++k) {
          if ((words[k] >> lane & 1) == 0) continue;
          if (own.is_float) elements[k].rotate_left();
          const std::int64_t place = places[k] + lanes_before(words[k], lane);
          for (int plane = 0; plane < bytes; ++plane) {
            if (own.planes[plane] != nullptr) own.planes[plane][place] = elements[k].byte(plane);
          }
        }
      });
    }
  }
};

// Joins planes to elements, zero where they are not kept, a warp a chunk.
template <int bytes>
struct JoinChunks {
  struct Tensor : PlanesTensor {
    void* out;
    const std::uint8_t* planes[bytes];  // null: all bytes are those of `constant`
    Element<bytes> constant;            // of the planes that are constant
  };
  TaskList<Tensor> tensors;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Tensor own = tensors.item_of(task);
    const std::int64_t chunk = task - own.first_task;
    const KeptChunk<Warp> kept(warp, own, chunk);
    constexpr std::uint32_t ahead = rows_ahead<bytes>;
    for (std::uint32_t row = 0; row < warp_lanes; row += ahead) {
      std::uint32_t words[ahead];
      std::int64_t places[ahead];
      for (std::uint32_t k = 0; k < ahead; ++k) {
        words[k] = warp.value_of(kept.words, row + k);
        places[k] = kept.first + warp.value_of(kept.before, row + k);
      }
      warp.each([&](std::uint32_t lane) {
        Element<bytes> elements[ahead];
        for (std::uint32_t k = 0; k < ahead; ++k) {
          if ((words[k] >> lane & 1) == 0) continue;
          const std::int64_t place = places[k] + lanes_before(words[k], lane);
          elements[k] = own.constant;
          for (int plane = 0; plane < bytes; ++plane) {
            if (own.planes[plane] != nullptr) elements[k].set_byte(plane, own.planes[plane][place]);
          }
          if (own.is_float) elements[k].rotate_right();
        }
        for (std::uint32_t k = 0; k < ahead; ++k) {
          const std::int64_t i = chunk * chunk_elements + (row + k) * warp_lanes + lane;
          if (i < own.elements) elements[k].store(own.out, i);
        }
      });
    }
  }
};

}  // namespace lmgc::cuda
