// torch.ops.lmgc.context_features: what a prior sees of a tensor, for training priors and looking
// at them.

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "core/predict.h"
#include "ops/dtype.h"
#include "ops/for_each.h"
#include "ops/scales.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

at::Tensor context_features(const at::Tensor& tensor, const std::vector<std::string>& names,
                            std::int64_t lane_elements) {
  TORCH_CHECK_VALUE(lane_elements > 0, "lane_elements must be positive, got ", lane_elements);
  const at::Tensor values = plain(tensor.detach(), "the tensor");
  const FloatFormat format = float_format(dtype_of(values.scalar_type()));
  TORCH_CHECK_VALUE(format.is_float(), "context_features takes a floating-point tensor, got ",
                    values.scalar_type());
  std::vector<Feature> features(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    TORCH_CHECK_VALUE(find_feature(names[i], features[i]), "there is no context feature called '",
                      names[i], "' (docs/prior.md lists them)");
  }
  const at::Device device = values.device();
  const c10::OptionalDeviceGuard guard(device);
  const MatrixShape shape = matrix_shape(values.sizes().data(), values.sizes().size());
  const auto count = static_cast<std::int64_t>(names.size());
  at::Tensor out = at::zeros({shape.elements, count}, values.options().dtype(at::kFloat));
  if (shape.elements == 0 || count == 0) return out;
  const DeviceScales scales = upload_scales(estimate_scales(values, format, shape), device);
  FeaturesOfTensor body{tensor_context(values.data_ptr(), format, shape, scales), nullptr,
                        static_cast<int>(count), lane_elements, out.data_ptr<float>()};
  // The codec sends whole digits of pure mantissa raw: features do not see them.
  body.tensor.known = ~std::uint64_t{0} << (format.mantissa_bits / 4 * 4);
  const at::Tensor features_device = upload(features, device);
  body.features = items_of<Feature>(features_device);
  for_each(device, shape.elements, body, 4096);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lmgc, m) {
  m.def("context_features(Tensor tensor, str[] names, int lane_elements=4096) -> Tensor");
}
TORCH_LIBRARY_IMPL(lmgc, CompositeExplicitAutograd, m) {
  m.impl("context_features", context_features);
}

}  // namespace lmgc::ops
