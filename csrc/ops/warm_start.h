// What compressing a list of tensors found out, for the next list like it.
#pragma once

#include <torch/custom_class.h>
#include <torch/library.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "core/frame.h"
#include "ops/fixed.h"

namespace lmgc::ops {

// Of one tensor.
struct TensorMemory {
  DType dtype{};
  std::vector<std::int64_t> sizes;
  bool searched = false;        // else there is nothing below
  Method method = Method::raw;  // which was the smallest
  bool clearly = false;         // smaller than all others by far
  FixedMemory fixed;
  bool refused = false;     // a prediction cannot be found from what is known here
  std::int64_t bytes = 0;   // of the last section
  std::int64_t calls = 0;   // since the last full search
  std::int64_t period = 0;  // a full search is made after so many
  // So that the searches of a list's tensors, and of lists that were first seen one after the
  // other, fall into different calls.
  std::int64_t offset = 0;
};

// torch.classes.lmgc.WarmStart. It is only a cache: frames do not depend on it to be decoded, and
// its copies and pickles are empty. Calls that share one wait for each other.
class WarmStart : public torch::CustomClassHolder {
 public:
  WarmStart();
  void clear();

  // ---- for the codec, while it holds the mutex ----
  std::mutex mutex;
  // The memories of tensors of these types and sizes on `device`, in order: empty ones where the
  // last list was another.
  std::vector<TensorMemory>& recall(const std::vector<at::Tensor>& tensors,
                                    const c10::Device& device);

 private:
  const std::int64_t offset_;
  c10::Device device_ = c10::kCPU;
  std::vector<TensorMemory> tensors_;
};

// Whether the tensor's next section should be searched for in full.
bool is_search_due(const TensorMemory& memory);

// Takes down what a full search found to be the smallest.
void remember_search(Method method, TensorMemory& memory);
// That what is known did not tell: it is not asked again before the next search that is due, soon.
void remember_refusal(TensorMemory& memory);

// Registers torch.classes.lmgc.WarmStart.
void register_warm_start(torch::Library& m);

}  // namespace lmgc::ops
