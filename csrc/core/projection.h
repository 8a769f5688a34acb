// The reference predictor of factors: integer combinations of the columns that a past frame's
// factor had predict the columns of this one. Gradients of consecutive steps share the space of
// their singular vectors for long, though not the vectors. docs/format.md, section 6.9, specifies
// it.
//
// A component c of a factor may be *projected*: its entry in line i is predicted by
//
//   sum over j < count of past[i][j] * 2^-norm[j] * coefficient[c][j]
//                         times 2^(step[c] + past weight[i] - own weight[i])
//
// an exact integer times a power of two.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/bits.h"
#include "core/digits.h"
#include "core/factors.h"
#include "core/flag_runs.h"
#include "core/parallel.h"
#include "core/status.h"

namespace lmgc {

// A factor of a past frame, over all lines of the tensor's matrix. Dead lines have entries of zero.
struct PastFactor {
  std::vector<std::int32_t> entries;  // lines x rank
  std::vector<std::int16_t> weights;  // one a line
};

// The prediction that a past frame had for a tensor.
struct PastFactors {
  bool by_dimension_1 = false;
  std::int64_t rank = 0;  // 0: none
  PastFactor u, v;
};

// What is sent of a factor's projection. `count` 0: there is none, and nothing else.
struct Projection {
  std::int64_t count = 0;           // of past components, the first ones; at most half of the lines
  std::vector<bool> projected;      // one a component, some of them set
  std::vector<std::int16_t> steps;  // one a projected component: log2 of its coefficients' unit
  Factor coefficients;              // projected components x count
  DigitsHead digits;                // of the coefficients

  std::int64_t components() const { return static_cast<std::int64_t>(steps.size()); }
};

// log2 of the length of a column, rounded, halves and all in integers: what makes coefficients of
// all columns alike. `rank` is the distance of its entries.
int norm_of(const std::int32_t* column, std::int64_t lines, std::int64_t rank);

// What the projected components are predicted to be.
class EntryMeans {
 public:
  // For a factor whose lines have these weights, and are those of the past one without the dead
  // (empty: none is). False where the two do not fit each other, or no bound holds.
  bool open(const Projection& projection, const PastFactor& past, std::int64_t past_rank,
            const FlagRuns& dead, const std::vector<std::int16_t>& weights,
            const Parallel& parallel);

  // Of entries [first, first + count), line after line, in 64ths; zeros for other components. From
  // any thread.
  void get(std::int64_t first, std::int64_t count, std::int64_t* out) const;

 private:
  Product product_;
  std::vector<std::int32_t> places_;  // of each component among the projected ones; -1: it is none
  std::vector<int> line_shifts_, component_shifts_;
};

// Widths for the entries of a factor that is told relative to `means`, and for the coefficients.
void choose_projected_widths(const EntryMeans& means, std::int64_t lines, std::int64_t rank,
                             Factor& factor);

// The side bits of a projection, whose count is sent elsewhere.
void write_projection(BitWriter& out, const Projection& projection);
// From untrusted bits, for a factor of `rank` components; false where they are impossible.
// projection.count is set, and at least 1. Allocates less than 64 bytes for each bit read.
bool read_projection(BitReader& in, std::int64_t rank, Projection& projection);

}  // namespace lmgc
