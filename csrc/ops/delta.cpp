#include "ops/delta.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "ops/checksum.h"
#include "ops/error.h"
#include "ops/fixed_view.h"
#include "ops/low_rank.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t most_samples = 1 << 16;
constexpr double least_gain = 0.05;  // bits an element for a factor that is not 1
// Of the bits without a product: what a product saves by an estimate that is not that wrong.
constexpr double clear_gain = 0.1;

// log2 of how far elements lie from multiples of their references, on average.
double distance(const at::Tensor& values, const at::Tensor& references, double factor) {
  const at::Tensor ulp = values.abs().mul_(1e-7).add_(1e-300);
  return (values - references * factor).abs_().add_(ulp).log2_().mean().item<double>();
}

// What elements are of their references, in 65536ths: the second moment of an optimiser shrinks by
// the same factor everywhere.
std::uint32_t factor_of(const at::Tensor& values, const at::Tensor& references) {
  const std::int64_t count = std::min(values.numel(), most_samples);
  const at::Tensor places = at::arange(count, at::kLong).mul_(values.numel()).div_(count, "floor");
  const auto pick = [&](const at::Tensor& from) {
    return from.reshape({-1}).index_select(0, places).to(at::kDouble);
  };
  at::Tensor own = pick(values), other = pick(references);
  const at::Tensor usable = own.isfinite().logical_and_(other.isfinite()).logical_and_(other.ne(0));
  own = own.masked_select(usable);
  other = other.masked_select(usable);
  if (own.numel() == 0) return delta_one;
  const double ratio = (own / other).median().item<double>();
  if (!(ratio > 0.25) || !(ratio < 1.9)) return delta_one;
  const auto factor = static_cast<std::uint32_t>(std::lrint(ratio * delta_one));
  const double exact = static_cast<double>(factor) / delta_one;
  const bool pays = distance(own, other, exact) + least_gain < distance(own, other, 1.0);
  return pays ? factor : delta_one;
}

at::Tensor wide(const at::Tensor& words, FloatFormat format) {
  return words.view(float_type(format)).to(format.bytes == 8 ? at::kDouble : at::kFloat);
}

}  // namespace

DeltaPlan plan_delta(const at::Tensor& bytes, const at::Tensor& reference, FloatFormat format,
                     Spare spare, const std::vector<std::int64_t>& sizes,
                     const SearchLimits* limits) {
  DeltaPlan plan;
  plan.checksum = static_cast<std::uint32_t>(checksum_of(reference));
  const at::Tensor own = wide(bytes.view(word_type(format)), format);
  const at::Tensor other = wide(reference.view(word_type(format)), format);
  plan.factor = factor_of(own, other);
  if (limits == nullptr || matrix_shape(sizes.data(), sizes.size()).flat) return plan;
  const at::Tensor difference = own - other * (static_cast<double>(plan.factor) / delta_one);
  std::vector<View> views;
  for (const bool by_dimension_1 : {false, true}) {
    if (by_dimension_1 && !has_dimension_1_view(sizes.data(), sizes.size())) break;
    const FixedView view = view_of(bytes, format, sizes, by_dimension_1);
    if (view.shape.elements == 0) break;
    const FloatFormat as_float = float_format(format.bytes == 8 ? DType::float64 : DType::float32);
    views.push_back({live_words(difference.view(at::kByte), as_float, sizes, view.head)
                         .view(float_type(as_float)),
                     wide(view.live, format)});
  }
  LowRankFit fit = fit_low_rank(views, shortened(format, spare), *limits);
  plan.fixed.by_dimension_1 = fit.view == 1;
  plan.clearly = fit.bits < (1 - clear_gain) * fit.bits_without;
  plan.fixed.low_rank = std::move(fit.low_rank);
  return plan;
}

FixedResult encode_delta_section(const at::Tensor& bytes, const at::Tensor& reference,
                                 FloatFormat format, Spare spare,
                                 const std::vector<std::int64_t>& sizes, const DeltaPlan& plan) {
  const auto encoded = [&](const FixedPlan& fixed) {
    FixedView view = view_of(bytes, format, sizes, fixed.by_dimension_1);
    view.live = shorten_words(view.live, format, spare);
    if (view.shape.elements == 0)
      return encode_view(view, shortened(format, spare), false, {}, nullptr);
    view.head.reference = {true, plan.checksum, plan.factor, nullptr};
    const at::Tensor words =
        shorten_words(live_words(reference, format, sizes, view.head), format, spare);
    view.head.reference.words = words.data_ptr();
    const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
    return encode_view(view, shortened(format, spare), !flat, fixed, nullptr);
  };
  if (plan.fixed.low_rank.factors.rank == 0) return encoded({});
  FixedResult with = encoded(plan.fixed);
  if (plan.clearly) return with;
  FixedResult without = encoded({});
  return with.section.size < without.section.size ? with : without;
}

at::Tensor attach_reference(const at::Tensor& reference, FloatFormat format, Spare spare,
                            const std::vector<std::int64_t>& sizes, const std::string& where,
                            FixedHead& head) {
  LMGC_CHECK_REFERENCE(reference.defined(), where,
                       ": was compressed relative to a reference; pass the same one to decompress");
  const bool same = static_cast<std::uint32_t>(checksum_of(reference)) == head.reference.checksum;
  LMGC_CHECK_REFERENCE(same, where, ": was compressed relative to another reference than this one");
  const at::Tensor words = shorten_words(live_words(reference, format, sizes, head), format, spare);
  head.reference.words = words.data_ptr();
  return words;
}

}  // namespace lmgc::ops
