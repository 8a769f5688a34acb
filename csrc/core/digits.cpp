#include "core/digits.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <mutex>

#include "core/histogram.h"
#include "core/scratch.h"

namespace lmgc {

std::uint64_t DigitsHead::body_size(std::uint64_t symbols) const {
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    size += digits_block_size(blocks[i], symbols_in_block(symbols, i));
  return size;
}

void write_digits_head(const DigitsHead& head, ByteWriter& out) {
  // Most weights are zero: which ones are not, and those.
  std::uint16_t present = 0;
  for (std::size_t k = 0; k < mixture_components; ++k)
    present = static_cast<std::uint16_t>(present | (head.mixture.weights[k] != 0) << k);
  out.fixed(present);
  for (const std::uint8_t weight : head.mixture.weights) {
    if (weight != 0) out.fixed(weight);
  }
  out.fixed(head.mixture.positive);
  out.varint(head.mixture.zero);
  out.varint(head.mixture.minus_zero);
  out.fixed(head.contexts);
  for (const DigitsBlockSize& size : head.blocks) {
    out.varint(size.words);
    out.varint(size.escapes);
    out.varint(size.tails);
  }
}

Status read_digits_head(ByteReader& in, std::uint64_t symbols, Fraction kind, DigitsHead& head) {
  const auto present = in.fixed<std::uint16_t>();
  if (present >> mixture_components != 0) return Status::bad_table;
  for (std::size_t k = 0; k < mixture_components; ++k) {
    head.mixture.weights[k] = (present >> k & 1) != 0 ? in.fixed<std::uint8_t>() : 0;
  }
  head.mixture.positive = in.fixed<std::uint8_t>();
  const std::uint64_t zero = in.varint(), minus_zero = in.varint();
  head.contexts = in.fixed<std::uint8_t>();
  if (!in.ok()) return Status::truncated;
  if (zero > most_zero_frequency || minus_zero > most_zero_frequency) return Status::bad_table;
  head.mixture.zero = static_cast<std::uint16_t>(zero);
  head.mixture.minus_zero = static_cast<std::uint16_t>(minus_zero);
  if (!head.mixture.valid(kind)) return Status::bad_table;
  if (head.contexts == 0 || head.contexts > contexts_of(kind)) return Status::bad_section;
  const std::uint64_t blocks = stream_blocks(symbols);
  if (blocks > in.left() / 3) return Status::truncated;
  head.blocks.resize(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < head.blocks.size(); ++i) {
    const std::uint64_t count = symbols_in_block(symbols, i);
    const std::uint64_t words = in.varint(), escapes = in.varint(), tails = in.varint();
    if (!in.ok()) return Status::truncated;
    // A symbol sends a word at most, escapes once, and is followed by at most a prefix of 25 bits
    // and a mantissa, or a word.
    if (words > count || escapes > count || tails > 16 * count) return Status::bad_section;
    head.blocks[i] = {static_cast<std::uint32_t>(words), static_cast<std::uint32_t>(escapes),
                      static_cast<std::uint32_t>(tails)};
  }
  return Status::ok;
}

// ---- encoder ------------------------------------------------------------------------------------

namespace {

// What codes the symbols of each context, 256 a context: only of contexts that occur.
struct EncodeTables {
  std::unique_ptr<rans::EncodeEntry[]> entries;
  // One where the escape stands for the symbol: it has no frequency, or it is the escape.
  std::unique_ptr<std::uint8_t[]> escapes;
};

bool occurs(const std::array<std::uint32_t, 256>& counts) {
  std::uint32_t any = 0;
  for (const std::uint32_t n : counts) any |= n;
  return any != 0;
}

EncodeTables encode_tables(const DigitsHead& head, const ContextCounts& counts, Fraction kind,
                           const Parallel& parallel) {
  const std::size_t size = std::size_t{256} * head.contexts;
  EncodeTables tables{std::make_unique_for_overwrite<rans::EncodeEntry[]>(size),
                      std::make_unique_for_overwrite<std::uint8_t[]>(size)};
  parallel(head.contexts, [&](std::int64_t context) {
    if (!occurs(counts[static_cast<std::size_t>(context)])) return;
    const rans::Table table = mixture_table(head.mixture, static_cast<int>(context), kind);
    rans::fill_encode_entries(table, tables.entries.get() + 256 * context);
    for (std::size_t s = 0; s < 256; ++s)
      tables.escapes[static_cast<std::size_t>(256 * context) + s] =
          table.frequency[s] == 0 || s == symbol_escape;
  });
  return tables;
}

// Puts the escape in the place of symbols that it stands for, and those into `escaped`.
void divert_escapes(DigitsBlock& block, const std::uint8_t* is_escape,
                    std::vector<std::uint8_t>& escaped) {
  const std::size_t count = block.symbols.size();
  const std::uint8_t* const contexts = block.contexts.data();
  std::uint8_t* const symbols = block.symbols.data();
  for (std::size_t i = 0; i < count; ++i) {
    if (is_escape[256u * contexts[i] + symbols[i]] == 0) continue;
    escaped.push_back(symbols[i]);
    symbols[i] = symbol_escape;
  }
}

}  // namespace

void fit_digits(const ContextCounts& counts, Fraction kind, DigitsHead& head) {
  head.contexts = 1;
  for (std::size_t c = 0; c < counts.size(); ++c) {
    if (occurs(counts[c])) head.contexts = static_cast<std::uint8_t>(c + 1);
  }
  head.mixture = fit_mixture(counts, kind);
}

std::uint64_t CodedDigits::body_size() const {
  std::uint64_t size = 0;
  for (const Block& block : blocks) size += block.coded.size() + block.tails.size();
  return size;
}

std::uint8_t* CodedDigits::write_body(std::uint8_t* out) const {
  for (const Block& block : blocks) {
    for (const auto* const part : {&block.coded, &block.tails}) {
      if (!part->empty()) std::memcpy(out, part->data(), part->size());
      out += part->size();
    }
  }
  return out;
}

CodedDigits code_digits(std::vector<DigitsBlock>& blocks, Fraction kind, const Parallel& parallel) {
  const auto count = static_cast<std::int64_t>(blocks.size());
  // Counts are added up in a few tasks, so that they take little memory.
  const std::int64_t tasks = std::min<std::int64_t>(count, 16);
  ContextCounts counts(static_cast<std::size_t>(contexts_of(kind)));
  std::mutex adding;
  parallel(tasks, [&](std::int64_t task) {
    std::int64_t symbols = 0;
    for (std::int64_t b = task; b < count; b += tasks)
      symbols += std::ssize(blocks[static_cast<std::size_t>(b)].symbols);
    ContextHistogram own(counts.size(), symbols);
    for (std::int64_t b = task; b < count; b += tasks) {
      const DigitsBlock& block = blocks[static_cast<std::size_t>(b)];
      own.add(block.symbols.data(), block.contexts.data(), std::ssize(block.symbols));
    }
    const std::lock_guard lock(adding);
    own.add_to(counts);
  });
  CodedDigits coded;
  fit_digits(counts, kind, coded.head);

  const EncodeTables tables = encode_tables(coded.head, counts, kind, parallel);
  coded.blocks.resize(blocks.size());
  coded.head.blocks.resize(blocks.size());
  parallel(count, [&](std::int64_t b) {
    DigitsBlock block = std::move(blocks[static_cast<std::size_t>(b)]);
    const auto symbols = static_cast<std::uint32_t>(block.symbols.size());
    std::vector<std::uint8_t> escaped;
    divert_escapes(block, tables.escapes.get(), escaped);
    const Scratch room(rans::block_bound(symbols));
    std::uint8_t* const end = room.data() + rans::block_bound(symbols);
    const std::uint8_t* const begin = rans::encode_contexts(
        block.symbols.data(), block.contexts.data(), symbols, tables.entries.get(), end);
    const auto coded_size = static_cast<std::size_t>(end - begin);
    coded.head.blocks[static_cast<std::size_t>(b)] = {
        static_cast<std::uint32_t>((coded_size - block_size(symbols, 0)) / 2),
        static_cast<std::uint32_t>(escaped.size()), static_cast<std::uint32_t>(block.tails.size())};
    CodedDigits::Block& out = coded.blocks[static_cast<std::size_t>(b)];
    out.coded.reserve(coded_size + escaped.size());
    out.coded.assign(begin, static_cast<const std::uint8_t*>(end));
    out.coded.insert(out.coded.end(), escaped.begin(), escaped.end());
    out.tails = std::move(block.tails);
  });
  return coded;
}

// ---- decoder ------------------------------------------------------------------------------------

void DigitsDecoder::open(const DigitsHead& head, const std::uint8_t* body, std::uint64_t symbols,
                         Fraction kind, const Parallel& parallel) {
  head_ = head;
  body_ = body;
  symbols_ = symbols;
  entries_.reset(new rans::DecodeEntry[std::size_t{rans::probability_one} * head.contexts]);
  parallel(head.contexts, [&](std::int64_t context) {
    rans::fill_decode_entries(mixture_table(head.mixture, static_cast<int>(context), kind),
                              entries_.get() + rans::probability_one * context);
  });
  offsets_.assign(1, 0);
  for (std::size_t i = 0; i < head.blocks.size(); ++i)
    offsets_.push_back(offsets_[i] +
                       digits_block_size(head.blocks[i], symbols_in_block(symbols, i)));
}

Status DigitsDecoder::decode(std::uint64_t block, const std::uint8_t* contexts,
                             std::uint8_t* symbols, BitReader& tails) const {
  const std::uint32_t count = symbols_in_block(symbols_, block);
  const DigitsBlockSize& size = head_.blocks[block];
  const std::uint8_t* const data = body_ + offsets_[block];
  const std::uint64_t coded = block_size(count, size.words);
  std::uint8_t widest = 0;
  for (std::uint32_t i = 0; i < count; ++i) widest = std::max(widest, contexts[i]);
  if (widest >= head_.contexts) return Status::bad_stream;
  const Status status = rans::decode_contexts(data, static_cast<std::size_t>(coded), contexts,
                                              count, entries_.get(), symbols);
  if (status != Status::ok) return status;
  const std::uint8_t* const escapes = data + coded;
  std::uint32_t used = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (symbols[i] != symbol_escape) continue;
    if (used == size.escapes) return Status::bad_stream;
    symbols[i] = escapes[used++];
  }
  if (used != size.escapes) return Status::bad_stream;
  tails = BitReader(escapes + size.escapes, size.tails);
  return Status::ok;
}

}  // namespace lmgc
