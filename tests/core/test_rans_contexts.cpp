#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "core/rans.h"
#include "core/rans_block.h"
#include "core/rans_contexts.h"
#include "core/rans_runs.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using namespace lmgc::rans;

// Tables, and symbols with random contexts among them.
struct Case {
  std::vector<EncodeEntry> encode;
  std::vector<DecodeEntry> decode;
  std::vector<std::uint8_t> symbols, contexts;
};

// Table t, by t modulo 4: one symbol that has all 4096 slots; 200 of frequency 1 and one that has
// the rest; skewed; uniform. Every symbol that has a frequency occurs, given enough of them.
Case some_case(std::uint32_t count, int tables, unsigned seed) {
  std::mt19937 random(seed);
  Case made;
  made.encode.resize(256 * static_cast<std::size_t>(tables));
  made.decode.resize(probability_one * static_cast<std::size_t>(tables));
  std::vector<Table> all(static_cast<std::size_t>(tables));
  for (int t = 0; t < tables; ++t) {
    Counts counts{};
    if (t % 4 == 0) counts[static_cast<std::uint8_t>(t * 31)] = 1;
    if (t % 4 == 1) std::fill(counts.begin() + 40, counts.begin() + 240, 1);
    if (t % 4 == 1) counts[static_cast<std::uint8_t>(t)] = 1'000'000'000;
    if (t % 4 == 2) {
      for (int i = 0; i < 60; ++i) counts[(t + i) % 256] = 1 + (std::uint64_t{1} << (i % 20));
    }
    if (t % 4 == 3) counts.fill(1);
    const Table& table = all[static_cast<std::size_t>(t)] = normalize(counts);
    fill_encode_entries(table, made.encode.data() + 256 * t);
    fill_decode_entries(table, made.decode.data() + probability_one * t);
  }
  CHECK(*std::max_element(all[0].frequency.begin(), all[0].frequency.end()) == probability_one);
  if (tables > 1) CHECK(std::count(all[1].frequency.begin(), all[1].frequency.end(), 1) >= 199);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto t = static_cast<std::uint8_t>(random() % static_cast<unsigned>(tables));
    const Table& table = all[t];
    std::uint8_t symbol;
    if (random() % 2 == 0) {  // any that the table has
      do symbol = static_cast<std::uint8_t>(random());
      while (table.frequency[symbol] == 0);
    } else {  // as often as the table says
      symbol = symbol_of(made.decode[probability_one * t + random() % probability_one]);
    }
    made.contexts.push_back(t);
    made.symbols.push_back(symbol);
  }
  return made;
}

// In a buffer of exactly the bound, as is the result: a sanitizer sees what lies outside.
std::vector<std::uint8_t> encoded(const Case& of) {
  const auto count = static_cast<std::uint32_t>(of.symbols.size());
  const auto buffer = std::make_unique<std::uint8_t[]>(block_bound(count));
  std::uint8_t* const end = buffer.get() + block_bound(count);
  const std::uint8_t* const first =
      encode_contexts(of.symbols.data(), of.contexts.data(), count, of.encode.data(), end);
  REQUIRE(first >= buffer.get());
  return {first, static_cast<const std::uint8_t*>(end)};
}

Status decoded(const Case& of, const std::vector<std::uint8_t>& coded,
               std::vector<std::uint8_t>& symbols) {
  const auto count = static_cast<std::uint32_t>(of.contexts.size());
  symbols.assign(count, 0);
  // The copy has no spare capacity, which a vector may have.
  const auto bytes = std::make_unique<std::uint8_t[]>(coded.size());
  std::copy(coded.begin(), coded.end(), bytes.get());
  return decode_contexts(bytes.get(), coded.size(), of.contexts.data(), count, of.decode.data(),
                         symbols.data());
}

}  // namespace

TEST_CASE("blocks with a context for every symbol decode, and no other bytes do") {
  for (const std::uint32_t count : {1u, 2u, 31u, 32u, 33u, 255u, 511u, 512u, 513u, 1500u, 3000u,
                                    5000u, 8191u, 8192u, 65535u, 65536u}) {
    for (const int tables : {1, 3, 124, 256}) {
      const Case one = some_case(count, tables, count + static_cast<unsigned>(tables));
      const std::vector<std::uint8_t> coded = encoded(one);
      std::vector<std::uint8_t> symbols;
      REQUIRE(decoded(one, coded, symbols) == Status::ok);
      REQUIRE(symbols == one.symbols);

      test::for_each_damage(coded, 200, [&](const std::vector<std::uint8_t>& bad) {
        const Status status = decoded(one, bad, symbols);
        CHECK((status == Status::bad_stream || symbols != one.symbols));
        if (bad.size() != coded.size()) CHECK(status == Status::bad_stream);
      });
    }
  }
}

TEST_CASE("every truncation and any changed bytes of small blocks with contexts are survived") {
  std::mt19937 random(11);
  for (const std::uint32_t count : {40u, 700u, 8200u}) {
    const Case one = some_case(count, 8, count);
    const std::vector<std::uint8_t> coded = encoded(one);
    std::vector<std::uint8_t> symbols;
    for (std::size_t size = 0; size < coded.size(); ++size) {
      const std::vector<std::uint8_t> cut(coded.begin(),
                                          coded.begin() + static_cast<std::ptrdiff_t>(size));
      REQUIRE(decoded(one, cut, symbols) == Status::bad_stream);
    }
    for (int round = 0; round < 2000; ++round) {
      std::vector<std::uint8_t> bad = coded;
      for (unsigned changes = 1 + random() % 4; changes-- > 0;) {
        bad[random() % bad.size()] = static_cast<std::uint8_t>(random());
      }
      if (bad == coded) continue;
      const Status status = decoded(one, bad, symbols);
      REQUIRE((status == Status::bad_stream || symbols != one.symbols));
    }
  }
}

TEST_CASE("with equal contexts the bytes are those of a block with one table") {
  for (const std::uint32_t count :
       {1u, 33u, 511u, 512u, 1024u, 2048u, 4097u, 8191u, 8192u, 65536u}) {
    Case one = some_case(count, 3, count);
    for (const std::uint8_t t : {1, 2}) {
      for (auto& symbol : one.symbols) {
        const std::uint32_t slot = symbol * 2654435761u >> 20;
        symbol = symbol_of(one.decode[probability_one * t + slot]);
      }
      std::fill(one.contexts.begin(), one.contexts.end(), t);
      std::vector<std::uint8_t> buffer(block_bound(count));
      std::uint8_t* const end = buffer.data() + buffer.size();
      const std::uint8_t* const first =
          encode_block(one.symbols.data(), count, {nullptr, 16}, one.encode.data() + 256 * t, end);
      CHECK(encoded(one) ==
            std::vector<std::uint8_t>(first, static_cast<const std::uint8_t*>(end)));
    }
  }
}

TEST_CASE("the versions of the loops with contexts compute the same") {
  constexpr std::uint32_t steps = 200, count = steps * most_lanes;
  for (const int tables : {1, 3, 124, 256}) {
    const Case one = some_case(count, tables, 5);
    const auto coded_by = [&](EncodeContextsRun run) {
      std::vector<std::uint8_t> words(block_bound(count));
      std::vector<std::uint32_t> states(most_lanes, lower_bound);
      std::uint8_t* const end = words.data() + words.size();
      const std::uint8_t* const at = run(one.symbols.data(), one.contexts.data(), steps,
                                         one.encode.data(), states.data(), end);
      return std::make_pair(std::vector<std::uint8_t>(at, static_cast<const std::uint8_t*>(end)),
                            states);
    };
    const auto coded = coded_by(encode_contexts_run_portable);
    const auto decoded_by = [&](DecodeContextsRun run) {
      std::vector<std::uint32_t> states = coded.second;
      std::vector<std::uint8_t> symbols(count, 1);
      const std::uint8_t* const words = coded.first.data();
      const std::uint8_t* from = words;
      const std::uint32_t done = run(symbols.data(), one.contexts.data(), steps, one.decode.data(),
                                     states.data(), &from, words + coded.first.size());
      CHECK(std::equal(symbols.begin(), symbols.begin() + done * most_lanes, one.symbols.begin()));
      return std::make_tuple(done, from - words, states);
    };
    const auto expected = decoded_by(decode_contexts_run_portable);
    if (tables > 1) CHECK(std::get<0>(expected) > steps / 2);
#if defined(__x86_64__)
    if (has_avx2()) CHECK(decoded_by(decode_contexts_run_avx2) == expected);
    if (has_avx512()) CHECK(coded_by(encode_contexts_run_avx512) == coded);
    if (has_avx512()) CHECK(decoded_by(decode_contexts_run_avx512) == expected);
#endif
  }
}
