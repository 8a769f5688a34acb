#include "ops/dtype.h"

#include <ATen/ATen.h>

#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cstring>

#include "ops/for_each.h"

// torch 2.7 brought float8_e8m0fnu.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 7)
#define LMGC_TORCH_HAS_E8M0 1
#endif

namespace lmgc::ops {
namespace {

// A view made by hand: at::Tensor's own ones go through the dispatcher several times.
at::Tensor byte_view(const at::Tensor& tensor, std::int64_t first, std::int64_t size) {
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(tensor.storage()),
      c10::DispatchKeySet(tensor.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU),
      caffe2::TypeMeta::Make<std::uint8_t>());
  view.unsafeGetTensorImpl()->set_storage_offset(first);
  view.unsafeGetTensorImpl()->set_sizes_contiguous({size});
  return view;
}

}  // namespace

DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return DType::float16;
    case at::kBFloat16:
      return DType::bfloat16;
    case at::kFloat:
      return DType::float32;
    case at::kDouble:
      return DType::float64;
    case at::kByte:
      return DType::uint8;
    case at::kChar:
      return DType::int8;
    case at::kShort:
      return DType::int16;
    case at::kInt:
      return DType::int32;
    case at::kLong:
      return DType::int64;
    case at::kBool:
      return DType::bool8;
    case at::kComplexHalf:
      return DType::complex32;
    case at::kComplexFloat:
      return DType::complex64;
    case at::kComplexDouble:
      return DType::complex128;
    case at::kUInt16:
      return DType::uint16;
    case at::kUInt32:
      return DType::uint32;
    case at::kUInt64:
      return DType::uint64;
    case at::kFloat8_e4m3fn:
      return DType::float8_e4m3fn;
    case at::kFloat8_e5m2:
      return DType::float8_e5m2;
    case at::kFloat8_e4m3fnuz:
      return DType::float8_e4m3fnuz;
    case at::kFloat8_e5m2fnuz:
      return DType::float8_e5m2fnuz;
#ifdef LMGC_TORCH_HAS_E8M0
    case at::kFloat8_e8m0fnu:
      return DType::float8_e8m0fnu;
#endif
    default:
      TORCH_CHECK_VALUE(false, "lmgc has no element type for ", at::toString(type),
                        "; it has the float (8 to 64 bits), integer, bool and complex types");
  }
}

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return at::kHalf;
    case DType::bfloat16:
      return at::kBFloat16;
    case DType::float32:
      return at::kFloat;
    case DType::float64:
      return at::kDouble;
    case DType::uint8:
      return at::kByte;
    case DType::int8:
      return at::kChar;
    case DType::int16:
      return at::kShort;
    case DType::int32:
      return at::kInt;
    case DType::int64:
      return at::kLong;
    case DType::bool8:
      return at::kBool;
    case DType::complex32:
      return at::kComplexHalf;
    case DType::complex64:
      return at::kComplexFloat;
    case DType::complex128:
      return at::kComplexDouble;
    case DType::uint16:
      return at::kUInt16;
    case DType::uint32:
      return at::kUInt32;
    case DType::uint64:
      return at::kUInt64;
    case DType::float8_e4m3fn:
      return at::kFloat8_e4m3fn;
    case DType::float8_e5m2:
      return at::kFloat8_e5m2;
    case DType::float8_e4m3fnuz:
      return at::kFloat8_e4m3fnuz;
    case DType::float8_e5m2fnuz:
      return at::kFloat8_e5m2fnuz;
    case DType::float8_e8m0fnu:
#ifdef LMGC_TORCH_HAS_E8M0
      return at::kFloat8_e8m0fnu;
#else
      break;
#endif
  }
  TORCH_CHECK_VALUE(false, "torch ", TORCH_VERSION, " has no element type ", name(dtype));
}

at::Tensor plain(const at::Tensor& tensor, const char* what) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, what, " has layout ", tensor.layout(),
                    ": lmgc works on dense tensors");
  check_device(tensor.device(), what);
  dtype_of(tensor.scalar_type());
  // What needs nothing goes past the dispatcher, which takes longer than to code a small tensor.
  if (!tensor.is_conj() && !tensor.is_neg() && tensor.is_contiguous()) return tensor;
  return tensor.resolve_conj().resolve_neg().contiguous();
}

at::Tensor bytes_of(const at::Tensor& tensor) {
  const auto width = static_cast<std::int64_t>(tensor.element_size());
  return byte_view(tensor, width * tensor.storage_offset(), width * tensor.numel());
}

at::Tensor part_of(const at::Tensor& bytes, std::int64_t first, std::int64_t size) {
  return byte_view(bytes, bytes.storage_offset() + first, size);
}

void copy_bytes(const at::Tensor& from, const at::Tensor& to) {
  if (!from.is_cpu()) {
    to.copy_(from);
    return;
  }
  const auto* const source = static_cast<const std::uint8_t*>(from.data_ptr());
  auto* const target = static_cast<std::uint8_t*>(to.data_ptr());
  for_each_range(from.numel(), 1 << 18, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(target + begin, source + begin, static_cast<std::size_t>(end - begin));
  });
}

}  // namespace lmgc::ops
