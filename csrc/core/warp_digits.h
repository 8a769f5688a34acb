// Blocks of digits coded and decoded by a warp (warp.h): the bytes of digits.h and fixed_section.h,
// for the device. Internal to csrc/cuda and its tests.
#pragma once

#include <cstdint>

#include "core/digits.h"
#include "core/fixed.h"
#include "core/float_format.h"
#include "core/host_device.h"
#include "core/rans.h"
#include "core/warp.h"
#include "core/warp_rans.h"

namespace lmgc {

// ---- what both sides know of an element ---------------------------------------------------------

// A live matrix without its elements, in arrays that lie where the code runs.
struct KnownMatrix {
  FixedFormat format;
  std::int64_t columns = 1;
  const std::int16_t* row_scales = nullptr;
  const std::int16_t* column_scales = nullptr;  // null: none
  const std::int16_t* row_weights = nullptr;    // null: not predicted
  const std::int16_t* column_weights = nullptr;
  int base = 0;                           // of the product
  const std::int64_t* product = nullptr;  // of the elements from first_product on
  std::int64_t first_product = 0;

  LMGC_HD int bytes() const { return format.bytes; }
  LMGC_HD Prediction prediction(std::int64_t row, std::int64_t column) const {
    if (row_weights == nullptr) return {};
    return {product[row * columns + column - first_product],
            base + row_weights[row] + column_weights[column]};
  }
  LMGC_HD Bin bin(std::int64_t row, std::int64_t column) const {
    const int scale = row_scales[row] + (column_scales == nullptr ? 0 : column_scales[column]);
    return bin_of(prediction(row, column), scale,
                  row_weights == nullptr ? Fraction::edge : Fraction::varies, format);
  }
};

// Where an element lies, moved on without divisions.
struct MatrixPlace {
  std::int64_t row = 0, column = 0;

  LMGC_HD static MatrixPlace of(std::int64_t index, std::int64_t columns) {
    return {index / columns, index % columns};
  }
  LMGC_HD void advance(std::int64_t elements, std::int64_t columns) {
    column += elements;
    if (column < columns) return;
    if (columns < elements) {
      row += column / columns;
      column %= columns;
    } else {
      ++row;
      column -= columns;
    }
  }
};

// ---- bits ---------------------------------------------------------------------------------------

// At least 57 bits from bit `bit` of data[0, size) on; zeros behind the end.
LMGC_HD inline std::uint64_t bits_at(const std::uint8_t* data, std::uint32_t size,
                                     std::uint32_t bit) {
  const std::uint32_t byte = bit / 8;
  if (byte >= 4 && byte < size && size - byte >= 12) {
    // Three aligned words, all of them within the data.
    const auto off = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(data + byte) % 4);
    const std::uint8_t* const from = data + (byte - off);
    const std::uint64_t low = load_word(from, 4, 0) | load_word(from, 4, 1) << 32;
    const std::uint32_t shift = 8 * off + bit % 8;
    return shift == 0 ? low : low >> shift | load_word(from, 4, 2) << (64 - shift);
  }
  std::uint64_t bits = 0;
  for (std::uint32_t k = 0; k < 8 && byte < size && k < size - byte; ++k)
    bits |= std::uint64_t{data[byte + k]} << (8 * k);
  return bits >> (bit % 8);
}

// Sets the low `count` bits (0 to 64) of `value`, whose other bits are zero, from bit `at` of
// `words` on, which are zero as yet.
template <class Warp>
LMGC_HD void put_bits(const Warp& warp, std::uint32_t* words, std::uint64_t at, std::uint64_t value,
                      int count) {
  if (count == 0) return;
  std::uint32_t* word = words + at / 32;
  const auto shift = static_cast<int>(at % 32);
  warp.set_bits(word, static_cast<std::uint32_t>(value << shift));
  if (shift + count > 32)
    warp.set_bits(word + 1, static_cast<std::uint32_t>(value >> (32 - shift)));
  if (shift + count > 64)
    warp.set_bits(word + 2, static_cast<std::uint32_t>(value >> (64 - shift)));
}

// Asks what an element's tail is, without having it: what join_element() calls is remembered.
struct TailRequest {
  std::uint32_t count = 0;  // bits behind the octaves
  int most = 0;             // octaves, 0: none can be

  LMGC_HD std::uint64_t bits(int own) {
    count += static_cast<std::uint32_t>(own);
    return 0;
  }
  LMGC_HD int octaves(int own) {
    most = own;
    return 0;
  }
};

// A tail whose place and octaves are known.
struct PlacedTail {
  const std::uint8_t* data;
  std::uint32_t size, at;
  int zeros;

  LMGC_HD std::uint64_t bits(int count) {
    std::uint64_t value = bits_at(data, size, at);
    if (count > 56) value = (value & UINT32_MAX) | bits_at(data, size, at + 32) << 32;
    at += static_cast<std::uint32_t>(count);
    return count == 64 ? value : value & ((std::uint64_t{1} << count) - 1);
  }
  LMGC_HD int octaves(int) { return zeros; }
};

// ---- encoder ------------------------------------------------------------------------------------

LMGC_HD inline std::uint32_t tail_bits(const FixedElement& element) {
  return static_cast<std::uint32_t>(element.octaves + element.one + element.bits);
}

// Splits elements [first, first + count): contexts and symbols from `contexts` and `symbols` on,
// one more in counts[256 * context + symbol] for each. Returns the bits of their tails.
template <class Warp>
LMGC_HD std::uint32_t split_elements(const Warp& warp, const KnownMatrix& known, const void* words,
                                     std::int64_t first, std::uint32_t count,
                                     std::uint8_t* contexts, std::uint8_t* symbols,
                                     std::uint32_t* counts) {
  typename Warp::template PerLane<MatrixPlace> place;
  typename Warp::template PerLane<std::uint32_t> key, bits, before;
  typename Warp::template PerLane<bool> active;
  warp.each(
      [&](std::uint32_t lane) { place[lane] = MatrixPlace::of(first + lane, known.columns); });
  for (std::uint32_t from = 0; from < count; from += warp_lanes) {
    warp.each([&](std::uint32_t lane) {
      const std::uint32_t i = from + lane;
      active[lane] = i < count;
      if (!active[lane]) return;
      const Bin bin = known.bin(place[lane].row, place[lane].column);
      const FixedElement element =
          split_element(load_word(words, known.bytes(), first + i), bin, known.format);
      contexts[i] = static_cast<std::uint8_t>(bin.context);
      symbols[i] = static_cast<std::uint8_t>(element.symbol);
      key[lane] = static_cast<std::uint32_t>(256 * bin.context + element.symbol);
      bits[lane] += tail_bits(element);
      place[lane].advance(warp_lanes, known.columns);
    });
    warp.tally(counts, key, active);
  }
  return warp.sums_before(bits, before);
}

// Writes the tails of the same elements from bit `at` of `tails` on, zero as yet.
template <class Warp>
LMGC_HD void write_tails(const Warp& warp, const KnownMatrix& known, const void* words,
                         std::int64_t first, std::uint32_t count, std::uint32_t* tails,
                         std::uint64_t at) {
  typename Warp::template PerLane<MatrixPlace> place;
  typename Warp::template PerLane<FixedElement> element;
  typename Warp::template PerLane<std::uint32_t> bits, before;
  warp.each(
      [&](std::uint32_t lane) { place[lane] = MatrixPlace::of(first + lane, known.columns); });
  for (std::uint32_t from = 0; from < count; from += warp_lanes) {
    warp.each([&](std::uint32_t lane) {
      bits[lane] = 0;
      if (from + lane >= count) return;
      const Bin bin = known.bin(place[lane].row, place[lane].column);
      element[lane] =
          split_element(load_word(words, known.bytes(), first + from + lane), bin, known.format);
      bits[lane] = tail_bits(element[lane]);
      place[lane].advance(warp_lanes, known.columns);
    });
    const std::uint32_t all = warp.sums_before(bits, before);
    warp.each([&](std::uint32_t lane) {
      if (bits[lane] == 0) return;
      const FixedElement& own = element[lane];
      const int prefix = own.octaves + own.one;
      put_bits(warp, tails, at + before[lane], std::uint64_t{own.one} << own.octaves, prefix);
      put_bits(warp, tails, at + before[lane] + static_cast<std::uint32_t>(prefix), own.tail,
               own.bits);
    });
    at += all;
  }
}

// Codes the symbols of a block of `count` elements so that its rANS words end at `end`. An entry
// without a limit belongs to a symbol without a frequency. Returns the block's size but for its
// tails; its escapes take the last places of `symbols`, which are lost.
template <class Warp>
LMGC_HD DigitsBlockSize encode_symbols(const Warp& warp, const std::uint8_t* contexts,
                                       std::uint8_t* symbols, std::uint32_t count,
                                       const rans::EncodeEntry* entries, std::uint16_t* end) {
  typename Warp::template PerLane<std::uint8_t> symbol;
  typename Warp::template PerLane<bool> escaped;
  std::uint32_t escapes = 0;
  const std::uint16_t* const begin = encode_block(
      warp, count, end,
      [&](std::uint32_t lane, std::uint32_t i) {
        const rans::EncodeEntry* const table = entries + 256u * contexts[i];
        symbol[lane] = symbols[i];
        const rans::EncodeEntry entry = table[symbol[lane]];
        escaped[lane] = symbol[lane] == symbol_escape || entry.limit == 0;
        return escaped[lane] ? table[symbol_escape] : entry;
      },
      [&] {
        const std::uint32_t escapers = warp.ballot(escaped);
        escapes += count_ones(escapers);
        warp.each([&](std::uint32_t lane) {
          // No further to the front than this step, whose symbols are all read.
          if (escaped[lane]) symbols[count - escapes + lanes_before(escapers, lane)] = symbol[lane];
          escaped[lane] = false;
        });
      });
  const auto lanes = static_cast<std::uint32_t>(rans::lanes_of(count));
  return {static_cast<std::uint32_t>(end - begin) - 2 * lanes, escapes, 0};
}

// ---- decoder ------------------------------------------------------------------------------------

// Decodes the symbols of a block: `symbols` has the contexts of its `count` elements, below
// `contexts` in a good frame, and gets their symbols, escapes resolved. `data` are untrusted bytes
// of the block's size. False when they are no block; `symbols` may then hold anything.
template <class Warp>
LMGC_HD bool decode_symbols(const Warp& warp, const std::uint8_t* data, const DigitsBlockSize& size,
                            std::uint32_t count, const rans::DecodeEntry* entries,
                            std::uint32_t contexts, std::uint8_t* symbols) {
  const std::uint8_t* const escapes = data + block_size(count, size.words);
  typename Warp::template PerLane<bool> escaped, bad;
  std::uint32_t used_escapes = 0;
  const bool good = decode_block(
      warp, data, size.words, count,
      [&](std::uint32_t lane, std::uint32_t i) {
        std::uint32_t context = symbols[i];
        if (context >= contexts) {
          bad[lane] = true;
          context = 0;
        }
        return entries + rans::probability_one * context;
      },
      [&](std::uint32_t lane, std::uint32_t i, std::uint8_t symbol) {
        escaped[lane] = symbol == symbol_escape;
        symbols[i] = symbol;
      },
      [&](std::uint32_t first) {
        const std::uint32_t escapers = warp.ballot(escaped);
        if (escapers == 0) return;
        warp.each([&](std::uint32_t lane) {
          const std::uint32_t escape = used_escapes + lanes_before(escapers, lane);
          if (escaped[lane] && escape < size.escapes) symbols[first + lane] = escapes[escape];
          escaped[lane] = false;
        });
        used_escapes += count_ones(escapers);
      });
  return good && warp.ballot(bad) == 0 && used_escapes == size.escapes;
}

// Joins elements [first, first + count), a block, from their symbols and its untrusted tails.
// False when the tails are not what the symbols ask for.
template <class Warp>
LMGC_HD bool join_elements(const Warp& warp, const KnownMatrix& known, const std::uint8_t* symbols,
                           const std::uint8_t* tails, std::uint32_t size, std::int64_t first,
                           std::uint32_t count, void* words) {
  typename Warp::template PerLane<MatrixPlace> place;
  typename Warp::template PerLane<Bin> bin;
  typename Warp::template PerLane<std::uint32_t> bits, before;
  typename Warp::template PerLane<int> most, zeros;
  typename Warp::template PerLane<bool> has_octaves;
  warp.each(
      [&](std::uint32_t lane) { place[lane] = MatrixPlace::of(first + lane, known.columns); });
  std::uint32_t at = 0;  // less than 2^23: a block has 65536 tails of at most 89 bits
  for (std::uint32_t from = 0; from < count; from += warp_lanes) {
    warp.each([&](std::uint32_t lane) {
      bits[lane] = 0;
      most[lane] = zeros[lane] = 0;
      has_octaves[lane] = false;
      if (from + lane >= count) return;
      bin[lane] = known.bin(place[lane].row, place[lane].column);
      place[lane].advance(warp_lanes, known.columns);
      TailRequest request;
      join_element(symbols[from + lane], bin[lane], known.format, request);
      bits[lane] = request.count;
      most[lane] = request.most;
      has_octaves[lane] = request.most > 0;
    });
    std::uint32_t all = warp.sums_before(bits, before);
    // How many octaves there are has to be read before the place of the next tail is known.
    for (std::uint32_t left = warp.ballot(has_octaves); left != 0; left &= left - 1) {
      const auto k = static_cast<std::uint32_t>(trailing_zeros(left));
      const int own_most = warp.value_of(most, k);
      const std::uint64_t own_bits = bits_at(tails, size, at + warp.value_of(before, k));
      const int own_zeros = trailing_zeros(own_bits | std::uint64_t{1} << own_most);
      const auto length =
          static_cast<std::uint32_t>(own_zeros < own_most ? own_zeros + 1 : own_most);
      warp.each([&](std::uint32_t lane) {
        if (lane == k) zeros[lane] = own_zeros;
        if (lane >= k) before[lane] += length;
      });
      all += length;
    }
    warp.each([&](std::uint32_t lane) {
      if (from + lane >= count) return;
      PlacedTail tail{tails, size, at + before[lane], zeros[lane]};
      store_word(words, known.bytes(), first + from + lane,
                 join_element(symbols[from + lane], bin[lane], known.format, tail));
    });
    at += all;
  }
  const std::uint32_t end = 8 * size;  // sizes are below 2^21
  if (at > end || end - at >= 8) return false;
  return at % 8 == 0 || tails[at / 8] >> (at % 8) == 0;
}

}  // namespace lmgc
