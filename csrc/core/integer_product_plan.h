// How an exact product of integer factors becomes sums of 32 bits of products of 16-bit integers:
// entries that are too wide are cut into limbs, each pair of limbs of a component is a term, and
// terms of about the same weight make a layer, all of whose sums fit. docs/lowrank.md has the
// proof.
#pragma once

#include <cstdint>
#include <vector>

#include "core/factors.h"

namespace lmgc {

// A limb of an entry, times a power of two. An entry is the sum of its limbs, each times 2^below;
// all but the highest are of `bits` bits and signed.
struct EntryLimb {
  int below = 0;           // bits
  int bits = 0;            // 0: the highest one, all that is left
  int gain = 0;            // log2
  std::int64_t carry = 0;  // halves of the limbs below, by which they are rounded to the nearest

  std::int16_t of(std::int32_t entry) const {
    std::int64_t limb = (entry + carry) >> below;
    if (bits != 0) {
      const std::int64_t half = std::int64_t{1} << (bits - 1);
      limb = ((limb + half) & (2 * half - 1)) - half;
    }
    return static_cast<std::int16_t>(limb * (std::int64_t{1} << gain));
  }
};

struct ProductTerm {
  std::int64_t component = 0;
  EntryLimb u, v;
};

// For every element the sum of the terms' products is below 2^31 in magnitude, in any order, and
// counts 2^shift times (in units of 2^base).
struct ProductLayer {
  std::vector<ProductTerm> terms;
  int shift = 0;  // 0 to 63
};

// The layers of factors whose entries are at most most_factor in magnitude and whose
// product_bound() is `bound`, below 2^most_product_bits. The product is the sum of all layers
// modulo 2^64. Components that are zero on either side have no term.
std::vector<ProductLayer> plan_layers(const Factors& factors, std::uint64_t bound);

}  // namespace lmgc
