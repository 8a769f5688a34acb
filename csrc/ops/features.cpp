// torch.ops.lmgc.context_features and residual_features: what a prior of method lmgc or lm sees of
// a tensor, for training priors and looking at them.

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/digit_context.h"
#include "core/predict.h"
#include "ops/dtype.h"
#include "ops/fixed.h"
#include "ops/fixed_view.h"
#include "ops/for_each.h"
#include "ops/lm.h"
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

// Features of a stream's symbols, lane after lane, the digit the high one.
at::Tensor stream_features(const DigitStream& stream, const std::vector<int>& features,
                           std::int64_t lane_elements) {
  const auto elements = static_cast<std::int64_t>(stream.symbols.size());
  const auto width = static_cast<std::int64_t>(features.size());
  at::Tensor out = at::empty({elements, width}, at::kShort);
  std::vector<DigitLane> lanes;
  append_digit_lanes(0, elements, lane_elements_of(stream.geometry.columns, lane_elements), lanes);
  at::parallel_for(
      0, static_cast<std::int64_t>(lanes.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t l = begin; l < end; ++l) {
          const DigitLane& lane = lanes[static_cast<std::size_t>(l)];
          std::vector<Trace> room(static_cast<std::size_t>(lane.count));
          LaneContext context;
          context.start(stream.geometry, lane.first, room.data());
          auto* row = out.data_ptr<std::int16_t>() + lane.first * width;
          for (std::int64_t i = lane.first; i < lane.first + lane.count; ++i, row += width) {
            const Known& known = stream.known[static_cast<std::size_t>(i)];
            std::int8_t inputs[digit_inputs];
            context.inputs(known, inputs);
            for (std::int64_t f = 0; f < width; ++f) {
              row[f] = digit_feature(features[static_cast<std::size_t>(f)], 0, known,
                                     stream.geometry.kind, inputs);
            }
            context.update(known, stream.symbols[static_cast<std::size_t>(i)]);
          }
        }
      });
  return out;
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> residual_features(
    const at::Tensor& tensor, const std::vector<std::string>& names, const std::string& method,
    std::int64_t lane_elements) {
  TORCH_CHECK_VALUE(method == "scale" || method == "lowrank", "method is '", method,
                    "': it should be 'scale' or 'lowrank'");
  const at::Tensor values = plain(tensor.detach(), "the tensor").cpu();
  const FloatFormat format = float_format(dtype_of(values.scalar_type()));
  TORCH_CHECK_VALUE(format.is_float(), "residual_features takes a floating-point tensor, got ",
                    values.scalar_type());
  std::vector<int> features;
  for (const std::string& name : names) {
    features.push_back(find_digit_feature(name));
    TORCH_CHECK_VALUE(features.back() >= 0, "there is no context feature of method 'lm' called '",
                      name, "' (docs/prior.md lists them)");
  }
  std::vector<at::Tensor> symbols, all_features;
  if (values.numel() > 0) {
    const PlainDispatch plain_dispatch;
    const at::Tensor bytes = bytes_of(values).cpu();
    const std::vector<std::int64_t> sizes = values.sizes().vec();
    const Spare spare = find_spare(bytes, format);
    const FixedPlan plan =
        method == "lowrank" ? plan_fixed(bytes, format, spare, sizes, search_limits(usual_effort))
                            : FixedPlan{};
    const FixedResult fixed = *encode_fixed_section({bytes, format, spare, sizes, plan});
    for (const DigitStream& stream : streams_of({bytes, format, spare, sizes, fixed.head})) {
      symbols.push_back(upload(stream.symbols, at::kCPU));
      all_features.push_back(stream_features(stream, features, lane_elements));
    }
  }
  return {symbols, all_features};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lmgc, m) {
  m.def(
      "residual_features(Tensor tensor, str[] names, str method=\"lowrank\", int lane_elements=0) "
      "-> (Tensor[], Tensor[])");
  m.def("context_features(Tensor tensor, str[] names, int lane_elements=4096) -> Tensor");
}
TORCH_LIBRARY_IMPL(lmgc, CompositeExplicitAutograd, m) {
  m.impl("context_features", context_features);
  m.impl("residual_features", residual_features);
}

}  // namespace lmgc::ops
