// Methods `scale` and `lowrank`: a tensor as a matrix of floats, predicted (by nothing but the
// scales of its rows and columns, or by a low-rank product), its residuals coded by the `fixed`
// serializer. docs/format.md, section 6, specifies the section.
//
// The matrix that is coded is *live*: lines that are zero throughout are flagged and left out. The
// caller brings it so (ops/fixed.cpp), grouped by the tensor's dimension 0 or 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/bytes.h"
#include "core/delta.h"
#include "core/digits.h"
#include "core/factors.h"
#include "core/fixed.h"
#include "core/fixed_factors.h"
#include "core/flag_runs.h"
#include "core/parallel.h"
#include "core/predict.h"
#include "core/projection.h"
#include "core/status.h"

namespace lmgc {

// The shape of a live matrix: like MatrixShape, with empty lines taken out. A flat one has a short
// last row.
struct LiveShape {
  std::int64_t elements = 0, rows = 0, columns = 1;
};

// A product of factors whose lines have powers of two as weights: the prediction of element (i, j)
// is product(i, j) * 2^(row_weights[i] + column_weights[j] + factors.base()).
struct LowRank {
  Factors factors;
  std::vector<std::int16_t> row_weights, column_weights;
};

// Everything that a decoder knows before it decodes the first element.
struct FixedHead {
  bool by_dimension_1 = false;       // the matrix is dimension 1 by the rest
  FlagRuns dead_rows, dead_columns;  // of the whole matrix; empty: none
  bool has_column_scales = false;
  Scales scales;     // of the live lines' residuals
  LowRank low_rank;  // rank 0: method scale
  Reference reference;
  Projection u_projection, v_projection;
  DigitsHead u, v, residuals;

  bool predicted() const { return low_rank.factors.rank > 0; }
  // Whether elements have a prediction, of whatever kind.
  bool has_prediction() const { return predicted() || reference.is_there; }
  // Whether factors are told relative to those of a past frame.
  bool projected() const { return u_projection.count > 0 || v_projection.count > 0; }
  Fraction fraction() const { return has_prediction() ? Fraction::varies : Fraction::edge; }
};

// The matrix as which a tensor of these sizes is seen, before empty lines are taken out. By
// dimension 1 only where there are three dimensions or more and the shape by dimension 0 is not
// flat.
MatrixShape fixed_shape(const std::int64_t* sizes, std::size_t dimensions, bool by_dimension_1);
bool has_dimension_1_view(const std::int64_t* sizes, std::size_t dimensions);

// The live part of `shape` under the head's flags.
LiveShape live_shape(const MatrixShape& shape, const FixedHead& head);

// Sizes of a section's parts, in bytes.
struct FixedSizes {
  std::uint64_t side = 0;  // head, factors
  std::uint64_t digits = 0, escapes = 0, tails = 0;
};

// ---- encoder ------------------------------------------------------------------------------------

struct FixedInput {
  const void* words = nullptr;  // the live matrix, shape.elements contiguous floats
  FloatFormat format{};
  LiveShape shape;
  bool may_have_column_scales = false;
  const PastFactors* past = nullptr;  // for a head with projections
};

// A coded section: `head` (its fields and bytes) and bodies.
struct FixedSection {
  FixedHead head;
  std::vector<std::uint8_t> head_bytes;
  CodedFactors factors;
  CodedDigits residuals;

  std::size_t size() const;
  void write(std::uint8_t* out) const;  // size() bytes
};

// Steps of encode_fixed() that are no work on elements, for encoders elsewhere.
// The bytes of a head that is complete.
std::vector<std::uint8_t> write_fixed_head(const FixedHead& head);
// Everything of a head before the heads of digits. `with_prior`: for a section of method lm.
void write_fixed_side(const FixedHead& head, bool with_prior, ByteWriter& out);
// The least level that a scale of this format can have.
std::int32_t scale_floor(FloatFormat format);

// Codes a matrix. `head` brings everything but scales and digits; `product` is used when it is
// predicted. Equal inputs give equal sections whatever `parallel` does. Temporary memory: 2 bytes
// an element for magnitudes, later 2 bytes and the tail an element; and per task 1 MiB.
FixedSection encode_fixed(const FixedInput& input, FixedHead head, const Product& product,
                          const Parallel& parallel);

// ---- decoder ------------------------------------------------------------------------------------

// A parsed section: all but the elements.
struct FixedSource {
  FixedHead head;
  LiveShape shape;
  const std::uint8_t* residuals = nullptr;  // the body
  FixedSizes sizes;
  std::uint64_t product_bound = 0;  // below 2^most_product_bits
};

enum class FixedMethod : std::uint8_t { scale, lowrank, lm };

// Reads what write_fixed_side() wrote, untrusted: ok, truncated or bad_section. Sets of `source`
// head (all but digits and entries of factors) and shape. An empty shape ends the section.
Status read_fixed_side(ByteReader& in, const std::int64_t* sizes, std::size_t dimensions,
                       FixedMethod method, FixedSource& source);

// Reads the untrusted bytes of a section of a tensor of these sizes: ok, truncated, bad_section,
// bad_table or bad_stream. `predicted`: the method is lowrank. Factors are decoded where
// `with_factors` is set; `past` is what the frame says that its factors are relative to: where that
// is nothing, a section that has projections is bad. On ok every length fits the section and what
// is allocated is below the tensor's bytes plus a small multiple of the section's.
Status read_fixed(const std::uint8_t* section, std::size_t size, const std::int64_t* sizes,
                  std::size_t dimensions, bool predicted, bool with_factors,
                  const Parallel& parallel, FixedSource& source, const PastFactors* past = nullptr);

// The same where only section[0, available) is at hand: truncated, too, when that ends before the
// residuals' body does begin, at source.sizes.side. Then source.residuals is not to be read.
Status read_fixed_part(const std::uint8_t* section, std::size_t available, std::size_t size,
                       const std::int64_t* sizes, std::size_t dimensions, bool predicted,
                       bool with_factors, const Parallel& parallel, FixedSource& source,
                       const PastFactors* past = nullptr);

// Decodes the elements of the live matrix into `words`. ok or bad_stream.
Status decode_fixed(const FixedSource& source, FloatFormat format, const Product& product,
                    void* words, const Parallel& parallel);

}  // namespace lmgc
