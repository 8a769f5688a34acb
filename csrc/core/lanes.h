// Method `lmgc`: which symbols of an element go through the language model, how elements are cut
// into lanes, and the section that holds them. docs/format.md, "lmgc section", specifies the bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/float_format.h"
#include "core/host_device.h"
#include "core/serialize.h"
#include "core/status.h"

namespace lmgc {

inline constexpr std::uint64_t most_lane_elements = 1 << 16;
inline constexpr int most_symbols = 16;  // an element's: float64 in hexadecimal

enum class SymbolMode : std::uint8_t { lm = 0, raw = 1, constant = 2 };

// What happens to each symbol of every element of one tensor, in the order of the text.
//
// With `elide_zeros`, an element whose lm symbols are all zero (but for the sign) is followed by
// one coded flag: "all its other bits are zero". Then its raw and constant symbols are not stored,
// so that exact zeros cost next to nothing.
struct SymbolPlan {
  std::uint8_t symbols = 0;
  std::uint8_t bits = 4;  // of a symbol
  SymbolMode mode[most_symbols] = {};
  std::uint8_t shift[most_symbols] = {};
  std::uint8_t coded[most_symbols] = {};  // the lm symbols, in order
  std::uint8_t coded_count = 0;
  std::uint8_t raw_bits = 0;  // of an element
  bool elide_zeros = false;
  std::uint32_t zero_frequency =
      0;  // of 2^16: the flag's probability of "zero"; 1..65535 with elide_zeros
  std::uint64_t lm_mask = 0;        // bits of lm symbols
  std::uint64_t raw_mask = 0;       // bits of raw symbols
  std::uint64_t constant_word = 0;  // bits of constant symbols, in place
  std::uint64_t sign_mask = 0;      // 0 for non-floats

  LMGC_HD std::uint32_t symbol_of(std::uint64_t word, int symbol) const {
    return static_cast<std::uint32_t>(word >> shift[symbol]) & ((1u << bits) - 1);
  }
  // The feature `digit`: the symbol's index counted from the most significant one, whatever the
  // order of the text; -1 for a separator (symbol < 0).
  LMGC_HD int digit_of(int symbol) const {
    return symbol < 0 ? -1 : symbols - 1 - shift[symbol] / bits;
  }
  LMGC_HD bool zero_prefix(std::uint64_t word) const { return (word & lm_mask & ~sign_mask) == 0; }
  // True where no tail is stored for the element.
  LMGC_HD bool elided(std::uint64_t word) const { return elide_zeros && (word & ~sign_mask) == 0; }
};

// Fills in what follows from `mode`, the format and the options: symbols, bits, shift, coded,
// masks. constant[i] is the value of symbol i where its mode is constant.
void complete_plan(FloatFormat format, const SerializeOptions& options,
                   const std::uint8_t* constant, SymbolPlan& plan);

// Counts of each symbol value over one block of elements, for make_plan; integers, so blocks add up
// in any order.
struct CountSymbols {
  static constexpr std::int64_t block_elements = 1 << 14;
  const void* words;
  FloatFormat format;
  std::int64_t elements;
  SymbolPlan plan;        // shift, bits, symbols
  std::uint32_t* counts;  // [blocks][1 + symbols << bits], zeroed: elements that are not zero, then
                          // their symbols

  LMGC_HD std::int64_t stride() const {
    return 1 + (static_cast<std::int64_t>(plan.symbols) << plan.bits);
  }
  LMGC_HD void operator()(std::int64_t block) const {
    std::uint32_t* count = counts + block * stride();
    const std::int64_t begin = block * block_elements;
    const std::int64_t end = begin + block_elements < elements ? begin + block_elements : elements;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint64_t word = load_word(words, format.bytes, i);
      if (plan.sign_mask != 0 && (word & ~plan.sign_mask) == 0) continue;
      ++count[0];
      for (int s = 0; s < plan.symbols; ++s)
        ++count[1 + (s << plan.bits) + plan.symbol_of(word, s)];
    }
  }
};

// Counts of elements with a zero prefix, and of those the ones that are zero, per block.
struct CountZeros {
  const void* words;
  FloatFormat format;
  std::int64_t elements;
  SymbolPlan plan;
  std::uint32_t* counts;  // [blocks][2], zeroed

  LMGC_HD void operator()(std::int64_t block) const {
    const std::int64_t begin = block * CountSymbols::block_elements;
    const std::int64_t end = begin + CountSymbols::block_elements < elements
                                 ? begin + CountSymbols::block_elements
                                 : elements;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint64_t word = load_word(words, format.bytes, i);
      if (!plan.zero_prefix(word)) continue;
      ++counts[2 * block];
      if ((word & ~plan.sign_mask) == 0) ++counts[2 * block + 1];
    }
  }
};

// Decides the modes from counts summed over all blocks (`counts` as in CountSymbols): symbols with
// sign or exponent bits go through the model; others are constant, raw when nearly uniform, else
// modelled. With `bypass` false all are modelled.
SymbolPlan make_plan(FloatFormat format, const SerializeOptions& options, bool bypass,
                     const std::uint64_t* counts);

// Settles the zero flag from the summed CountZeros: with_prefix elements have a zero prefix,
// `zeros` of them are zero.
void set_zero_flag(std::uint64_t with_prefix, std::uint64_t zeros, SymbolPlan& plan);

// ---- the section -------------------------------------------------------------------------------

// Everything of a tensor's section but the lanes and tails themselves.
struct LmgcSection {
  SymbolPlan plan;
  std::uint64_t lane_elements = 0;
  bool has_scales = false;
  std::vector<std::uint8_t> scales;       // write_scales()
  std::vector<std::uint64_t> lane_sizes;  // bytes of each lane
  std::uint64_t lanes_offset = 0;         // within the section, set by parse_section
  std::uint64_t tails_offset = 0;         // likewise; tails reach to the section's end
};

std::vector<std::uint8_t> write_section(const LmgcSection& section);

// Reads an untrusted section of `size` bytes, of which the first `available` are at `data`
// (Status::truncated when more are needed). On ok: lanes and tails lie inside the section, there
// are ceil(elements / lane_elements) lanes, and the plan is complete and possible.
Status parse_section(const std::uint8_t* data, std::size_t available, std::size_t size,
                     FloatFormat format, const SerializeOptions& options, std::int64_t elements,
                     LmgcSection& section);

}  // namespace lmgc
