#include "core/fixed_blocks.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/fixed_kernels.h"
#include "core/fixed_walk.h"
#include "core/residual_scales.h"

namespace lmgc {
namespace {

// ---- one element after the other ----------------------------------------------------------------

template <bool predicted>
void walk_levels(const FixedInput& input, const FixedHead& head, const Product& product,
                 std::int16_t* levels, const Parallel& parallel) {
  const FixedFormat format(input.format);
  for_each_block(
      input.shape, product, parallel,
      [&](std::int64_t, std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
        Walk<predicted> walk(head, input.shape, input.format, first, predictions);
        for (std::int64_t i = first; i < first + count; ++i, walk.next()) {
          const std::uint64_t word = load_word(input.words, input.format.bytes, i);
          levels[i] = residual_level(word, walk.finest_prediction(), format);
        }
      });
}

template <bool predicted>
std::vector<DigitsBlock> walk_blocks(const FixedInput& input, const FixedHead& head,
                                     const Product& product, const Parallel& parallel) {
  const FixedFormat format(input.format);
  std::vector<DigitsBlock> blocks(
      static_cast<std::size_t>((input.shape.elements + block_elements - 1) / block_elements));
  for_each_block(
      input.shape, product, parallel,
      [&](std::int64_t number, std::int64_t first, std::int64_t count,
          const std::int64_t* predictions) {
        DigitsBlock& block = blocks[static_cast<std::size_t>(number)];
        block.contexts.resize(static_cast<std::size_t>(count));
        block.symbols.resize(static_cast<std::size_t>(count));
        BitWriter tails;
        Walk<predicted> walk(head, input.shape, input.format, first, predictions);
        for (std::int64_t i = 0; i < count; ++i, walk.next()) {
          const std::uint64_t word = load_word(input.words, input.format.bytes, first + i);
          const Bin bin = walk.bin();
          const FixedElement element = split_element(word, bin, format);
          block.contexts[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(bin.context);
          block.symbols[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(element.symbol);
          put_tail(tails, element);
        }
        block.tails = tails.take();
      });
  return blocks;
}

template <bool predicted>
bool walk_block(const FixedSource& source, FloatFormat plain_format, const DigitsDecoder& decoder,
                std::int64_t number, std::int64_t first, std::int64_t count,
                const std::int64_t* predictions, void* words) {
  const FixedFormat format(plain_format);
  std::vector<std::uint8_t> contexts(static_cast<std::size_t>(count)), symbols(contexts.size());
  {
    Walk<predicted> walk(source.head, source.shape, plain_format, first, predictions);
    for (std::uint8_t& context : contexts) {
      context = static_cast<std::uint8_t>(walk.bin().context);
      walk.next();
    }
  }
  BitReader bits(nullptr, 0);
  if (decoder.decode(static_cast<std::uint64_t>(number), contexts.data(), symbols.data(), bits) !=
      Status::ok)
    return false;
  TailReader tail{bits};
  Walk<predicted> walk(source.head, source.shape, plain_format, first, predictions);
  for (std::int64_t i = 0; i < count; ++i, walk.next()) {
    store_word(words, plain_format.bytes, first + i,
               join_element(symbols[static_cast<std::size_t>(i)], walk.bin(), format, tail));
  }
  return bits.only_padding_left();
}

// ---- runs ---------------------------------------------------------------------------------------

// Kernels for elements of this format, or null.
const FixedKernels* kernels_for(FloatFormat format) {
  const bool narrow = format.bytes == 2 || format.bytes == 4;
  return narrow ? fixed_kernels() : nullptr;
}

void set_format(FixedRun& run, FloatFormat plain_format) {
  const FixedFormat format(plain_format);
  run.bytes = format.bytes;
  run.bits = format.bits;
  run.mantissa = format.mantissa;
  run.bias = format.bias;
  run.least = format.least;
  run.infinite_field = format.infinite_field;
  run.is_short = is_short(plain_format);
}

const void* word_at(const void* words, int bytes, std::int64_t index) {
  return static_cast<const std::uint8_t*>(words) + bytes * index;
}
void* word_at(void* words, int bytes, std::int64_t index) {
  return static_cast<std::uint8_t*>(words) + bytes * index;
}

// Predictions of the elements of a run by a reference and, where there is one, a product: kernels
// take them for products with exponents of their own.
struct ReferredRun {
  std::int64_t values[run_elements];
  std::int16_t exponents[run_elements];
};

// body(run, first) for every run of elements [first, first + count): stretches of one row.
// `is_finest`: before there are scales.
template <class Body>
void for_each_run(const FixedHead& head, const LiveShape& shape, FloatFormat plain_format,
                  std::int64_t first, std::int64_t count, const std::int64_t* predictions,
                  bool is_finest, const Body& body) {
  const bool predicted = head.predicted();
  const int base = predicted ? head.low_rank.factors.base() : 0;
  FixedRun run;
  set_format(run, plain_format);
  ReferredRun referred;
  const std::int64_t end = first + count;
  for (std::int64_t at = first; at < end;) {
    const auto row = static_cast<std::size_t>(at / shape.columns);
    const std::int64_t column = at % shape.columns;
    run.row_scale = row < head.scales.rows.size() ? head.scales.rows[row] : 0;
    if (head.has_column_scales) run.column_scales = head.scales.columns.data() + column;
    if (predicted) {
      const auto& weights = head.low_rank.row_weights;
      run.row_exponent = base + (row < weights.size() ? weights[row] : 0);
      run.column_weights = head.low_rank.column_weights.data() + column;
      run.product = predictions + (at - first);
    }
    run.count =
        static_cast<int>(std::min({shape.columns - column, end - at, std::int64_t{run_elements}}));
    if (head.reference.words != nullptr) {
      if (!predicted) run.product = nullptr;
      fixed_kernels()->refer(run, word_at(head.reference.words, run.bytes, at),
                             head.reference.factor, is_finest, referred.values, referred.exponents);
      run.product = referred.values;
      run.row_exponent = 0;
      run.column_weights = referred.exponents;
    }
    body(run, at);
    at += run.count;
  }
}

DigitsBlock split_runs(const FixedKernels& kernels, const FixedInput& input, const FixedHead& head,
                       std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
  DigitsBlock block;
  block.contexts.resize(static_cast<std::size_t>(count));
  block.symbols.resize(static_cast<std::size_t>(count));
  constexpr std::size_t room = run_elements * most_tail_bytes + sizeof(std::uint64_t);
  std::size_t used = 0;
  TailBits tails;
  FixedBins bins;
  for_each_run(head, input.shape, input.format, first, count, predictions, false,
               [&](const FixedRun& run, std::int64_t at) {
                 if (block.tails.size() - used < room) {
                   // As much as all elements need if they are like those before, and a little.
                   const auto done = static_cast<std::size_t>(at - first);
                   const std::size_t all = static_cast<std::size_t>(count);
                   const std::size_t expected = done > 0 ? used * all / done : 0;
                   block.tails.resize(std::max(expected + expected / 64, used) + 2 * room);
                 }
                 tails.at = block.tails.data() + used;
                 kernels.bins(run, bins);
                 std::copy_n(bins.contexts, run.count, block.contexts.data() + (at - first));
                 kernels.split(run, bins, word_at(input.words, input.format.bytes, at),
                               block.symbols.data() + (at - first), tails);
                 used = static_cast<std::size_t>(tails.at - block.tails.data());
               });
  if (tails.used > 0) block.tails[used++] = static_cast<std::uint8_t>(tails.held);
  block.tails.resize(used);
  return block;
}

bool join_runs(const FixedKernels& kernels, const FixedSource& source, FloatFormat plain_format,
               const DigitsDecoder& decoder, std::int64_t number, std::int64_t first,
               std::int64_t count, const std::int64_t* predictions, void* words) {
  const FixedFormat format(plain_format);
  std::vector<std::uint8_t> contexts(static_cast<std::size_t>(count)), symbols(contexts.size());
  FixedBins bins;
  for_each_run(source.head, source.shape, plain_format, first, count, predictions, false,
               [&](const FixedRun& run, std::int64_t at) {
                 kernels.bins(run, bins);
                 std::copy_n(bins.contexts, run.count, contexts.data() + (at - first));
               });
  BitReader bits(nullptr, 0);
  if (decoder.decode(static_cast<std::uint64_t>(number), contexts.data(), symbols.data(), bits) !=
      Status::ok)
    return false;
  TailReader tail{bits};
  for_each_run(source.head, source.shape, plain_format, first, count, predictions, false,
               [&](const FixedRun& run, std::int64_t at) {
                 // Once more rather than kept: it takes less time than the memory does.
                 kernels.bins(run, bins);
                 const std::uint8_t* const own = symbols.data() + (at - first);
                 TailSource rest{bits.data(), bits.size(), bits.used()};
                 const int joined =
                     kernels.join(run, bins, own, rest, word_at(words, plain_format.bytes, at));
                 bits.move_to(rest.used);
                 for (int i = joined; i < run.count; ++i) {
                   Bin bin;
                   bin.quantum = bins.quantum[i];
                   bin.place = bins.place[i];
                   store_word(words, plain_format.bytes, at + i,
                              join_element(own[i], bin, format, tail));
                 }
               });
  return bits.only_padding_left();
}

}  // namespace

void find_levels(const FixedInput& input, const FixedHead& head, const Product& product,
                 std::int16_t* levels, const Parallel& parallel) {
  const FixedKernels* const kernels = kernels_for(input.format);
  if (kernels == nullptr) {
    if (head.has_prediction()) {
      walk_levels<true>(input, head, product, levels, parallel);
    } else {
      walk_levels<false>(input, head, {}, levels, parallel);
    }
    return;
  }
  for_each_block(
      input.shape, head.predicted() ? product : Product(), parallel,
      [&](std::int64_t, std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
        for_each_run(head, input.shape, input.format, first, count, predictions, true,
                     [&](const FixedRun& run, std::int64_t at) {
                       kernels->levels(run, word_at(input.words, input.format.bytes, at),
                                       levels + at);
                     });
      });
}

std::vector<DigitsBlock> split_blocks(const FixedInput& input, const FixedHead& head,
                                      const Product& product, const Parallel& parallel) {
  const FixedKernels* const kernels = kernels_for(input.format);
  if (kernels == nullptr) {
    return head.has_prediction() ? walk_blocks<true>(input, head, product, parallel)
                                 : walk_blocks<false>(input, head, {}, parallel);
  }
  std::vector<DigitsBlock> blocks(
      static_cast<std::size_t>((input.shape.elements + block_elements - 1) / block_elements));
  for_each_block(input.shape, head.predicted() ? product : Product(), parallel,
                 [&](std::int64_t number, std::int64_t first, std::int64_t count,
                     const std::int64_t* predictions) {
                   blocks[static_cast<std::size_t>(number)] =
                       split_runs(*kernels, input, head, first, count, predictions);
                 });
  return blocks;
}

bool know_block(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                std::int64_t first, std::int64_t count, const std::int64_t* predictions,
                Known* known) {
  static_assert(sizeof(Known) == 3);
  const FixedKernels* const kernels = kernels_for(format);
  if (kernels == nullptr) return false;
  for_each_run(head, shape, format, first, count, predictions, false,
               [&](const FixedRun& run, std::int64_t at) {
                 kernels->known(run, reinterpret_cast<std::int8_t*>(known + (at - first)));
               });
  return true;
}

bool split_known_block(const FixedInput& input, const FixedHead& head, std::int64_t first,
                       std::int64_t count, const std::int64_t* predictions, Known* known,
                       std::uint8_t* symbols, std::vector<std::uint8_t>& tails) {
  if (!know_block(head, input.shape, input.format, first, count, predictions, known)) return false;
  DigitsBlock block =
      split_runs(*kernels_for(input.format), input, head, first, count, predictions);
  std::copy(block.symbols.begin(), block.symbols.end(), symbols);
  tails = std::move(block.tails);
  return true;
}

bool decode_block(const FixedSource& source, FloatFormat format, const DigitsDecoder& decoder,
                  std::int64_t number, std::int64_t first, std::int64_t count,
                  const std::int64_t* predictions, void* words) {
  if (const FixedKernels* const kernels = kernels_for(format); kernels != nullptr)
    return join_runs(*kernels, source, format, decoder, number, first, count, predictions, words);
  return source.head.has_prediction()
             ? walk_block<true>(source, format, decoder, number, first, count, predictions, words)
             : walk_block<false>(source, format, decoder, number, first, count, predictions, words);
}

}  // namespace lmgc
