#include "core/entropy.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/integer_math.h"
#include "core/scratch.h"

namespace lmgc {
namespace {

// Bytes that coding `counts` with `table` takes, without the table.
std::uint64_t coded_size(const rans::Counts& counts, const rans::Table& table) {
  std::uint64_t bits = 0;  // in 256ths
  for (int symbol = 0; symbol < 256; ++symbol) {
    if (counts[symbol] == 0) continue;
    bits += counts[symbol] *
            ((rans::probability_bits << log2_fraction_bits) - log2_fixed(table.frequency[symbol]));
  }
  return bits >> (log2_fraction_bits + 3);
}

bool is_empty(const rans::Counts& counts) {
  return std::all_of(counts.begin(), counts.end(), [](auto count) { return count == 0; });
}

// names[0, count) of the segments from `first` on; false when one is not below `tables`.
bool unpack_names(const std::uint8_t* packed, std::uint64_t first, std::uint64_t count, int tables,
                  std::uint8_t* names) {
  const int bits = name_bits(tables);
  const std::uint64_t per_byte = 8u / static_cast<unsigned>(bits);
  std::uint8_t greatest = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t segment = first + i;
    const int shift = static_cast<int>(segment % per_byte) * bits;
    names[i] = static_cast<std::uint8_t>(packed[segment / per_byte] >> shift & ((1 << bits) - 1));
    greatest = std::max(greatest, names[i]);
  }
  return greatest < tables;
}

}  // namespace

// ---- sizes and head -----------------------------------------------------------------------------

std::uint64_t body_size(const StreamHead& head, std::uint64_t symbols) {
  if (head.kind == StreamKind::constant) return 0;
  if (head.kind == StreamKind::raw) return symbols;
  std::uint64_t size = names_size(symbols, head.segment_bits, head.table_count());
  for (std::uint64_t block = 0; block < head.block_words.size(); ++block) {
    size += block_size(symbols_in_block(symbols, block), head.block_words[block]);
  }
  return size;
}

std::size_t head_size(const StreamHead& head) {
  if (head.kind != StreamKind::rans) return head.kind == StreamKind::constant ? 2 : 1;
  std::size_t size = 2 + rans::tables_size(head.tables.data(), head.table_count());
  for (const std::uint32_t words : head.block_words) size += varint_size(words);
  return size;
}

void write_head(const StreamHead& head, ByteWriter& out) {
  out.fixed(static_cast<std::uint8_t>(head.kind));
  if (head.kind == StreamKind::constant) out.fixed(head.constant);
  if (head.kind != StreamKind::rans) return;
  out.fixed(static_cast<std::uint8_t>((head.table_count() - 1) |
                                      (head.segment_bits - least_segment_bits) << 4));
  rans::write_tables(head.tables.data(), head.table_count(), out);
  for (const std::uint32_t words : head.block_words) out.varint(words);
}

Status read_head(ByteReader& in, std::uint64_t symbols, StreamHead& head) {
  head = StreamHead{};
  const auto kind = in.fixed<std::uint8_t>();
  if (!in.ok()) return Status::truncated;
  if (kind > static_cast<std::uint8_t>(StreamKind::rans)) return Status::bad_section;
  head.kind = static_cast<StreamKind>(kind);
  if (head.kind == StreamKind::raw) return Status::ok;
  const auto parameter = in.fixed<std::uint8_t>();
  if (!in.ok()) return Status::truncated;
  if (head.kind == StreamKind::constant) {
    head.constant = parameter;
    return Status::ok;
  }
  head.segment_bits = static_cast<std::uint8_t>((parameter >> 4) + least_segment_bits);
  if (head.segment_bits > most_segment_bits) return Status::bad_section;
  const Status status = rans::read_tables(in, (parameter & 0xF) + 1, head.tables);
  if (status != Status::ok) return status;
  const std::uint64_t blocks = stream_blocks(symbols);
  if (blocks > in.left()) return Status::truncated;
  head.block_words.resize(static_cast<std::size_t>(blocks));
  for (std::uint32_t& words : head.block_words) {
    const std::uint64_t value = in.varint();
    if (!in.ok()) return Status::truncated;
    if (value > rans::block_symbols) return Status::bad_section;  // a symbol sends one word at most
    words = static_cast<std::uint32_t>(value);
  }
  return Status::ok;
}

// ---- encoder ------------------------------------------------------------------------------------

NamedTables settle_tables(const std::array<rans::Counts, most_tables>& counts, int tables,
                          std::uint64_t symbols, int segment_bits) {
  NamedTables several, single;
  rans::Counts sum{};
  for (int t = 0; t < tables; ++t) {
    if (is_empty(counts[t])) continue;
    several.renamed[t] = static_cast<std::uint8_t>(several.tables.size());
    several.tables.emplace_back();
    for (int symbol = 0; symbol < 256; ++symbol) sum[symbol] += counts[t][symbol];
  }
  const bool is_choice = several.tables.size() > 1;
  for (int t = 0; t < tables && is_choice; ++t) {
    if (is_empty(counts[t])) continue;
    rans::Table& own = several.tables[several.renamed[t]];
    own = rans::normalize(counts[t]);
    several.estimated_size += coded_size(counts[t], own);
  }
  single.tables.push_back(rans::normalize(sum));
  single.estimated_size = coded_size(sum, single.tables[0]);
  single.constant = single.tables[0].frequency[single.tables[0].rest] == rans::probability_one;

  std::uint64_t states = 0;
  if (const std::uint64_t blocks = stream_blocks(symbols)) {
    // of the 4 bytes of a state, 2 hold what would otherwise be words
    states =
        2 * ((blocks - 1) * rans::most_lanes +
             static_cast<std::uint64_t>(rans::lanes_of(symbols_in_block(symbols, blocks - 1))));
    states += 3 * blocks;
  }
  for (NamedTables* one : {&several, &single}) {
    if (one == &several && !is_choice) continue;
    const auto count = static_cast<int>(one->tables.size());
    one->estimated_size += 2 + states + rans::tables_size(one->tables.data(), count) +
                           names_size(symbols, segment_bits, count);
  }
  return is_choice && several.estimated_size < single.estimated_size ? several : single;
}

bool is_smaller_than_raw(const StreamHead& head, std::uint64_t symbols) {
  return head_size(head) + body_size(head, symbols) <= symbols;
}

std::vector<std::uint8_t> pack_names(const std::uint8_t* names, std::uint64_t segments,
                                     int tables) {
  const int bits = name_bits(tables);
  if (bits == 0) return {};
  const std::uint64_t per_byte = 8u / static_cast<unsigned>(bits);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>((segments + per_byte - 1) / per_byte));
  for (std::uint64_t i = 0; i < segments; ++i) {
    packed[i / per_byte] |=
        static_cast<std::uint8_t>(names[i] << (i % per_byte * static_cast<unsigned>(bits)));
  }
  return packed;
}

CodedStream code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                        const Parallel& parallel) {
  const auto count = static_cast<std::int64_t>(symbols);
  const std::int64_t segments = count >> segment_bits;  // whole ones
  const std::int64_t sampled = sampled_segments(segments);
  TableCosts costs;
  {
    const Scratch sample(static_cast<std::size_t>(sampled) << segment_bits);
    for (std::int64_t i = 0; i < sampled; ++i) {
      std::memcpy(sample.data() + (i << segment_bits),
                  data + (sampled_segment(i, segments) << segment_bits),
                  std::size_t{1} << segment_bits);
    }
    costs = choose_tables(sample.data(), sampled, segment_bits, count);
  }
  return code_stream(data, symbols, segment_bits, costs, parallel);
}

CodedStream code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                        const TableCosts& costs, const Parallel& parallel) {
  CodedStream stream;
  if (symbols == 0 || !worthwhile(costs.estimated_bits / 8, symbols)) return stream;
  const auto count = static_cast<std::int64_t>(symbols);
  const std::int64_t segments = count >> segment_bits;  // whole ones
  const std::int64_t all_segments = segments + ((segments << segment_bits) < count ? 1 : 0);
  std::vector<std::uint8_t> names(static_cast<std::size_t>(all_segments));
  std::array<rans::Counts, most_tables> counts;
  name_tables(data, count, segment_bits, costs, parallel, names.data(), counts);
  NamedTables settled = settle_tables(counts, costs.tables, symbols, segment_bits);
  if (settled.constant) {
    stream.head.kind = StreamKind::constant;
    stream.head.constant = settled.tables[0].rest;
    return stream;
  }
  if (!worthwhile(settled.estimated_size, symbols)) return stream;
  for (std::uint8_t& name : names) name = settled.renamed[name];

  const auto tables = static_cast<int>(settled.tables.size());
  std::vector<rans::EncodeEntry> entries(256 * settled.tables.size());
  for (int t = 0; t < tables; ++t)
    rans::fill_encode_entries(settled.tables[t], entries.data() + 256 * t);
  stream.blocks.resize(static_cast<std::size_t>(stream_blocks(symbols)));
  parallel(static_cast<std::int64_t>(stream.blocks.size()), [&](std::int64_t block) {
    const std::uint32_t own = symbols_in_block(symbols, static_cast<std::uint64_t>(block));
    const std::size_t bound = rans::block_bound(own);
    const Scratch buffer(bound);
    const std::uint8_t* const block_names =
        tables > 1 ? names.data() + (block << (rans::block_bits - segment_bits)) : nullptr;
    std::uint8_t* const end = buffer.data() + bound;
    std::uint8_t* const first = rans::encode_block(
        data + (block << rans::block_bits), own, {block_names, segment_bits}, entries.data(), end);
    stream.blocks[static_cast<std::size_t>(block)].assign(first, end);
  });

  StreamHead& head = stream.head;
  head.kind = StreamKind::rans;
  head.segment_bits = static_cast<std::uint8_t>(segment_bits);
  head.tables = std::move(settled.tables);
  for (std::size_t block = 0; block < stream.blocks.size(); ++block) {
    const auto states =
        static_cast<std::size_t>(rans::lanes_of(symbols_in_block(symbols, block))) * 4;
    head.block_words.push_back(
        static_cast<std::uint32_t>((stream.blocks[block].size() - states) / 2));
  }
  if (!is_smaller_than_raw(head, symbols)) return {};
  stream.names = pack_names(names.data(), static_cast<std::uint64_t>(all_segments), tables);
  return stream;
}

void write_body(const CodedStream& stream, const std::uint8_t* data, std::uint64_t symbols,
                std::uint8_t* out, const Parallel& parallel) {
  if (stream.head.kind == StreamKind::constant || symbols == 0) return;
  if (stream.head.kind == StreamKind::raw) {
    parallel(static_cast<std::int64_t>(stream_blocks(symbols)), [&](std::int64_t block) {
      const auto first = static_cast<std::uint64_t>(block) << rans::block_bits;
      std::memcpy(out + first, data + first,
                  symbols_in_block(symbols, static_cast<std::uint64_t>(block)));
    });
    return;
  }
  if (!stream.names.empty()) std::memcpy(out, stream.names.data(), stream.names.size());
  out += stream.names.size();
  for (const auto& block : stream.blocks) {
    std::memcpy(out, block.data(), block.size());
    out += block.size();
  }
}

// ---- decoder ------------------------------------------------------------------------------------

void StreamDecoder::open(StreamHead head, const std::uint8_t* body, std::uint64_t symbols) {
  head_ = std::move(head);
  body_ = body;
  symbols_ = symbols;
  if (head_.kind != StreamKind::rans) return;
  const auto tables = static_cast<std::size_t>(head_.table_count());
  entries_ = std::make_unique_for_overwrite<rans::DecodeEntry[]>(tables * rans::probability_one);
  for (std::size_t t = 0; t < tables; ++t) {
    rans::fill_decode_entries(head_.tables[t], entries_.get() + t * rans::probability_one);
  }
  offsets_.reserve(head_.block_words.size() + 1);
  offsets_.assign(1, names_size(symbols, head_.segment_bits, head_.table_count()));
  for (std::uint64_t block = 0; block < head_.block_words.size(); ++block) {
    offsets_.push_back(offsets_.back() +
                       block_size(symbols_in_block(symbols, block), head_.block_words[block]));
  }
}

Status StreamDecoder::decode(std::uint64_t first, int blocks, std::uint8_t* out) const {
  if (head_.kind == StreamKind::raw) {
    std::memcpy(out, body_ + first * rans::block_symbols,
                symbols_in_blocks(symbols_, first, blocks));
    return Status::ok;
  }
  if (head_.kind == StreamKind::constant) {
    std::memset(out, head_.constant, symbols_in_blocks(symbols_, first, blocks));
    return Status::ok;
  }
  std::uint8_t names[rans::most_blocks][1 << (rans::block_bits - least_segment_bits)];
  rans::CodedBlock coded[rans::most_blocks];
  const int tables = head_.table_count();
  for (int b = 0; b < blocks; ++b) {
    const std::uint64_t block = first + static_cast<std::uint64_t>(b);
    const std::uint32_t count = symbols_in_block(symbols_, block);
    coded[b] = {body_ + offsets_[block],
                static_cast<std::size_t>(offsets_[block + 1] - offsets_[block]), count,
                tables > 1 ? names[b] : nullptr, out + b * std::size_t{rans::block_symbols}};
    if (tables <= 1) continue;
    const std::uint64_t segment = block << (rans::block_bits - head_.segment_bits);
    const std::uint64_t segments = ((count - 1) >> head_.segment_bits) + 1;
    if (!unpack_names(body_, segment, segments, tables, names[b])) return Status::bad_stream;
  }
  return rans::decode_blocks(coded, blocks, head_.segment_bits, entries_.get());
}

// ---- whole streams ------------------------------------------------------------------------------

void encode_stream(const std::uint8_t* data, std::uint64_t symbols, ByteWriter& out,
                   const Parallel& parallel, int segment_bits) {
  const CodedStream stream = code_stream(data, symbols, segment_bits, parallel);
  write_head(stream.head, out);
  std::vector<std::uint8_t> body(static_cast<std::size_t>(body_size(stream.head, symbols)));
  write_body(stream, data, symbols, body.data(), parallel);
  out.bytes(body.data(), body.size());
}

Status decode_stream(ByteReader& in, std::uint64_t symbols, std::uint8_t* out,
                     const Parallel& parallel) {
  StreamHead head;
  const Status status = read_head(in, symbols, head);
  if (status != Status::ok) return status;
  const std::uint8_t* body = in.bytes(body_size(head, symbols));
  if (body == nullptr) return Status::truncated;
  StreamDecoder decoder;
  decoder.open(std::move(head), body, symbols);
  std::atomic<Status> worst{Status::ok};
  for_each_blocks(symbols, parallel, [&](std::uint64_t first, int blocks) {
    const Status own = decoder.decode(first, blocks, out + first * rans::block_symbols);
    if (own != Status::ok) worst = own;
  });
  return worst;
}

}  // namespace lmgc
