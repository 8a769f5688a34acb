#include "core/lm_section.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "core/fixed_blocks.h"
#include "core/fixed_walk.h"
#include "core/lanes.h"
#include "core/range_coder.h"

namespace lmgc {
namespace {

std::int64_t blocks_of(std::int64_t elements) {
  return (elements + block_elements - 1) / block_elements;
}

// The place of an entry in a factor, whose symbols go component after component.
struct FactorPlace {
  FactorPlace(std::int64_t index, std::int64_t lines)
      : line(index % lines), component(index / lines), lines_(lines) {}
  void next() {
    if (++line < lines_) return;
    line = 0;
    ++component;
  }
  std::int64_t line, component;

 private:
  std::int64_t lines_;
};

// body(block, first, count) for every block of a factor's symbols.
template <class Body>
void for_each_entry_block(std::int64_t lines, std::int64_t rank, const Parallel& parallel,
                          const Body& body) {
  const std::int64_t entries = lines * rank;
  parallel(blocks_of(entries), [&](std::int64_t block) {
    const std::int64_t first = block * block_elements;
    body(block, first, std::min(block_elements, entries - first));
  });
}

template <bool predicted>
void split_stream(const FixedInput& input, const FixedHead& head, const Product& product,
                  DigitStream& stream, const Parallel& parallel) {
  const FixedFormat format(input.format);
  for_each_block(input.shape, product, parallel,
                 [&](std::int64_t number, std::int64_t first, std::int64_t count,
                     const std::int64_t* predictions) {
                   if (split_known_block(input, head, first, count, predictions,
                                         stream.known.data() + first, stream.symbols.data() + first,
                                         stream.tails[static_cast<std::size_t>(number)]))
                     return;
                   BitWriter tails;
                   Walk<predicted> walk(head, input.shape, input.format, first, predictions);
                   for (std::int64_t i = first; i < first + count; ++i, walk.next()) {
                     const Bin bin = walk.bin();
                     const std::uint64_t word = load_word(input.words, input.format.bytes, i);
                     const FixedElement element = split_element(word, bin, format);
                     stream.known[static_cast<std::size_t>(i)] = walk.known(bin);
                     stream.symbols[static_cast<std::size_t>(i)] =
                         static_cast<std::uint8_t>(element.symbol);
                     put_tail(tails, element);
                   }
                   stream.tails[static_cast<std::size_t>(number)] = tails.take();
                 });
}

template <bool predicted>
void know_residuals(const FixedSource& source, FloatFormat format, const Product& product,
                    std::vector<Known>& known, const Parallel& parallel) {
  for_each_block(
      source.shape, product, parallel,
      [&](std::int64_t, std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
        if (know_block(source.head, source.shape, format, first, count, predictions,
                       known.data() + first))
          return;
        Walk<predicted> walk(source.head, source.shape, format, first, predictions);
        for (std::int64_t i = first; i < first + count; ++i, walk.next())
          known[static_cast<std::size_t>(i)] = walk.known(walk.bin());
      });
}

template <bool predicted>
bool join_blocks(const FixedSource& source, FloatFormat plain_format, const std::uint8_t* symbols,
                 const std::vector<LaneBytes>& tails, const Product& product, void* words,
                 const Parallel& parallel) {
  const FixedFormat format(plain_format);
  std::atomic<bool> good{true};
  for_each_block(source.shape, product, parallel,
                 [&](std::int64_t number, std::int64_t first, std::int64_t count,
                     const std::int64_t* predictions) {
                   const LaneBytes& own = tails[static_cast<std::size_t>(number)];
                   BitReader bits(own.data, own.size);
                   TailReader tail{bits};
                   Walk<predicted> walk(source.head, source.shape, plain_format, first,
                                        predictions);
                   for (std::int64_t i = first; i < first + count; ++i, walk.next()) {
                     store_word(words, plain_format.bytes, i,
                                join_element(symbols[i], walk.bin(), format, tail));
                   }
                   if (!bits.only_padding_left()) good = false;
                 });
  return good;
}

Known entry_known(const EntryShape& shape) { return {known_width(shape.width), 16, 0}; }

void write_stream_head(const CodedDigitStream& stream, ByteWriter& out) {
  out.varint(static_cast<std::uint64_t>(stream.lane_elements));
  for (const CodedLane& lane : stream.lanes) out.varint(lane.size());
  for (const auto& tails : stream.tails) out.varint(tails.size());
}

void write_stream_body(const CodedDigitStream& stream, ByteWriter& out) {
  for (const CodedLane& lane : stream.lanes) out.bytes(lane.data(), lane.size());
  for (const auto& tails : stream.tails) out.bytes(tails.data(), tails.size());
}

// Sizes only: where they lie is known when all heads are read.
Status read_stream_head(ByteReader& in, std::int64_t elements, StreamSource& stream) {
  stream.elements = elements;
  const std::uint64_t lane_elements = in.varint();
  if (!in.ok()) return Status::truncated;
  if (lane_elements < 1 || lane_elements > most_lane_elements) return Status::bad_section;
  stream.lane_elements = static_cast<std::int64_t>(lane_elements);
  const std::int64_t lanes = (elements - 1) / stream.lane_elements + 1;
  if (static_cast<std::uint64_t>(lanes + blocks_of(elements)) > in.left())
    return Status::truncated;  // a byte each at least
  stream.lanes.resize(static_cast<std::size_t>(lanes));
  std::int64_t left = elements;
  for (LaneBytes& lane : stream.lanes) {
    const std::uint64_t size = in.varint();
    const std::int64_t count = std::min(left, stream.lane_elements);
    left -= count;
    if (size > static_cast<std::uint64_t>(lane_bound(2 * count)) ||
        static_cast<std::uint64_t>(2 * count) > most_symbols_in_lane(size))
      return in.ok() ? Status::bad_section : Status::truncated;
    lane.size = static_cast<std::size_t>(size);
  }
  stream.tails.resize(static_cast<std::size_t>(blocks_of(elements)));
  for (LaneBytes& tails : stream.tails) {
    const std::uint64_t size = in.varint();
    if (size > std::uint64_t{16} * block_elements)
      return in.ok() ? Status::bad_section : Status::truncated;
    tails.size = static_cast<std::size_t>(size);
  }
  return in.ok() ? Status::ok : Status::truncated;
}

bool place_stream(ByteReader& in, StreamSource& stream) {
  for (auto* parts : {&stream.lanes, &stream.tails}) {
    for (LaneBytes& part : *parts) {
      part.data = in.bytes(part.size);
      if (part.data == nullptr && !in.ok()) return false;
    }
  }
  return true;
}

}  // namespace

// ---- encoder ------------------------------------------------------------------------------------

std::int64_t taps_of(const std::int64_t* sizes, std::size_t dimensions) {
  std::int64_t taps = 1;
  for (std::size_t d = 2; d < dimensions; ++d) taps *= sizes[d];
  return taps;
}

DigitStream factor_stream(const Factor& factor, std::int64_t lines, std::int64_t rank,
                          std::int64_t taps, const Parallel& parallel) {
  DigitStream stream;
  stream.geometry = digit_geometry(lines, taps, DigitKind::factor, false);
  const auto entries = static_cast<std::size_t>(lines * rank);
  stream.known.resize(entries);
  stream.symbols.resize(entries);
  stream.tails.resize(static_cast<std::size_t>(blocks_of(lines * rank)));
  for_each_entry_block(
      lines, rank, parallel, [&](std::int64_t block, std::int64_t first, std::int64_t count) {
        BitWriter tails;
        FactorPlace at(first, lines);
        for (std::int64_t i = first; i < first + count; ++i, at.next()) {
          const EntryShape shape = factor.shape_of(at.line, at.component);
          const EntryDigits digits =
              split_entry(factor.entries[static_cast<std::size_t>(at.line * rank + at.component)],
                          shape.tail_bits, 0);
          stream.known[static_cast<std::size_t>(i)] = entry_known(shape);
          stream.symbols[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(digits.symbol);
          tails.put(digits.tail, digits.bits);
        }
        stream.tails[static_cast<std::size_t>(block)] = tails.take();
      });
  return stream;
}

DigitStream residual_stream(const FixedInput& input, const FixedHead& head, std::int64_t taps,
                            bool flat, const Product& product, const Parallel& parallel) {
  DigitStream stream;
  stream.geometry =
      digit_geometry(input.shape.columns, flat ? 1 : taps,
                     head.predicted() ? DigitKind::predicted : DigitKind::unpredicted, flat);
  const auto elements = static_cast<std::size_t>(input.shape.elements);
  stream.known.resize(elements);
  stream.symbols.resize(elements);
  stream.tails.resize(static_cast<std::size_t>(blocks_of(input.shape.elements)));
  if (head.predicted()) {
    split_stream<true>(input, head, product, stream, parallel);
  } else {
    split_stream<false>(input, head, {}, stream, parallel);
  }
  return stream;
}

std::int64_t lane_elements_of(std::int64_t columns, std::int64_t wish) {
  constexpr std::int64_t usual = 4096;
  const std::int64_t about = wish > 0 ? wish : usual;
  const std::int64_t rows = (about + columns / 2) / columns;
  const std::int64_t whole = rows * columns;
  return rows < 1 || whole > static_cast<std::int64_t>(most_lane_elements) ? about : whole;
}

void append_digit_lanes(std::int32_t matrix, std::int64_t elements, std::int64_t lane_elements,
                        std::vector<DigitLane>& lanes) {
  for (std::int64_t first = 0; first < elements; first += lane_elements) {
    lanes.push_back(
        {matrix, static_cast<std::int32_t>(std::min(lane_elements, elements - first)), first});
  }
}

std::vector<std::uint8_t> write_lm_section(const FixedHead& head,
                                           const std::vector<CodedDigitStream>& streams) {
  ByteWriter out;
  write_fixed_side(head, true, out);
  for (const CodedDigitStream& stream : streams) write_stream_head(stream, out);
  for (const CodedDigitStream& stream : streams) write_stream_body(stream, out);
  return out.take();
}

// ---- decoder ------------------------------------------------------------------------------------

Status read_lm(const std::uint8_t* section, std::size_t size, const std::int64_t* sizes,
               std::size_t dimensions, LmSource& source) {
  ByteReader in(section, size);
  Status status = read_fixed_side(in, sizes, dimensions, FixedMethod::lm, source.fixed);
  if (status != Status::ok) return status;
  source.side = in.position();
  const LiveShape& shape = source.fixed.shape;
  if (shape.elements == 0) return in.left() == 0 ? Status::ok : Status::bad_section;
  const std::int64_t rank = source.fixed.head.low_rank.factors.rank;
  std::vector<StreamSource*> streams;
  if (rank > 0) {
    status = read_stream_head(in, shape.rows * rank, source.u);
    if (status != Status::ok) return status;
    status = read_stream_head(in, shape.columns * rank, source.v);
    if (status != Status::ok) return status;
    streams = {&source.u, &source.v};
  }
  status = read_stream_head(in, shape.elements, source.residuals);
  if (status != Status::ok) return status;
  streams.push_back(&source.residuals);
  source.side = in.position();
  for (StreamSource* stream : streams) {
    if (!place_stream(in, *stream)) return Status::truncated;
  }
  return in.left() == 0 ? Status::ok : Status::bad_section;
}

std::vector<Known> factor_known(const Factor& factor, std::int64_t lines, std::int64_t rank,
                                const Parallel& parallel) {
  std::vector<Known> known(static_cast<std::size_t>(lines * rank));
  for_each_entry_block(
      lines, rank, parallel, [&](std::int64_t, std::int64_t first, std::int64_t count) {
        FactorPlace at(first, lines);
        for (std::int64_t i = first; i < first + count; ++i, at.next())
          known[static_cast<std::size_t>(i)] = entry_known(factor.shape_of(at.line, at.component));
      });
  return known;
}

Status join_factor(const std::uint8_t* symbols, const std::vector<LaneBytes>& tails,
                   std::int64_t lines, std::int64_t rank, Factor& factor,
                   const Parallel& parallel) {
  factor.entries.resize(static_cast<std::size_t>(lines * rank));
  std::atomic<bool> good{true};
  for_each_entry_block(
      lines, rank, parallel, [&](std::int64_t block, std::int64_t first, std::int64_t count) {
        const LaneBytes& own = tails[static_cast<std::size_t>(block)];
        BitReader bits(own.data, own.size);
        bool fine = true;
        FactorPlace at(first, lines);
        for (std::int64_t i = first; fine && i < first + count; ++i, at.next()) {
          const std::int64_t value =
              join_entry(symbols[i], factor.shape_of(at.line, at.component).tail_bits, 0, bits);
          fine = std::abs(value) <= most_factor;
          factor.entries[static_cast<std::size_t>(at.line * rank + at.component)] =
              static_cast<std::int32_t>(value);
        }
        if (!fine || !bits.only_padding_left()) good = false;
      });
  return good ? Status::ok : Status::bad_stream;
}

std::vector<Known> residual_known(const FixedSource& source, FloatFormat format,
                                  const Product& product, const Parallel& parallel) {
  std::vector<Known> known(static_cast<std::size_t>(source.shape.elements));
  if (source.head.predicted()) {
    know_residuals<true>(source, format, product, known, parallel);
  } else {
    know_residuals<false>(source, format, {}, known, parallel);
  }
  return known;
}

Status join_residuals(const FixedSource& source, FloatFormat format, const std::uint8_t* symbols,
                      const std::vector<LaneBytes>& tails, const Product& product, void* words,
                      const Parallel& parallel) {
  const bool good =
      source.head.predicted()
          ? join_blocks<true>(source, format, symbols, tails, product, words, parallel)
          : join_blocks<false>(source, format, symbols, tails, {}, words, parallel);
  return good ? Status::ok : Status::bad_stream;
}

}  // namespace lmgc
