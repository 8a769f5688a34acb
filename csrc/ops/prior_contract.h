// The contract of docs/prior.md, as far as it can be checked without running the module.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/predict.h"

namespace lmgc::ops {

// What a module says of itself.
struct PriorContract {
  std::vector<std::string> vocab;
  std::vector<std::string> feature_names;
  // The same, parsed; absent where a name is none of the method's.
  std::optional<std::vector<Feature>> features;    // of method lmgc
  std::optional<std::vector<int>> digit_features;  // of method lm: indices into digit_feature_names
  std::int64_t max_context = 0;
  bool portable = false;
  double units_per_octave = 0;
};

// Raises a ValueError that names what breaks the contract.
PriorContract read_contract(const torch::jit::Module& module);

}  // namespace lmgc::ops
