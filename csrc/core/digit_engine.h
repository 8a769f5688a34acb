// The native engine of method `lm`: features, network, frequencies and range coder in one loop, for
// priors of the bundled architecture (digit_prior.h). Sixteen lanes go side by side, so that the
// network's products fill vector registers; a lane that ends makes room for the next.
#pragma once

#include <vector>

#include "core/digit_coder.h"
#include "core/digit_kernels.h"
#include "core/digit_prior.h"
#include "core/parallel.h"

namespace lmgc {

class DigitEngine : public DigitCoder {
 public:
  // `prior` must outlive it. `threads`: tasks to hand to `parallel` at a time.
  DigitEngine(const DigitPriorView& prior, Parallel parallel, int threads,
              const DigitKernels& kernels = digit_kernels())
      : prior_(prior), parallel_(std::move(parallel)), threads_(threads), kernels_(kernels) {}

  std::vector<CodedLane> encode(const std::vector<DigitMatrix>& matrices,
                                const std::vector<DigitLane>& lanes) const override;
  void decode(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
              const std::vector<LaneBytes>& bytes) const override;

 private:
  template <class Direction>
  void run(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
           const Direction& direction) const;

  DigitPriorView prior_;
  Parallel parallel_;
  int threads_;
  DigitKernels kernels_;
};

}  // namespace lmgc
