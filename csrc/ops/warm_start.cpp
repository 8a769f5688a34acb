#include "ops/warm_start.h"

#include <algorithm>
#include <string>
#include <tuple>

namespace lmgc::ops {

void WarmStart::clear() {
  const std::lock_guard<std::mutex> lock(mutex);
  tensors_.clear();
}

std::vector<TensorMemory>& WarmStart::recall(const std::vector<TensorRecord>& tensors,
                                             const c10::Device& device) {
  bool same = device == device_ && tensors.size() == tensors_.size();
  for (std::size_t i = 0; same && i < tensors.size(); ++i)
    same = tensors[i].dtype == tensors_[i].dtype && tensors[i].sizes == tensors_[i].sizes;
  if (!same) {
    device_ = device;
    tensors_.assign(tensors.size(), {});
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      tensors_[i].dtype = tensors[i].dtype;
      tensors_[i].sizes = tensors[i].sizes;
    }
  }
  return tensors_;
}

bool is_search_due(const TensorMemory& memory, std::size_t index) {
  if (!memory.searched) return true;
  // Not all tensors in the same call.
  const auto earlier = static_cast<std::int64_t>(index) % (memory.period / 2);
  return memory.calls + earlier >= memory.period;
}

namespace {

constexpr std::int64_t shortest = 8, longest = 32;  // periods

}  // namespace

void remember_search(Method method, TensorMemory& memory) {
  const bool confirmed = memory.searched && memory.method == method;
  memory.period = confirmed ? std::min(2 * memory.period, longest) : shortest;
  memory.searched = true;
  memory.method = method;
  memory.calls = 0;
  memory.refused = false;
}

void remember_refusal(TensorMemory& memory) {
  memory.refused = true;
  memory.period = shortest;
  ++memory.calls;
}

void register_warm_start(torch::Library& m) {
  m.class_<WarmStart>("WarmStart")
      .def(torch::init<>())
      .def("clear", &WarmStart::clear)
      .def("__obj_flatten__",
           [](const c10::intrusive_ptr<WarmStart>&) {
             return std::tuple<std::tuple<std::string, bool>>(std::make_tuple("empty", true));
           })
      .def_pickle([](const c10::intrusive_ptr<WarmStart>&) { return std::int64_t{0}; },
                  [](std::int64_t) { return c10::make_intrusive<WarmStart>(); });
}

}  // namespace lmgc::ops
