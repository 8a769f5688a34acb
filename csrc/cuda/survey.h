// What methods `scale` and `lowrank` ask of tensors before they decide anything, for many at a
// time. Plain C++: includable without nvcc.
#pragma once

#include <cstdint>
#include <vector>

#include "core/float_format.h"
#include "core/short_floats.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// `elements` floats in device memory, aligned to their size.
struct SurveyedTensor {
  const void* words;
  FloatFormat format;
  std::int64_t elements;
  std::int64_t rows = 0, columns = 0;  // of the matrix that they are; rows 0: do not look at lines
};

struct Survey {
  UsedBits used;  // by the first `most_elements` elements
  // Whether every line has a bit set; false: perhaps, a few elements of each do not tell.
  bool all_live = false;
};

// Enqueues on `stream` and waits for it once. Returns a cudaError_t; 0 is success. Allocates 16
// bytes for each FindUsedBits::stretch.
int survey(const std::vector<SurveyedTensor>& tensors, std::int64_t most_elements,
           const Allocate& allocate, void* stream, std::vector<Survey>& surveys);

}  // namespace lmgc::cuda
