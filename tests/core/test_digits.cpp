// Streams of symbols with tails: what was coded decodes, and untrusted bytes give a status.
#include "core/digits.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "stream_cases.h"

using namespace lmgc;

namespace {

using Bytes = std::vector<std::uint8_t>;

const std::vector<Fraction> kinds = {Fraction::edge, Fraction::middle, Fraction::varies};
const std::vector<std::string> symbol_kinds = {"gaussian", "one", "zeros", "any", "escapes"};

std::vector<DigitsBlock> some_blocks(const std::string& symbols_are, std::uint64_t symbols,
                                     Fraction kind) {
  std::mt19937 random(static_cast<unsigned>(symbols) + 3);
  std::normal_distribution<double> normal(0, 6);
  const auto contexts = static_cast<unsigned>(contexts_of(kind));
  std::vector<DigitsBlock> blocks(stream_blocks(symbols));
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    DigitsBlock& block = blocks[b];
    for (std::uint32_t i = 0; i < symbols_in_block(symbols, b); ++i) {
      int symbol = symbol_origin + std::clamp(static_cast<int>(normal(random)), -126, 126);
      if (symbols_are == "one") symbol = symbol_origin + 3;
      if (symbols_are == "zeros" && random() % 4 != 0)
        symbol = random() % 4 == 0 ? symbol_minus_zero : symbol_zero;
      if (symbols_are == "any") symbol = static_cast<int>(random() % 256);
      if (symbols_are == "escapes") symbol = symbol_escape;
      block.symbols.push_back(static_cast<std::uint8_t>(symbol));
      block.contexts.push_back(
          static_cast<std::uint8_t>(symbols_are == "one" ? 0 : random() % contexts));
    }
    block.tails.resize(random() % (2 * block.symbols.size() + 1));
    for (auto& byte : block.tails) byte = static_cast<std::uint8_t>(random());
  }
  return blocks;
}

Bytes coded_bytes(std::vector<DigitsBlock> blocks, Fraction kind, const Parallel& parallel) {
  const CodedDigits coded = code_digits(blocks, kind, parallel);
  ByteWriter out;
  write_digits_head(coded.head, out);
  Bytes bytes = out.take();
  const std::size_t head = bytes.size();
  bytes.resize(head + coded.body_size());
  REQUIRE(coded.write_body(bytes.data() + head) == bytes.data() + bytes.size());
  return bytes;
}

// Decodes a stream that knows its contexts; the symbols, and the tails as bytes.
Status decoded(const Bytes& bytes, const std::vector<DigitsBlock>& blocks, std::uint64_t symbols,
               Fraction kind, std::vector<Bytes>* symbols_out = nullptr,
               std::vector<Bytes>* tails_out = nullptr) {
  ByteReader in(bytes.data(), bytes.size());
  DigitsHead head;
  const Status status = read_digits_head(in, symbols, kind, head);
  if (status != Status::ok) return status;
  const std::uint8_t* const body = in.bytes(head.body_size(symbols));
  if (!in.ok() || in.left() != 0) return Status::truncated;
  DigitsDecoder decoder;
  decoder.open(head, body, symbols, kind, run_serially);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    Bytes own(blocks[b].contexts.size());
    BitReader tails(nullptr, 0);
    const Status block = decoder.decode(b, blocks[b].contexts.data(), own.data(), tails);
    if (block != Status::ok) return block;
    if (symbols_out != nullptr) symbols_out->push_back(own);
    Bytes tail;
    for (std::uint32_t i = 0; i < head.blocks[b].tails; ++i)
      tail.push_back(static_cast<std::uint8_t>(tails.get(8)));
    if (!tails.ok() || !tails.only_padding_left()) return Status::bad_stream;
    if (tails_out != nullptr) tails_out->push_back(tail);
  }
  return Status::ok;
}

}  // namespace

TEST_CASE("streams of digits decode to what they were") {
  for (const Fraction kind : kinds) {
    for (const auto& symbols_are : symbol_kinds) {
      for (const std::uint64_t symbols : {1, 2, 31, 511, 512, 3000, 65536, 65537, 150001}) {
        CAPTURE(symbols_are, symbols, static_cast<int>(kind));
        const auto blocks = some_blocks(symbols_are, symbols, kind);
        const Bytes bytes = coded_bytes(blocks, kind, run_serially);
        std::vector<Bytes> back, tails;
        REQUIRE(decoded(bytes, blocks, symbols, kind, &back, &tails) == Status::ok);
        for (std::size_t b = 0; b < blocks.size(); ++b) {
          REQUIRE(back[b] == blocks[b].symbols);
          REQUIRE(tails[b] == blocks[b].tails);
        }
      }
    }
  }
}

TEST_CASE("streams of digits do not depend on how work is shared") {
  for (const auto& symbols_are : symbol_kinds) {
    const auto blocks = some_blocks(symbols_are, 20 * 65536 + 77, Fraction::varies);
    const Bytes bytes = coded_bytes(blocks, Fraction::varies, run_serially);
    CHECK(coded_bytes(blocks, Fraction::varies, test::run_backwards) == bytes);
    CHECK(coded_bytes(blocks, Fraction::varies, test::run_on_threads) == bytes);
  }
}

TEST_CASE("streams of digits are small where symbols are simple") {
  const auto size_of = [](const std::string& symbols_are) {
    auto blocks = some_blocks(symbols_are, 65536, Fraction::middle);
    blocks[0].tails.clear();
    return coded_bytes(blocks, Fraction::middle, run_serially).size();
  };
  CHECK(size_of("one") < 65536 * 4 / 8);  // no more than the narrowest shape around it tells
  CHECK(size_of("gaussian") < 65536 * 6 / 8);
  CHECK(size_of("zeros") < 65536 * 3 / 8);
  CHECK(size_of("any") < 65536 * 17 / 8);
  CHECK(size_of("escapes") < 65536 * 20 / 8);
}

TEST_CASE("damaged streams of digits give a status, never a crash") {
  for (const Fraction kind : kinds) {
    for (const char* const symbols_are : {"gaussian", "any", "escapes"}) {
      for (const std::uint64_t symbols : {40, 700}) {
        const auto blocks = some_blocks(symbols_are, symbols, kind);
        const Bytes good = coded_bytes(blocks, kind, run_serially);
        test::for_each_damage(good, 60, [&](const Bytes& bad) {
          const Status status = decoded(bad, blocks, symbols, kind);
          if (bad.size() != good.size()) CHECK(status != Status::ok);
        });
      }
    }
  }
}

TEST_CASE("heads of digits that are out of range are refused") {
  struct Fields {
    std::uint16_t present = 1 << 3;
    Bytes weights = {255};
    std::uint8_t positive = Mixture::even;
    std::uint64_t zero = 0, minus_zero = 0;
    std::uint8_t contexts = 1;
    std::uint64_t words = 0, escapes = 0, tails = 0;
  };
  const auto read = [](const Fields& fields, Fraction kind, std::uint64_t symbols = 100) {
    ByteWriter out;
    out.fixed(fields.present);
    out.bytes(fields.weights.data(), fields.weights.size());
    out.fixed(fields.positive);
    out.varint(fields.zero);
    out.varint(fields.minus_zero);
    out.fixed(fields.contexts);
    for (const std::uint64_t size : {fields.words, fields.escapes, fields.tails}) out.varint(size);
    const Bytes bytes = out.take();
    ByteReader in(bytes.data(), bytes.size());
    DigitsHead head;
    return read_digits_head(in, symbols, kind, head);
  };
  const auto changed = [&](auto change, Fraction kind = Fraction::varies) {
    Fields fields;
    change(fields);
    return read(fields, kind);
  };
  REQUIRE(read({}, Fraction::varies) == Status::ok);
  CHECK(changed([](Fields& f) { f.present = 1 << mixture_components; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.present = 0; }) != Status::ok);
  CHECK(changed([](Fields& f) { f.weights = {254}; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.present = 3, f.weights = {200, 200}; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.positive = 126; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.positive = 126; }, Fraction::edge) == Status::ok);
  CHECK(changed([](Fields& f) { f.positive = 255; }, Fraction::edge) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.zero = most_zero_frequency; }) == Status::ok);
  CHECK(changed([](Fields& f) { f.zero = most_zero_frequency + 1; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.minus_zero = UINT64_MAX; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.zero = f.minus_zero = 2500; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.zero = 65536; }) == Status::bad_table);
  CHECK(changed([](Fields& f) { f.contexts = 0; }) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.contexts = most_contexts; }) == Status::ok);
  CHECK(changed([](Fields& f) { f.contexts = most_contexts + 1; }) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.contexts = 25; }, Fraction::middle) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.words = 101; }) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.escapes = 101; }) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.tails = 1601; }) == Status::bad_section);
  CHECK(changed([](Fields& f) { f.tails = UINT64_MAX; }) == Status::bad_section);
  CHECK(read({}, Fraction::varies, std::uint64_t{1} << 60) == Status::truncated);
  CHECK(read({}, Fraction::varies, UINT64_MAX / 2) == Status::truncated);
}
