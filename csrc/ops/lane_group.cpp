#include "ops/lane_group.h"

#include <algorithm>
#include <numeric>

namespace lmgc::ops {
namespace {

// U+0000..U+00FF as torch holds strings.
std::string utf8(int code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

std::int32_t required_token(const Prior& prior, const std::string& text, const char* what) {
  const std::int64_t id = prior.token(text);
  TORCH_CHECK_VALUE(id >= 0, "this prior's vocab has no token '", text, "', which ", what,
                    " needs; choose another separator or another prior");
  return static_cast<std::int32_t>(id);
}

}  // namespace

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& sizes) {
  std::vector<std::int64_t> offsets(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), offsets.begin() + 1);
  return offsets;
}

GroupPattern::GroupPattern(const Prior& prior, const SymbolPlan& plan, int element_bytes,
                           const SerializeOptions& options, WindowKind window)
    : plan_(plan) {
  const TokenPattern whole = token_pattern(element_bytes, options);
  bool separators = false;
  for (const PatternToken& token : whole.tokens) {
    if (token.symbol >= 0 && plan.mode[token.symbol] != SymbolMode::lm) continue;
    separators = separators || token.symbol < 0;
    tokens_.push_back(token);
  }
  const int values = 1 << plan.bits;
  for (int value = 0; value < values; ++value) {
    const std::string text = values == 16 ? std::string(1, "0123456789abcdef"[value]) : utf8(value);
    vocab_ids_.push_back(
        required_token(prior, text, values == 16 ? "hexadecimal text" : "separator 'iso-8859-1'"));
  }
  vocab_ids_.push_back(
      separators ? required_token(prior, separator_text(options.separator), "this separator") : 0);

  std::vector<std::int32_t> coded_index(most_symbols, 0);
  for (int k = 0; k < plan.coded_count; ++k) coded_index[plan.coded[k]] = k;

  const at::Device device = prior.device();
  tokens_device_ = upload(tokens_, device);
  vocab_device_ = upload(vocab_ids_, device);
  coded_device_ = upload(coded_index, device);
  features_device_ = upload(prior.features(), device);
  const auto& features = prior.features();
  const auto digit = std::find_if(features.begin(), features.end(),
                                  [](const Feature& f) { return f.kind == Feature::digit; });

  view_.tokens = items_of<PatternToken>(tokens_device_);
  view_.token_count = static_cast<std::int32_t>(tokens_.size());
  view_.elements = whole.elements;
  view_.coded_count = plan.coded_count;
  view_.vocab_ids = items_of<std::int32_t>(vocab_device_);
  view_.coded_index = items_of<std::int32_t>(coded_device_);
  view_.features = items_of<Feature>(features_device_);
  view_.feature_count = static_cast<std::int32_t>(features.size());
  view_.digit_feature =
      digit == features.end() ? -1 : static_cast<std::int32_t>(digit - features.begin());
  view_.bos = static_cast<std::int32_t>(prior.bos());

  view_.windows = make_windows(window, prior.max_context(), view_.token_count, view_.elements);
  view_.row_elements = view_.windows.elements;
}

bool wants_scales(const Prior& prior) {
  return std::any_of(prior.features().begin(), prior.features().end(), [](const Feature& feature) {
    return feature.kind == Feature::reference || feature.kind == Feature::neighbour_level ||
           feature.kind == Feature::neighbour_value;
  });
}

std::int64_t lane_bytes(const Prior& prior) {
  const auto in_and_out = static_cast<std::int64_t>(prior.features().size() + prior.vocab().size());
  return 1024 + 16 * in_and_out + prior.state_bytes();
}

std::vector<std::vector<std::size_t>> group_by_plan(const std::vector<FloatFormat>& formats,
                                                    const std::vector<SymbolPlan>& plans) {
  const auto same = [&](std::size_t a, std::size_t b) {
    return formats[a].bytes == formats[b].bytes &&
           formats[a].exponent_bits == formats[b].exponent_bits &&
           plans[a].lm_mask == plans[b].lm_mask;
  };
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const auto found = std::find_if(groups.begin(), groups.end(),
                                    [&](const auto& group) { return same(group.front(), i); });
    if (found == groups.end()) {
      groups.push_back({i});
    } else {
      found->push_back(i);
    }
  }
  return groups;
}

LaneTensor lane_tensor(const LmgcTensor& tensor, const SymbolPlan& plan,
                       const DeviceScales& scales) {
  const MatrixShape shape = matrix_shape(tensor.sizes.data(), tensor.sizes.size());
  LaneTensor result{tensor_context(tensor.bytes.data_ptr(), tensor.format, shape, scales), plan};
  // What a decoder knows of an element while it decodes its successors.
  result.context.known = ~plan.raw_mask;
  return result;
}

void append_lanes(std::int32_t tensor, std::int64_t elements, std::int64_t lane_elements,
                  std::vector<Lane>& lanes) {
  for (std::int64_t first = 0; first < elements; first += lane_elements) {
    lanes.push_back(
        {tensor, static_cast<std::int32_t>(std::min(lane_elements, elements - first)), first});
  }
}

std::vector<std::int32_t> longest_first(const std::vector<Lane>& lanes) {
  std::vector<std::int32_t> order(lanes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return lanes[static_cast<std::size_t>(a)].count > lanes[static_cast<std::size_t>(b)].count;
  });
  return order;
}

}  // namespace lmgc::ops
