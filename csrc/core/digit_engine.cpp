#include "core/digit_engine.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>

#include "core/range_coder.h"

namespace lmgc {
namespace {

// ---- portable kernels ---------------------------------------------------------------------------

void weights_portable(const DigitPriorView& prior, const std::int8_t* inputs,
                      SlotWeights& weights) {
  for (int slot = 0; slot < digit_slots; ++slot) {
    std::int16_t own[prior_scores];
    component_weights(prior, inputs + slot * padded_inputs, own);
    std::copy(own, own + prior_scores, weights.of + slot * prior_scores);
  }
}

void starts_portable(const DigitPriorView& prior, const SlotWeights& weights,
                     const std::int32_t* contexts, const std::int32_t* highs, int active,
                     std::uint32_t* starts) {
  for (int slot = 0; slot < active; ++slot, starts += digits_of) {
    std::int16_t own[prior_scores];
    std::copy_n(weights.of + slot * prior_scores, prior_scores, own);
    std::uint32_t frequency[digits_of];
    digit_frequencies(prior, contexts[slot], highs == nullptr ? -1 : highs[slot], own, frequency);
    std::uint32_t sum = 0;
    for (int s = 0; s < digits_of; ++s) {
      starts[s] = sum;
      sum += frequency[s];
    }
  }
}

// ---- lanes --------------------------------------------------------------------------------------

std::uint32_t end_of(const std::uint32_t* starts, int digit) {
  return digit + 1 < digits_of ? starts[digit + 1] : cdf_total;
}

// The last digit that starts at or before `target`.
int digit_at(const std::uint32_t* starts, std::uint32_t target) {
#if defined(LMGC_DIGIT_SSE2)
  const __m128i limit = _mm_set1_epi32(static_cast<int>(target));
  const auto* const from = reinterpret_cast<const __m128i*>(starts);
  const auto beyond = [&](int i) { return _mm_cmpgt_epi32(_mm_load_si128(from + i), limit); };
  const __m128i bytes =
      _mm_packs_epi16(_mm_packs_epi32(beyond(0), beyond(1)), _mm_packs_epi32(beyond(2), beyond(3)));
  // Starts rise, so that those beyond come last.
  return std::countr_zero(static_cast<unsigned>(_mm_movemask_epi8(bytes)) | 1u << digits_of) - 1;
#else
  int digit = digits_of - 1;
  while (starts[digit] > target) --digit;
  return digit;
#endif
}

// A lane under way.
struct Slot {
  LaneContext context;
  DigitLane lane;
  std::size_t index = 0;
  const Known* known = nullptr;
  std::uint8_t* symbols = nullptr;
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
  int code(const std::uint32_t* starts, int digit) {
    coder.put(starts[digit], end_of(starts, digit) - starts[digit]);
    return digit;
  }
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
  int code(const std::uint32_t* starts, int) {
    const int digit = digit_at(starts, coder.target());
    coder.take(starts[digit], end_of(starts, digit) - starts[digit]);
    return digit;
  }
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
    own.known = matrix.known + own.lane.first;
    own.symbols = matrix.symbols + own.lane.first;
    const auto count = static_cast<std::size_t>(own.lane.count);
    if (own.traces.size() < count) own.traces.resize(count);
    own.context.start(matrix.geometry, own.lane.first, own.traces.data());
    coders_[slot].start(own);
    return true;
  }

  void step() {
    for (int slot = 0; slot < active_; ++slot) {
      Slot& own = slots_[slot];
      const Known& known = own.known[own.context.position];
      own.context.inputs(known, inputs_ + slot * padded_inputs);
      contexts_[slot] = digit_context(known, own.context.geometry->kind);
    }
    kernels_.weights(prior_, inputs_, weights_);
    kernels_.starts(prior_, weights_, contexts_, nullptr, active_, starts_);
    for (int slot = 0; slot < active_; ++slot) {
      highs_[slot] = coders_[slot].code(starts_ + slot * digits_of, symbol_of(slot) >> 4);
    }
    kernels_.starts(prior_, weights_, contexts_, highs_, active_, starts_);
    for (int slot = 0; slot < active_; ++slot) {
      Slot& own = slots_[slot];
      const int low = coders_[slot].code(starts_ + slot * digits_of, symbol_of(slot) & 15);
      const int symbol = 16 * highs_[slot] + low;
      own.symbols[own.context.position] = static_cast<std::uint8_t>(symbol);
      own.context.update(own.known[own.context.position], symbol);
    }
    for (int slot = active_ - 1; slot >= 0; --slot) {
      if (slots_[slot].context.position < slots_[slot].lane.count) continue;
      coders_[slot].finish(slots_[slot]);
      if (take_lane(slot)) continue;
      --active_;
      std::swap(slots_[slot], slots_[active_]);
      std::swap(coders_[slot], coders_[active_]);
    }
  }

  // What is to be coded; nothing that a decoder looks at.
  int symbol_of(int slot) const { return slots_[slot].symbols[slots_[slot].context.position]; }

  const DigitPriorView& prior_;
  const DigitKernels& kernels_;
  const std::vector<DigitMatrix>& matrices_;
  const std::vector<DigitLane>& lanes_;
  std::atomic<std::size_t>& next_;
  int active_ = 0;
  Slot slots_[digit_slots];
  Coder coders_[digit_slots];
  alignas(64) std::int8_t inputs_[digit_slots * padded_inputs] = {};
  alignas(64) std::uint32_t starts_[digit_slots * digits_of];
  SlotWeights weights_;
  std::int32_t contexts_[digit_slots], highs_[digit_slots];
};

}  // namespace

const DigitKernels digit_kernels_portable = {weights_portable, starts_portable};

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
