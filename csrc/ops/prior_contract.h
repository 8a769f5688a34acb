// The contract of docs/prior.md, as far as it can be checked without running the module.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/predict.h"

namespace lmgc::ops {

// What a module says of itself.
struct PriorContract {
  std::vector<std::string> vocab;
  std::vector<std::string> feature_names;
  std::vector<Feature> features;  // the same, parsed
  std::int64_t max_context = 0;
  bool portable = false;
  double units_per_octave = 0;
};

// Raises a ValueError that names what breaks the contract.
PriorContract read_contract(const torch::jit::Module& module);

}  // namespace lmgc::ops
