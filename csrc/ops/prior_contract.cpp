#include "ops/prior_contract.h"

#include <algorithm>
#include <set>

#include "core/digit_context.h"

namespace lmgc::ops {
namespace {

// No lane has more digits: 65536 elements of 16. It bounds what a window may cost in memory.
constexpr std::int64_t most_context = 1 << 20;

template <class T>
T attribute(const torch::jit::Module& module, const char* name, const char* type) {
  TORCH_CHECK_VALUE(module.hasattr(name), "this prior has no attribute '", name, "' (", type,
                    "); docs/prior.md states the contract");
  const c10::IValue value = module.attr(name);
  try {
    return value.to<T>();
  } catch (const c10::Error&) {
    TORCH_CHECK_VALUE(false, "this prior's attribute '", name, "' should be ", type, ", it is ",
                      value.tagKind());
  }
}

// Whether frames may name a token by this text: digits, separators, and the characters of
// "iso-8859-1" in UTF-8.
bool is_looked_up(const std::string& text) {
  static const std::set<std::string> separators{", ", "0x", "<bos>"};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  return separators.count(text) != 0 || (text.size() == 1 && byte(0) < 0x80) ||
         (text.size() == 2 && (byte(0) == 0xC2 || byte(0) == 0xC3));
}

void check_vocab(const std::vector<std::string>& vocab) {
  const auto has = [&](const std::string& text) {
    return std::find(vocab.begin(), vocab.end(), text) != vocab.end();
  };
  for (const char digit : std::string("0123456789abcdef")) {
    TORCH_CHECK_VALUE(has(std::string(1, digit)), "this prior's vocab has no token '", digit,
                      "': it needs the 16 hexadecimal digits");
  }
  TORCH_CHECK_VALUE(has("<bos>"),
                    "this prior's vocab has no token '<bos>', with which every window begins");
  std::set<std::string> seen;
  for (const std::string& text : vocab) {
    TORCH_CHECK_VALUE(seen.insert(text).second || !is_looked_up(text),
                      "this prior's vocab has the token '", text,
                      "' twice: which of the two is meant? Give the other one another text");
  }
}

void check_features(PriorContract& contract) {
  std::set<std::string> seen;
  std::vector<Feature> features;
  std::vector<int> digit_features;
  std::string only_lmgc, only_lm;  // a name that only the one method has
  for (const std::string& name : contract.feature_names) {
    TORCH_CHECK_VALUE(seen.insert(name).second, "this prior wants the context feature '", name,
                      "' twice; once is enough");
    Feature feature;
    const bool is_feature = find_feature(name, feature);
    const int digit_feature = find_digit_feature(name);
    TORCH_CHECK_VALUE(is_feature || digit_feature >= 0,
                      "this prior wants a context feature called '", name,
                      "', which does not exist");
    if (is_feature) features.push_back(feature);
    if (digit_feature >= 0) digit_features.push_back(digit_feature);
    if (digit_feature < 0) only_lmgc = name;
    if (!is_feature) only_lm = name;
  }
  TORCH_CHECK_VALUE(only_lmgc.empty() || only_lm.empty(), "this prior wants the context features '",
                    only_lmgc, "', which only method 'lmgc' has, and '", only_lm,
                    "', which only method 'lm' has: no method has both");
  if (only_lm.empty()) contract.features = std::move(features);
  if (only_lmgc.empty()) contract.digit_features = std::move(digit_features);
}

// What a method of the contract takes beside self; null stands for the state, of any type.
using Types = std::vector<c10::TypePtr>;

c10::FunctionSchema checked_schema(const torch::jit::Module& module, const char* name,
                                   const Types& types, const char* signature) {
  const auto method = module.find_method(name);
  TORCH_CHECK_VALUE(method.has_value(), "this prior has no method ", signature,
                    " (torch.jit.export marks methods other than forward)");
  const c10::FunctionSchema& schema = method->function().getSchema();
  const auto& arguments = schema.arguments();
  TORCH_CHECK_VALUE(arguments.size() == types.size() + 1, "this prior's method '", name,
                    "' should be ", signature, ", it takes ", arguments.size() - 1, " arguments");
  for (std::size_t i = 0; i < types.size(); ++i) {
    const c10::Argument& argument = arguments[i + 1];
    TORCH_CHECK_VALUE(types[i] == nullptr || types[i]->isSubtypeOf(*argument.type()),
                      "this prior's method '", name, "' should be ", signature, "; its argument '",
                      argument.name(), "' is a ", argument.type()->repr_str(), ", it should be a ",
                      types[i]->repr_str());
  }
  TORCH_CHECK_VALUE(schema.returns().size() == 1, "this prior's method '", name, "' should be ",
                    signature, "; it returns ", schema.returns().size(), " values");
  return schema;
}

void check_methods(const torch::jit::Module& module) {
  const auto tensor = c10::TensorType::get();
  const char* const forward = "forward(tokens [B,T], features [B,T,F]) -> logits [B,T,V]";
  const char* const init_state = "init_state(B) -> state";
  const char* const step = "step(tokens [B], features [B,F], state) -> (logits [B,V], state)";

  const auto forward_returns =
      checked_schema(module, "forward", {tensor, tensor}, forward).returns()[0].type();
  TORCH_CHECK_VALUE(forward_returns->isSubtypeOf(*tensor),
                    "this prior's method 'forward' should "
                    "be ",
                    forward, "; it returns a ", forward_returns->repr_str());
  const auto first_state =
      checked_schema(module, "init_state", {c10::IntType::get()}, init_state).returns()[0].type();
  const c10::FunctionSchema schema =
      checked_schema(module, "step", {tensor, tensor, nullptr}, step);
  const auto state = schema.arguments()[3].type();
  TORCH_CHECK_VALUE(first_state->isSubtypeOf(*state), "this prior's step takes a state of type ",
                    state->repr_str(), ", but init_state returns a ", first_state->repr_str());
  const auto returns = schema.returns()[0].type();
  const auto pair = returns->cast<c10::TupleType>();
  TORCH_CHECK_VALUE(pair && pair->elements().size() == 2 &&
                        pair->elements()[0]->isSubtypeOf(*tensor) &&
                        pair->elements()[1]->isSubtypeOf(*state),
                    "this prior's method 'step' should be ", step, " with a state of type ",
                    state->repr_str(), "; it returns a ", returns->repr_str());
}

}  // namespace

PriorContract read_contract(const torch::jit::Module& module) {
  PriorContract contract;
  contract.vocab =
      attribute<std::vector<std::string>>(module, "vocab", "List[str]: the token strings");
  contract.feature_names = attribute<std::vector<std::string>>(
      module, "context_features", "List[str]: names from docs/prior.md, may be empty");
  contract.max_context =
      attribute<std::int64_t>(module, "max_context", "int: the most tokens it looks back at");
  contract.portable =
      attribute<bool>(module, "portable", "bool: whether its logits are the same bits everywhere");
  contract.units_per_octave = attribute<double>(
      module, "units_per_octave",
      "float: logit units that double a probability, ln 2 for natural logarithms");

  check_vocab(contract.vocab);
  check_features(contract);
  TORCH_CHECK_VALUE(contract.max_context >= 1 && contract.max_context <= most_context,
                    "this prior's max_context is ", contract.max_context,
                    ", it should be between 1 and ", most_context);
  const double units = contract.units_per_octave;
  TORCH_CHECK_VALUE(units > 1e-6 && units < 1e6, "this prior's units_per_octave is ", units,
                    ", it should be positive: ln 2 for natural logarithms, 1 for binary ones");
  check_methods(module);
  return contract;
}

}  // namespace lmgc::ops
