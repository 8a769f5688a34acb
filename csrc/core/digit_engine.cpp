#include "core/digit_engine.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>

#include "core/range_coder.h"

namespace lmgc {

void start_portable(SlotLanes&, int) {}

void look_portable(SlotLanes& lanes, int active, std::int8_t* inputs, std::int32_t* contexts) {
  for (int slot = 0; slot < active; ++slot) {
    LaneContext& own = lanes.context[slot];
    own.inputs(*lanes.known[slot], inputs + slot * input_stride);
    contexts[slot] = digit_context_table.of(*lanes.known[slot], own.geometry->kind);
  }
}

void learn_portable(SlotLanes& lanes, int active, const std::int32_t* symbols) {
  for (int slot = 0; slot < active; ++slot)
    lanes.context[slot].update(*lanes.known[slot], symbols[slot]);
}

namespace {

// ---- portable kernels ---------------------------------------------------------------------------

void weights_portable(const DigitPriorView& prior, const std::int8_t* inputs,
                      SlotWeights& weights) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::int16_t own[prior_scores];
    component_weights(prior, inputs + slot * input_stride, own);
    std::copy(own, own + prior_scores, weights.of + slot * prior_scores);
  }
}

void starts_portable(const DigitPriorView& prior, const SlotWeights& weights,
                     const std::int32_t* contexts, const std::int32_t* highs, SlotStarts& starts) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::int16_t own[prior_scores];
    std::copy_n(weights.of + slot * prior_scores, prior_scores, own);
    std::uint32_t frequency[digits_of];
    digit_frequencies(prior, contexts[slot], highs == nullptr ? -1 : highs[slot], own, frequency);
    std::uint32_t sum = 0;
    for (int s = 0; s < digits_of; ++s) {
      starts.of[s * digit_slots + slot] = sum;
      sum += frequency[s];
    }
    starts.of[digits_of * digit_slots + slot] = sum;
  }
}

// ---- lanes --------------------------------------------------------------------------------------

// The last digit of every slot that starts at or before its target.
void digits_at(const SlotStarts& starts, const std::uint32_t* targets, std::int32_t* digits) {
  std::int32_t at[digit_slots] = {};
  for (int d = 1; d < digits_of; ++d) {
    for (int slot = 0; slot < digit_slots; ++slot) {
      at[slot] += static_cast<std::int32_t>(starts.of[d * digit_slots + slot]) <=
                  static_cast<std::int32_t>(targets[slot]);
    }
  }
  std::copy_n(at, digit_slots, digits);
}

// A lane under way.
struct Slot {
  DigitLane lane;
  std::size_t index = 0;
  std::int32_t left = 0;         // symbols
  std::uint8_t* next = nullptr;  // symbol
  std::vector<Trace> traces;
};

struct EncodeSlot {
  std::vector<CodedLane>* coded;
  RangeEncoder coder;

  void start(const Slot& slot) {
    CodedLane& out = (*coded)[slot.index];
    out.resize(static_cast<std::size_t>(lane_bound(2 * std::int64_t{slot.lane.count})));
    coder = {};
    coder.out = out.data();
  }
  static void find(const EncodeSlot*, int, const SlotStarts&, std::int32_t*) {}
  void code(std::uint32_t start, std::uint32_t end) { coder.put(start, end - start); }
  void finish(const Slot& slot) {
    CodedLane& out = (*coded)[slot.index];
    out.resize(static_cast<std::size_t>(coder.finish()));
    out.shrink_to_fit();
  }
};

struct DecodeSlot {
  const std::vector<LaneBytes>* bytes;
  RangeDecoder coder;

  void start(const Slot& slot) {
    const LaneBytes& own = (*bytes)[slot.index];
    coder.start(own.data, static_cast<std::int64_t>(own.size));
  }
  // The digits of the first `active` slots.
  static void find(const DecodeSlot* slots, int active, const SlotStarts& starts,
                   std::int32_t* digits) {
    std::uint32_t targets[digit_slots] = {};
    for (int slot = 0; slot < active; ++slot) targets[slot] = slots[slot].coder.target();
    digits_at(starts, targets, digits);
  }
  void code(std::uint32_t start, std::uint32_t end) { coder.take(start, end - start); }
  void finish(const Slot&) {}
};

// One thread's sixteen slots. The first `active` are in use.
template <class Coder>
class Batch {
 public:
  Batch(const DigitPriorView& prior, const DigitKernels& kernels,
        const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
        std::atomic<std::size_t>& next, const Coder& coder)
      : prior_(prior), kernels_(kernels), matrices_(matrices), lanes_(lanes), next_(next) {
    std::fill_n(coders_, digit_slots, coder);
  }

  void run() {
    while (active_ < digit_slots && take_lane(active_)) ++active_;
    while (active_ > 0) step();
  }

 private:
  // Puts the next lane that there is into a slot.
  bool take_lane(int slot) {
    const std::size_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= lanes_.size()) return false;
    Slot& own = slots_[slot];
    own.index = index;
    own.lane = lanes_[index];
    const DigitMatrix& matrix = matrices_[static_cast<std::size_t>(own.lane.matrix)];
    own.next = matrix.symbols + own.lane.first;
    under_way_.known[slot] = matrix.known + own.lane.first;
    const auto count = static_cast<std::size_t>(own.lane.count);
    if (own.traces.size() < count) own.traces.resize(count);
    own.left = own.lane.count;
    under_way_.context[slot].start(matrix.geometry, own.lane.first, own.traces.data());
    kernels_.start(under_way_, slot);
    coders_[slot].start(own);
    return true;
  }

  void step() {
    for (int slot = 0; slot < active_; ++slot) {
      // What is to be coded; nothing that a decoder looks at.
      const int symbol = *slots_[slot].next;
      highs_[slot] = symbol >> 4;
      lows_[slot] = symbol & 15;
    }
    kernels_.look(under_way_, active_, inputs_, contexts_);
    kernels_.weights(prior_, inputs_, weights_);
    kernels_.starts(prior_, weights_, contexts_, nullptr, starts_);
    code(highs_);
    kernels_.starts(prior_, weights_, contexts_, highs_, starts_);
    code(lows_);
    std::int32_t symbols[digit_slots];
    for (int slot = 0; slot < active_; ++slot) {
      symbols[slot] = 16 * highs_[slot] + lows_[slot];
      *slots_[slot].next++ = static_cast<std::uint8_t>(symbols[slot]);
    }
    kernels_.learn(under_way_, active_, symbols);
    for (int slot = active_ - 1; slot >= 0; --slot) {
      ++under_way_.known[slot];
      if (--slots_[slot].left > 0) continue;
      coders_[slot].finish(slots_[slot]);
      if (!take_lane(slot)) close(slot);
    }
  }

  // The last slot in use takes this one's place.
  void close(int slot) {
    const int last = --active_;
    std::swap(slots_[slot], slots_[last]);
    coders_[slot] = coders_[last];
    under_way_.known[slot] = under_way_.known[last];
    under_way_.context[slot] = under_way_.context[last];
    for (auto& field : under_way_.side) field[slot] = field[last];
  }

  void code(std::int32_t* digits) {
    Coder::find(coders_, active_, starts_, digits);
    for (int slot = 0; slot < active_; ++slot) {
      const std::uint32_t* const start = starts_.of + digits[slot] * digit_slots + slot;
      coders_[slot].code(start[0], start[digit_slots]);
    }
  }

  const DigitPriorView& prior_;
  const DigitKernels& kernels_;
  const std::vector<DigitMatrix>& matrices_;
  const std::vector<DigitLane>& lanes_;
  std::atomic<std::size_t>& next_;
  int active_ = 0;
  Slot slots_[digit_slots];
  Coder coders_[digit_slots];
  SlotLanes under_way_;
  // Slots that are not in use have numbers that kernels can work on.
  alignas(64) std::int8_t inputs_[digit_slots * input_stride] = {};
  SlotStarts starts_;
  SlotWeights weights_;
  std::int32_t contexts_[digit_slots] = {}, highs_[digit_slots] = {}, lows_[digit_slots] = {};
};

}  // namespace

const DigitKernels digit_kernels_portable = {start_portable, look_portable, weights_portable, starts_portable,
                                            learn_portable};

const DigitKernels& digit_kernels() {
  static const DigitKernels& best = []() -> const DigitKernels& {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
      return digit_kernels_avx512;
    if (__builtin_cpu_supports("avx2")) return digit_kernels_avx2;
#endif
    return digit_kernels_portable;
  }();
  return best;
}

template <class Coder>
void DigitEngine::run(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
                      const Coder& coder) const {
  std::atomic<std::size_t> next{0};
  const auto batches = static_cast<std::int64_t>((lanes.size() + digit_slots - 1) / digit_slots);
  parallel_(std::min<std::int64_t>(threads_, batches), [&](std::int64_t) {
    std::make_unique<Batch<Coder>>(prior_, kernels_, matrices, lanes, next, coder)->run();
  });
}

std::vector<CodedLane> DigitEngine::encode(const std::vector<DigitMatrix>& matrices,
                                           const std::vector<DigitLane>& lanes) const {
  std::vector<CodedLane> coded(lanes.size());
  run(matrices, lanes, EncodeSlot{&coded, {}});
  return coded;
}

void DigitEngine::decode(const std::vector<DigitMatrix>& matrices,
                         const std::vector<DigitLane>& lanes,
                         const std::vector<LaneBytes>& bytes) const {
  run(matrices, lanes, DecodeSlot{&bytes, {}});
}

}  // namespace lmgc
