// What both sides of a sequence of frames keep of the last one: the factors of its predictions.
#pragma once

#include <torch/custom_class.h>
#include <torch/library.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/frame.h"
#include "core/projection.h"
#include "ops/tables.h"

namespace lmgc::ops {

// torch.classes.lmgc.PastFrame. Unlike a WarmStart it matters to the decoder: a frame that names
// its past decodes only after that. Copies and pickles are empty, as they would be out of step.
class PastFrame : public torch::CustomClassHolder {
 public:
  void clear();

  // ---- for the codec, while it holds the mutex ----
  std::mutex mutex;
  // The header checksum of the frame; nothing: there is none.
  std::optional<std::uint64_t> identity;
  // One a tensor, at its place in the list; null where it had no prediction.
  PastTensors tensors;

  // Takes the place of the frame before. `heads`: of sections of method lowrank, complete; others
  // are not looked at.
  void keep(const FrameHeader& header, const FixedHeads& heads);
};

// Registers torch.classes.lmgc.PastFrame.
void register_past_frame(torch::Library& m);

}  // namespace lmgc::ops
