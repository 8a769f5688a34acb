// Tensors of floats as the live matrices that methods `scale`, `lowrank` and `lm` code.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/fixed_section.h"
#include "core/float_format.h"
#include "core/short_floats.h"

namespace lmgc::ops {

at::ScalarType float_type(FloatFormat format);
// Integers of an element's size.
at::ScalarType word_type(FloatFormat format);

// What the floats in `bytes` (contiguous uint8, on the CPU) can spare, where it is worth telling.
Spare find_spare(const at::Tensor& bytes, FloatFormat format);

// The same of tensors on CUDA, all at once, and whether their matrices by dimension 0 surely have
// no dead lines.
struct FloatTensor {
  at::Tensor bytes;
  FloatFormat format;
  const std::vector<std::int64_t>& sizes;
};
struct Survey {
  Spare spare;
  bool all_live = false;
};
std::vector<Survey> survey(const std::vector<FloatTensor>& tensors);

// A tensor as the matrix that is coded.
struct FixedView {
  FixedHead head;   // by_dimension_1 and the dead lines
  at::Tensor live;  // words, contiguous
  LiveShape shape;
};

// Looks for dead lines.
FixedView view_of(const at::Tensor& bytes, FloatFormat format,
                  const std::vector<std::int64_t>& sizes, bool by_dimension_1);

// By what `head` says of them.
FixedView view_by(const at::Tensor& bytes, FloatFormat format,
                  const std::vector<std::int64_t>& sizes, FixedHead head);

// The words of another tensor like it, of the lines that live in `head`.
at::Tensor live_words(const at::Tensor& bytes, FloatFormat format,
                      const std::vector<std::int64_t>& sizes, const FixedHead& head);

// Live words of `whole` as words of shortened(whole, spare).
at::Tensor shorten_words(const at::Tensor& live, FloatFormat whole, Spare spare);

// The way back, for a decoder that has read head and shape: words of shortened(whole, spare) to
// decode into, a view of `bytes` where these are the whole tensor in its order...
at::Tensor live_room(const at::Tensor& bytes, FloatFormat whole, Spare spare, const FixedHead& head,
                     const LiveShape& shape);
// ... and then, from there to `bytes`.
void put_live(const at::Tensor& coded, const FixedHead& head, FloatFormat format, Spare spare,
              const std::vector<std::int64_t>& sizes, const at::Tensor& bytes);

}  // namespace lmgc::ops
