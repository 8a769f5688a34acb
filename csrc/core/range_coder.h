// A carry range coder, one independent lane per chunk: 64-bit low and range, 16-bit probabilities,
// 16-bit steps out. Range stays in [2^48, 2^64), so that the coding loss is below 2^-32 of a bit a
// symbol, and a lane ends with at most two bytes more than its information.
//
// Encoder: a carry out of `low` adds one to the bytes already written. Decoder: bytes past the end
// of a lane read as zero.
#pragma once

#include <cstdint>

#include "core/cdf.h"
#include "core/host_device.h"

namespace lmgc {

// Most bytes a lane of `symbols` symbols can take: two a symbol (no frequency is below 1 of 2^16)
// and the end.
LMGC_HD constexpr std::int64_t lane_bound(std::int64_t symbols) { return 2 * symbols + 2; }

// Most symbols that a lane of `bytes` bytes can hold: with 16 symbols or more none is more probable
// than (2^16 - 15) / 2^16, so that each takes 1/3029 of a bit or more, and what was not written by
// then is at most 32 bits. Decoders refuse lanes that claim more, and so never work long for a few
// bytes.
LMGC_HD constexpr std::uint64_t most_symbols_in_lane(std::uint64_t bytes) {
  return (bytes + 4) * 8 * 3029;
}

// Writes to a buffer of lane_bound(symbols) bytes, which the caller provides.
struct RangeEncoder {
  std::uint64_t low = 0;
  std::uint64_t range = ~std::uint64_t{0};
  std::uint8_t* out = nullptr;
  std::int64_t size = 0;

  // The symbol owns [start, start + frequency) of [0, 2^16); frequency >= 1.
  LMGC_HD void put(std::uint32_t start, std::uint32_t frequency) {
    const std::uint64_t part = range >> cdf_bits;
    add(part * start);
    range = part * frequency;
    if (range < (std::uint64_t{1} << 48)) {
      out[size++] = static_cast<std::uint8_t>(low >> 56);
      out[size++] = static_cast<std::uint8_t>(low >> 48);
      low <<= 16;
      range <<= 16;
    }
  }

  // Writes the shortest end that decodes, drops zero bytes at the end (they are implied), and
  // returns the lane's size.
  LMGC_HD std::int64_t finish() {
    for (int bytes = 0; bytes <= 2; ++bytes) {
      const std::uint64_t unit = bytes == 0 ? 0 : std::uint64_t{1} << (64 - 8 * bytes);
      // The smallest multiple of `unit` at or above low; with no byte at all only zero (or a carry)
      // will do.
      const std::uint64_t up = bytes == 0 ? 0 - low : (0 - low) & (unit - 1);
      if (up < range) {
        add(up);
        for (int i = 0; i < bytes; ++i)
          out[size++] = static_cast<std::uint8_t>(low >> (56 - 8 * i));
        break;
      }
    }
    return size;
  }

 private:
  LMGC_HD void add(std::uint64_t value) {
    low += value;
    if (low < value) {
      // The code is below 1, so a carry always finds a byte below 255 to stop at.
      std::int64_t i = size - 1;
      while (out[i] == 0xFF) out[i--] = 0;
      ++out[i];
    }
  }
};

// Reads an untrusted lane: never beyond `size`, any bytes decode to some symbols.
struct RangeDecoder {
  const std::uint8_t* in = nullptr;
  std::int64_t size = 0;
  std::int64_t position = 0;
  std::uint64_t code = 0;
  std::uint64_t range = ~std::uint64_t{0};

  LMGC_HD void start(const std::uint8_t* lane, std::int64_t lane_size) {
    *this = RangeDecoder{};
    in = lane;
    size = lane_size;
    for (int i = 0; i < 4; ++i) shift();
  }

  // Where in [0, 2^16) the next symbol lies.
  LMGC_HD std::uint32_t target() const {
    const std::uint64_t value = code / (range >> cdf_bits);
    return value < cdf_total ? static_cast<std::uint32_t>(value) : cdf_total - 1;
  }

  // Takes the symbol that owns [first, first + frequency) and holds target().
  LMGC_HD void take(std::uint32_t first, std::uint32_t frequency) {
    const std::uint64_t part = range >> cdf_bits;
    code -= part * first;
    range = part * frequency;
    if (range < (std::uint64_t{1} << 48)) {
      shift();
      range <<= 16;
    }
  }

 private:
  LMGC_HD std::uint64_t next_byte() { return position < size ? in[position++] : 0; }
  LMGC_HD void shift() {
    const std::uint64_t high = next_byte();
    code = (code << 16) | (high << 8) | next_byte();
  }
};

// The symbol of `frequency[0..symbols)` that owns `target`, and where it starts.
LMGC_HD inline int find_symbol(const std::uint32_t* frequency, int symbols, std::uint32_t target,
                               std::uint32_t& first) {
  first = 0;
  int symbol = 0;
  while (symbol + 1 < symbols && target >= first + frequency[symbol]) first += frequency[symbol++];
  return symbol;
}

}  // namespace lmgc
