// The static prior of the `fixed` serializer: the distribution of a residual, in bins, given its
// *context*, which is its scale (*width*) and where in its bin the prediction lies.
//
// All contexts of a stream share one shape, a mixture of Gaussians in units of the width; its
// weights are in the frame, and its tables, in 4096ths, are computed from them in integers. So a
// stream has as many tables as it needs for a dozen bytes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/host_device.h"
#include "core/parallel.h"
#include "core/rans.h"

namespace lmgc {

// ---- symbols ------------------------------------------------------------------------------------

// What a table codes: two hexadecimal digits.
inline constexpr int symbol_escape = 0;      // the symbol stands in the escapes
inline constexpr int symbol_zero = 1;        // +0
inline constexpr int symbol_minus_zero = 2;  // -0
inline constexpr int symbol_origin = 129;    // residual r is the symbol r + 129
inline constexpr int most_residual = 126;    // in both directions

// ---- contexts -----------------------------------------------------------------------------------

// Widths are standard deviations in bins, in quarter octaves: 2^(width / 4).
inline constexpr int most_width = 11;
inline constexpr int least_width = -12;
inline constexpr int most_contexts = 4 + 4 * 2 + 4 * 4 + 12 * 8;

// Where the prediction lies in its bin.
enum class Fraction : std::uint8_t {
  edge,    // at the bin's edge next to zero: there is no prediction
  middle,  // at the bin's middle: residuals are rounded
  varies   // wherever the prediction says; told apart the finer the less wide the residual is
};

// How many parts of a bin are told apart: 1, 2, 4 or 8 (as a power of two).
LMGC_HD constexpr int fraction_bits(int width) {
  return width >= 8 ? 0 : width >= 4 ? 1 : width >= 0 ? 2 : 3;
}

// The context of `width` (clamped to its range) and `fraction` (32nds of a bin, used by `varies`
// only).
LMGC_HD constexpr int context_of(int width, int fraction, Fraction kind) {
  const int clamped = width > most_width ? most_width : width < least_width ? least_width : width;
  const int down = most_width - clamped;
  if (kind != Fraction::varies) return down;
  const int bits = fraction_bits(clamped);
  const int part = fraction >> (5 - bits);
  return (down < 4    ? down
          : down < 8  ? 4 + 2 * (down - 4)
          : down < 12 ? 12 + 4 * (down - 8)
                      : 28 + 8 * (down - 12)) +
         part;
}

// The way back: a context's width, and the prediction's place in its bin in 32nds.
struct ContextShape {
  int width, fraction;
};
LMGC_HD constexpr ContextShape shape_of(int context, Fraction kind) {
  if (kind != Fraction::varies) return {most_width - context, kind == Fraction::middle ? 16 : 0};
  const int bits = context < 4 ? 0 : context < 12 ? 1 : context < 28 ? 2 : 3;
  const int first = bits == 0 ? 0 : bits == 1 ? 4 : bits == 2 ? 12 : 28;
  const int part = (context - first) & ((1 << bits) - 1);
  return {most_width - 4 * bits - ((context - first) >> bits), (2 * part + 1) << (4 - bits)};
}

constexpr int contexts_of(Fraction kind) {
  return kind == Fraction::varies ? most_contexts : most_width - least_width + 1;
}

// ---- mixtures -----------------------------------------------------------------------------------

inline constexpr int mixture_components = 12;
inline constexpr int mixture_one = 255;

// A component is half a Gaussian at +distance and half a one at -distance.
struct MixtureComponent {
  int width;              // its standard deviation, in quarter octaves above the context's
  std::int32_t distance;  // in 2^-14 of its own standard deviations
};
// Around the prediction, narrow to wide; then what flat and two-humped shapes are made of, at 0.5,
// 0.9, 1.3 and 1.7 times the width.
inline constexpr std::array<MixtureComponent, mixture_components> mixture_shape = {{{-10, 0},
                                                                                    {-6, 0},
                                                                                    {-3, 0},
                                                                                    {0, 0},
                                                                                    {3, 0},
                                                                                    {6, 0},
                                                                                    {10, 0},
                                                                                    {15, 0},
                                                                                    {-6, 23170},
                                                                                    {-6, 41706},
                                                                                    {-6, 60242},
                                                                                    {-6, 78778}}};

struct Mixture {
  // In 255ths; they sum to 255.
  std::array<std::uint8_t, mixture_components> weights{};
  // The share of residuals that are not negative, in 254ths: 127 says that the shape is even.
  // Another number only where there is no prediction (Fraction::edge), for tensors of one sign.
  std::uint8_t positive = even;
  static constexpr std::uint8_t even = 127;
  // Frequencies of the two zeros, in 4096ths, the same in every context; together at most
  // most_zero_frequency. A frequency of 0: such zeros are escapes.
  std::uint16_t zero = 0, minus_zero = 0;

  bool valid(Fraction kind) const;
};
inline constexpr int most_zero_frequency = rans::probability_one - 64;

// Symbols counted in each context.
using ContextCounts = std::vector<std::array<std::uint32_t, 256>>;

// The mixture that suits `counts`, by expectation maximisation. Basic operations of IEEE 754 in a
// fixed order: the same everywhere.
Mixture fit_mixture(const ContextCounts& counts, Fraction kind);

// The table of one context of a valid mixture. Residuals that would get less than half of a 4096th
// have no frequency of their own, the escape always has one.
rans::Table mixture_table(const Mixture& mixture, int context, Fraction kind);

// Tables of the contexts [0, contexts).
std::vector<rans::Table> mixture_tables(const Mixture& mixture, int contexts, Fraction kind,
                                        const Parallel& parallel);

}  // namespace lmgc
