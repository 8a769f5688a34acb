// The *coded stream*: n bytes (symbols) stored raw, as one constant, or entropy-coded with static
// tables by interleaved rANS. It consists of a *head*, all that a decoder must know before it can
// start anywhere, and a *body*, whose parts decode independently. docs/format.md, section 4.
//
// Nothing here throws except std::bad_alloc, which is bounded by the sizes that the caller names
// and by the bytes at hand, never by a number read from untrusted bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/bytes.h"
#include "core/parallel.h"
#include "core/rans_block.h"
#include "core/segments.h"
#include "core/status.h"

namespace lmgc {

enum class StreamKind : std::uint8_t { raw = 0, constant = 1, rans = 2 };

struct StreamHead {
  StreamKind kind = StreamKind::raw;
  std::uint8_t constant = 0;               // kind constant
  std::uint8_t segment_bits = 8;           // kind rans, from here on
  std::vector<rans::Table> tables;         // 1 to 16
  std::vector<std::uint32_t> block_words;  // words of 16 bits after the states of each block

  int table_count() const { return static_cast<int>(tables.size()); }
};

// ---- sizes --------------------------------------------------------------------------------------

constexpr std::uint64_t stream_blocks(std::uint64_t symbols) {
  return (symbols + rans::block_symbols - 1) / rans::block_symbols;
}
// Symbols of block `block`, which exists.
constexpr std::uint32_t symbols_in_block(std::uint64_t symbols, std::uint64_t block) {
  const std::uint64_t left = symbols - block * rans::block_symbols;
  return left < rans::block_symbols ? static_cast<std::uint32_t>(left) : rans::block_symbols;
}
// Symbols of `blocks` blocks from `first` on, which exist.
constexpr std::uint64_t symbols_in_blocks(std::uint64_t symbols, std::uint64_t first, int blocks) {
  const std::uint64_t last = first + static_cast<std::uint64_t>(blocks) - 1;
  return (last - first) * rans::block_symbols + symbols_in_block(symbols, last);
}
// Bytes of the names of the segments' tables, at the beginning of a rANS body.
constexpr std::uint64_t names_size(std::uint64_t symbols, int segment_bits, int tables) {
  const std::uint64_t segments =
      (symbols >> segment_bits) +
      ((symbols & ((std::uint64_t{1} << segment_bits) - 1)) != 0 ? 1 : 0);
  const std::uint64_t per_byte =
      name_bits(tables) == 0 ? 0 : 8u / static_cast<unsigned>(name_bits(tables));
  return per_byte == 0 ? 0 : (segments + per_byte - 1) / per_byte;
}
constexpr std::uint64_t block_size(std::uint32_t symbols, std::uint32_t words) {
  return 4 * static_cast<std::uint64_t>(rans::lanes_of(symbols)) + 2 * std::uint64_t{words};
}
// Bytes of the body of a stream of `symbols` symbols.
std::uint64_t body_size(const StreamHead& head, std::uint64_t symbols);

// ---- head ---------------------------------------------------------------------------------------

std::size_t head_size(const StreamHead& head);
void write_head(const StreamHead& head, ByteWriter& out);  // head_size() bytes

// Reads the head of a stream of `symbols` symbols from untrusted bytes: ok, truncated, bad_section
// or bad_table.
Status read_head(ByteReader& in, std::uint64_t symbols, StreamHead& head);

// ---- encoder ------------------------------------------------------------------------------------

// Whether coding `raw` bytes (or bits) into `coded` is worth the time: a saving of 1/128. The
// mantissa byte beside the exponent of a float32 always has 1/270 to give, others often 1/200: they
// stay raw.
constexpr bool worthwhile(std::uint64_t coded, std::uint64_t raw) {
  return coded < raw - (raw >> 7);
}

// Tables for a stream whose segments named them: tables that no segment named are dropped, and one
// table for all is taken where that is smaller.
struct NamedTables {
  std::vector<rans::Table> tables;
  std::array<std::uint8_t, most_tables> renamed{};  // old name -> new name
  std::uint64_t estimated_size = 0;                 // of head and body, in bytes
  bool constant = false;                            // all symbols are tables[0].rest
};
NamedTables settle_tables(const std::array<rans::Counts, most_tables>& counts, int tables,
                          std::uint64_t symbols, int segment_bits);

// Whether a stream with this head takes less than its symbols stored raw: estimates can be wrong.
bool is_smaller_than_raw(const StreamHead& head, std::uint64_t symbols);

// Packs names[0, segments), each below `tables`, into names_size bytes.
std::vector<std::uint8_t> pack_names(const std::uint8_t* names, std::uint64_t segments, int tables);

struct CodedStream {
  StreamHead head;
  std::vector<std::uint8_t> names;                // packed
  std::vector<std::vector<std::uint8_t>> blocks;  // of a rANS body
};

// Decides how data[0, symbols) is stored and codes it. A raw stream holds no copy of its data.
// segment_bits is 5 to 8. Equal data give equal streams whatever `parallel` does.
CodedStream code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                        const Parallel& parallel);

// The same with the tables that choose_tables() found for the stream, if they are worthwhile.
CodedStream code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                        const TableCosts& costs, const Parallel& parallel);

// Writes body_size(stream.head, symbols) bytes to `out`; `data` is what code_stream was given.
void write_body(const CodedStream& stream, const std::uint8_t* data, std::uint64_t symbols,
                std::uint8_t* out, const Parallel& parallel);

// ---- decoder ------------------------------------------------------------------------------------

// Decodes any block of a stream, from any thread.
class StreamDecoder {
 public:
  // `head` is what read_head accepted for `symbols`; `body` has body_size(head, symbols) untrusted
  // bytes, which stay where they are while this is used.
  void open(StreamHead head, const std::uint8_t* body, std::uint64_t symbols);

  // The symbols as they lie in the body, or null when they have to be decoded.
  const std::uint8_t* raw() const { return head_.kind == StreamKind::raw ? body_ : nullptr; }
  const StreamHead& head() const { return head_; }

  // Writes the symbols of `blocks` blocks (1 to rans::most_blocks) from `first` on, ok or
  // bad_stream. Several at a time are faster than one by one.
  Status decode(std::uint64_t first, int blocks, std::uint8_t* out) const;

 private:
  StreamHead head_;
  const std::uint8_t* body_ = nullptr;
  std::uint64_t symbols_ = 0;
  std::unique_ptr<rans::DecodeEntry[]> entries_;
  std::vector<std::uint64_t> offsets_;  // of the blocks in the body
};

// Shares all blocks of a stream: calls body(first, blocks) with up to rans::most_blocks of them.
template <class Body>
void for_each_blocks(std::uint64_t symbols, const Parallel& parallel, const Body& body) {
  constexpr int together = rans::most_blocks;
  const auto all = static_cast<std::int64_t>(stream_blocks(symbols));
  parallel((all + together - 1) / together, [&](std::int64_t task) {
    const std::int64_t first = task * together;
    body(static_cast<std::uint64_t>(first),
         static_cast<int>(all - first < together ? all - first : together));
  });
}

// ---- whole streams ------------------------------------------------------------------------------

// Head and body one after the other.
void encode_stream(const std::uint8_t* data, std::uint64_t symbols, ByteWriter& out,
                   const Parallel& parallel, int segment_bits = most_searched_segment_bits);

// Reads what encode_stream wrote for `symbols` symbols into out[0, symbols). Untrusted bytes: never
// reads past the reader's end; `out` may hold anything unless the status is ok.
Status decode_stream(ByteReader& in, std::uint64_t symbols, std::uint8_t* out,
                     const Parallel& parallel);

}  // namespace lmgc
