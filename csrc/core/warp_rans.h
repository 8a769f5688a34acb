// Blocks of interleaved rANS coded and decoded by a warp (warp.h), a lane of the warp for a lane of
// the block: the bytes of rans_block.h, for the device. What is coded, and with which tables, the
// caller says, call by call. Internal to csrc/cuda and its tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"
#include "core/rans.h"
#include "core/warp.h"

namespace lmgc {

// Codes symbols 0 to count - 1 of a block, from the last to the first, so that its words end at
// `end`, and returns where they begin. entry(lane, i) is the rans::EncodeEntry of symbol i, asked
// for once; after_step() is called after each step of all lanes.
template <class Warp, class Entry, class Step>
LMGC_HD std::uint16_t* encode_block(const Warp& warp, std::uint32_t count, std::uint16_t* end,
                                    const Entry& entry_of, const Step& after_step) {
  const auto lanes = static_cast<std::uint32_t>(rans::lanes_of(count));
  typename Warp::template PerLane<std::uint32_t> state;
  typename Warp::template PerLane<rans::EncodeEntry> entry;
  typename Warp::template PerLane<bool> active, send;
  warp.each([&](std::uint32_t lane) { state[lane] = rans::lower_bound; });
  std::uint16_t* at = end;
  for (std::uint32_t step = (count - 1) / lanes + 1; step-- > 0;) {
    warp.each([&](std::uint32_t lane) {
      const std::uint32_t i = step * lanes + lane;
      active[lane] = lane < lanes && i < count;
      send[lane] = false;
      if (!active[lane]) return;
      entry[lane] = entry_of(lane, i);
      send[lane] = rans::must_send(state[lane], entry[lane]);
    });
    const std::uint32_t senders = warp.ballot(send);
    at -= count_ones(senders);
    warp.each([&](std::uint32_t lane) {
      if (send[lane]) {
        at[lanes_before(senders, lane)] = static_cast<std::uint16_t>(state[lane]);
        state[lane] >>= rans::word_bits;
      }
      if (active[lane]) state[lane] = rans::put(state[lane], entry[lane]);
    });
    after_step();
  }
  at -= 2 * lanes;
  warp.each([&](std::uint32_t lane) {
    if (lane >= lanes) return;
    at[2 * lane] = static_cast<std::uint16_t>(state[lane]);
    at[2 * lane + 1] = static_cast<std::uint16_t>(state[lane] >> 16);
  });
  return at;
}

// Decodes a block of `count` symbols from untrusted bytes: the states of its lanes, and `words`
// words. table_of(lane, i) is the decoding table of symbol i, a valid one; put(lane, i, symbol) is
// called then, and after_step(i) after each step of all lanes, with the i of lane 0. A damaged
// block is decoded to its end, with zeros for the words that it lacks. False when the bytes are no
// block.
template <class Warp, class Table, class Put, class Step>
LMGC_HD bool decode_block(const Warp& warp, const std::uint8_t* data, std::uint32_t words,
                          std::uint32_t count, const Table& table_of, const Put& put,
                          const Step& after_step) {
  const auto lanes = static_cast<std::uint32_t>(rans::lanes_of(count));
  const std::uint8_t* const words_at = data + 4 * lanes;
  typename Warp::template PerLane<std::uint32_t> state;
  typename Warp::template PerLane<bool> receive, bad;
  const auto word_at = [](const std::uint8_t* at) {
    return at[0] | static_cast<std::uint32_t>(at[1]) << 8;
  };
  warp.each([&](std::uint32_t lane) {
    state[lane] = rans::lower_bound;
    if (lane < lanes) state[lane] = word_at(data + 4 * lane) | word_at(data + 4 * lane + 2) << 16;
    bad[lane] = state[lane] < rans::lower_bound || state[lane] >> 31 != 0;
    state[lane] &= 0x7FFFFFFFu;
  });
  std::uint32_t used = 0;
  for (std::uint32_t first = 0; first < count; first += lanes) {
    warp.each([&](std::uint32_t lane) {
      const std::uint32_t i = first + lane;
      receive[lane] = false;
      if (lane >= lanes || i >= count) return;
      const rans::DecodeEntry entry = table_of(lane, i)[rans::slot_of(state[lane])];
      state[lane] = rans::get(state[lane], entry);
      receive[lane] = rans::must_receive(state[lane]);
      put(lane, i, rans::symbol_of(entry));
    });
    const std::uint32_t receivers = warp.ballot(receive);
    warp.each([&](std::uint32_t lane) {
      if (!receive[lane]) return;
      const std::uint32_t word = used + lanes_before(receivers, lane);
      state[lane] =
          rans::receive(state[lane], word < words ? word_at(words_at + 2 * std::size_t{word}) : 0);
    });
    used += count_ones(receivers);
    after_step(first);
  }
  warp.each([&](std::uint32_t lane) { bad[lane] |= state[lane] != rans::lower_bound; });
  return warp.ballot(bad) == 0 && used == words;
}

}  // namespace lmgc
