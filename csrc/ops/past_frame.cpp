#include "ops/past_frame.h"

#include "core/fixed_section.h"
#include "ops/memory.h"

namespace lmgc::ops {

void PastFrame::clear() {
  const std::lock_guard<std::mutex> lock(mutex);
  identity.reset();
  tensors.clear();
}

void PastFrame::keep(const FrameHeader& header, const FixedHeads& heads) {
  const std::vector<std::size_t> places = places_of(header);
  PastTensors kept(listed(header).size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    const TensorRecord& record = header.tensors[i];
    if (record.method != Method::lowrank || heads[i] == nullptr) continue;
    const MatrixShape shape =
        fixed_shape(record.sizes.data(), record.sizes.size(), heads[i]->by_dimension_1);
    kept[places[i]] = std::make_shared<const PastFactors>(past_factors(*heads[i], shape));
  }
  tensors = std::move(kept);
  identity = header.identity;
}

void register_past_frame(torch::Library& m) { register_memory<PastFrame>(m, "PastFrame"); }

}  // namespace lmgc::ops
