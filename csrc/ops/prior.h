// A causal language model as a prior: a TorchScript module under the contract of docs/prior.md,
// checked when it is loaded.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/digit_prior.h"
#include "core/frame.h"
#include "core/predict.h"

namespace lmgc::ops {

// torch.classes.lmgc.Prior. Loading runs no code of the module, but using it does: load only what
// you trust. Every method may be called from several threads; to() must not run beside them.
class Prior : public torch::CustomClassHolder {
 public:
  // Loads a file written by torch.jit.save, to the CPU. Raises a ValueError that names what breaks
  // the contract.
  static c10::intrusive_ptr<Prior> load(const std::string& path);
  // From and to the bytes of such a file, as a 1-D uint8 CPU tensor.
  static c10::intrusive_ptr<Prior> from_bytes(const at::Tensor& bytes);
  at::Tensor to_bytes() const;

  void to(const std::string& device);
  at::Device device() const { return device_; }

  // 32 hexadecimal digits: a hash of parameters, buffers and the contract's attributes, wherever
  // the model lies.
  std::string fingerprint() const;
  const std::vector<std::string>& vocab() const { return vocab_; }
  const std::vector<std::string>& context_features() const { return feature_names_; }
  std::int64_t max_context() const { return max_context_; }
  bool portable() const { return portable_; }

  // ---- for the codec ----
  // The features of elements (method lmgc) or of digits (method lm) that the model takes. Raise a
  // ValueError where it is made for the other method.
  bool for_elements() const { return features_.has_value(); }
  bool for_digits() const { return digit_features_.has_value(); }
  const std::vector<Feature>& features() const;
  const std::vector<int>& digit_features() const;  // indices into digit_feature_names
  // The model in C++, where its module declares the bundled architecture and it is not switched
  // off; else null. It gives the logits of the module.
  const DigitPrior* native() const { return use_native_ ? native_.get() : nullptr; }
  void use_native(bool use) { use_native_ = use; }
  // 1/256 octaves in one logit unit.
  float steps_per_unit() const { return steps_per_unit_; }
  std::int64_t bos() const { return token("<bos>"); }
  // The id of a vocabulary entry; -1 when there is none.
  std::int64_t token(const std::string& text) const;

  // What a frame made with this prior says about it, for a batch of `batch_lanes` lanes.
  PriorBlock describe(const SerializeOptions& options, WindowKind window,
                      std::int64_t batch_lanes) const;
  // Raises PriorMismatchError with what differs, unless frames with `block` can be decoded here.
  void check_matches(const PriorBlock& block) const;
  // Before anything is coded: raises a ValueError unless the probe's input gives the same logits
  // twice and, with a portable prior, from step as from forward and from one row as from many. The
  // prior is tried once on each device.
  void check_repeatable() const;
  // Bytes of a lane's state at the end of a full window, estimated from how the state grows over
  // the probe's input.
  std::int64_t state_bytes() const;

  // tokens int64 [B,T], features float32 [B,T,F] -> logits float32 [B,T,V], contiguous.
  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& features) const;
  c10::IValue init_state(std::int64_t lanes) const;
  // tokens int64 [B], features float32 [B,F] -> logits float32 [B,V], contiguous; `state` is
  // replaced.
  at::Tensor step(const at::Tensor& tokens, const at::Tensor& features, c10::IValue& state) const;

  explicit Prior(torch::jit::Module module);

 private:
  at::Tensor checked_logits(const c10::IValue& value, at::IntArrayRef shape) const;
  std::uint64_t probe() const;
  struct Steps {
    at::Tensor logits;         // [rows, T, V], as forward gives them
    std::int64_t state_bytes;  // as state_bytes() gives them
  };
  Steps run_steps(const at::Tensor& tokens, const at::Tensor& features) const;
  std::string environment() const;

  torch::jit::Module module_;
  at::Device device_ = at::kCPU;
  std::vector<std::string> vocab_;
  std::vector<std::string> feature_names_;
  std::optional<std::vector<Feature>> features_;
  std::optional<std::vector<int>> digit_features_;
  std::shared_ptr<const DigitPrior> native_;
  bool use_native_ = true;
  std::int64_t max_context_ = 0;
  bool portable_ = false;
  float steps_per_unit_ = 0;
  std::uint64_t fingerprint_[2] = {};

  // What was found out on this device.
  mutable std::mutex probe_mutex_;
  mutable std::optional<std::uint64_t> probe_;
  mutable bool repeatable_ = false;
  mutable std::optional<std::int64_t> state_bytes_;
};

// Registers torch.classes.lmgc.Prior.
void register_prior(torch::Library& m);

}  // namespace lmgc::ops
