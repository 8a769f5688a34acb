#include "ops/warm_start.h"

#include <algorithm>
#include <atomic>

#include "ops/dtype.h"
#include "ops/memory.h"

namespace lmgc::ops {

namespace {

constexpr std::int64_t shortest = 8, longest = 32;  // periods

std::int64_t next_offset() {
  static std::atomic<std::int64_t> made{0};
  return made++;
}

}  // namespace

WarmStart::WarmStart() : offset_(next_offset()) {}

void WarmStart::clear() {
  const std::lock_guard<std::mutex> lock(mutex);
  tensors_.clear();
}

std::vector<TensorMemory>& WarmStart::recall(const std::vector<at::Tensor>& tensors,
                                             const c10::Device& device) {
  bool same = device == device_ && tensors.size() == tensors_.size();
  for (std::size_t i = 0; same && i < tensors.size(); ++i)
    same = dtype_of(tensors[i].scalar_type()) == tensors_[i].dtype &&
           tensors[i].sizes() == tensors_[i].sizes;
  if (!same) {
    device_ = device;
    tensors_.assign(tensors.size(), {});
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      tensors_[i].dtype = dtype_of(tensors[i].scalar_type());
      tensors_[i].sizes = tensors[i].sizes().vec();
      tensors_[i].offset = offset_ + static_cast<std::int64_t>(i);
    }
  }
  return tensors_;
}

bool is_search_due(const TensorMemory& memory) {
  if (!memory.searched) return true;
  return memory.calls + memory.offset % (memory.period / 2) >= memory.period;
}

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

void register_warm_start(torch::Library& m) { register_memory<WarmStart>(m, "WarmStart"); }

}  // namespace lmgc::ops
