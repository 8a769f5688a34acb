// The lanes of the native engine: round trips, equal bytes however the work is shared, bytes that
// no encoder wrote. Its kernels have tests of their own, test_digit_kernels.cpp.
#include "core/digit_engine.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/digit_lane.h"
#include "core/lm_section.h"
#include "core/range_coder.h"
#include "cuda/launch.h"
#include "digit_cases.h"
#include "emulated_device.h"
#include "stream_cases.h"

using namespace lmgc;
using test::PriorCase, test::ReadyPrior, test::Zeros;

namespace {

// ---- matrices -----------------------------------------------------------------------------------

// Matrices of symbols and their lanes; `symbols` is what decoders write to.
struct Work {
  void add(const std::string& kind, std::int64_t columns, std::int64_t taps, DigitKind of,
           std::int64_t elements, std::int64_t lane_elements) {
    std::mt19937_64 random(static_cast<std::uint64_t>(elements + columns));
    cases.push_back(std::make_unique<test::SymbolCase>(kind, of, elements, random));
    symbols.push_back(cases.back()->symbols);
    append_digit_lanes(static_cast<std::int32_t>(matrices.size()), elements, lane_elements, lanes);
    matrices.push_back({digit_geometry(columns, taps, of, columns == 256), elements,
                        cases.back()->known.data(), symbols.back().data()});
  }
  void fill(std::uint8_t with) {
    for (auto& own : symbols) std::fill(own.begin(), own.end(), with);
  }
  bool as_it_was() const {
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (symbols[i] != cases[i]->symbols) return false;
    }
    return true;
  }

  std::vector<std::unique_ptr<test::SymbolCase>> cases;
  std::vector<std::vector<std::uint8_t>> symbols;
  std::vector<DigitMatrix> matrices;
  std::vector<DigitLane> lanes;
};

// All kinds of matrices, lanes of all lengths: more lanes than slots, that end at different times.
Work some_work() {
  Work work;
  work.add("noise", 36, 9, DigitKind::predicted, 36 * 30, 100);
  work.add("smooth", 50, 1, DigitKind::unpredicted, 50 * 21, 37);
  work.add("zeros", 256, 1, DigitKind::unpredicted, 1000, 500);
  work.add("any", 7, 1, DigitKind::factor, 7 * 3, 1);
  work.add("far", 12, 3, DigitKind::predicted, 12 * 40, 13);
  work.add("any", 1, 1, DigitKind::unpredicted, 1, 65536);
  work.add("swings", 300, 1, DigitKind::predicted, 900, 899);
  work.add("noise", std::int64_t{1} << 33, 1, DigitKind::predicted, 200, 65536);
  return work;
}

// The bytes of lanes, each in a buffer of exactly its size.
struct Exact {
  explicit Exact(const std::vector<CodedLane>& lanes) {
    for (const CodedLane& lane : lanes) {
      buffers.emplace_back(new std::uint8_t[lane.size()]);
      std::copy(lane.begin(), lane.end(), buffers.back().get());
      bytes.push_back({buffers.back().get(), lane.size()});
    }
  }
  std::vector<std::unique_ptr<std::uint8_t[]>> buffers;
  std::vector<LaneBytes> bytes;
};

// ---- the loop for devices, on an emulated one ---------------------------------------------------

struct LaneRoom {
  LaneRoom(const DigitPriorView& prior, const Work& work) {
    for (const DigitLane& lane : work.lanes) {
      before.push_back(symbols);
      symbols += lane.count;
    }
    lanes = {prior, device.put(work.matrices), device.put(work.lanes), device.put(before),
             device.room<Trace>(static_cast<std::size_t>(symbols))};
  }
  test::EmulatedDevice device;
  std::int64_t symbols = 0;
  std::vector<std::int64_t> before;
  DigitLanes lanes;
};

std::vector<CodedLane> encoded_by_lane(const DigitPriorView& prior, const Work& work) {
  LaneRoom room(prior, work);
  const std::size_t count = work.lanes.size();
  const auto bound = static_cast<std::size_t>(4 * room.symbols) + 2 * count;
  const EncodeDigitLane body{room.lanes, room.device.room<std::uint8_t>(bound),
                             room.device.room<std::int64_t>(count)};
  REQUIRE(cuda::launch(static_cast<std::int64_t>(count), body, nullptr) == 0);
  std::vector<CodedLane> coded;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* const first = body.out + 4 * room.before[i] + 2 * i;
    coded.emplace_back(first, first + body.sizes[i]);
  }
  return coded;
}

void decode_by_lane(const DigitPriorView& prior, const Work& work,
                    const std::vector<LaneBytes>& bytes) {
  LaneRoom room(prior, work);
  const DecodeDigitLane body{room.lanes, room.device.put(bytes)};
  REQUIRE(cuda::launch(static_cast<std::int64_t>(work.lanes.size()), body, nullptr) == 0);
}

}  // namespace

TEST_CASE("lanes decode to what they were, their bytes the same however they are made") {
  for (const bool extreme : {false, true}) {
    const ReadyPrior ready(PriorCase(32, 16, 3, extreme));
    const DigitPriorView& prior = ready.prior.view();
    Work work = some_work();
    REQUIRE(work.lanes.size() > 3 * digit_slots);
    const std::vector<CodedLane> coded = encoded_by_lane(prior, work);
    REQUIRE(work.as_it_was());
    for (std::size_t i = 0; i < coded.size(); ++i) {
      const std::int64_t symbols = 2 * std::int64_t{work.lanes[i].count};
      CHECK(static_cast<std::int64_t>(coded[i].size()) <= lane_bound(symbols));
      CHECK(static_cast<std::uint64_t>(symbols) <= most_symbols_in_lane(coded[i].size()));
    }
    const Exact exact(coded);
    for (const test::NamedKernels& named : test::all_kernels()) {
      for (const auto& [parallel, threads] :
           std::vector<std::pair<Parallel, int>>{{run_serially, 1},
                                                 {run_serially, 3},
                                                 {test::run_backwards, 2},
                                                 {test::run_on_threads, 4},
                                                 {test::run_on_threads, 100}}) {
        CAPTURE(named.name, threads, extreme);
        const DigitEngine engine(prior, parallel, threads, named.kernels);
        CHECK(engine.encode(work.matrices, work.lanes) == coded);
        CHECK(work.as_it_was());
        work.fill(0x5A);
        engine.decode(work.matrices, work.lanes, exact.bytes);
        CHECK(work.as_it_was());
      }
    }
    work.fill(0xA5);
    decode_by_lane(prior, work, exact.bytes);
    CHECK(work.as_it_was());
  }
}

TEST_CASE("a lane may have 65536 symbols, and some of a matrix's lanes go alone") {
  const ReadyPrior ready(PriorCase(16, 16, 4));
  const DigitPriorView& prior = ready.prior.view();
  Work work;
  work.add("smooth", 1000, 1, DigitKind::predicted, 65536, 65536);
  work.add("noise", 144, 9, DigitKind::predicted, 144 * 20, 1000);
  const std::vector<CodedLane> coded = encoded_by_lane(prior, work);
  const DigitEngine engine(prior, run_serially, 1);
  CHECK(engine.encode(work.matrices, work.lanes) == coded);
  const Exact exact(coded);
  work.fill(0);
  engine.decode(work.matrices, work.lanes, exact.bytes);
  CHECK(work.as_it_was());

  // Lanes in another order, one of them left out.
  std::vector<DigitLane> some = {work.lanes[3], work.lanes[1]};
  work.fill(0);
  engine.decode(work.matrices, some, {exact.bytes[3], exact.bytes[1]});
  const auto& symbols = work.symbols[1];
  const auto& expected = work.cases[1]->symbols;
  CHECK(std::equal(symbols.begin(), symbols.begin() + 1000, expected.begin()));
  CHECK(std::count(symbols.begin() + 1000, symbols.begin() + 2000, 0) == 1000);
  CHECK(std::equal(symbols.begin() + 2000, symbols.end(), expected.begin() + 2000));
}

TEST_CASE("no lanes are no work") {
  const ReadyPrior ready(PriorCase(16, 16, 5));
  const DigitEngine engine(ready.prior.view(), test::run_on_threads, 4);
  CHECK(engine.encode({}, {}).empty());
  engine.decode({}, {}, {});
}

TEST_CASE("a prior that knows the symbols codes them in less") {
  // The network's context is what tells the table's rows apart: a component for small residuals.
  PriorCase narrow(16, 16, 6, false, Zeros::never), wide = narrow;
  for (PriorCase* const own : {&narrow, &wide}) {
    std::fill(own->table.begin(), own->table.end(), std::int16_t{0});
    const int reach = own == &narrow ? 8 : 64;
    for (int row = 0; row < digit_contexts * prior_components; ++row) {
      const int context = row / prior_components, k = row % prior_components;
      for (int s = symbol_origin - reach; s < symbol_origin + reach; ++s)
        own->table[static_cast<std::size_t>(
            ((context * digits_of + s / 16) * prior_components + k) * digits_of + s % 16)] =
            static_cast<std::int16_t>(whole_probability / (2 * reach));
    }
  }
  Work work;
  work.add("noise", 50, 1, DigitKind::predicted, 4000, 4000);
  for (auto& symbol : work.symbols[0])
    symbol = static_cast<std::uint8_t>(symbol_origin - 8 + symbol % 16);
  const ReadyPrior first(narrow), second(wide);
  REQUIRE(first.error.empty());
  REQUIRE(second.error.empty());
  const auto size = [&](const ReadyPrior& prior) {
    return DigitEngine(prior.prior.view(), run_serially, 1)
        .encode(work.matrices, work.lanes)[0]
        .size();
  };
  // 4 and 7 bits a symbol.
  CHECK(size(first) == Approx(4000 * 4 / 8).epsilon(0.02));
  CHECK(size(second) == Approx(4000 * 7 / 8).epsilon(0.02));
}

TEST_CASE("bytes that no encoder wrote decode to the same symbols everywhere") {
  const ReadyPrior ready(PriorCase(16, 32, 7));
  const DigitPriorView& prior = ready.prior.view();
  std::mt19937_64 random(7);
  Work work = some_work(), other = some_work();
  const std::vector<CodedLane> good = encoded_by_lane(prior, work);
  for (int trial = 0; trial < 12; ++trial) {
    std::vector<CodedLane> bad = good;
    for (CodedLane& lane : bad) {
      if (trial % 4 == 0) lane.assign(random() % 5, 0xFF);
      if (trial % 4 == 1) lane.clear();
      if (trial % 4 == 2) lane.resize(lane.size() / 2);
      if (trial % 4 == 3) {
        for (auto& byte : lane) byte = static_cast<std::uint8_t>(random());
        lane.resize(random() % (lane.size() + 20));
      }
    }
    Exact exact(bad);
    // A lane of no bytes may have no address.
    for (LaneBytes& bytes : exact.bytes) {
      if (bytes.size == 0) bytes.data = nullptr;
    }
    work.fill(0x11);
    decode_by_lane(prior, work, exact.bytes);
    for (const test::NamedKernels& named : test::all_kernels()) {
      CAPTURE(named.name, trial);
      other.fill(static_cast<std::uint8_t>(0x22 + trial));
      DigitEngine(prior, test::run_on_threads, 3, named.kernels)
          .decode(other.matrices, other.lanes, exact.bytes);
      CHECK(other.symbols == work.symbols);
    }
  }
}
