// The exact product of integer factors by ATen, for devices that have no kernel of our own: through
// floating-point GEMMs, where every partial sum is an integer that a double holds, so that any
// library gives the same. docs/lowrank.md has the proof.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/factors.h"

namespace lmgc::ops {

class PanelProduct {
 public:
  // `columns` lines in v; `bound` is the factors' product_bound(), below 2^most_product_bits.
  PanelProduct(const Factors& factors, std::int64_t columns, std::uint64_t bound,
               const at::Device& device);

  // Elements [first, first + count), row after row, as `count` 64-bit integers. Takes 16 bytes an
  // element while it works, and that of the rows that the panel begins and ends in.
  at::Tensor panel(std::int64_t first, std::int64_t count) const;

 private:
  at::Tensor u_;  // (rows, rank): doubles, or 64-bit integers where they do not suffice
  std::vector<at::Tensor> v_;  // (rank, columns) with its gains: limbs, the lowest first
  int limb_bits_ = 0;
};

}  // namespace lmgc::ops
