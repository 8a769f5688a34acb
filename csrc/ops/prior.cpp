#include "ops/prior.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <sstream>

#include "core/cdf.h"
#include "core/checksum.h"
#include "ops/error.h"
#include "ops/for_each.h"
#include "ops/native_prior.h"
#include "ops/prior_contract.h"

#ifdef LMGC_WITH_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

namespace lmgc::ops {
namespace {

constexpr const char* hex_digits = "0123456789abcdef";

// What torch and the C++ library say when memory runs out, on the CPU and on CUDA.
constexpr const char* out_of_memory[] = {"can't allocate memory", "not enough memory",
                                         "out of memory", "bad_alloc"};

// Two independent 64-bit hashes of a growing description.
class Hasher {
 public:
  void add(const void* data, std::size_t size) {
    const std::uint64_t one = checksum(static_cast<const std::uint8_t*>(data), size);
    for (std::uint64_t i = 0; i < 2; ++i)
      state_[i] = checksum_word(state_[i] ^ one, ++count_ + i * 0x10001);
  }
  void add(const std::string& text) { add(text.data(), text.size()); }
  void add(const at::Tensor& tensor) {
    const at::Tensor host = tensor.detach().cpu().contiguous();
    add(std::string(c10::toString(host.scalar_type())));
    add(host.sizes().data(), host.sizes().size() * sizeof(std::int64_t));
    add(host.data_ptr(), host.nbytes());
  }
  std::uint64_t state(int i) const { return state_[i]; }

 private:
  std::uint64_t state_[2] = {1, 2};
  std::uint64_t count_ = 0;
};

std::string hexadecimal(std::uint64_t value) {
  std::string text(16, '0');
  for (int i = 0; i < 16; ++i)
    text[static_cast<std::size_t>(i)] = hex_digits[(value >> (60 - 4 * i)) & 15];
  return text;
}

// Whether `error` tells that memory ran out. The interpreter passes on what an operator raised as
// text.
bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
      dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr)
    return true;
  const std::string text = error.what();
  return std::any_of(std::begin(out_of_memory), std::end(out_of_memory),
                     [&](const char* words) { return text.find(words) != std::string::npos; });
}

// What was raised: the last line of what the interpreter tells, behind where it happened.
std::string reason_of(const std::exception& error) {
  const std::string text = error.what();
  const std::size_t end = text.find_last_not_of(" \n") + 1;  // 0 for "none"
  const std::size_t begin = end == 0 ? 0 : text.rfind('\n', end - 1) + 1;
  return text.substr(begin, end - begin);
}

// Runs a method as written, whatever the caller's context: no autograd, no autocast, no profiling
// or fusion that could change results from one call to the next. All three are this thread's own.
c10::IValue run(const torch::jit::Module& module, const char* name, std::int64_t lanes,
                std::vector<c10::IValue> arguments) {
  const at::NoGradGuard no_grad;
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const torch::jit::GraphOptimizerEnabledGuard as_written(false);
  try {
    return module.get_method(name)(std::move(arguments));
  } catch (const std::exception& error) {
    TORCH_CHECK_WITH(OutOfMemoryError, !is_out_of_memory(error), "the prior's method '", name,
                     "' needs more memory than there is for ", lanes,
                     " lanes at a time: compress with a smaller memory_limit (fewer lanes at a "
                     "time) or smaller lane_elements, or use a prior with a shorter max_context (",
                     reason_of(error), ")");
    TORCH_CHECK(false, "the prior's method '", name, "' failed: ", reason_of(error), "\n",
                error.what());
  }
}

}  // namespace

Prior::Prior(torch::jit::Module module) : module_(std::move(module)) {
  PriorContract contract = read_contract(module_);
  vocab_ = contract.vocab;
  feature_names_ = contract.feature_names;
  features_ = std::move(contract.features);
  digit_features_ = contract.digit_features;
  max_context_ = contract.max_context;
  portable_ = contract.portable;
  const double units = contract.units_per_octave;
  steps_per_unit_ = static_cast<float>(cdf_steps_per_octave / units);
  module_.eval();
  if (digit_features_) native_ = read_native_prior(module_, contract);

  Hasher hasher;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& parameter : module_.named_parameters())
    tensors.emplace_back(parameter.name, parameter.value);
  for (const auto& buffer : module_.named_buffers())
    tensors.emplace_back(buffer.name, buffer.value);
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [name, tensor] : tensors) {
    hasher.add(name);
    hasher.add(tensor);
  }
  for (const auto* texts : {&vocab_, &feature_names_}) {
    const auto count = static_cast<std::int64_t>(texts->size());
    hasher.add(&count, sizeof count);
    for (const auto& text : *texts) hasher.add(text);
  }
  hasher.add(&max_context_, sizeof max_context_);
  hasher.add(&portable_, sizeof portable_);
  hasher.add(&units, sizeof units);
  for (int i = 0; i < 2; ++i) fingerprint_[i] = hasher.state(i);
}

c10::intrusive_ptr<Prior> Prior::load(const std::string& path) {
  torch::jit::Module module;
  try {
    module = torch::jit::load(path, at::Device(at::kCPU));
  } catch (const std::exception& error) {
    TORCH_CHECK_VALUE(
        false, "'", path,
        "' is not a TorchScript file that this torch can load (torch.jit.save writes them): ",
        error.what());
  }
  return c10::make_intrusive<Prior>(std::move(module));
}

c10::intrusive_ptr<Prior> Prior::from_bytes(const at::Tensor& bytes) {
  TORCH_CHECK_VALUE(bytes.scalar_type() == at::kByte && bytes.dim() == 1,
                    "a prior's bytes are a 1-D uint8 tensor");
  const at::Tensor host = bytes.cpu().contiguous();
  std::istringstream in(std::string(static_cast<const char*>(host.data_ptr()), host.nbytes()));
  torch::jit::Module module;
  try {
    module = torch::jit::load(in, at::Device(at::kCPU));
  } catch (const std::exception& error) {
    TORCH_CHECK_VALUE(false, "these bytes are not a TorchScript file: ", error.what());
  }
  return c10::make_intrusive<Prior>(std::move(module));
}

at::Tensor Prior::to_bytes() const {
  std::ostringstream out;
  module_.save(out);
  const std::string bytes = out.str();
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::copy(bytes.begin(), bytes.end(), tensor.data_ptr<std::uint8_t>());
  return tensor;
}

void Prior::to(const std::string& device) {
  at::Device target(device);
  check_device(target, "the prior");
#ifdef LMGC_WITH_CUDA
  if (target.is_cuda() && !target.has_index()) target.set_index(at::cuda::current_device());
#endif
  module_.to(target);
  device_ = target;
  const std::scoped_lock lock(probe_mutex_);
  probe_.reset();
  repeatable_ = false;
  state_bytes_.reset();
}

const std::vector<Feature>& Prior::features() const {
  TORCH_CHECK_VALUE(features_.has_value(),
                    "this prior is for method 'lm': it wants context features that 'lmgc' does not "
                    "have");
  return *features_;
}

const std::vector<int>& Prior::digit_features() const {
  TORCH_CHECK_VALUE(digit_features_.has_value(),
                    "this prior is for method 'lmgc': it wants context features that 'lm' does not "
                    "have");
  return *digit_features_;
}

std::string Prior::fingerprint() const {
  return hexadecimal(fingerprint_[0]) + hexadecimal(fingerprint_[1]);
}

std::int64_t Prior::token(const std::string& text) const {
  const auto found = std::find(vocab_.begin(), vocab_.end(), text);
  return found == vocab_.end() ? -1 : found - vocab_.begin();
}

at::Tensor Prior::checked_logits(const c10::IValue& value, at::IntArrayRef shape) const {
  TORCH_CHECK_VALUE(value.isTensor(), "the prior's logits should be a tensor, got ",
                    value.tagKind());
  at::Tensor logits = value.toTensor();
  TORCH_CHECK_VALUE(
      logits.sizes() == shape && logits.is_floating_point() && logits.device() == device_,
      "the prior's logits should be floating-point ", shape, " on ", device_,
      " (as many lanes as it was given, and one logit for each of the ", vocab_.size(),
      " tokens of its vocab), got ", logits.scalar_type(), " ", logits.sizes(), " on ",
      logits.device());
  return logits.to(at::kFloat).contiguous();
}

at::Tensor Prior::forward(const at::Tensor& tokens, const at::Tensor& features) const {
  return checked_logits(run(module_, "forward", tokens.size(0), {tokens, features}),
                        {tokens.size(0), tokens.size(1), static_cast<std::int64_t>(vocab_.size())});
}

c10::IValue Prior::init_state(std::int64_t lanes) const {
  return run(module_, "init_state", lanes, {lanes});
}

at::Tensor Prior::step(const at::Tensor& tokens, const at::Tensor& features,
                       c10::IValue& state) const {
  const c10::IValue result = run(module_, "step", tokens.size(0), {tokens, features, state});
  TORCH_CHECK_VALUE(result.isTuple() && result.toTupleRef().elements().size() == 2,
                    "the prior's step should return (logits, state), got ", result.tagKind());
  const auto& elements = result.toTupleRef().elements();
  state = elements[1];
  return checked_logits(elements[0], {tokens.size(0), static_cast<std::int64_t>(vocab_.size())});
}

std::string Prior::environment() const {
  if (portable_) return "";
  std::ostringstream text;
  text << "torch " << TORCH_VERSION << ", ";
  if (device_.is_cuda()) {
#ifdef LMGC_WITH_CUDA
    text << at::cuda::getDeviceProperties(device_.index())->name;
#endif
  } else {
    text << "CPU " << at::get_cpu_capability() << ", " << at::get_num_threads() << " threads";
  }
  for (const auto& parameter : module_.parameters()) {
    text << ", " << c10::toString(parameter.scalar_type());
    break;
  }
  return text.str();
}

PriorBlock Prior::describe(const SerializeOptions& options, WindowKind window,
                           std::int64_t batch_lanes) const {
  PriorBlock block;
  block.serialize = options;
  block.window = window;
  block.window_tokens = static_cast<std::uint64_t>(max_context_);
  block.fingerprint[0] = fingerprint_[0];
  block.fingerprint[1] = fingerprint_[1];
  block.probe = probe();
  block.portable = portable_;
  block.batch_lanes = portable_ ? 0 : static_cast<std::uint64_t>(batch_lanes);
  block.environment = environment();
  return block;
}

void Prior::check_matches(const PriorBlock& block) const {
  const std::string wanted = hexadecimal(block.fingerprint[0]) + hexadecimal(block.fingerprint[1]);
  LMGC_CHECK_PRIOR(wanted == fingerprint(), "the frame was made with the prior ", wanted,
                   ", this one is ", fingerprint(), "; pass the prior that compressed it");
  LMGC_CHECK_PRIOR(block.portable == portable_ &&
                       block.window_tokens == static_cast<std::uint64_t>(max_context_),
                   "the frame tells of another prior with the same parameters");
  LMGC_CHECK_PRIOR(block.environment == environment(),
                   "the frame was made with this prior in another environment (",
                   block.environment.empty() ? "portable" : block.environment,
                   "; here: ", environment(),
                   "), and a prior that is not portable decodes only where it encoded");
  LMGC_CHECK_PRIOR(block.probe == probe(),
                   "this prior computes other probabilities here than where the frame was made",
                   portable_ ? ", although it claims to be portable" : "");
}

void register_prior(torch::Library& m) {
  m.class_<Prior>("Prior")
      .def(torch::init([](const std::string& path) { return Prior::load(path); }))
      .def("to", &Prior::to)
      .def("device", [](const c10::intrusive_ptr<Prior>& self) { return self->device().str(); })
      .def("fingerprint", &Prior::fingerprint)
      .def("vocab", [](const c10::intrusive_ptr<Prior>& self) { return self->vocab(); })
      .def("context_features",
           [](const c10::intrusive_ptr<Prior>& self) { return self->context_features(); })
      .def("max_context", &Prior::max_context)
      .def("portable", &Prior::portable)
      .def("native",
           [](const c10::intrusive_ptr<Prior>& self) { return self->native() != nullptr; })
      .def("use_native", &Prior::use_native)
      .def("__obj_flatten__",
           [](const c10::intrusive_ptr<Prior>& self) {
             return std::tuple<std::tuple<std::string, std::string>>(
                 std::make_tuple("fingerprint", self->fingerprint()));
           })
      .def_pickle(
          [](const c10::intrusive_ptr<Prior>& self) {
            return std::make_tuple(self->to_bytes(), self->device().str());
          },
          [](const std::tuple<at::Tensor, std::string>& state) {
            auto prior = Prior::from_bytes(std::get<0>(state));
            // A prior pickled on a GPU opens on the CPU where there is none.
            if (at::Device(std::get<1>(state)).is_cpu() || at::hasCUDA())
              prior->to(std::get<1>(state));
            return prior;
          });
}

}  // namespace lmgc::ops
