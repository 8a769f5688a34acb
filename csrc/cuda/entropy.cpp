// The host's side; the device's is entropy_jobs.h. Plain C++, so that tests can run it with another
// device (tests/core/emulated_device.h).
#include "cuda/entropy.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "cuda/launch.h"

namespace lmgc::cuda {

// ---- bytes --------------------------------------------------------------------------------------

void add_part(const std::uint8_t* from, std::uint8_t* to, std::uint64_t size,
              std::vector<CopyParts::Part>& parts, std::uint8_t value) {
  constexpr std::uint64_t most = 1 << 18;
  for (std::uint64_t at = 0; at < size; at += most) {
    parts.push_back(
        {from == nullptr ? nullptr : from + at, to + at, std::min(most, size - at), value});
  }
}

int copy_parts(const std::vector<CopyParts::Part>& parts, const Allocate& allocate, void* stream) {
  if (parts.empty()) return 0;
  CopyParts::Part* there = nullptr;
  if (int error = upload_array(parts, allocate, stream, &there)) return error;
  return launch_warps(static_cast<std::int64_t>(parts.size()) * CopyParts::slices, CopyParts{there},
                      stream);
}

int make_decode_entries(const std::vector<rans::Table>& tables, const Allocate& allocate,
                        void* stream, rans::DecodeEntry** entries) {
  std::vector<std::uint16_t> ends;
  ends.reserve(256 * tables.size());
  for (const rans::Table& table : tables) {
    unsigned end = 0;
    for (const std::uint16_t frequency : table.frequency) {
      end += frequency;
      ends.push_back(static_cast<std::uint16_t>(end));
    }
  }
  std::uint16_t* device_ends = nullptr;
  if (int error = upload_array(ends, allocate, stream, &device_ends)) return error;
  const std::size_t slots = rans::probability_one * tables.size();
  if (int error = allocate_array(allocate, slots, entries)) return error;
  return launch(static_cast<std::int64_t>(slots), FillDecodeEntries{device_ends, *entries}, stream);
}

// ---- encoder ------------------------------------------------------------------------------------

namespace {

// The streams that are still worth it, fewer after each stage. A stage is one launch and one
// download for all of them.
class Coder {
 public:
  Coder(const std::vector<StreamInput>& inputs, const Parallel& parallel, const Allocate& allocate,
        void* stream, std::vector<CodedStream>& coded)
      : parallel_(parallel), allocate_(allocate), stream_(stream), coded_(coded) {
    coded.assign(inputs.size(), {});
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      if (inputs[k].symbols != 0) left_.push_back({k, inputs[k]});
    }
  }

  int run() {
    if (int error = choose()) return error;
    if (int error = name()) return error;
    return encode();
  }

 private:
  struct Stream {
    std::size_t index;
    StreamInput input;
    std::unique_ptr<TableCosts> costs{};
    NamedTables settled{};
    const std::uint8_t* names = nullptr;  // on the device, of all segments
    bool worth_it = true;

    std::int64_t symbols() const { return static_cast<std::int64_t>(input.symbols); }
    std::int64_t segments() const {
      return NameSegments::segments_of(symbols(), input.segment_bits);
    }
  };

  template <class Body>
  void for_each(const Body& body) {
    parallel_(static_cast<std::int64_t>(left_.size()),
              [&](std::int64_t k) { body(left_[static_cast<std::size_t>(k)], k); });
    std::erase_if(left_, [](const Stream& own) { return !own.worth_it; });
  }

  // Tables, from samples.
  int choose() {
    std::vector<std::size_t> at(1, 0);  // of each stream's sample
    for (const Stream& own : left_) {
      const std::int64_t whole = own.symbols() >> own.input.segment_bits;
      at.push_back(at.back() +
                   (static_cast<std::size_t>(sampled_segments(whole)) << own.input.segment_bits));
    }
    std::uint8_t* samples = nullptr;
    if (int error = allocate_array(allocate_, at.back(), &samples)) return error;
    TaskListBuilder<GatherUnits::Source> sources;
    for (std::size_t k = 0; k < left_.size(); ++k) {
      const StreamInput& input = left_[k].input;
      const std::int64_t whole = left_[k].symbols() >> input.segment_bits;
      const auto size = static_cast<std::int64_t>(at[k + 1] - at[k]);
      const std::int64_t units = sampled_segments(whole);
      sources.add(
          {input.data, std::int64_t{1} << input.segment_bits, units, whole, size, samples + at[k]},
          units);
    }
    if (int error = sources.launch_warps<GatherUnits>(allocate_, stream_)) return error;
    std::vector<std::uint8_t> sample(at.back());
    if (int error = download(sample.data(), samples, sample.size(), stream_)) return error;
    for_each([&](Stream& own, std::int64_t k) {
      const std::size_t first = at[static_cast<std::size_t>(k)];
      const std::int64_t whole = own.symbols() >> own.input.segment_bits;
      own.costs = std::make_unique<TableCosts>(choose_tables(
          sample.data() + first, sampled_segments(whole), own.input.segment_bits, own.symbols()));
      own.worth_it = worthwhile(own.costs->estimated_bits / 8, own.input.symbols);
    });
    return 0;
  }

  // Names of segments, counts of symbols, and from them the final tables.
  int name() {
    if (left_.empty()) return 0;
    std::int64_t segments = 0;
    std::vector<std::size_t> at(1, 0);  // of each stream's counts
    for (const Stream& own : left_) {
      segments += own.segments();
      at.push_back(at.back() + 256 * static_cast<std::size_t>(own.costs->tables));
    }
    SymbolCosts* costs = nullptr;
    std::uint8_t* names = nullptr;
    std::uint64_t* device_counts = nullptr;
    if (int error = upload_array(device_costs(), allocate_, stream_, &costs)) return error;
    if (int error = allocate_array(allocate_, static_cast<std::size_t>(segments), &names))
      return error;
    if (int error = allocate_array(allocate_, at.back(), &device_counts)) return error;
    std::vector<std::uint64_t> counts(at.back());
    const std::size_t counts_size = counts.size() * sizeof counts[0];
    if (int error = clear(device_counts, counts_size, stream_)) return error;

    // A block clears its counters and adds them up: not for a few segments. But there should be
    // more blocks than run at a time.
    constexpr std::int64_t least = 8 * block_warps, most = 128 * block_warps, blocks = 2048;
    NameSegments job{};
    job.run = std::clamp(segments / blocks, least, most);
    TaskListBuilder<NameSegments::Stream> streams;
    for (std::size_t k = 0; k < left_.size(); ++k) {
      Stream& own = left_[k];
      own.names = names;
      streams.add({own.input.data, own.symbols(), own.input.segment_bits, own.costs->tables,
                   costs + 256 * k, names, device_counts + at[k]},
                  (own.segments() + job.run - 1) / job.run);
      names += own.segments();
    }
    if (int error = streams.upload(allocate_, stream_, &job.streams)) return error;
    if (int error = launch_blocks(streams.tasks(), job, stream_)) return error;
    if (int error = download(counts.data(), device_counts, counts_size, stream_)) return error;
    for_each([&](Stream& own, std::int64_t k) {
      settle(counts.data() + at[static_cast<std::size_t>(k)], own);
    });
    return 0;
  }

  std::vector<SymbolCosts> device_costs() const {
    std::vector<SymbolCosts> all(256 * left_.size());
    for (std::size_t k = 0; k < left_.size(); ++k) {
      const TableCosts& own = *left_[k].costs;
      for (std::size_t symbol = 0; symbol < 256; ++symbol) {
        const auto cost_of = [&](int table) {
          return std::uint32_t{table < own.tables ? own.cost[symbol][table] : most_table_cost};
        };
        for (int t = 0; t < most_tables; t += 2)
          all[256 * k + symbol].fours[t / 8].pairs[t / 2 % 4] = cost_of(t) | cost_of(t + 1) << 16;
      }
    }
    return all;
  }

  void settle(const std::uint64_t* counts, Stream& own) {
    std::array<rans::Counts, most_tables> all{};
    for (int t = 0; t < own.costs->tables; ++t)
      std::copy_n(counts + 256 * t, 256, all[static_cast<std::size_t>(t)].begin());
    own.settled = settle_tables(all, own.costs->tables, own.input.symbols, own.input.segment_bits);
    StreamHead& head = coded_[own.index].head;
    if (own.settled.constant) {
      head.kind = StreamKind::constant;
      head.constant = own.settled.tables[0].rest;
    }
    own.worth_it =
        !own.settled.constant && worthwhile(own.settled.estimated_size, own.input.symbols);
  }

  int encode() {
    if (left_.empty()) return 0;
    std::uint64_t blocks = 0, room_size = 0, packed_size = 0;
    std::vector<rans::EncodeEntry> entries;
    std::vector<std::size_t> entries_at;
    for (const Stream& own : left_) {
      entries_at.push_back(entries.size());
      add_entries(own, entries);
      blocks += stream_blocks(own.input.symbols);
      room_size += stream_blocks(own.input.symbols) * stride_of(own.input.symbols);
      packed_size += packed_size_of(own);
    }
    rans::EncodeEntry* device_entries = nullptr;
    std::uint8_t *room = nullptr, *packed = nullptr;
    std::uint32_t* device_words = nullptr;
    if (int error = upload_array(entries, allocate_, stream_, &device_entries)) return error;
    if (int error = allocate_array(allocate_, packed_size, &packed)) return error;
    if (int error = allocate_array(allocate_, room_size, &room)) return error;
    if (int error = allocate_array(allocate_, blocks, &device_words)) return error;

    TaskListBuilder<EncodeStreams::Stream> streams;
    for (std::size_t k = 0; k < left_.size(); ++k) {
      const Stream& own = left_[k];
      const std::uint64_t stride = stride_of(own.input.symbols);
      const auto tables = static_cast<std::int32_t>(own.settled.tables.size());
      EncodeStreams::Stream there{own.input.data,
                                  own.input.symbols,
                                  own.input.segment_bits,
                                  tables,
                                  tables > 1 ? own.names : nullptr,
                                  device_entries + entries_at[k],
                                  {},
                                  packed,
                                  room,
                                  stride,
                                  device_words + streams.tasks()};
      std::copy(own.settled.renamed.begin(), own.settled.renamed.end(), there.renamed);
      const std::uint64_t own_blocks = stream_blocks(own.input.symbols);
      streams.add(there, static_cast<std::int64_t>(own_blocks));
      CodedStream& coded = coded_[own.index];
      coded.names = packed;
      coded.blocks = room;
      coded.stride = stride;
      packed += packed_size_of(own);
      room += own_blocks * stride;
    }
    if (int error = streams.launch_warps<EncodeStreams>(allocate_, stream_)) return error;
    std::vector<std::uint32_t> words(blocks);
    if (int error = download(words.data(), device_words, blocks * sizeof words[0], stream_))
      return error;
    const std::uint32_t* own_words = words.data();
    for (Stream& own : left_) {
      finish(own, own_words);
      own_words += stream_blocks(own.input.symbols);
    }
    return 0;
  }

  // Entries by the names that segments have, several of which may have become one table.
  static void add_entries(const Stream& own, std::vector<rans::EncodeEntry>& entries) {
    const std::size_t first = entries.size();
    const std::size_t names =
        own.settled.tables.size() > 1 ? static_cast<std::size_t>(own.costs->tables) : 1;
    entries.resize(first + 256 * names);
    for (std::size_t name = 0; name < names; ++name) {
      rans::fill_encode_entries(own.settled.tables[own.settled.renamed[name]],
                                entries.data() + first + 256 * name);
    }
  }

  static std::uint64_t packed_size_of(const Stream& own) {
    return names_size(own.input.symbols, own.input.segment_bits,
                      static_cast<int>(own.settled.tables.size()));
  }

  // Room for any block of a stream, in whole words.
  static std::uint64_t stride_of(std::uint64_t symbols) {
    return (rans::block_bound(symbols_in_block(symbols, 0)) + 3) & ~std::uint64_t{3};
  }

  void finish(Stream& own, const std::uint32_t* words) {
    CodedStream& coded = coded_[own.index];
    StreamHead& head = coded.head;
    head.kind = StreamKind::rans;
    head.segment_bits = static_cast<std::uint8_t>(own.input.segment_bits);
    head.tables = std::move(own.settled.tables);
    head.block_words.assign(words, words + stream_blocks(own.input.symbols));
    if (!is_smaller_than_raw(head, own.input.symbols)) coded = {};
  }

  const Parallel& parallel_;
  const Allocate& allocate_;
  void* const stream_;
  std::vector<CodedStream>& coded_;
  std::vector<Stream> left_;
};

}  // namespace

int code_streams(const std::vector<StreamInput>& inputs, const Parallel& parallel,
                 const Allocate& allocate, void* stream, std::vector<CodedStream>& coded) {
  return Coder(inputs, parallel, allocate, stream, coded).run();
}

void add_body(const CodedStream& coded, const std::uint8_t* data, std::uint64_t symbols,
              std::uint8_t* out, std::vector<CopyParts::Part>& parts) {
  const StreamHead& head = coded.head;
  if (head.kind == StreamKind::constant) return;
  if (head.kind == StreamKind::raw) return add_part(data, out, symbols, parts);
  const std::uint64_t packed = names_size(symbols, head.segment_bits, head.table_count());
  add_part(coded.names, out, packed, parts);
  out += packed;
  for (std::uint64_t block = 0; block < head.block_words.size(); ++block) {
    const std::uint64_t size =
        block_size(symbols_in_block(symbols, block), head.block_words[block]);
    add_part(coded.blocks + (block + 1) * coded.stride - size, out, size, parts);
    out += size;
  }
}

// ---- decoder ------------------------------------------------------------------------------------

int decode_streams(const std::vector<StreamSource>& sources, const Allocate& allocate,
                   void* stream) {
  std::vector<CopyParts::Part> parts;
  std::vector<rans::Table> tables;
  std::vector<std::uint64_t> offsets;
  std::vector<std::pair<std::size_t, std::size_t>> at;  // of each coded stream's tables, offsets
  for (const StreamSource& own : sources) {
    const StreamHead& head = *own.head;
    if (own.symbols == 0) continue;
    if (head.kind != StreamKind::rans) {
      const bool raw = head.kind == StreamKind::raw;
      add_part(raw ? own.body : nullptr, own.out, own.symbols, parts, head.constant);
      continue;
    }
    at.emplace_back(tables.size(), offsets.size());
    tables.insert(tables.end(), head.tables.begin(), head.tables.end());
    offsets.push_back(names_size(own.symbols, head.segment_bits, head.table_count()));
    for (std::uint64_t block = 0; block < head.block_words.size(); ++block) {
      offsets.push_back(offsets.back() +
                        block_size(symbols_in_block(own.symbols, block), head.block_words[block]));
    }
  }
  if (int error = copy_parts(parts, allocate, stream)) return error;
  if (at.empty()) return 0;

  rans::DecodeEntry* entries = nullptr;
  std::uint64_t* device_offsets = nullptr;
  if (int error = make_decode_entries(tables, allocate, stream, &entries)) return error;
  if (int error = upload_array(offsets, allocate, stream, &device_offsets)) return error;
  TaskListBuilder<DecodeStreams::Stream> streams;
  for (const StreamSource& own : sources) {
    if (own.symbols == 0 || own.head->kind != StreamKind::rans) continue;
    const auto [first_table, first_offset] = at[streams.count()];
    streams.add({own.body, device_offsets + first_offset, own.symbols, own.head->segment_bits,
                 own.head->table_count(), entries + rans::probability_one * first_table, own.out,
                 own.failed},
                static_cast<std::int64_t>(stream_blocks(own.symbols)));
  }
  return streams.launch_warps<DecodeStreams>(allocate, stream);
}

}  // namespace lmgc::cuda
