#include "ops/prior_state.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

namespace lmgc::ops {

c10::IValue narrow_state(const c10::IValue& state, std::int64_t lanes) {
  if (state.isTensor()) {
    const at::Tensor tensor = state.toTensor();
    return tensor.dim() == 0 || tensor.size(0) <= lanes ? tensor : tensor.narrow(0, 0, lanes);
  }
  if (state.isTuple()) {
    std::vector<c10::IValue> elements;
    for (const auto& element : state.toTupleRef().elements())
      elements.push_back(narrow_state(element, lanes));
    return c10::ivalue::Tuple::create(std::move(elements));
  }
  if (state.isTensorList()) {
    c10::List<at::Tensor> tensors;
    for (const at::Tensor& tensor : state.toTensorVector())
      tensors.push_back(narrow_state(tensor, lanes).toTensor());
    return tensors;
  }
  if (state.isList()) {
    const auto list = state.toList();
    auto elements = c10::impl::GenericList(list.elementType());
    for (const c10::IValue& element : list.vec()) elements.push_back(narrow_state(element, lanes));
    return elements;
  }
  if (state.isGenericDict()) {
    const auto dict = state.toGenericDict();
    auto entries = c10::impl::GenericDict(dict.keyType(), dict.valueType());
    for (const auto& entry : dict) entries.insert(entry.key(), narrow_state(entry.value(), lanes));
    return entries;
  }
  return state;
}

std::int64_t bytes_of_state(const c10::IValue& state) {
  std::int64_t bytes = 0;
  if (state.isTensor()) {
    const at::Tensor tensor = state.toTensor();
    if (tensor.defined()) bytes = static_cast<std::int64_t>(tensor.nbytes());
  } else if (state.isTuple()) {
    for (const auto& element : state.toTupleRef().elements()) bytes += bytes_of_state(element);
  } else if (state.isList()) {  // of tensors too
    for (const c10::IValue& element : state.toListRef()) bytes += bytes_of_state(element);
  } else if (state.isGenericDict()) {
    for (const auto& entry : state.toGenericDict()) bytes += bytes_of_state(entry.value());
  }
  return bytes;
}

}  // namespace lmgc::ops
