// Sections of methods scale and lowrank, alone, after a past frame and next to a reference: any
// bytes.
#include "../core/stream_cases.h"
#include "core/fixed_section.h"
#include "core/integer_product.h"
#include "fixed_mutator.h"
#include "fuzz_tensors.h"

namespace {

using namespace lmgc;
using fuzz::require;

// Factors of a past frame that may fit tensors of this shape.
PastFactors some_past(const MatrixShape& shape, bool by_dimension_1) {
  PastFactors past{by_dimension_1, 16, {}, {}};
  const auto fill = [&](PastFactor& factor, std::int64_t lines) {
    for (std::int64_t i = 0; i < lines * past.rank; ++i)
      factor.entries.push_back(static_cast<std::int32_t>(i * 37 % 201 - 100));
    for (std::int64_t i = 0; i < lines; ++i)
      factor.weights.push_back(static_cast<std::int16_t>(i % 5));
  };
  fill(past.u, shape.rows);
  fill(past.v, shape.columns);
  return past;
}

// What a caller knows of a section.
struct Announced {
  explicit Announced(fuzz::FuzzBytes& input)
      : format(fuzz::take_float_format(input)),
        sizes(fuzz::take_sizes(input)),
        flags(input.take<std::uint8_t>()),
        referred(input.take<std::uint8_t>()) {}
  bool predicted() const { return (flags & 1) != 0; }

  FloatFormat format;
  std::vector<std::int64_t> sizes;
  std::uint8_t flags, referred;
};

// What a head that was accepted may have.
void check_digits(const DigitsHead& head, Fraction kind) {
  require(head.mixture.valid(kind), "the mixture is valid");
  require(head.contexts > 0 && head.contexts <= contexts_of(kind), "contexts are of the kind");
}

}  // namespace

// Every other change is one of a part of the section, the rest of which follows it.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::mt19937 random(seed);
  fuzz::FuzzBytes input(data, size);
  const Announced known(input);
  const std::vector<std::uint8_t> section = input.rest();
  fuzz::FixedParts parts;
  if (random() % 2 == 0 || known.sizes.empty() ||
      !parts.open(section, known.sizes, known.predicted()))
    return LLVMFuzzerMutate(data, size, most);
  parts.change(random);
  const std::vector<std::uint8_t> changed = parts.write();
  const std::size_t before = size - section.size();
  if (before + changed.size() > most) return LLVMFuzzerMutate(data, size, most);
  std::copy(changed.begin(), changed.end(), data + before);
  return before + changed.size();
}

// A format, sizes, 1 byte of flags (1: predicted by a product, 2: after a past frame, whose matrix
// is by dimension 4: one), 1 byte of the reference; the section.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzBytes input(data, size);
  const Announced known(input);
  const auto& [format, sizes, flags, referred] = known;
  if (sizes.empty()) return 0;
  const std::vector<std::uint8_t> section = input.rest();

  const bool past_by_dimension_1 = (flags & 4) != 0;
  if (past_by_dimension_1 && !has_dimension_1_view(sizes.data(), sizes.size())) return 0;
  PastFactors factors;
  const PastFactors* past = nullptr;
  if ((flags & 2) != 0) {
    factors = some_past(fixed_shape(sizes.data(), sizes.size(), past_by_dimension_1),
                        past_by_dimension_1);
    past = &factors;
  }
  FixedSource source;
  const Status status =
      read_fixed_part(section.data(), section.size(), section.size(), sizes.data(), sizes.size(),
                      known.predicted(), true, run_serially, source, past);
  if (status != Status::ok) return 0;
  const FixedHead& head = source.head;
  if (source.shape.elements > 0) check_digits(head.residuals, head.fraction());
  if (head.predicted()) {
    check_digits(head.u, head.u_projection.count > 0 ? Fraction::varies : Fraction::middle);
    check_digits(head.v, head.v_projection.count > 0 ? Fraction::varies : Fraction::middle);
  }
  const FixedSizes& parts = source.sizes;
  require(parts.side + parts.digits + parts.escapes + parts.tails == section.size(),
          "the parts are the section");
  if (parts.side > 0) {
    FixedSource part;
    require(
        read_fixed_part(section.data(), parts.side - 1, section.size(), sizes.data(), sizes.size(),
                        known.predicted(), true, run_serially, part, past) != Status::ok,
        "a head that is cut is refused");
  }

  const std::int64_t elements = source.shape.elements;
  const auto reference = fuzz::words_from({referred, section[0]}, true, elements, format);
  if (source.head.reference.is_there) source.head.reference.words = reference.get();
  const Product product = test::product_of(head, source.shape);
  const std::size_t bytes = static_cast<std::size_t>(elements) * format.bytes;
  const auto one = fuzz::filled(bytes, 0xAA), other = fuzz::filled(bytes, 0x55);
  const Status decoded = decode_fixed(source, format, product, one.get(), run_serially);
  const Product fast = head.predicted() ? exact_product(head.low_rank.factors, source.shape.columns,
                                                        source.product_bound, run_serially)
                                        : Product();
  require(decode_fixed(source, format, fast, other.get(), test::run_backwards) == decoded,
          "the status does not depend on how work is shared, nor on how factors are multiplied");
  if (decoded == Status::ok)
    require(std::equal(one.get(), one.get() + bytes, other.get()), "every element is written");
  return 0;
}
