#include "core/fixed_factors.h"

#include <algorithm>

#include "core/fixed_section.h"

namespace lmgc {

PastFactors past_factors(const FixedHead& head, const MatrixShape& shape) {
  const Factors& factors = head.low_rank.factors;
  PastFactors past;
  past.by_dimension_1 = head.by_dimension_1;
  past.rank = factors.rank;
  if (past.rank == 0) return past;
  const auto spread = [&](const Factor& factor, const std::vector<std::int16_t>& weights,
                          const FlagRuns& dead, std::int64_t lines) {
    if (dead.empty()) return PastFactor{factor.entries, weights};
    PastFactor all{std::vector<std::int32_t>(static_cast<std::size_t>(lines * past.rank)),
                   std::vector<std::int16_t>(static_cast<std::size_t>(lines))};
    auto from = factor.entries.begin();
    auto weight = weights.begin();
    dead.for_each_clear([&](std::int64_t line) {
      std::copy_n(from, past.rank, all.entries.begin() + line * past.rank);
      from += past.rank;
      all.weights[static_cast<std::size_t>(line)] = *weight++;
    });
    return all;
  };
  past.u = spread(factors.u, head.low_rank.row_weights, head.dead_rows, shape.rows);
  past.v = spread(factors.v, head.low_rank.column_weights, head.dead_columns, shape.columns);
  return past;
}

std::uint64_t CodedFactors::body_size() const {
  return u_coefficients.body_size() + u.body_size() + v_coefficients.body_size() + v.body_size();
}

std::uint8_t* CodedFactors::write_body(std::uint8_t* out) const {
  for (const CodedDigits* coded : {&u_coefficients, &u, &v_coefficients, &v})
    out = coded->write_body(out);
  return out;
}

namespace {

// The means of a factor's entries, for a head whose projection is of `past`.
bool open_means(const FixedHead& head, bool is_u, const PastFactors* past, const Parallel& parallel,
                EntryMeans& means) {
  if (past == nullptr || past->by_dimension_1 != head.by_dimension_1) return false;
  return means.open(is_u ? head.u_projection : head.v_projection, is_u ? past->u : past->v,
                    past->rank, is_u ? head.dead_rows : head.dead_columns,
                    is_u ? head.low_rank.row_weights : head.low_rank.column_weights, parallel);
}

}  // namespace

CodedFactors code_factors(const LiveShape& shape, const PastFactors* past, FixedHead& head,
                          const Parallel& parallel) {
  CodedFactors coded;
  if (!head.predicted()) return coded;
  const std::int64_t rank = head.low_rank.factors.rank;
  const auto code = [&](bool is_u, Factor& factor, Projection& projection, DigitsHead& digits,
                        CodedDigits& coefficients, CodedDigits& entries) {
    const std::int64_t lines = is_u ? shape.rows : shape.columns;
    EntryMeans means;
    if (projection.count > 0 && !open_means(head, is_u, past, parallel, means)) projection = {};
    const bool projected = projection.count > 0;
    if (projected) {
      choose_projected_widths(means, lines, rank, factor);
      choose_widths(projection.coefficients, projection.components(), projection.count);
      coefficients = code_factor(projection.coefficients, projection.count, nullptr, parallel);
      projection.digits = coefficients.head;
    } else {
      choose_widths(factor, lines, rank);
    }
    entries = code_factor(factor, rank, projected ? &means : nullptr, parallel);
    digits = entries.head;
  };
  Factors& factors = head.low_rank.factors;
  code(true, factors.u, head.u_projection, head.u, coded.u_coefficients, coded.u);
  code(false, factors.v, head.v_projection, head.v, coded.v_coefficients, coded.v);
  return coded;
}

void write_factor_heads(const FixedHead& head, ByteWriter& out) {
  if (!head.predicted()) return;
  if (head.u_projection.count > 0) write_digits_head(head.u_projection.digits, out);
  write_digits_head(head.u, out);
  if (head.v_projection.count > 0) write_digits_head(head.v_projection.digits, out);
  write_digits_head(head.v, out);
}

namespace {

std::uint64_t coefficients_of(const Projection& projection) {
  return static_cast<std::uint64_t>(projection.components() * projection.count);
}
std::uint64_t entries_of(const FixedHead& head, std::int64_t lines) {
  return static_cast<std::uint64_t>(lines * head.low_rank.factors.rank);
}

}  // namespace

Status read_factor_heads(ByteReader& in, const LiveShape& shape, FixedHead& head) {
  if (!head.predicted()) return Status::ok;
  const auto read = [&](std::int64_t lines, Projection& projection, DigitsHead& digits) {
    const bool projected = projection.count > 0;
    if (projected) {
      const Status status =
          read_digits_head(in, coefficients_of(projection), Fraction::middle, projection.digits);
      if (status != Status::ok) return status;
    }
    return read_digits_head(in, entries_of(head, lines), factor_kind(projected), digits);
  };
  const Status status = read(shape.rows, head.u_projection, head.u);
  return status == Status::ok ? read(shape.columns, head.v_projection, head.v) : status;
}

FactorBodies find_factor_bodies(ByteReader& in, const LiveShape& shape, const FixedHead& head) {
  if (!head.predicted()) return {};
  const auto find = [&](const DigitsHead& digits, std::uint64_t symbols) {
    return symbols == 0 ? nullptr : in.bytes(digits.body_size(symbols));
  };
  FactorBodies bodies;
  bodies.u_coefficients = find(head.u_projection.digits, coefficients_of(head.u_projection));
  bodies.u = find(head.u, entries_of(head, shape.rows));
  bodies.v_coefficients = find(head.v_projection.digits, coefficients_of(head.v_projection));
  bodies.v = find(head.v, entries_of(head, shape.columns));
  return bodies;
}

Status decode_factors(const FactorBodies& bodies, const LiveShape& shape, const PastFactors* past,
                      FixedHead& head, const Parallel& parallel) {
  Factors& factors = head.low_rank.factors;
  const auto decode = [&](bool is_u, const std::uint8_t* coefficients, const std::uint8_t* entries,
                          Projection& projection, const DigitsHead& digits, Factor& factor) {
    EntryMeans means;
    const bool projected = projection.count > 0;
    if (projected) {
      const Status status =
          decode_factor(projection.digits, coefficients, projection.components(), projection.count,
                        nullptr, projection.coefficients, parallel);
      if (status != Status::ok) return status;
      if (!open_means(head, is_u, past, parallel, means)) return Status::bad_section;
    }
    return decode_factor(digits, entries, is_u ? shape.rows : shape.columns, factors.rank,
                         projected ? &means : nullptr, factor, parallel);
  };
  const Status status =
      decode(true, bodies.u_coefficients, bodies.u, head.u_projection, head.u, factors.u);
  if (status != Status::ok) return status;
  return decode(false, bodies.v_coefficients, bodies.v, head.v_projection, head.v, factors.v);
}

}  // namespace lmgc
