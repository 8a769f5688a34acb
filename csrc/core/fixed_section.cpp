#include "core/fixed_section.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "core/fixed_blocks.h"
#include "core/fixed_walk.h"
#include "core/residual_scales.h"
#include "core/rice.h"

namespace lmgc {
namespace {

enum Flag : std::uint8_t {
  flag_by_dimension_1 = 1,
  flag_dead_lines = 2,
  flag_column_scales = 4,
  flag_u_row_widths = 8,
  flag_v_row_widths = 16,
};
constexpr std::uint8_t flag_predicted = 32;    // method lm only
constexpr std::uint8_t flag_projections = 64;  // method lowrank only
constexpr std::uint8_t flag_reference = 128;   // not method lm

// ---- encoder ------------------------------------------------------------------------------------

// Scales of predicted lines follow their weights: what is written is how they differ.
std::vector<std::int16_t> less_weights(const std::vector<std::int16_t>& scales,
                                       const std::vector<std::int16_t>& weights) {
  std::vector<std::int16_t> result = scales;
  for (std::size_t i = 0; i < std::min(result.size(), weights.size()); ++i)
    result[i] = static_cast<std::int16_t>(result[i] - quarters_per_octave * weights[i]);
  return result;
}

bool add_weights(std::vector<std::int16_t>& scales, const std::vector<std::int16_t>& weights) {
  for (std::size_t i = 0; i < std::min(scales.size(), weights.size()); ++i) {
    const int sum = scales[i] + quarters_per_octave * weights[i];
    if (sum < INT16_MIN || sum > INT16_MAX) return false;
    scales[i] = static_cast<std::int16_t>(sum);
  }
  return true;
}

}  // namespace

void write_fixed_side(const FixedHead& head, bool with_prior, ByteWriter& out) {
  const Factors& factors = head.low_rank.factors;
  const bool dead = !head.dead_rows.empty();
  out.fixed(static_cast<std::uint8_t>(
      (head.by_dimension_1 ? flag_by_dimension_1 : 0) | (dead ? flag_dead_lines : 0) |
      (head.has_column_scales ? flag_column_scales : 0) |
      (factors.u.row_widths.empty() ? 0 : flag_u_row_widths) |
      (factors.v.row_widths.empty() ? 0 : flag_v_row_widths) |
      (with_prior && head.predicted() ? flag_predicted : 0) |
      (head.projected() ? flag_projections : 0) | (head.reference.is_there ? flag_reference : 0)));
  if (head.predicted()) out.varint(static_cast<std::uint64_t>(factors.rank));
  if (head.projected()) {
    out.varint(static_cast<std::uint64_t>(head.u_projection.count));
    out.varint(static_cast<std::uint64_t>(head.v_projection.count));
  }
  if (head.reference.is_there) {
    out.fixed(head.reference.checksum);
    out.fixed(head.reference.factor);
  }
  BitWriter side;
  if (dead) {
    write_flags(side, head.dead_rows);
    write_flags(side, head.dead_columns);
  }
  if (head.predicted()) {
    write_line(side, head.low_rank.row_weights);
    write_line(side, head.low_rank.column_weights);
    write_line(side, factors.exponents);
    for (const Factor* factor : {&factors.u, &factors.v}) {
      write_line(side, factor->column_widths);
      write_line(side, factor->row_widths);
    }
  }
  for (const Projection* projection : {&head.u_projection, &head.v_projection})
    if (projection->count > 0) write_projection(side, *projection);
  write_line(side, less_weights(head.scales.rows, head.low_rank.row_weights));
  write_line(side, less_weights(head.scales.columns, head.low_rank.column_weights));
  const std::vector<std::uint8_t> bits = side.take();
  out.varint(bits.size());
  out.bytes(bits.data(), bits.size());
}

std::vector<std::uint8_t> write_fixed_head(const FixedHead& head) {
  ByteWriter out;
  write_fixed_side(head, false, out);
  write_factor_heads(head, out);
  if (!head.residuals.blocks.empty()) write_digits_head(head.residuals, out);
  return out.take();
}

bool has_dimension_1_view(const std::int64_t* sizes, std::size_t dimensions) {
  return dimensions > 2 && !matrix_shape(sizes, dimensions).flat && sizes[1] > 1;
}

MatrixShape fixed_shape(const std::int64_t* sizes, std::size_t dimensions, bool by_dimension_1) {
  MatrixShape shape = matrix_shape(sizes, dimensions);
  if (by_dimension_1) {
    shape.rows = sizes[1];
    shape.columns = shape.elements / shape.rows;
  }
  return shape;
}

LiveShape live_shape(const MatrixShape& shape, const FixedHead& head) {
  if (head.dead_rows.empty()) return {shape.elements, shape.rows, shape.columns};
  const std::int64_t rows = head.dead_rows.clear(), columns = head.dead_columns.clear();
  return {rows * columns, rows, std::max<std::int64_t>(columns, 1)};
}

// ---- encoder ------------------------------------------------------------------------------------

std::size_t FixedSection::size() const {
  return head_bytes.size() + static_cast<std::size_t>(factors.body_size() + residuals.body_size());
}

void FixedSection::write(std::uint8_t* out) const {
  std::memcpy(out, head_bytes.data(), head_bytes.size());
  residuals.write_body(factors.write_body(out + head_bytes.size()));
}

std::int32_t scale_floor(FloatFormat plain_format) {
  const FixedFormat format(plain_format);
  return levels_per_octave * (format.least - format.mantissa);
}

FixedSection encode_fixed(const FixedInput& input, FixedHead head, const Product& product,
                          const Parallel& parallel) {
  FixedSection section;
  if (input.shape.elements == 0) {
    section.head_bytes = write_fixed_head(head);
    section.head = std::move(head);
    return section;
  }
  section.factors = code_factors(input.shape, input.past, head, parallel);
  {
    const auto levels = std::make_unique_for_overwrite<std::int16_t[]>(
        static_cast<std::size_t>(input.shape.elements));
    find_levels(input, head, product, levels.get(), parallel);
    const ResidualMatrix matrix{levels.get(), input.shape.elements, input.shape.rows,
                                input.shape.columns, scale_floor(input.format)};
    head.scales =
        residual_scales(matrix, input.may_have_column_scales, head.has_column_scales, parallel);
  }
  std::vector<DigitsBlock> blocks = split_blocks(input, head, product, parallel);
  section.residuals = code_digits(blocks, head.fraction(), parallel);
  head.residuals = section.residuals.head;
  section.head_bytes = write_fixed_head(head);
  section.head = std::move(head);
  return section;
}

// ---- decoder ------------------------------------------------------------------------------------

Status read_fixed(const std::uint8_t* section, std::size_t size, const std::int64_t* sizes,
                  std::size_t dimensions, bool predicted, bool with_factors,
                  const Parallel& parallel, FixedSource& source, const PastFactors* past) {
  return read_fixed_part(section, size, size, sizes, dimensions, predicted, with_factors, parallel,
                         source, past);
}

Status read_fixed_side(ByteReader& in, const std::int64_t* sizes, std::size_t dimensions,
                       FixedMethod method, FixedSource& source) {
  FixedHead& head = source.head;
  const auto flags = in.fixed<std::uint8_t>();
  if (!in.ok()) return Status::truncated;
  const int lowrank_flags = flag_u_row_widths | flag_v_row_widths;
  const int known_flags = flag_by_dimension_1 | flag_dead_lines | flag_column_scales |
                          (method == FixedMethod::scale ? 0 : lowrank_flags) |
                          (method == FixedMethod::lm ? flag_predicted : 0) |
                          (method == FixedMethod::lowrank ? flag_projections : 0) |
                          (method == FixedMethod::lm ? 0 : flag_reference);
  if ((flags & ~known_flags) != 0) return Status::bad_section;
  const bool predicted = method == FixedMethod::lowrank || (flags & flag_predicted) != 0;
  if (!predicted && (flags & lowrank_flags) != 0) return Status::bad_section;
  const std::uint64_t rank = predicted ? in.varint() : 0;
  const bool projected = (flags & flag_projections) != 0;
  const std::uint64_t u_count = projected ? in.varint() : 0;
  const std::uint64_t v_count = projected ? in.varint() : 0;
  head.reference.is_there = (flags & flag_reference) != 0;
  if (head.reference.is_there) {
    head.reference.checksum = in.fixed<std::uint32_t>();
    head.reference.factor = in.fixed<std::uint32_t>();
    if (head.reference.factor > most_delta_factor) return Status::bad_section;
  }
  const std::uint64_t side_size = in.varint();
  const std::uint8_t* const side_bytes = in.bytes(side_size);
  if (!in.ok()) return Status::truncated;
  head.by_dimension_1 = (flags & flag_by_dimension_1) != 0;
  if (head.by_dimension_1 && !has_dimension_1_view(sizes, dimensions)) return Status::bad_section;
  const MatrixShape shape = fixed_shape(sizes, dimensions, head.by_dimension_1);
  if (shape.flat && ((flags & ~flag_reference) != 0 || predicted)) return Status::bad_section;

  // Every line takes a bit at least, and every run of lines that are flagged.
  const std::uint64_t bits = 8 * side_size;
  BitReader side(side_bytes, static_cast<std::size_t>(side_size));
  if ((flags & flag_dead_lines) != 0) {
    if (!read_flags(side, shape.rows, head.dead_rows) ||
        !read_flags(side, shape.columns, head.dead_columns))
      return Status::bad_section;
  }
  source.shape = live_shape(shape, head);
  if (source.shape.elements == 0) {
    // A tensor of zeros: there is nothing more.
    source.sizes = {in.position(), 0, 0, 0};
    const bool nothing = !head.has_prediction() && side.only_padding_left();
    return nothing ? Status::ok : Status::bad_section;
  }
  head.has_column_scales = (flags & flag_column_scales) != 0;
  const auto rows = static_cast<std::uint64_t>(source.shape.rows);
  const auto columns = static_cast<std::uint64_t>(source.shape.columns);
  if (rows + (head.has_column_scales ? columns : 0) > bits) return Status::bad_section;
  Factors& factors = head.low_rank.factors;
  if (predicted) {
    if (rank == 0 || rank > std::min(rows, columns) || rows + columns + 3 * rank > bits)
      return Status::bad_section;
    factors.rank = static_cast<std::int64_t>(rank);
    head.low_rank.row_weights.resize(static_cast<std::size_t>(rows));
    head.low_rank.column_weights.resize(static_cast<std::size_t>(columns));
    factors.exponents.resize(static_cast<std::size_t>(rank));
    factors.u.column_widths.resize(static_cast<std::size_t>(rank));
    factors.v.column_widths.resize(static_cast<std::size_t>(rank));
    if ((flags & flag_u_row_widths) != 0) factors.u.row_widths.resize(rows);
    if ((flags & flag_v_row_widths) != 0) factors.v.row_widths.resize(columns);
    if (!read_line(side, head.low_rank.row_weights) ||
        !read_line(side, head.low_rank.column_weights) || !read_line(side, factors.exponents) ||
        !read_line(side, factors.u.column_widths) || !read_line(side, factors.u.row_widths) ||
        !read_line(side, factors.v.column_widths) || !read_line(side, factors.v.row_widths))
      return Status::bad_section;
  }
  if (projected) {
    // Every past component has a width.
    if (u_count + v_count == 0 || u_count > rows / 2 || v_count > columns / 2 ||
        u_count + v_count > bits)
      return Status::bad_section;
    head.u_projection.count = static_cast<std::int64_t>(u_count);
    head.v_projection.count = static_cast<std::int64_t>(v_count);
    for (Projection* projection : {&head.u_projection, &head.v_projection})
      if (projection->count > 0 && !read_projection(side, factors.rank, *projection))
        return Status::bad_section;
  }
  head.scales.rows.resize(static_cast<std::size_t>(rows));
  head.scales.columns.resize(static_cast<std::size_t>(head.has_column_scales ? columns : 0));
  if (!read_line(side, head.scales.rows) || !read_line(side, head.scales.columns) ||
      !side.only_padding_left() || !add_weights(head.scales.rows, head.low_rank.row_weights) ||
      !add_weights(head.scales.columns, head.low_rank.column_weights))
    return Status::bad_section;
  return Status::ok;
}

Status read_fixed_part(const std::uint8_t* section, std::size_t available, std::size_t size,
                       const std::int64_t* sizes, std::size_t dimensions, bool predicted,
                       bool with_factors, const Parallel& parallel, FixedSource& source,
                       const PastFactors* past) {
  ByteReader in(section, available);
  FixedHead& head = source.head;
  Status status = read_fixed_side(in, sizes, dimensions,
                                  predicted ? FixedMethod::lowrank : FixedMethod::scale, source);
  if (status != Status::ok) return status;
  if (source.shape.elements == 0) return in.position() == size ? Status::ok : Status::bad_section;
  const Factors& factors = head.low_rank.factors;
  status = read_factor_heads(in, source.shape, head);
  const auto elements = static_cast<std::uint64_t>(source.shape.elements);
  if (status == Status::ok)
    status = read_digits_head(in, elements, head.fraction(), head.residuals);
  if (status != Status::ok) return status;

  const FactorBodies bodies = find_factor_bodies(in, source.shape, head);
  if (!in.ok()) return Status::truncated;
  source.sizes.side = in.position();
  source.residuals = section + source.sizes.side;
  const std::uint64_t body = head.residuals.body_size(elements), left = size - source.sizes.side;
  if (body != left) return body > left ? Status::truncated : Status::bad_section;
  for (const DigitsBlockSize& block : head.residuals.blocks) {
    source.sizes.escapes += block.escapes;
    source.sizes.tails += block.tails;
  }
  source.sizes.digits = size - source.sizes.side - source.sizes.escapes - source.sizes.tails;
  if (!predicted || !with_factors) return Status::ok;

  status = decode_factors(bodies, source.shape, past, head, parallel);
  if (status != Status::ok) return status;
  source.product_bound = product_bound(factors, parallel);
  return source.product_bound < std::uint64_t{1} << most_product_bits ? Status::ok
                                                                      : Status::bad_section;
}

Status decode_fixed(const FixedSource& source, FloatFormat format, const Product& product,
                    void* words, const Parallel& parallel) {
  if (source.shape.elements == 0) return Status::ok;
  DigitsDecoder decoder;
  decoder.open(source.head.residuals, source.residuals,
               static_cast<std::uint64_t>(source.shape.elements), source.head.fraction(), parallel);
  std::atomic<bool> good{true};
  for_each_block(
      source.shape, product, parallel,
      [&](std::int64_t number, std::int64_t first, std::int64_t count,
          const std::int64_t* predictions) {
        if (!decode_block(source, format, decoder, number, first, count, predictions, words))
          good = false;
      });
  return good ? Status::ok : Status::bad_stream;
}

}  // namespace lmgc
