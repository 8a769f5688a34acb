#include "core/rans_block.h"

#include <algorithm>
#include <cstring>

#include "core/isa.h"
#include "core/rans_runs.h"

namespace lmgc::rans {
namespace {

// ---- encoder ------------------------------------------------------------------------------------

// States are copied: what a byte is stored to might be one of them, for all that a compiler knows.
template <int lanes>
std::uint8_t* encode_run(const std::uint8_t* symbols, std::uint32_t steps,
                         const EncodeEntry* entries, std::uint32_t* states, std::uint8_t* at) {
  std::uint32_t own[lanes];
  std::copy(states, states + lanes, own);
  while (steps-- > 0) {
    for (int lane = lanes - 1; lane >= 0; --lane) {
      encode_symbol(entries[symbols[steps * lanes + static_cast<unsigned>(lane)]], own[lane], at);
    }
  }
  std::copy(own, own + lanes, states);
  return at;
}

// The version of the run for this processor.
template <int lanes>
EncodeRun best_encode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return encode_run_avx512;
#endif
  return encode_run<lanes>;
}

template <int lanes>
std::uint8_t* encode_lanes(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* at) {
  static const EncodeRun run = best_encode_run<lanes>();
  std::uint32_t states[lanes];
  std::fill(states, states + lanes, lower_bound);
  const std::uint32_t segment = 1u << tables.segment_bits;
  for (std::uint32_t first = (count - 1) >> tables.segment_bits << tables.segment_bits;;
       first -= segment) {
    const EncodeEntry* const own =
        tables.names ? entries + 256 * tables.names[first >> tables.segment_bits] : entries;
    std::uint32_t i = std::min(first + segment, count);
    for (; i % lanes != 0; --i) encode_symbol(own[symbols[i - 1]], states[(i - 1) % lanes], at);
    at = run(symbols + first, (i - first) / lanes, own, states, at);
    if (first == 0) break;
  }
  at -= sizeof states;
  std::memcpy(at, states, sizeof states);
  return at;
}

// ---- decoder ------------------------------------------------------------------------------------

template <int lanes>
std::uint32_t decode_run(BlockRun* runs, int blocks, std::uint32_t steps) {
  if (blocks > 1) return 0;  // symbol by symbol there is nothing to gain
  const BlockRun run = *runs;
  const std::uint8_t* at = run.at;
  std::uint32_t own[lanes];
  std::copy(run.states, run.states + lanes, own);
  std::uint32_t step = 0;
  for (; step < steps && run.end - at >= most_read(lanes); ++step) {
    for (int lane = 0; lane < lanes; ++lane) {
      run.symbols[step * lanes + static_cast<unsigned>(lane)] =
          decode_symbol(run.entries[slot_of(own[lane])], own[lane], at);
    }
  }
  std::copy(own, own + lanes, run.states);
  runs->at = at;
  return step;
}

template <int lanes>
DecodeRun best_decode_run() {
#if defined(__x86_64__)
  if (lanes == most_lanes && has_avx512()) return decode_run_avx512;
  if (lanes == most_lanes && has_avx2()) return decode_run_avx2;
#endif
  return decode_run<lanes>;
}

// Blocks of so many lanes each, side by side.
template <int lanes>
Status decode_lanes(const CodedBlock* coded, int blocks, int segment_bits,
                    const DecodeEntry* entries) {
  static const DecodeRun run = best_decode_run<lanes>();
  std::uint32_t states[most_blocks][lanes];
  BlockRun runs[most_blocks];
  std::uint32_t all = 0;  // symbols of the longest
  for (int b = 0; b < blocks; ++b) {
    if (!read_states(coded[b].data, coded[b].size, states[b])) return Status::bad_stream;
    runs[b] = {nullptr, entries, states[b], coded[b].data + sizeof states[b],
               coded[b].data + coded[b].size};
    all = std::max(all, coded[b].count);
  }
  const std::uint32_t segment = 1u << (coded[0].names ? segment_bits : block_bits);
  for (std::uint32_t first = 0; first < all; first += segment) {
    const auto last = [&](int b) { return std::min(first + segment, coded[b].count); };
    std::uint32_t steps = segment / lanes;
    for (int b = 0; b < blocks; ++b) {
      steps = first < coded[b].count ? std::min(steps, (last(b) - first) / lanes) : 0;
      if (steps == 0) break;
      runs[b].symbols = coded[b].symbols + first;
      if (coded[b].names)
        runs[b].entries = entries + probability_one * coded[b].names[first >> segment_bits];
    }
    const std::uint32_t done = run(runs, blocks, steps);
    for (int b = 0; b < blocks; ++b) {
      if (first >= coded[b].count) continue;
      BlockRun& own = runs[b];
      std::uint32_t i = first + lanes * done;
      own.symbols = coded[b].symbols + i;
      if (coded[b].names)
        own.entries = entries + probability_one * coded[b].names[first >> segment_bits];
      i += lanes * run(&own, 1, (last(b) - i) / lanes);
      for (; i < last(b); ++i) {  // near the end of the words, or of the segment
        std::uint32_t& state = states[b][i % lanes];
        if (!decode_symbol_until(own.end, own.entries[slot_of(state)], state, own.at,
                                 coded[b].symbols[i])) {
          return Status::bad_stream;
        }
      }
    }
  }
  for (int b = 0; b < blocks; ++b) {
    if (status_at_end(states[b], runs[b].at, runs[b].end) != Status::ok) return Status::bad_stream;
  }
  return Status::ok;
}

}  // namespace

#if defined(__x86_64__)
bool has_avx512() { return has_isa(isa_avx512f | isa_avx512bw | isa_avx512vl); }
bool has_avx2() { return has_isa(isa_avx2); }
#endif

std::uint8_t* encode_run_portable(const std::uint8_t* symbols, std::uint32_t steps,
                                  const EncodeEntry* entries, std::uint32_t* states,
                                  std::uint8_t* at) {
  return encode_run<most_lanes>(symbols, steps, entries, states, at);
}

std::uint32_t decode_run_portable(BlockRun* runs, int blocks, std::uint32_t steps) {
  return decode_run<most_lanes>(runs, blocks, steps);
}

std::uint8_t* encode_block(const std::uint8_t* symbols, std::uint32_t count,
                           const BlockTables& tables, const EncodeEntry* entries,
                           std::uint8_t* end) {
  return with_lanes(
      count, [=](auto lanes) { return encode_lanes<lanes>(symbols, count, tables, entries, end); });
}

Status decode_blocks(const CodedBlock* coded, int blocks, int segment_bits,
                     const DecodeEntry* entries) {
  const auto alone = [&](const CodedBlock& one) {
    return with_lanes(
        one.count, [&](auto lanes) { return decode_lanes<lanes>(&one, 1, segment_bits, entries); });
  };
  if (blocks == 1) return alone(coded[0]);
  if (lanes_of(coded[1].count) == most_lanes)
    return decode_lanes<most_lanes>(coded, 2, segment_bits, entries);
  const Status status = alone(coded[0]);
  return status == Status::ok ? alone(coded[1]) : status;
}

}  // namespace lmgc::rans
