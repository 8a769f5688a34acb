// Encoding and decoding of whole sections of method lm, for their tests and for fuzzing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/digit_engine.h"
#include "core/lm_section.h"
#include "digit_cases.h"
#include "section_cases.h"

namespace lmgc::test {

inline const DigitPriorView& prior() {
  static const ReadyPrior ready(PriorCase(16, 16, 1));
  return ready.prior.view();
}

// ---- encoder ------------------------------------------------------------------------------------

// The head with scales and widths, as encoders of method scale or lowrank find them.
inline FixedHead complete_head(const Case& tensor) {
  return encode_fixed(tensor.input(), tensor.head, product_of(tensor.head, tensor.shape),
                      run_serially)
      .head;
}

inline std::vector<DigitStream> streams_of(const Case& tensor, const FixedHead& head,
                                           const Parallel& parallel = run_serially) {
  const Sizes& sizes = tensor.wish.sizes;
  std::vector<DigitStream> streams;
  if (tensor.shape.elements == 0) return streams;
  const std::int64_t taps = taps_of(sizes.data(), sizes.size());
  const Factors& factors = head.low_rank.factors;
  if (head.predicted()) {
    streams.push_back(factor_stream(factors.u, tensor.shape.rows, factors.rank, 1, parallel));
    streams.push_back(factor_stream(factors.v, tensor.shape.columns, factors.rank, taps, parallel));
  }
  const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
  streams.push_back(
      residual_stream(tensor.input(), head, taps, flat, product_of(head, tensor.shape), parallel));
  return streams;
}

inline std::vector<CodedDigitStream> coded(std::vector<DigitStream>& streams, std::int64_t wish,
                                           const Parallel& parallel = run_serially,
                                           int threads = 1) {
  std::vector<DigitMatrix> matrices;
  std::vector<DigitLane> lanes;
  std::vector<CodedDigitStream> result;
  for (DigitStream& stream : streams) {
    const auto elements = static_cast<std::int64_t>(stream.known.size());
    CodedDigitStream own;
    own.lane_elements = lane_elements_of(stream.geometry.columns, wish);
    own.tails = stream.tails;
    append_digit_lanes(static_cast<std::int32_t>(matrices.size()), elements, own.lane_elements,
                       lanes);
    matrices.push_back({stream.geometry, elements, stream.known.data(), stream.symbols.data()});
    result.push_back(std::move(own));
  }
  std::vector<CodedLane> bytes = DigitEngine(prior(), parallel, threads).encode(matrices, lanes);
  for (std::size_t i = 0; i < lanes.size(); ++i)
    result[static_cast<std::size_t>(lanes[i].matrix)].lanes.push_back(std::move(bytes[i]));
  return result;
}

// A section under way: what lies about it is written with write().
struct Encoded {
  Encoded() = default;
  explicit Encoded(const Case& tensor, std::int64_t wish = 0) : head(complete_head(tensor)) {
    std::vector<DigitStream> own = streams_of(tensor, head);
    streams = coded(own, wish);
  }
  Bytes write() const { return write_lm_section(head, streams); }
  FixedHead head;
  std::vector<CodedDigitStream> streams;
};

// ---- decoder ------------------------------------------------------------------------------------

// What read_lm() promises, whatever the bytes are.
inline void expect(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

inline std::vector<std::uint8_t> decode_stream(const DigitGeometry& geometry,
                                               const std::vector<Known>& known,
                                               const StreamSource& stream, const Parallel& parallel,
                                               int threads, const DigitKernels& kernels) {
  std::vector<std::uint8_t> symbols(known.size(), 0x77);
  std::vector<DigitLane> lanes;
  append_digit_lanes(0, stream.elements, stream.lane_elements, lanes);
  expect(lanes.size() == stream.lanes.size(), "there are as many lanes as there should be");
  expect(stream.elements == static_cast<std::int64_t>(known.size()), "all symbols are known of");
  DigitEngine(prior(), parallel, threads, kernels)
      .decode({{geometry, stream.elements, known.data(), symbols.data()}}, lanes, stream.lanes);
  return symbols;
}

inline void check_inside(const StreamSource& stream, const std::uint8_t* section,
                         std::size_t size) {
  for (const auto* const parts : {&stream.lanes, &stream.tails}) {
    for (const LaneBytes& part : *parts) {
      if (part.size == 0) continue;
      expect(part.data >= section && part.size <= size &&
                 static_cast<std::size_t>(part.data - section) <= size - part.size,
             "parts lie inside the section");
    }
  }
}

// Reads a section of a tensor of these sizes, and decodes it into exactly as many bytes as it has.
inline Status decoded(const Bytes& section, const Sizes& sizes, FloatFormat format, Bytes& out,
                      const Parallel& parallel = run_serially, int threads = 1,
                      const DigitKernels& kernels = digit_kernels()) {
  const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[section.size()]);
  std::copy(section.begin(), section.end(), exact.get());
  LmSource source;
  Status status = read_lm(exact.get(), section.size(), sizes.data(), sizes.size(), source);
  if (status != Status::ok) return status;
  FixedSource& fixed = source.fixed;
  const LiveShape& shape = fixed.shape;
  expect(source.side <= section.size(), "the side information is a part of the section");
  for (const StreamSource* const stream : {&source.u, &source.v, &source.residuals})
    check_inside(*stream, exact.get(), section.size());
  out.clear();
  if (shape.elements == 0) return status;
  const std::int64_t taps = taps_of(sizes.data(), sizes.size());
  Factors& factors = fixed.head.low_rank.factors;
  if (factors.rank > 0) {
    const auto factor = [&](Factor& own, const StreamSource& stream, std::int64_t lines,
                            std::int64_t own_taps) {
      const std::vector<Known> known = factor_known(own, lines, factors.rank, parallel);
      const std::vector<std::uint8_t> symbols =
          decode_stream(digit_geometry(lines, own_taps, DigitKind::factor, false), known, stream,
                        parallel, threads, kernels);
      return join_factor(symbols.data(), stream.tails, lines, factors.rank, own, parallel);
    };
    status = factor(factors.u, source.u, shape.rows, 1);
    if (status == Status::ok) status = factor(factors.v, source.v, shape.columns, taps);
    if (status != Status::ok) return status;
    for (const Factor* own : {&factors.u, &factors.v}) {
      for (const std::int32_t entry : own->entries)
        expect(std::abs(std::int64_t{entry}) <= most_factor, "entries can be multiplied");
    }
    if (product_bound(factors, parallel) >= std::uint64_t{1} << most_product_bits)
      return Status::bad_section;
  }
  const Product product = product_of(fixed.head, shape);
  const std::vector<Known> known = residual_known(fixed, format, product, parallel);
  const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
  const std::vector<std::uint8_t> symbols = decode_stream(
      digit_geometry(shape.columns, flat ? 1 : taps,
                     factors.rank > 0 ? DigitKind::predicted : DigitKind::unpredicted, flat),
      known, source.residuals, parallel, threads, kernels);
  const auto size = static_cast<std::size_t>(shape.elements) * format.bytes;
  const std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[size / 8 + 1]);
  status = join_residuals(fixed, format, symbols.data(), source.residuals.tails, product,
                          words.get(), parallel);
  const auto* const first = reinterpret_cast<const std::uint8_t*>(words.get());
  if (status == Status::ok) out.assign(first, first + size);
  return status;
}

inline Status decoded(const Bytes& section, const Case& tensor, Bytes& out) {
  return decoded(section, tensor.wish.sizes, tensor.wish.format, out);
}

inline bool is(const Case& tensor, const Bytes& out) {
  return out.size() == tensor.bytes() &&
         std::memcmp(out.data(), tensor.words.data(), out.size()) == 0;
}

constexpr FloatFormat float32() { return float_format(DType::float32); }

}  // namespace lmgc::test
