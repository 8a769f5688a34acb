// A section of the fixed serializer taken apart, changed in one place, and put together again: what
// changed single bytes hardly ever give, since every size stands before what it is the size of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "core/fixed_section.h"
#include "fuzz_bytes.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace lmgc::fuzz {

class FixedParts {
 public:
  // False for bytes that are none of these sizes.
  bool open(const std::vector<std::uint8_t>& section, const std::vector<std::int64_t>& sizes,
            bool predicted) {
    ByteReader in(section.data(), section.size());
    const FixedMethod method = predicted ? FixedMethod::lowrank : FixedMethod::scale;
    if (read_fixed_side(in, sizes.data(), sizes.size(), method, source_) != Status::ok ||
        source_.shape.elements == 0)
      return false;
    FixedHead& head = source_.head;
    const auto elements = static_cast<std::uint64_t>(source_.shape.elements);
    if (read_factor_heads(in, source_.shape, head) != Status::ok ||
        read_digits_head(in, elements, head.fraction(), head.residuals) != Status::ok)
      return false;
    const std::int64_t rank = head.low_rank.factors.rank;
    const auto add = [&](DigitsHead& digits, std::int64_t symbols) {
      if (symbols > 0) streams_.push_back({&digits, static_cast<std::uint64_t>(symbols), {}});
    };
    const auto add_projection = [&](Projection& projection) {
      add(projection.digits, projection.components() * projection.count);
    };
    add_projection(head.u_projection);
    add(head.u, source_.shape.rows * rank);
    add_projection(head.v_projection);
    add(head.v, source_.shape.columns * rank);
    add(head.residuals, source_.shape.elements);
    return std::all_of(streams_.begin(), streams_.end(), [&](Stream& s) { return read(in, s); });
  }

  // Up to three changes of one block, such that what a single one lacks another may bring.
  void change(std::mt19937& random) {
    Stream& stream = streams_[random() % streams_.size()];
    Block& block = stream.blocks[random() % stream.blocks.size()];
    for (auto changes = 1 + random() % 3; changes > 0; --changes) change(stream, block, random);
  }

  std::vector<std::uint8_t> write() {
    for (const Stream& stream : streams_) {
      for (std::size_t i = 0; i < stream.blocks.size(); ++i) {
        const Block& block = stream.blocks[i];
        const std::size_t states = block_size(symbols_in_block(stream.symbols, i), 0);
        const std::size_t words = (std::max(block.coded.size(), states) - states) / 2;
        stream.head->blocks[i] = {static_cast<std::uint32_t>(words),
                                  static_cast<std::uint32_t>(block.escapes.size()),
                                  static_cast<std::uint32_t>(block.tails.size())};
      }
    }
    ByteWriter out;
    const std::vector<std::uint8_t> head = write_fixed_head(source_.head);
    out.bytes(head.data(), head.size());
    for (const Stream& stream : streams_) {
      for (const Block& block : stream.blocks) {
        for (const auto* part : {&block.coded, &block.escapes, &block.tails})
          out.bytes(part->data(), part->size());
      }
    }
    return out.take();
  }

 private:
  struct Block {
    std::vector<std::uint8_t> coded, escapes, tails;
  };
  struct Stream {
    DigitsHead* head;
    std::uint64_t symbols;
    std::vector<Block> blocks;
  };

  static bool read(ByteReader& in, Stream& stream) {
    for (std::size_t i = 0; i < stream.head->blocks.size(); ++i) {
      const DigitsBlockSize& size = stream.head->blocks[i];
      const std::uint64_t coded = block_size(symbols_in_block(stream.symbols, i), size.words);
      Block& block = stream.blocks.emplace_back();
      for (const auto& [part, bytes] :
           {std::pair(&block.coded, coded), std::pair(&block.escapes, std::uint64_t{size.escapes}),
            std::pair(&block.tails, std::uint64_t{size.tails})}) {
        const std::uint8_t* const first = in.bytes(bytes);
        if (!in.ok()) return false;
        part->assign(first, first + bytes);
      }
    }
    return true;
  }

  void change(Stream& stream, Block& block, std::mt19937& random) {
    Mixture& mixture = stream.head->mixture;
    switch (random() % 8) {
      case 0:
        resize(block.escapes, 1, random);
        break;
      case 1:
        resize(block.tails, 1, random);
        break;
      case 2:
        resize(block.coded, 2, random);
        break;
      case 3:
        stream.head->contexts = static_cast<std::uint8_t>(random());
        break;
      case 4: {
        auto& from = mixture.weights[random() % mixture_components];
        auto& to = mixture.weights[random() % mixture_components];
        const auto moved = static_cast<std::uint8_t>(random() % (from + 1u));
        from = static_cast<std::uint8_t>(from - moved);
        to = static_cast<std::uint8_t>(to + moved);
        break;
      }
      case 5:
        (random() % 2 == 0 ? mixture.zero : mixture.minus_zero) =
            static_cast<std::uint16_t>(random() % 4200);
        break;
      case 6:
        change_line(random);
        break;
      default:
        for (auto* part : {&block.coded, &block.escapes, &block.tails}) {
          if (!part->empty()) LLVMFuzzerMutate(part->data(), part->size(), part->size());
        }
    }
  }

  // None, some fewer or some more, in steps of so many bytes.
  static void resize(std::vector<std::uint8_t>& part, std::size_t step, std::mt19937& random) {
    const std::size_t change = step * (1 + random() % 4);
    const auto kind = random() % 3;
    const std::size_t fewer = kind == 0 ? part.size() : std::min(change, part.size());
    part.resize(kind == 2 ? part.size() + change : part.size() - fewer);
  }

  // One number of the side information.
  void change_line(std::mt19937& random) {
    FixedHead& head = source_.head;
    Factors& factors = head.low_rank.factors;
    std::vector<std::vector<std::int16_t>*> lines;
    for (auto* line : {&head.scales.rows, &head.scales.columns, &head.low_rank.row_weights,
                       &head.low_rank.column_weights, &factors.exponents, &factors.u.column_widths,
                       &factors.u.row_widths, &factors.v.column_widths, &factors.v.row_widths})
      if (!line->empty()) lines.push_back(line);
    auto& line = *lines[random() % lines.size()];
    auto& number = line[random() % line.size()];
    number =
        static_cast<std::int16_t>(random() % 2 == 0 ? number + static_cast<int>(random() % 9) - 4
                                                    : static_cast<int>(random()));
  }

  FixedSource source_;
  std::vector<Stream> streams_;
};

}  // namespace lmgc::fuzz
