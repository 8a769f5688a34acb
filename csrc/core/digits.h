// Streams of symbols (two hexadecimal digits each) with the bits that follow them: how residuals
// and factors lie in a section. Static tables of a mixture (mixture.h), interleaved rANS
// (rans_contexts.h), blocks of 65536 elements that decode independently.
//
// A block's bytes: the rANS block of its symbols; one byte for each escape, the symbol that had no
// frequency; the tails, bit after bit. docs/format.md, section 6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "core/bytes.h"
#include "core/entropy.h"
#include "core/mixture.h"
#include "core/parallel.h"
#include "core/rans_contexts.h"
#include "core/status.h"

namespace lmgc {

struct DigitsBlockSize {
  std::uint32_t words = 0;    // of 16 bits, after the states of the rANS block
  std::uint32_t escapes = 0;  // bytes
  std::uint32_t tails = 0;    // bytes
};

// Bytes of a block of `symbols` symbols.
constexpr std::uint64_t digits_block_size(const DigitsBlockSize& size, std::uint32_t symbols) {
  return block_size(symbols, size.words) + size.escapes + size.tails;
}

struct DigitsHead {
  Mixture mixture;
  std::uint8_t contexts = 0;  // contexts [0, contexts) occur
  std::vector<DigitsBlockSize> blocks;

  // Of all blocks together.
  std::uint64_t body_size(std::uint64_t symbols) const;
};

void write_digits_head(const DigitsHead& head, ByteWriter& out);

// The head of a stream of `symbols` symbols, untrusted: ok, truncated, bad_section or bad_table.
Status read_digits_head(ByteReader& in, std::uint64_t symbols, Fraction kind, DigitsHead& head);

// ---- encoder ------------------------------------------------------------------------------------

// A block's elements, before they have tables.
struct DigitsBlock {
  std::vector<std::uint8_t> contexts, symbols;  // one each an element
  std::vector<std::uint8_t> tails;
};

// The contexts that occur and the mixture that suits them. `counts` has all contexts of the kind.
void fit_digits(const ContextCounts& counts, Fraction kind, DigitsHead& head);

struct CodedDigits {
  struct Block {
    std::vector<std::uint8_t> coded, tails;  // symbols with their escapes, and what follows
  };
  DigitsHead head;
  std::vector<Block> blocks;

  std::uint64_t body_size() const;
  std::uint8_t* write_body(std::uint8_t* out) const;  // returns where it ends
};

// Fits tables to all blocks (each but the last of rans::block_symbols elements) and codes them.
// Takes the blocks' memory as it goes. Equal blocks give equal bytes whatever `parallel` does.
CodedDigits code_digits(std::vector<DigitsBlock>& blocks, Fraction kind, const Parallel& parallel);

// ---- decoder ------------------------------------------------------------------------------------

// Decodes any block of a stream, from any thread.
class DigitsDecoder {
 public:
  // `head` is what read_digits_head accepted for `symbols`; `body` has head.body_size(symbols)
  // untrusted bytes, which stay where they are while this is used.
  void open(const DigitsHead& head, const std::uint8_t* body, std::uint64_t symbols, Fraction kind,
            const Parallel& parallel);

  // contexts[i] is that of element i of the block; writes as many symbols, escapes resolved, and
  // where the tails are. ok or bad_stream.
  Status decode(std::uint64_t block, const std::uint8_t* contexts, std::uint8_t* symbols,
                BitReader& tails) const;

 private:
  DigitsHead head_;
  const std::uint8_t* body_ = nullptr;
  std::uint64_t symbols_ = 0;
  std::unique_ptr<rans::DecodeEntry[]> entries_;
  std::vector<std::uint64_t> offsets_;
};

// Tails as join_element() wants them.
struct TailReader {
  BitReader& bits_left;

  std::uint64_t bits(int count) {
    if (count <= BitWriter::most_bits) return bits_left.get(count);
    const std::uint64_t low = bits_left.get(32);
    return low | bits_left.get(count - 32) << 32;
  }
  int octaves(int most) { return bits_left.get_unary(most); }
};

}  // namespace lmgc
