// The state of a prior, whatever it is made of: tensors, or lists, tuples and dictionaries of
// tensors and plain values, with the lanes in dimension 0 of every tensor.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>

namespace lmgc::ops {

// The first `lanes` rows of every tensor in a state.
c10::IValue narrow_state(const c10::IValue& state, std::int64_t lanes);

// Bytes of its tensors.
std::int64_t bytes_of_state(const c10::IValue& state);

}  // namespace lmgc::ops
