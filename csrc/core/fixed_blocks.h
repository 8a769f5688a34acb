// The work of fixed_section.cpp on elements, block by block: with vectors (fixed_kernels.h) where
// the processor and the format allow, else one element after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "core/digit_context.h"
#include "core/fixed_section.h"

namespace lmgc {

// residual_level() of every element. Of the head: the low-rank prediction.
void find_levels(const FixedInput& input, const FixedHead& head, const Product& product,
                 std::int16_t* levels, const Parallel& parallel);

// Symbols, contexts and tails. Of the head: scales, too.
std::vector<DigitsBlock> split_blocks(const FixedInput& input, const FixedHead& head,
                                      const Product& product, const Parallel& parallel);

// The same of elements [first, first + count), one block, for a prior: no contexts, but what is
// known of each. False, and nothing is done, where there are no vectors for it.
bool split_known_block(const FixedInput& input, const FixedHead& head, std::int64_t first,
                       std::int64_t count, const std::int64_t* predictions, Known* known,
                       std::uint8_t* symbols, std::vector<std::uint8_t>& tails);
// What is known alone.
bool know_block(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                std::int64_t first, std::int64_t count, const std::int64_t* predictions,
                Known* known);

// Decodes block `number`, elements [first, first + count), whose predictions are `predictions`.
// False when it is damaged.
bool decode_block(const FixedSource& source, FloatFormat format, const DigitsDecoder& decoder,
                  std::int64_t number, std::int64_t first, std::int64_t count,
                  const std::int64_t* predictions, void* words);

}  // namespace lmgc
