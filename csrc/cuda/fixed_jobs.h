// What the device does for methods `scale` and `lowrank`: function objects for launch() and
// launch_warps(), which hold device pointers only. Internal to csrc/cuda/fixed and its tests.
#pragma once

#include <cstdint>

#include "core/digits.h"
#include "core/entropy.h"
#include "core/fixed.h"
#include "core/float_format.h"
#include "core/residual_scales.h"
#include "core/warp_digits.h"

namespace lmgc::cuda {

inline constexpr std::int64_t block_elements = rans::block_symbols;
// Elements that a warp splits, and sums up, in one go.
inline constexpr std::int64_t piece_elements = 4096;
inline constexpr std::int64_t pieces_in_block = block_elements / piece_elements;
inline constexpr std::int64_t row_stretch = 512;  // rows that a warp sums up of 32 columns

LMGC_HD inline std::uint32_t part_of(std::int64_t index, std::int64_t part, std::int64_t whole) {
  const std::int64_t left = whole - index * part;
  return static_cast<std::uint32_t>(left < part ? left : part);
}

// ---- scales -------------------------------------------------------------------------------------

// levels[first + i], one call an element.
struct FindLevels {
  KnownMatrix known;
  const void* words;
  std::int64_t first;
  std::int16_t* levels;

  LMGC_HD void operator()(std::int64_t i) const {
    const MatrixPlace place = MatrixPlace::of(first + i, known.columns);
    levels[first + i] = residual_level(load_word(words, known.bytes(), first + i),
                                       known.prediction(place.row, place.column), known.format);
  }
};

// A pass of residual_scales() over rows: one warp for each stretch of piece_elements columns of
// each row. Adds to sums.
struct SumRows {
  LevelPass pass;
  const std::int16_t* levels;
  std::int64_t elements, columns;
  std::int64_t* sums;  // sum and counted of each row

  LMGC_HD static std::int64_t stretches(std::int64_t columns) {
    return (columns + piece_elements - 1) / piece_elements;
  }
  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const std::int64_t row = task / stretches(columns);
    const std::int64_t first = task % stretches(columns) * piece_elements;
    const std::int64_t rest = elements - row * columns;
    const std::int64_t length = columns < rest ? columns : rest;
    const std::int64_t last = first + piece_elements < length ? first + piece_elements : length;
    typename Warp::template PerLane<std::int64_t> sum, counted;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t c = first + lane; c < last; c += warp_lanes) {
        const std::int16_t level = levels[row * columns + c];
        if (level == no_level) continue;
        sum[lane] += level_term(level, pass.columns == nullptr ? 0 : pass.columns[c],
                                pass.rows[row], pass.refine);
        ++counted[lane];
      }
    });
    warp.add_all(sums + 2 * row, sum);
    warp.add_all(sums + 2 * row + 1, counted);
  }
};

// The same over columns, a lane for each: one warp for each stretch of row_stretch rows of 32
// columns.
struct SumColumns {
  LevelPass pass;
  const std::int16_t* levels;
  std::int64_t rows, columns;
  std::int64_t* sums;

  LMGC_HD static std::int64_t groups(std::int64_t columns) {
    return (columns + warp_lanes - 1) / warp_lanes;
  }
  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const std::int64_t group = task % groups(columns);
    const std::int64_t first = task / groups(columns) * row_stretch;
    const std::int64_t last = first + row_stretch < rows ? first + row_stretch : rows;
    warp.each([&](std::uint32_t lane) {
      const std::int64_t column = group * warp_lanes + lane;
      if (column >= columns) return;
      LineSum own;
      for (std::int64_t row = first; row < last; ++row) {
        const std::int16_t level = levels[row * columns + column];
        if (level == no_level) continue;
        own.sum += level_term(level, pass.rows[row], pass.columns[column], pass.refine);
        ++own.counted;
      }
      if (own.counted == 0) return;
      warp.add(sums + 2 * column, own.sum);
      warp.add(sums + 2 * column + 1, own.counted);
    });
  }
};

// ---- encoder ------------------------------------------------------------------------------------

// Pieces of the elements [first, first + count), the first one of a block.
struct SplitPieces {
  KnownMatrix known;
  const void* words;
  std::int64_t first, count;
  std::uint8_t* contexts;  // of all elements
  std::uint8_t* symbols;
  std::uint32_t* counts;      // of each context and symbol
  std::uint32_t* piece_bits;  // of tails, one a piece

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t piece) const {
    const std::int64_t from = first + piece * piece_elements;
    const std::uint32_t bits =
        split_elements(warp, known, words, from, part_of(piece, piece_elements, count),
                       contexts + from, symbols + from, counts);
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) piece_bits[piece] = bits;
    });
  }
};

struct WriteTails {
  KnownMatrix known;
  const void* words;
  std::int64_t first, count;
  const std::uint64_t* piece_at;  // the first bit of each piece's tails
  std::uint32_t* tails;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t piece) const {
    write_tails(warp, known, words, first + piece * piece_elements,
                part_of(piece, piece_elements, count), tails, piece_at[piece]);
  }
};

// Codes one block after the other; the words of block b end at room + (b + 1) * stride.
struct EncodeBlocks {
  const std::uint8_t* contexts;  // of all elements
  std::uint8_t* symbols;
  std::int64_t elements;
  const rans::EncodeEntry* entries;
  std::uint8_t* room;
  std::int64_t stride;
  DigitsBlockSize* sizes;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t block) const {
    const std::int64_t first = block * block_elements;
    const DigitsBlockSize size = encode_symbols(
        warp, contexts + first, symbols + first, part_of(block, block_elements, elements), entries,
        reinterpret_cast<std::uint16_t*>(room + (block + 1) * stride));
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) sizes[block] = size;
    });
  }
};

// ---- decoder ------------------------------------------------------------------------------------

// The contexts of elements [first, ...), one call an element.
struct FindContexts {
  KnownMatrix known;
  std::int64_t first;
  std::uint8_t* contexts;  // of element `first` on

  LMGC_HD void operator()(std::int64_t i) const {
    const MatrixPlace place = MatrixPlace::of(first + i, known.columns);
    contexts[i] = static_cast<std::uint8_t>(known.bin(place.row, place.column).context);
  }
};

// Blocks from first_block on, of a panel of elements.
struct DecodeBlocks {
  struct Place {
    std::uint64_t at;  // in the body
    DigitsBlockSize size;
  };
  KnownMatrix known;
  const std::uint8_t* body;
  const Place* places;  // of all blocks
  std::int64_t elements, first_block;
  const rans::DecodeEntry* entries;
  std::uint32_t contexts;
  std::uint8_t* symbols;  // of the panel: contexts before
  void* words;
  std::int32_t* failed;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t i) const {
    const std::int64_t block = first_block + i;
    const std::uint32_t count = part_of(block, block_elements, elements);
    const Place place = places[block];
    const std::uint8_t* const data = body + place.at;
    std::uint8_t* const own = symbols + i * block_elements;
    bool good = decode_symbols(warp, data, place.size, count, entries, contexts, own);
    const std::uint8_t* const tails =
        data + block_size(count, place.size.words) + place.size.escapes;
    good = join_elements(warp, known, own, tails, place.size.tails, block * block_elements, count,
                         words) &&
           good;
    warp.each([&](std::uint32_t lane) {
      if (lane == 0 && !good) warp.raise(failed);
    });
  }
};

}  // namespace lmgc::cuda
