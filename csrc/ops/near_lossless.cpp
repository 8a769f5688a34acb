// Operators that round floats to fewer bits: core/near_lossless.h says how.
#include "core/near_lossless.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>

#include "ops/dtype.h"
#include "ops/for_each.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t grain = 1 << 14;

FloatFormat format_of(const at::Tensor& tensor) {
  const FloatFormat format = float_format(dtype_of(tensor.scalar_type()));
  TORCH_CHECK_VALUE(format.is_float(), "only floats of 16 to 64 bits can be rounded, not ",
                    tensor.scalar_type());
  return format;
}

at::Tensor round_mantissas(const at::Tensor& tensor, std::int64_t bits, bool is_bound) {
  const at::Tensor data = plain(tensor.detach(), "the tensor");
  const c10::DeviceGuard guard(data.device());
  const FloatFormat format = format_of(data);
  TORCH_CHECK_VALUE(bits >= 0, "bits is ", bits, ": it must not be negative");
  const at::Tensor out = at::empty_like(data);
  const auto kept = static_cast<std::int32_t>(std::min<std::int64_t>(bits, format.mantissa_bits));
  const RoundMantissas job{data.const_data_ptr(), out.data_ptr(), format, kept, is_bound};
  for_each(data.device(), data.numel(), job, grain);
  return out;
}

at::Tensor round_to_powers(const at::Tensor& tensor, const at::Tensor& exponents,
                           std::int64_t block) {
  const at::Tensor data = plain(tensor.detach(), "the tensor");
  const c10::DeviceGuard guard(data.device());
  const FloatFormat format = format_of(data);
  const std::int64_t columns = data.dim() == 0 ? 1 : data.size(-1);
  TORCH_CHECK_VALUE(block >= 1, "block is ", block, ": it must be positive");
  TORCH_CHECK_VALUE(exponents.scalar_type() == at::kInt && exponents.device() == data.device(),
                    "exponents must be int32 on the device of the tensor");
  const at::Tensor out = at::empty_like(data);
  if (data.numel() == 0) return out;
  const at::Tensor powers = exponents.contiguous();
  // One power for the whole tensor, or one for each block of each row.
  const bool one = powers.numel() == 1;
  const std::int64_t blocks = (columns + block - 1) / block;
  TORCH_CHECK_VALUE(one || powers.numel() == data.numel() / columns * blocks, "there are ",
                    powers.numel(), " exponents for ", data.numel() / columns, " rows of ", blocks,
                    " blocks");
  const RoundToPowers job{data.const_data_ptr(),
                          out.data_ptr(),
                          format,
                          powers.const_data_ptr<std::int32_t>(),
                          one ? data.numel() : columns,
                          one ? data.numel() : block};
  for_each(data.device(), data.numel(), job, grain);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lmgc, m) {
  m.set_python_module("lmgc_torch._fake");
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("round_mantissas(Tensor tensor, int bits, bool is_bound=False) -> Tensor", tags);
  m.def("round_to_powers(Tensor tensor, Tensor exponents, int block) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(lmgc, CompositeExplicitAutograd, m) {
  m.impl("round_mantissas", round_mantissas);
  m.impl("round_to_powers", round_to_powers);
}

}  // namespace lmgc::ops
