// The bundled architecture of method `lm`, read from its TorchScript module (core/digit_prior.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>

#include <memory>

#include "core/digit_prior.h"
#include "ops/prior_contract.h"

namespace lmgc::ops {

class Prior;

// Null for a module that does not declare the architecture. Raises a ValueError for one that
// declares it, but has not its buffers.
std::shared_ptr<const DigitPrior> read_native_prior(const torch::jit::Module& module,
                                                    const PriorContract& contract);

// Whether the module's logits [rows, T, V] of these tokens [rows, T] and features [rows, T, F],
// which begin with a high digit, are those of the native prior.
bool native_agrees(const DigitPrior& native, const Prior& prior, const at::Tensor& tokens,
                   const at::Tensor& features, const at::Tensor& logits);

}  // namespace lmgc::ops
