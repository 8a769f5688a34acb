#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

#include "core/rans.h"
#include "core/rans_block.h"
#include "core/rans_runs.h"

namespace {

using namespace lmgc;
using namespace lmgc::rans;

std::vector<Counts> some_counts() {
  std::vector<Counts> all;
  std::mt19937_64 random(1);
  for (const int distinct : {1, 2, 3, 17, 100, 255, 256}) {
    for (const int shape : {0, 1, 2, 3}) {
      Counts counts{};
      for (int i = 0; i < distinct; ++i) {
        std::uint64_t& count = counts[distinct == 256 ? i : (i * 37 + 11) % 256];
        if (shape == 0) count = 1;
        if (shape == 1) count = 1 + random() % 1000;
        if (shape == 2) count = i == 0 ? 1'000'000'000'000 : 1;
        if (shape == 3) count = 1 + (std::uint64_t{1} << (i % 40));
      }
      all.push_back(counts);
    }
  }
  Counts just_above{};  // every symbol a little more frequent than 1 in 4096, and one that holds
                        // the rest
  just_above.fill(100);
  just_above[7] = 4096 * 100 - 255 * 100 - 1;
  all.push_back(just_above);
  return all;
}

int significant_bits(unsigned value) {
  while (value != 0 && value % 2 == 0) value /= 2;
  return value == 0 ? 0 : 32 - __builtin_clz(value);
}

}  // namespace

TEST_CASE("a normalized table is a distribution over exactly the counted symbols") {
  for (const Counts& counts : some_counts()) {
    const Table table = normalize(counts);
    unsigned sum = 0;
    for (int symbol = 0; symbol < 256; ++symbol) {
      CHECK((table.frequency[symbol] > 0) == (counts[symbol] > 0));
      if (symbol != table.rest) CHECK(significant_bits(table.frequency[symbol]) <= 5);
      sum += table.frequency[symbol];
    }
    CHECK(sum == probability_one);
  }
}

TEST_CASE("tables survive being written and read") {
  std::vector<Table> tables;
  for (const Counts& counts : some_counts()) tables.push_back(normalize(counts));
  ByteWriter out;
  write_tables(tables.data(), static_cast<int>(tables.size()), out);
  ByteReader in(out.view().data(), out.size());
  std::vector<Table> read;
  REQUIRE(read_tables(in, static_cast<int>(tables.size()), read) == Status::ok);
  CHECK(in.left() == 0);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    CHECK(read[i].rest == tables[i].rest);
    CHECK(read[i].frequency == tables[i].frequency);
  }
  CHECK(tables_size(tables.data(), static_cast<int>(tables.size())) == out.size());
  for (std::size_t size = 0; size < out.size(); ++size) {
    ByteReader cut(out.view().data(), size);
    CHECK(read_tables(cut, static_cast<int>(tables.size()), read) != Status::ok);
  }
}

TEST_CASE("bytes that are no table are refused, and what is accepted is a distribution") {
  std::mt19937 random(2);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::uint8_t> bytes(1 + random() % 60);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    if (round % 2 == 0 && bytes.size() > 2) {  // a short range, so that some are accepted
      bytes[1] = static_cast<std::uint8_t>(std::min(255, bytes[0] + 3));
      bytes[2] = bytes[0];
    }
    ByteReader in(bytes.data(), bytes.size());
    std::vector<Table> tables;
    if (read_tables(in, 1, tables) != Status::ok) continue;
    ++accepted;
    const auto& frequency = tables[0].frequency;
    REQUIRE(std::accumulate(frequency.begin(), frequency.end(), 0u) == probability_one);
    REQUIRE(frequency[tables[0].rest] > 0);
  }
  CHECK(accepted > 100);
}

TEST_CASE("put and get are inverse for every frequency") {
  std::mt19937 random(3);
  for (std::uint32_t frequency = 1; frequency <= probability_one; ++frequency) {
    for (const std::uint32_t start : {0u, probability_one - frequency}) {
      const EncodeEntry entry = encode_entry(start, frequency);
      const std::uint32_t below = std::min<std::uint32_t>(entry.limit, 1u << 31);
      const auto between = static_cast<std::uint32_t>(random() % (below - lower_bound));
      for (const std::uint32_t state : {lower_bound, below - 1, lower_bound + between}) {
        if (must_send(state, entry)) continue;
        const std::uint32_t after = put(state, entry);
        REQUIRE(after == state / frequency * probability_one + start + state % frequency);
        REQUIRE(after >> 31 == 0);
        const std::uint32_t slot = slot_of(after);
        REQUIRE(slot - start < frequency);
        REQUIRE(get(after, decode_entry(9, frequency, slot - start)) == state);
        REQUIRE(symbol_of(decode_entry(9, frequency, slot - start)) == 9);
      }
    }
  }
}

TEST_CASE("the number of lanes follows from the number of symbols") {
  CHECK(lanes_of(1) == 1);
  CHECK(lanes_of(511) == 1);
  CHECK(lanes_of(512) == 2);
  CHECK(lanes_of(8191) == 16);
  CHECK(lanes_of(8192) == 32);
  CHECK(lanes_of(block_symbols) == 32);
}

TEST_CASE("blocks of every size decode, and no other bytes do") {
  std::mt19937 random(4);
  for (const std::uint32_t count :
       {1u,   2u,   31u,   32u,   33u,   127u,  128u,  255u,  256u,  257u,  1000u,  511u,
        512u, 513u, 2047u, 2048u, 8191u, 8192u, 8193u, 2049u, 4095u, 5000u, 65535u, 65536u}) {
    for (const int segment_bits : {5, 6, 8, 16}) {
      std::vector<std::uint8_t> names(((count - 1) >> segment_bits) + 1), symbols(count);
      for (auto& name : names) name = static_cast<std::uint8_t>(random() % 3);
      std::array<Counts, 3> counts{};
      for (std::uint32_t i = 0; i < count; ++i) {
        const int name = names[i >> segment_bits];
        // table 0: nearly one symbol only; 1: skewed; 2: uniform
        symbols[i] =
            static_cast<std::uint8_t>(name == 0   ? random() % 5000 == 0
                                      : name == 1 ? 100 + random() % 30 * (random() % 30) / 30
                                                  : random());
        ++counts[name][symbols[i]];
      }
      std::vector<EncodeEntry> encode(3 * 256);
      std::vector<DecodeEntry> decode(3 * probability_one);
      for (int t = 0; t < 3; ++t) {
        ++counts[t][t];
        const Table table = normalize(counts[t]);
        fill_encode_entries(table, encode.data() + 256 * t);
        fill_decode_entries(table, decode.data() + probability_one * t);
      }
      const BlockTables tables{names.data(), segment_bits};
      std::vector<std::uint8_t> buffer(block_bound(count));
      std::uint8_t* const end = buffer.data() + buffer.size();
      const std::uint8_t* const first =
          encode_block(symbols.data(), count, tables, encode.data(), end);
      REQUIRE(first >= buffer.data());
      const auto size = static_cast<std::size_t>(end - first);
      const std::vector<std::uint8_t> coded(
          first, static_cast<const std::uint8_t*>(end));  // read past: found
      std::vector<std::uint8_t> decoded(count);
      const auto status_of = [&](const std::vector<std::uint8_t>& bytes) {
        const CodedBlock one{bytes.data(), bytes.size(), count, names.data(), decoded.data()};
        return decode_blocks(&one, 1, segment_bits, decode.data());
      };
      REQUIRE(status_of(coded) == Status::ok);
      REQUIRE(decoded == symbols);

      const auto refused = [&](const std::vector<std::uint8_t>& bytes) {
        return status_of(bytes) == Status::bad_stream || decoded != symbols;
      };
      std::vector<std::uint8_t> other = coded;
      other.push_back(0);
      CHECK(refused(other));
      for (std::size_t cut = 0; cut < std::min<std::size_t>(size, 300); ++cut) {
        CHECK(refused(std::vector<std::uint8_t>(coded.begin(),
                                                coded.begin() + static_cast<std::ptrdiff_t>(cut))));
      }
      for (int round = 0; round < 20; ++round) {
        other = coded;
        other[random() % size] ^= static_cast<std::uint8_t>(1 + random() % 255);
        CHECK(refused(other));
      }
    }
  }
}

TEST_CASE("two blocks decode side by side as they do alone") {
  std::mt19937 random(8);
  for (const std::uint32_t second : {1u, 300u, 8191u, 8192u, 8200u, 30001u, 65535u, 65536u}) {
    const std::uint32_t counts[2] = {block_symbols, second};
    for (const bool named : {false, true}) {
      std::vector<std::uint8_t> symbols[2], names[2], coded[2];
      Counts seen[2] = {};
      for (int b = 0; b < 2; ++b) {
        names[b].assign((counts[b] >> 8) + 1, 0);
        for (auto& name : names[b]) name = static_cast<std::uint8_t>(named ? random() % 2 : 0);
        for (std::uint32_t i = 0; i < counts[b]; ++i) {
          const int name = names[b][i >> 8];
          symbols[b].push_back(static_cast<std::uint8_t>(random() % 40 * (random() % 40) / 40 +
                                                         static_cast<unsigned>(name)));
          ++seen[name][symbols[b].back()];
        }
      }
      std::vector<EncodeEntry> encode(2 * 256);
      std::vector<DecodeEntry> decode(2 * probability_one);
      for (int t = 0; t < (named ? 2 : 1); ++t) {
        fill_encode_entries(normalize(seen[t]), encode.data() + 256 * t);
        fill_decode_entries(normalize(seen[t]), decode.data() + probability_one * t);
      }
      std::vector<std::uint8_t> out[2];
      CodedBlock blocks[2];
      for (int b = 0; b < 2; ++b) {
        std::vector<std::uint8_t> buffer(block_bound(counts[b]));
        std::uint8_t* const end = buffer.data() + buffer.size();
        const std::uint8_t* const own_names = named ? names[b].data() : nullptr;
        const std::uint8_t* const first =
            encode_block(symbols[b].data(), counts[b], {own_names, 8}, encode.data(), end);
        coded[b].assign(first, static_cast<const std::uint8_t*>(end));
        out[b].assign(counts[b], 1);
        blocks[b] = {coded[b].data(), coded[b].size(), counts[b], own_names, out[b].data()};
      }
      CAPTURE(second, named);
      REQUIRE(decode_blocks(blocks, 2, 8, decode.data()) == Status::ok);
      CHECK(out[0] == symbols[0]);
      CHECK(out[1] == symbols[1]);
      for (int b = 0; b < 2; ++b) {  // damage in either is found
        for (int round = 0; round < 40; ++round) {
          std::vector<std::uint8_t> bad = coded[b];
          bad[random() % bad.size()] ^= static_cast<std::uint8_t>(1 + random() % 255);
          if (round % 2 != 0) bad.resize(random() % bad.size());
          CodedBlock damaged[2] = {blocks[0], blocks[1]};
          damaged[b].data = bad.data();
          damaged[b].size = bad.size();
          const Status status = decode_blocks(damaged, 2, 8, decode.data());
          CHECK((status == Status::bad_stream || out[b] != symbols[b]));
        }
      }
    }
  }
}

#if defined(__x86_64__)
TEST_CASE("the versions of the inner loops for newer processors compute the same") {
  std::mt19937 random(7);
  constexpr std::uint32_t steps = 200, symbols_count = steps * most_lanes;
  for (const unsigned range : {1u, 2u, 30u, 256u}) {
    std::vector<std::uint8_t> symbols(symbols_count);
    Counts counts{};
    for (auto& symbol : symbols) {
      symbol = static_cast<std::uint8_t>(random() % range * (random() % range) / range);
      ++counts[symbol];
    }
    ++counts[255];
    const Table table = normalize(counts);
    std::vector<EncodeEntry> encode(256);
    std::vector<DecodeEntry> decode(probability_one);
    fill_encode_entries(table, encode.data());
    fill_decode_entries(table, decode.data());

    std::vector<std::uint8_t> words(block_bound(symbols_count)), other(words.size());
    std::vector<std::uint32_t> states(most_lanes, lower_bound), other_states = states;
    const std::uint8_t* const at = encode_run_portable(symbols.data(), steps, encode.data(),
                                                       states.data(), words.data() + words.size());
    const auto size = static_cast<std::size_t>(words.data() + words.size() - at);
    if (has_avx512()) {
      const std::uint8_t* const other_at = encode_run_avx512(
          symbols.data(), steps, encode.data(), other_states.data(), other.data() + other.size());
      REQUIRE(static_cast<std::size_t>(other.data() + other.size() - other_at) == size);
      CHECK(std::equal(at, at + size, other_at));
      CHECK(other_states == states);
    }
    const auto decoded_by = [&](DecodeRun run, int blocks) {
      std::vector<std::vector<std::uint32_t>> own(2, states);
      std::vector<std::uint8_t> decoded(2 * symbols_count, 1);
      BlockRun runs[2];
      for (int b = 0; b < 2; ++b) {
        runs[b] = {decoded.data() + b * symbols_count, decode.data(), own[b].data(), at, at + size};
      }
      const std::uint32_t done = run(runs, blocks, steps);
      for (int b = 0; b < blocks; ++b) {
        CHECK(std::equal(symbols.begin(), symbols.begin() + done * most_lanes,
                         decoded.begin() + b * symbols_count));
        CHECK(runs[b].at == runs[0].at);
        CHECK(own[b] == own[0]);
      }
      return std::make_tuple(done, runs[0].at, own[0]);
    };
    const auto expected = decoded_by(decode_run_portable, 1);
    CHECK((std::get<0>(expected) > 0 || range < 30));
    for (const int blocks : {1, 2}) {
      if (has_avx2()) CHECK(decoded_by(decode_run_avx2, blocks) == expected);
      if (has_avx512()) CHECK(decoded_by(decode_run_avx512, blocks) == expected);
    }
  }
}
#endif
