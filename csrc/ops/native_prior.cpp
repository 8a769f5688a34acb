#include "ops/native_prior.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "core/digit_context.h"
#include "ops/prior.h"

namespace lmgc::ops {
namespace {

at::Tensor buffer(const torch::jit::Module& module, const std::string& name, at::ScalarType type) {
  for (const auto& own : module.named_buffers()) {
    if (own.name != name) continue;
    TORCH_CHECK_VALUE(own.value.scalar_type() == type, "this prior's buffer '", name,
                      "' should be of type ", type, ", it is ", own.value.scalar_type());
    return own.value.cpu().contiguous();
  }
  TORCH_CHECK_VALUE(false, "this prior declares the architecture '", digit_prior_architecture,
                    "', but has no buffer '", name, "'");
}

template <class To>
std::vector<To> integers(const at::Tensor& tensor, const std::string& name) {
  const at::Tensor whole = tensor.round();
  TORCH_CHECK_VALUE(at::equal(whole, tensor) &&
                        (tensor.numel() == 0 || tensor.abs().max().item<float>() <
                                                    (sizeof(To) == 1 ? 128.0f : 16777216.0f)),
                    "this prior's buffer '", name, "' should hold integers of ", 8 * sizeof(To),
                    " bits");
  const auto* const first = whole.data_ptr<float>();
  return {first, first + whole.numel()};
}

DigitLayer read_layer(const torch::jit::Module& module, const std::string& name) {
  const auto tensor = [&](const char* part) {
    return buffer(module, name + "." + part, at::kFloat);
  };
  DigitLayer layer;
  const at::Tensor weight = tensor("weight");
  TORCH_CHECK_VALUE(weight.dim() == 2, "this prior's buffer '", name,
                    ".weight' should have 2 dimensions");
  layer.outputs = static_cast<int>(weight.size(0));
  layer.inputs = static_cast<int>(weight.size(1));
  layer.weight = integers<std::int8_t>(weight, name + ".weight");
  layer.bias = integers<std::int32_t>(tensor("bias"), name + ".bias");
  const at::Tensor shift = -tensor("scale").log2();
  layer.shift = integers<std::int32_t>(shift, name + ".scale");
  return layer;
}

}  // namespace

std::shared_ptr<const DigitPrior> read_native_prior(const torch::jit::Module& module,
                                                    const PriorContract& contract) {
  if (!module.hasattr("architecture")) return nullptr;
  const c10::IValue declared = module.attr("architecture");
  if (!declared.isString() || declared.toStringRef() != digit_prior_architecture) return nullptr;
  const std::string subject =
      "this prior declares the architecture '" + std::string(digit_prior_architecture) + "', but ";
  const bool features_in_order =
      contract.digit_features && contract.digit_features->size() == digit_feature_count &&
      std::is_sorted(contract.digit_features->begin(), contract.digit_features->end());
  TORCH_CHECK_VALUE(features_in_order, subject,
                    "does not take all context features of method 'lm' in their order");
  TORCH_CHECK_VALUE(contract.units_per_octave == cdf_steps_per_octave && contract.portable, subject,
                    "is not portable with 256 units an octave");
  const DigitLayer layers[3] = {read_layer(module, "hidden1"), read_layer(module, "hidden2"),
                                read_layer(module, "head")};
  const at::Tensor table = buffer(module, "table", at::kShort);
  TORCH_CHECK_VALUE(
      table.sizes() == at::IntArrayRef({digit_contexts, digits_of, prior_components, digits_of}),
      subject, "its table has the shape ", table.sizes());
  auto prior = std::make_shared<DigitPrior>();
  const std::string wrong = prior->set(layers, table.data_ptr<std::int16_t>());
  TORCH_CHECK_VALUE(wrong.empty(), subject, wrong);
  return prior;
}

bool native_agrees(const DigitPrior& native, const Prior& prior, const at::Tensor& tokens,
                   const at::Tensor& features, const at::Tensor& logits) {
  std::int64_t ids[digits_of];
  for (int d = 0; d < digits_of; ++d) ids[d] = prior.token(std::string(1, "0123456789abcdef"[d]));
  const at::Tensor before = tokens.cpu().contiguous(), known = features.cpu().contiguous(),
                   given = logits.cpu().contiguous();
  const std::int64_t positions = known.size(1);
  for (std::int64_t row = 0; row < known.size(0); ++row) {
    std::int16_t weights[prior_scores] = {};
    for (std::int64_t t = 0; t < positions; ++t) {
      const std::int64_t place = row * positions + t;
      const float* const own = known.data_ptr<float>() + place * known.size(2);
      int high = -1;
      if (t % 2 == 0) {
        std::int8_t inputs[padded_inputs] = {};
        for (int i = 0; i < digit_inputs; ++i) inputs[i] = static_cast<std::int8_t>(own[2 + i]);
        component_weights(native.view(), inputs, weights);
      } else {
        const std::int64_t token = before.data_ptr<std::int64_t>()[place];
        high = static_cast<int>(std::find(ids, ids + digits_of, token) - ids);
      }
      std::int32_t counts[digits_of];
      digit_counts(native.view(), static_cast<int>(own[1]), high, weights, counts);
      const float* const module_logits = given.data_ptr<float>() + place * given.size(2);
      for (int d = 0; d < digits_of; ++d) {
        if (module_logits[ids[d]] != static_cast<float>(count_log2((counts[d] >> 8) + 1)))
          return false;
      }
    }
  }
  return true;
}

}  // namespace lmgc::ops
