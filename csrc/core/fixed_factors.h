// Factors in a section of the `fixed` serializer: coded, decoded, and kept for the frame after it.
// docs/format.md, sections 6.7 and 6.9.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/bytes.h"
#include "core/digits.h"
#include "core/factors.h"
#include "core/parallel.h"
#include "core/predict.h"
#include "core/projection.h"
#include "core/status.h"

namespace lmgc {

struct FixedHead;  // fixed_section.h
struct LiveShape;

// The factors of a section's head, complete, for the frame after it. `shape` is fixed_shape().
PastFactors past_factors(const FixedHead& head, const MatrixShape& shape);

// Both factors, and the coefficients of their projections.
struct CodedFactors {
  CodedDigits u_coefficients, u, v_coefficients, v;

  std::uint64_t body_size() const;
  std::uint8_t* write_body(std::uint8_t* out) const;  // returns where it ends
};

// Codes the factors, if there are any; the head then has their widths and digits' heads. `past` is
// what is known from a past frame, null: nothing. It is for a head with projections: one that does
// not fit it is dropped.
CodedFactors code_factors(const LiveShape& shape, const PastFactors* past, FixedHead& head,
                          const Parallel& parallel);
void write_factor_heads(const FixedHead& head, ByteWriter& out);

// Where the bodies of a section's factors lie.
struct FactorBodies {
  const std::uint8_t *u_coefficients = nullptr, *u = nullptr;
  const std::uint8_t *v_coefficients = nullptr, *v = nullptr;
};

// The untrusted heads of the factors' digits: ok, truncated, bad_section or bad_table. `head` has
// all side information.
Status read_factor_heads(ByteReader& in, const LiveShape& shape, FixedHead& head);
// The bodies, for these heads; in.ok() tells whether they are there.
FactorBodies find_factor_bodies(ByteReader& in, const LiveShape& shape, const FixedHead& head);
// Decodes the entries from untrusted bodies: ok, bad_stream or bad_section, which a head with
// projections is where `past` does not fit it.
Status decode_factors(const FactorBodies& bodies, const LiveShape& shape, const PastFactors* past,
                      FixedHead& head, const Parallel& parallel);

}  // namespace lmgc
