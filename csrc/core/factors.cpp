#include "core/factors.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <map>

#include "core/integer_math.h"
#include "core/projection.h"

namespace lmgc {
namespace {

constexpr std::int64_t block_entries = rans::block_symbols;

// 4 log2 sqrt(sum / count), rounded; `sum` has `fraction` fractional bits.
std::int32_t quarters_of_rms(std::uint64_t sum, std::uint64_t count, int fraction) {
  const auto log = static_cast<std::int64_t>(log2_fixed(sum)) -
                   static_cast<std::int64_t>(log2_fixed(count)) -
                   (std::int64_t{fraction} << log2_fraction_bits);
  return static_cast<std::int32_t>(rounded_quotient(2 * log, 1 << log2_fraction_bits));
}

}  // namespace

int Factors::base() const {
  return exponents.empty() ? 0 : *std::min_element(exponents.begin(), exponents.end());
}

EntryShape Factor::shape_of(std::int64_t line, std::int64_t component) const {
  const int width = column_widths[static_cast<std::size_t>(component)] +
                    (row_widths.empty() ? 0 : 2 * row_widths[static_cast<std::size_t>(line)]);
  const int tail = width > most_width ? (width - most_width + 3) / 4 : 0;
  const int bits = tail > 30 ? 30 : tail;
  return {width - 4 * bits, bits};
}

EntryDigits split_entry(std::int32_t entry, int tail_bits, std::int64_t bin) {
  const std::int64_t moved =
      std::int64_t{entry} + (tail_bits > 0 ? std::int64_t{1} << (tail_bits - 1) : 0);
  const std::int64_t residual = (moved >> tail_bits) - bin;
  if (std::abs(residual) > most_residual)
    return {symbol_escape, static_cast<std::uint32_t>(entry), 32};
  const auto mask = (std::uint32_t{1} << tail_bits) - 1;
  return {static_cast<int>(residual) + symbol_origin, static_cast<std::uint32_t>(moved) & mask,
          tail_bits};
}

std::int64_t join_entry(int symbol, int tail_bits, std::int64_t bin, BitReader& tails) {
  if (symbol == symbol_escape) return static_cast<std::int32_t>(tails.get(32));
  return (bin + symbol - symbol_origin) * (std::int64_t{1} << tail_bits) +
         static_cast<std::int64_t>(tails.get(tail_bits)) -
         (tail_bits > 0 ? std::int64_t{1} << (tail_bits - 1) : 0);
}

void choose_widths(Factor& factor, std::int64_t lines, std::int64_t rank) {
  const auto components = static_cast<std::size_t>(rank);
  const auto line_of = [&](std::int64_t line) { return factor.entries.data() + line * rank; };
  const auto magnitude = [](std::int32_t entry) {
    return static_cast<std::uint32_t>(entry < 0 ? -std::int64_t{entry} : entry);
  };

  std::vector<std::uint32_t> largest(components, 0);
  for (std::int64_t i = 0; i < lines; ++i) {
    const std::int32_t* const line = line_of(i);
    for (std::size_t c = 0; c < components; ++c)
      largest[c] = std::max(largest[c], magnitude(line[c]));
  }
  // So that squares, with four fractional bits, add up in 64 bits.
  std::vector<int> down(components);
  for (std::size_t c = 0; c < components; ++c)
    down[c] = std::max(0, static_cast<int>(std::bit_width(largest[c])) - 15);
  // A little for the rounding: zeros have a width, too.
  std::vector<std::uint64_t> sums(components, static_cast<std::uint64_t>(lines));
  for (std::int64_t i = 0; i < lines; ++i) {
    const std::int32_t* const line = line_of(i);
    for (std::size_t c = 0; c < components; ++c) {
      const std::uint64_t value = magnitude(line[c]) >> down[c];
      sums[c] += value * value * 16;
    }
  }
  factor.column_widths.resize(components);
  for (std::size_t c = 0; c < components; ++c) {
    factor.column_widths[c] = static_cast<std::int16_t>(
        quarters_of_rms(sums[c], static_cast<std::uint64_t>(lines), 4 - 2 * down[c]));
  }

  // Each line's energy next to what its columns say, in half octaves.
  factor.row_widths.clear();
  std::vector<std::int16_t> rows(static_cast<std::size_t>(lines));
  std::int64_t deviation = 0;
  for (std::int64_t i = 0; i < lines; ++i) {
    const std::int32_t* const line = line_of(i);
    std::uint64_t sum = 0;
    for (std::size_t c = 0; c < components; ++c) {
      // (entry / width)^2 with 8 fractional bits; a width is -8 or more
      const std::uint64_t value = std::min(magnitude(line[c]), 1u << 25);
      const int up = 8 - (factor.column_widths[c] >> 1);
      const std::uint64_t square = value * value;
      sum += std::min<std::uint64_t>(up >= 0 ? square << up : square >> -up, 1 << 20) + 8;
    }
    const std::int32_t quarters = quarters_of_rms(sum, static_cast<std::uint64_t>(rank), 8);
    const auto own = static_cast<std::int16_t>(rounded_quotient(quarters, 2));
    rows[static_cast<std::size_t>(i)] = own;
    deviation += std::int64_t{own} * own;
  }
  // Coding a Gaussian with a scale that is off by d octaves costs about d^2 bits, where d = own /
  // 2; telling the scales costs about three bits a line.
  if (deviation * rank > 4 * 3 * lines) factor.row_widths = std::move(rows);
}

namespace {

// Contexts and lengths of tails of a line's entries, without means.
class LineShapes {
 public:
  struct Line {
    std::vector<std::uint8_t> contexts, tail_bits;
  };

  explicit LineShapes(const Factor& factor) : factor_(factor) {}

  const Line& of(std::int64_t line) {
    const int width =
        factor_.row_widths.empty() ? 0 : factor_.row_widths[static_cast<std::size_t>(line)];
    Line& result = lines_[width];
    if (result.contexts.empty()) {
      for (std::size_t c = 0; c < factor_.column_widths.size(); ++c) {
        const EntryShape shape = factor_.shape_of(line, static_cast<std::int64_t>(c));
        result.contexts.push_back(
            static_cast<std::uint8_t>(context_of(shape.width, 0, factor_kind(false))));
        result.tail_bits.push_back(static_cast<std::uint8_t>(shape.tail_bits));
      }
    }
    return result;
  }

 private:
  const Factor& factor_;
  std::map<int, Line> lines_;  // by the width of a row
};

// Entries of one block, before it is coded or decoded.
struct EntryBlock {
  std::vector<std::uint8_t> contexts;
  std::vector<std::uint8_t> tail_bits;
  std::vector<std::int64_t> bins;  // empty: zeros

  EntryBlock(const Factor& factor, std::int64_t rank, const EntryMeans* means, std::int64_t first,
             std::int64_t count)
      : contexts(static_cast<std::size_t>(count)), tail_bits(contexts.size()) {
    if (means != nullptr) {
      bins.resize(contexts.size());
      means->get(first, count, bins.data());
    }
    std::int64_t line = first / rank, component = first % rank;
    if (means == nullptr) {
      // Of all lines of the same width the same.
      LineShapes shapes(factor);
      for (std::int64_t i = 0; i < count; ++line, component = 0) {
        const std::int64_t length = std::min(rank - component, count - i);
        const LineShapes::Line& own = shapes.of(line);
        std::copy_n(own.contexts.data() + component, length, contexts.data() + i);
        std::copy_n(own.tail_bits.data() + component, length, tail_bits.data() + i);
        i += length;
      }
      return;
    }
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      const EntryShape shape = factor.shape_of(line, component);
      const EntryPlace place = place_of(bins[i], shape.tail_bits);
      bins[i] = place.bin;
      tail_bits[i] = static_cast<std::uint8_t>(shape.tail_bits);
      contexts[i] =
          static_cast<std::uint8_t>(context_of(shape.width, place.fraction, factor_kind(true)));
      if (++component == rank) {
        component = 0;
        ++line;
      }
    }
  }

  std::int64_t bin(std::size_t i) const { return bins.empty() ? 0 : bins[i]; }
};

}  // namespace

CodedDigits code_factor(const Factor& factor, std::int64_t rank, const EntryMeans* means,
                        const Parallel& parallel) {
  const auto entries = static_cast<std::int64_t>(factor.entries.size());
  std::vector<DigitsBlock> blocks(
      static_cast<std::size_t>((entries + block_entries - 1) / block_entries));
  parallel(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    DigitsBlock& block = blocks[static_cast<std::size_t>(b)];
    const std::int64_t first = b * block_entries;
    EntryBlock known(factor, rank, means, first, std::min(block_entries, entries - first));
    BitWriter tails;
    block.symbols.resize(known.contexts.size());
    for (std::size_t i = 0; i < block.symbols.size(); ++i) {
      const EntryDigits digits = split_entry(factor.entries[static_cast<std::size_t>(first) + i],
                                             known.tail_bits[i], known.bin(i));
      tails.put(digits.tail, digits.bits);
      block.symbols[i] = static_cast<std::uint8_t>(digits.symbol);
    }
    block.contexts = std::move(known.contexts);
    block.tails = tails.take();
  });
  return code_digits(blocks, factor_kind(means != nullptr), parallel);
}

Status decode_factor(const DigitsHead& head, const std::uint8_t* body, std::int64_t lines,
                     std::int64_t rank, const EntryMeans* means, Factor& factor,
                     const Parallel& parallel) {
  const std::int64_t entries = lines * rank;
  factor.entries.resize(static_cast<std::size_t>(entries));
  DigitsDecoder decoder;
  decoder.open(head, body, static_cast<std::uint64_t>(entries), factor_kind(means != nullptr),
               parallel);
  std::atomic<bool> good{true};
  parallel(static_cast<std::int64_t>(head.blocks.size()), [&](std::int64_t b) {
    const std::int64_t first = b * block_entries;
    const EntryBlock known(factor, rank, means, first, std::min(block_entries, entries - first));
    std::vector<std::uint8_t> symbols(known.contexts.size());
    BitReader tails(nullptr, 0);
    bool fine = decoder.decode(static_cast<std::uint64_t>(b), known.contexts.data(), symbols.data(),
                               tails) == Status::ok;
    for (std::size_t i = 0; fine && i < symbols.size(); ++i) {
      const std::int64_t value = join_entry(symbols[i], known.tail_bits[i], known.bin(i), tails);
      fine = std::abs(value) <= most_factor;
      factor.entries[static_cast<std::size_t>(first) + i] = static_cast<std::int32_t>(value);
    }
    if (!fine || !tails.only_padding_left()) good = false;
  });
  return good ? Status::ok : Status::bad_stream;
}

std::uint64_t product_bound(const Factors& factors, const Parallel& parallel) {
  constexpr std::uint64_t none = std::uint64_t{1} << most_product_bits;
  const std::int64_t rank = factors.rank;
  const int base = factors.base();
  // The largest that a component's v makes of one unit of u.
  std::vector<std::uint64_t> weights(static_cast<std::size_t>(rank), 1);
  const std::int32_t* const v_end = factors.v.entries.data() + factors.v.entries.size();
  for (const std::int32_t* line = factors.v.entries.data(); line != v_end; line += rank) {
    for (std::int64_t c = 0; c < rank; ++c) {
      std::uint64_t& weight = weights[static_cast<std::size_t>(c)];
      weight = std::max(weight, static_cast<std::uint64_t>(std::abs(std::int64_t{line[c]})));
    }
  }
  for (std::size_t c = 0; c < weights.size(); ++c) {
    const int shift = factors.exponents[c] - base;
    if (shift >= most_product_bits || weights[c] >= none >> shift) {
      weights[c] = none;
    } else {
      weights[c] <<= shift;
    }
  }
  constexpr std::int64_t lines_in_task = 256;
  const auto lines = static_cast<std::int64_t>(factors.u.entries.size()) / rank;
  // Where no sum can come near the bound, which is the rule, nothing needs to be checked on the
  // way.
  std::uint64_t all_weights = 0;
  for (const std::uint64_t weight : weights) all_weights = std::min(none, all_weights + weight);
  std::uint32_t bits = 0;  // of all magnitudes; of a negative entry those of its complement
  for (const std::int32_t entry : factors.u.entries)
    bits |= static_cast<std::uint32_t>(entry ^ (entry >> 31));
  const bool small = all_weights < none / 4 >> std::bit_width(bits);
  std::vector<std::uint64_t> largest(
      static_cast<std::size_t>((lines + lines_in_task - 1) / lines_in_task), 0);
  parallel(static_cast<std::int64_t>(largest.size()), [&](std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * lines_in_task, lines);
    for (std::int64_t line = task * lines_in_task; line < last; ++line) {
      const std::int32_t* const u = factors.u.entries.data() + line * rank;
      std::uint64_t sum = 0;
      if (small) {
        for (std::int64_t c = 0; c < rank; ++c) {
          sum += weights[static_cast<std::size_t>(c)] *
                 static_cast<std::uint32_t>(u[c] < 0 ? -u[c] : u[c]);
        }
        std::uint64_t& own = largest[static_cast<std::size_t>(task)];
        own = std::max(own, sum);
        continue;
      }
      for (std::int64_t c = 0; c < rank; ++c) {
        const std::uint64_t weight = weights[static_cast<std::size_t>(c)];
        const auto magnitude = static_cast<std::uint64_t>(std::abs(std::int64_t{u[c]}));
        if (magnitude == 0) continue;
        sum = weight > (none - 1) / magnitude ? none : std::min(none, sum + weight * magnitude);
        if (sum >= none) break;
      }
      std::uint64_t& own = largest[static_cast<std::size_t>(task)];
      own = std::max(own, sum);
    }
  });
  std::uint64_t bound = 0;
  for (const std::uint64_t own : largest) bound = std::max(bound, own);
  return bound;
}

void multiply_factors(const Factors& factors, std::int64_t columns, std::int64_t first,
                      std::int64_t count, std::int64_t* out) {
  const auto rank = static_cast<std::size_t>(factors.rank);
  const int base = factors.base();
  std::vector<std::int64_t> line(rank);
  std::int64_t row = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t index = first + i;
    if (index / columns != row) {
      row = index / columns;
      for (std::size_t c = 0; c < rank; ++c) {
        line[c] = with_gain(factors.u.entries[static_cast<std::size_t>(row) * rank + c],
                            factors.exponents[c] - base);
      }
    }
    const std::int32_t* const v =
        factors.v.entries.data() + static_cast<std::size_t>(index % columns) * rank;
    std::int64_t sum = 0;
    for (std::size_t c = 0; c < rank; ++c) sum += line[c] * v[c];
    out[i] = sum;
  }
}

}  // namespace lmgc
