// What the device does for methods `scale` and `lowrank`: function objects for launch_warps(),
// which hold device pointers only, each for many matrices. Internal to csrc/cuda/fixed,
// fixed_decoder and their tests.
#pragma once

#include <cstdint>

#include "core/digits.h"
#include "core/entropy.h"
#include "core/fixed.h"
#include "core/float_format.h"
#include "core/residual_scales.h"
#include "core/warp_digits.h"
#include "cuda/task_list.h"

namespace lmgc::cuda {

inline constexpr std::int64_t block_elements = rans::block_symbols;
// Elements that a warp splits, and sums up, in one go.
inline constexpr std::int64_t piece_elements = 4096;
inline constexpr std::int64_t pieces_in_block = block_elements / piece_elements;
// Elements that a warp looks at in one go, where each is soon done.
inline constexpr std::int64_t glance_elements = 512;
inline constexpr std::int64_t row_stretch = 512;  // rows that a warp sums up of 32 columns

LMGC_HD inline std::uint32_t part_of(std::int64_t index, std::int64_t part, std::int64_t whole) {
  const std::int64_t left = whole - index * part;
  return static_cast<std::uint32_t>(left < part ? left : part);
}

// Elements [first, first + count) of a matrix, for the tasks of a list.
struct MatrixPart {
  KnownMatrix known;
  const void* words;  // of all elements
  std::int64_t first, count;

  // Calls body(i, place) for the elements of glance `index`, neighbours by neighbouring lanes.
  template <class Warp, class Body>
  LMGC_HD void glance(const Warp& warp, std::int64_t index, const Body& body) const {
    const std::int64_t from = first + index * glance_elements;
    const std::int64_t last = from + part_of(index, glance_elements, count);
    warp.each([&](std::uint32_t lane) {
      MatrixPlace place = MatrixPlace::of(from + lane, known.columns);
      for (std::int64_t i = from + lane; i < last; i += warp_lanes) {
        body(i, place);
        place.advance(warp_lanes, known.columns);
      }
    });
  }
};

// ---- scales -------------------------------------------------------------------------------------

// Levels of elements, a warp for each glance.
struct FindLevels {
  struct Matrix {
    MatrixPart part;
    std::int16_t* levels;  // of all elements
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const KnownMatrix& known = own.part.known;
    own.part.glance(warp, task - own.first_task, [&](std::int64_t i, const MatrixPlace& place) {
      own.levels[i] = residual_level(load_word(own.part.words, known.bytes(), i),
                                     known.prediction(place.row, place.column), known.format);
    });
  }
};

// A matrix of levels and the pass of ResidualScales that is due.
struct MatrixLevels {
  LevelPass pass;
  const std::int16_t* levels;
  std::int64_t elements, rows, columns;
  std::int64_t* sums;  // sum and counted of each line, which are added to
  std::int64_t first_task = 0;
};

// Of passes over rows: one warp for each stretch of piece_elements columns of each row.
struct SumRows {
  TaskList<MatrixLevels> matrices;

  LMGC_HD static std::int64_t stretches(std::int64_t columns) {
    return (columns + piece_elements - 1) / piece_elements;
  }
  LMGC_HD static std::int64_t tasks(std::int64_t rows, std::int64_t columns) {
    return rows * stretches(columns);
  }
  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const MatrixLevels own = matrices.item_of(task);
    const LevelPass& pass = own.pass;
    const std::int64_t columns = own.columns, i = task - own.first_task;
    const std::int64_t row = i / stretches(columns);
    const std::int64_t first = i % stretches(columns) * piece_elements;
    const std::int64_t rest = own.elements - row * columns;
    const std::int64_t length = columns < rest ? columns : rest;
    const std::int64_t last = first + piece_elements < length ? first + piece_elements : length;
    typename Warp::template PerLane<std::int64_t> sum, counted;
    warp.each([&](std::uint32_t lane) {
      for (std::int64_t c = first + lane; c < last; c += warp_lanes) {
        const std::int16_t level = own.levels[row * columns + c];
        if (level == no_level) continue;
        sum[lane] += level_term(level, pass.columns == nullptr ? 0 : pass.columns[c],
                                pass.rows[row], pass.refine);
        ++counted[lane];
      }
    });
    warp.add_all(own.sums + 2 * row, sum);
    warp.add_all(own.sums + 2 * row + 1, counted);
  }
};

// Of passes over columns, a lane for each: one warp for each stretch of row_stretch rows of 32
// columns.
struct SumColumns {
  TaskList<MatrixLevels> matrices;

  LMGC_HD static std::int64_t groups(std::int64_t columns) {
    return (columns + warp_lanes - 1) / warp_lanes;
  }
  LMGC_HD static std::int64_t tasks(std::int64_t rows, std::int64_t columns) {
    return (rows + row_stretch - 1) / row_stretch * groups(columns);
  }
  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const MatrixLevels own = matrices.item_of(task);
    const LevelPass& pass = own.pass;
    const std::int64_t columns = own.columns, i = task - own.first_task;
    const std::int64_t group = i % groups(columns);
    const std::int64_t first = i / groups(columns) * row_stretch;
    const std::int64_t last = first + row_stretch < own.rows ? first + row_stretch : own.rows;
    warp.each([&](std::uint32_t lane) {
      const std::int64_t column = group * warp_lanes + lane;
      if (column >= columns) return;
      LineSum line;
      for (std::int64_t row = first; row < last; ++row) {
        const std::int16_t level = own.levels[row * columns + column];
        if (level == no_level) continue;
        line.sum += level_term(level, pass.rows[row], pass.columns[column], pass.refine);
        ++line.counted;
      }
      if (line.counted == 0) return;
      warp.add(own.sums + 2 * column, line.sum);
      warp.add(own.sums + 2 * column + 1, line.counted);
    });
  }
};

// ---- encoder ------------------------------------------------------------------------------------

// Symbols and contexts, a warp for each piece; parts begin with a block.
struct SplitPieces {
  struct Matrix {
    MatrixPart part;
    std::uint8_t* contexts;  // of all elements
    std::uint8_t* symbols;
    std::uint32_t* counts;  // of each context and symbol
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;
  std::uint32_t* piece_bits;  // of tails, one a task

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const MatrixPart& part = own.part;
    const std::int64_t piece = task - own.first_task, from = part.first + piece * piece_elements;
    const std::uint32_t bits = split_elements(warp, part.known, part.words, from,
                                              part_of(piece, piece_elements, part.count),
                                              own.contexts + from, own.symbols + from, own.counts);
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) piece_bits[task] = bits;
    });
  }
};

struct WriteTails {
  struct Matrix {
    MatrixPart part;
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;
  const std::uint64_t* piece_at;  // the first bit of each piece's tails
  std::uint32_t* tails;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const MatrixPart& part = own.part;
    const std::int64_t piece = task - own.first_task;
    write_tails(warp, part.known, part.words, part.first + piece * piece_elements,
                part_of(piece, piece_elements, part.count), tails, piece_at[task]);
  }
};

// Codes one block after the other; the words of a matrix's block b end at room + (b + 1) * stride.
struct EncodeBlocks {
  struct Matrix {
    const std::uint8_t* contexts;  // of all elements
    std::uint8_t* symbols;
    std::int64_t elements;
    const rans::EncodeEntry* entries;
    std::uint8_t* room;
    std::int64_t stride;
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;
  DigitsBlockSize* sizes;  // one a task

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const std::int64_t block = task - own.first_task, first = block * block_elements;
    const DigitsBlockSize size =
        encode_symbols(warp, own.contexts + first, own.symbols + first,
                       part_of(block, block_elements, own.elements), own.entries,
                       reinterpret_cast<std::uint16_t*>(own.room + (block + 1) * own.stride));
    warp.each([&](std::uint32_t lane) {
      if (lane == 0) sizes[task] = size;
    });
  }
};

// ---- decoder ------------------------------------------------------------------------------------

// The contexts of elements, a warp for each glance.
struct FindContexts {
  struct Matrix {
    MatrixPart part;
    std::uint8_t* contexts;  // of the part's elements
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const MatrixPart& part = own.part;
    part.glance(warp, task - own.first_task, [&](std::int64_t i, const MatrixPlace& place) {
      own.contexts[i - part.first] =
          static_cast<std::uint8_t>(part.known.bin(place.row, place.column).context);
    });
  }
};

// Blocks from first_block on, of a part of a matrix.
struct DecodeBlocks {
  struct Place {
    std::uint64_t at;  // in the body
    DigitsBlockSize size;
  };
  struct Matrix {
    KnownMatrix known;
    const std::uint8_t* body;
    const Place* places;  // of all blocks
    std::int64_t elements, first_block;
    const rans::DecodeEntry* entries;
    std::uint32_t contexts;
    std::uint8_t* symbols;  // of the part: contexts before
    void* words;
    std::int32_t* failed;
    std::int64_t first_task = 0;
  };
  TaskList<Matrix> matrices;

  template <class Warp>
  LMGC_HD void operator()(const Warp& warp, std::int64_t task) const {
    const Matrix own = matrices.item_of(task);
    const std::int64_t i = task - own.first_task, block = own.first_block + i;
    const std::uint32_t count = part_of(block, block_elements, own.elements);
    const Place place = own.places[block];
    const std::uint8_t* const data = own.body + place.at;
    std::uint8_t* const symbols = own.symbols + i * block_elements;
    bool good = decode_symbols(warp, data, place.size, count, own.entries, own.contexts, symbols);
    const std::uint8_t* const tails =
        data + block_size(count, place.size.words) + place.size.escapes;
    good = join_elements(warp, own.known, symbols, tails, place.size.tails, block * block_elements,
                         count, own.words) &&
           good;
    warp.each([&](std::uint32_t lane) {
      if (lane == 0 && !good) warp.raise(own.failed);
    });
  }
};

}  // namespace lmgc::cuda
