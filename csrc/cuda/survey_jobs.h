// What the device does to survey tensors: function objects for launch_warps(), which hold device
// pointers only. Internal to csrc/cuda/survey and its tests.
#pragma once

#include <cstdint>

#include "core/fixed.h"
#include "core/float_format.h"
#include "core/short_floats.h"
#include "core/warp.h"
#include "cuda/task_list.h"

namespace lmgc::cuda {

// What FindUsedBits says of a stretch, a warp for each.
struct SurveyBits {
  struct Tensor {
    const void* words;
    FloatFormat format;
    std::int64_t elements;
    std::int64_t first_task = 0;
  };
  TaskList<Tensor> tensors;
  UsedBits* out;  // one a task

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Tensor own = tensors.item_of(task);
    const FixedFormat format(own.format);
    const std::int64_t first = (task - own.first_task) * FindUsedBits::stretch;
    const std::int64_t end = first + FindUsedBits::stretch;
    const std::int64_t last = end < own.elements ? end : own.elements;
    typename Warp::template PerLane<UsedBits> used;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t i = first + lane; i < last; i += warp_lanes)
        used[lane].take(load_word(own.words, own.format.bytes, i), format);
    });
    typename Warp::template PerLane<std::uint64_t> bits;
    typename Warp::template PerLane<std::int64_t> lowest;
    warp.each([&](std::uint32_t lane) {
      bits[lane] = used[lane].bits;
      lowest[lane] = used[lane].lowest;
    });
    UsedBits all;
    for (std::uint32_t k = 0; k < warp_lanes; ++k)
      all.take({warp.value_of(bits, k), warp.value_of(lowest, k)});
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) out[task] = all;
    });
  }
};

// Whether the first few elements of every row and of every column have a bit set, a lane for each
// line. Raises `dead` where those of one have not.
struct SurveyLines {
  static constexpr std::int64_t few = 16;
  struct Matrix {
    const void* words;
    std::int32_t bytes;
    std::int64_t rows, columns;
    std::int32_t* dead;
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;

  LMGC_HD static std::int64_t groups(std::int64_t lines) {
    return (lines + warp_lanes - 1) / warp_lanes;
  }
  LMGC_HD static std::int64_t tasks(std::int64_t rows, std::int64_t columns) {
    return groups(rows) + groups(columns);
  }
  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const std::int64_t group = task - own.first_task, row_groups = groups(own.rows);
    const bool by_row = group < row_groups;
    const std::int64_t lines = by_row ? own.rows : own.columns;
    const std::int64_t length = by_row ? own.columns : own.rows;
    const std::int64_t count = length < few ? length : few;
    const std::int64_t first = (by_row ? group : group - row_groups) * warp_lanes;
    warp.each([&](std::uint32_t lane) {
      const std::int64_t line = first + lane;
      if (line >= lines) return;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t element = by_row ? line * own.columns + i : i * own.columns + line;
        if (load_word(own.words, own.bytes, element) != 0) return;
      }
      warp.raise(own.dead);
    });
  }
};

}  // namespace lmgc::cuda
