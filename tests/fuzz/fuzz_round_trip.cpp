// Tensors of any words and shapes through encoder and decoder of planes and of the fixed
// serializer, with factors and a reference: what comes back is identical.
#include "../core/stream_cases.h"
#include "core/fixed_section.h"
#include "core/planes.h"
#include "fuzz_bytes.h"

namespace {

using namespace lmgc;
using fuzz::FuzzBytes, fuzz::require;
using Bytes = std::vector<std::uint8_t>;

void planes(const std::uint8_t* words, std::int64_t elements, FloatFormat format) {
  const Bytes section = encode_planes(words, elements, format, run_serially);
  require(encode_planes(words, elements, format, test::run_backwards) == section,
          "planes: the section does not depend on how work is shared");
  require(section.size() <= planes_bound(elements, format), "planes: the bound holds");
  const std::size_t bytes = static_cast<std::size_t>(elements) * format.bytes;
  const auto back = fuzz::filled(bytes, 0xAA);
  require(decode_planes(section.data(), section.size(), elements, format, back.get(),
                        run_serially) == Status::ok,
          "planes: the section decodes");
  require(std::equal(words, words + bytes, back.get()), "planes: bytes come back");
}

// A product of small factors, or of none where no bound holds.
LowRank take_low_rank(FuzzBytes& input, const LiveShape& shape, std::int64_t rank) {
  LowRank low_rank;
  Factors& factors = low_rank.factors;
  factors.rank = std::min({rank, shape.rows, shape.columns});
  if (factors.rank == 0) return {};
  const int shift = input.take<std::uint8_t>() % 24;  // entries stay within most_factor
  const auto seed = input.take<std::uint32_t>();
  const auto entry = [&](std::int64_t i) {
    const auto byte = static_cast<std::int8_t>((seed >> i % 24) + static_cast<std::uint64_t>(i));
    return static_cast<std::int32_t>(byte) * (1 << shift);
  };
  for (std::int64_t c = 0; c < factors.rank; ++c)
    factors.exponents.push_back(input.take<std::int8_t>());
  for (std::int64_t i = 0; i < shape.rows * factors.rank; ++i)
    factors.u.entries.push_back(entry(i));
  for (std::int64_t i = 0; i < shape.columns * factors.rank; ++i)
    factors.v.entries.push_back(entry(i + 7));
  for (std::int64_t i = 0; i < shape.rows; ++i)
    low_rank.row_weights.push_back(static_cast<std::int16_t>(entry(i) >> shift));
  for (std::int64_t i = 0; i < shape.columns; ++i)
    low_rank.column_weights.push_back(static_cast<std::int16_t>(entry(i + 3) >> shift));
  const bool bound = product_bound(factors, run_serially) < std::uint64_t{1} << most_product_bits;
  return bound ? low_rank : LowRank{};
}

void fixed(const std::uint8_t* words, FloatFormat format, const LiveShape& shape, FixedHead head,
           bool may_have_column_scales, const std::vector<std::int64_t>& sizes) {
  const Reference reference = head.reference;
  const bool predicted = head.predicted();
  const Factors factors = head.low_rank.factors;
  const Product product = fuzz::product_of(factors, shape.columns);
  const FixedInput input{words, format, shape, may_have_column_scales};
  const auto encode = [&](const Parallel& parallel) {
    const FixedSection section = encode_fixed(input, head, product, parallel);
    Bytes bytes(section.size());
    section.write(bytes.data());
    return bytes;
  };
  const Bytes section = encode(run_serially);
  require(encode(test::run_backwards) == section,
          "fixed: the section does not depend on how work is shared");
  FixedSource source;
  require(read_fixed(section.data(), section.size(), sizes.data(), sizes.size(), predicted, true,
                     run_serially, source) == Status::ok,
          "fixed: the section reads");
  require(source.head.low_rank.factors.u.entries == factors.u.entries &&
              source.head.low_rank.factors.v.entries == factors.v.entries,
          "fixed: factors come back");
  require(source.head.reference.is_there == reference.is_there &&
              (!reference.is_there || source.head.reference.factor == reference.factor),
          "fixed: the reference comes back");
  source.head.reference.words = reference.words;
  const std::size_t bytes = static_cast<std::size_t>(shape.elements) * format.bytes;
  const auto back = fuzz::filled(bytes, 0xAA);
  require(decode_fixed(source, format, product, back.get(), run_serially) == Status::ok,
          "fixed: the section decodes");
  require(std::equal(words, words + bytes, back.get()), "fixed: bytes come back");
}

}  // namespace

// A format, sizes, 1 byte of the rank, 1 byte of flags (1: by dimension 1, 2: dead lines, 4: column
// scales, 8: a reference, 16: words of one byte each), 4 bytes of the reference's factor, what
// take_low_rank() takes, the words.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzBytes input(data, size);
  const FloatFormat format = fuzz::take_float_format(input);
  const std::vector<std::int64_t> sizes = fuzz::take_sizes(input);
  const auto rank = input.take<std::uint8_t>() % 4;
  const auto flags = input.take<std::uint8_t>();
  const auto factor = input.take<std::uint32_t>() % (most_delta_factor + 1);
  if (sizes.empty()) return 0;

  FixedHead head;
  head.by_dimension_1 = (flags & 1) != 0 && has_dimension_1_view(sizes.data(), sizes.size());
  const MatrixShape whole = fixed_shape(sizes.data(), sizes.size(), head.by_dimension_1);
  if ((flags & 2) != 0 && !whole.flat) {
    std::vector<bool> rows, columns;
    for (std::int64_t i = 0; i < whole.rows; ++i) rows.push_back(i % 3 == 1);
    for (std::int64_t i = 0; i < whole.columns; ++i) columns.push_back(i % 5 == 2);
    head.dead_rows = FlagRuns(rows);
    head.dead_columns = FlagRuns(columns);
  }
  const LiveShape shape = live_shape(whole, head);
  if (rank > 0 && !whole.flat) head.low_rank = take_low_rank(input, shape, rank);

  const Bytes rest = input.rest();
  const auto words = fuzz::words_from(rest, (flags & 16) != 0, shape.elements, format);
  planes(words.get(), shape.elements, is_short(format) ? FloatFormat{format.bytes, 0, 0} : format);

  // The reference: the same words, later.
  const Bytes later(rest.begin() + static_cast<std::ptrdiff_t>(rest.size() / 16), rest.end());
  const auto reference = fuzz::words_from(later, (flags & 16) != 0, shape.elements, format);
  if ((flags & 8) != 0) head.reference = {true, 7, factor, reference.get()};
  fixed(words.get(), format, shape, head, (flags & 4) != 0 && !whole.flat, sizes);
  return 0;
}
