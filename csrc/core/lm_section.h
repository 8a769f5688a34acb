// Method `lm`: sections of the `fixed` serializer whose symbols (residuals, and the entries of the
// factors) are coded by a language model in lanes, instead of by static tables. docs/format.md,
// section 12, specifies the bytes.
//
// A section consists of up to three *streams*, each a matrix of symbols and their tails: the
// factors u and v, and the residuals, whose predictions need the factors. Streams of many tensors
// go through the coder together, so what goes before and after it is apart from it here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/digit_coder.h"
#include "core/fixed_section.h"

namespace lmgc {

// ---- encoder ------------------------------------------------------------------------------------

struct DigitStream {
  DigitGeometry geometry;
  std::vector<Known> known;
  std::vector<std::uint8_t> symbols;
  std::vector<std::vector<std::uint8_t>> tails;  // of each block of rans::block_symbols symbols
};

// Columns between neighbouring channels of a tensor: the size of a convolution's kernel, else 1.
std::int64_t taps_of(const std::int64_t* sizes, std::size_t dimensions);

// The entries of a factor, component after component. The factor has its widths.
DigitStream factor_stream(const Factor& factor, std::int64_t lines, std::int64_t rank,
                          std::int64_t taps, const Parallel& parallel);
// `head` has scales and low_rank. `flat` as MatrixShape says.
DigitStream residual_stream(const FixedInput& input, const FixedHead& head, std::int64_t taps,
                            bool flat, const Product& product, const Parallel& parallel);

// How many symbols a lane should have: about `wish` (0: chosen here), whole rows where they fit, at
// most most_lane_elements.
std::int64_t lane_elements_of(std::int64_t columns, std::int64_t wish);

// Cuts a matrix into lanes.
void append_digit_lanes(std::int32_t matrix, std::int64_t elements, std::int64_t lane_elements,
                        std::vector<DigitLane>& lanes);

// A stream, coded.
struct CodedDigitStream {
  std::int64_t lane_elements = 0;
  std::vector<CodedLane> lanes;
  std::vector<std::vector<std::uint8_t>> tails;
};

// `streams`: u, v and residuals, or residuals alone, or none (a tensor of zeros).
std::vector<std::uint8_t> write_lm_section(const FixedHead& head,
                                           const std::vector<CodedDigitStream>& streams);

// ---- decoder ------------------------------------------------------------------------------------

struct StreamSource {
  std::int64_t elements = 0, lane_elements = 0;
  std::vector<LaneBytes> lanes, tails;  // within the section
};

struct LmSource {
  FixedSource fixed;  // head (factors without entries, no digits) and shape
  StreamSource u, v, residuals;
  std::uint64_t side = 0;  // bytes before the bodies of the streams
};

// Reads the untrusted bytes of a section: ok, truncated, bad_section. On ok all lanes and tails lie
// inside the section, lane sizes allow for their symbols, and memory for everything is below a
// small multiple of the tensor's and the section's bytes.
Status read_lm(const std::uint8_t* section, std::size_t size, const std::int64_t* sizes,
               std::size_t dimensions, LmSource& source);

// What is known of a factor's entries before they are decoded; widths are set.
std::vector<Known> factor_known(const Factor& factor, std::int64_t lines, std::int64_t rank,
                                const Parallel& parallel);
// Entries from decoded symbols and untrusted tails: ok or bad_stream.
Status join_factor(const std::uint8_t* symbols, const std::vector<LaneBytes>& tails,
                   std::int64_t lines, std::int64_t rank, Factor& factor, const Parallel& parallel);

std::vector<Known> residual_known(const FixedSource& source, FloatFormat format,
                                  const Product& product, const Parallel& parallel);
// Writes the live matrix: ok or bad_stream.
Status join_residuals(const FixedSource& source, FloatFormat format, const std::uint8_t* symbols,
                      const std::vector<LaneBytes>& tails, const Product& product, void* words,
                      const Parallel& parallel);

}  // namespace lmgc
