#include "core/digit_engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "core/range_coder.h"

namespace lmgc {
namespace {

// A lane under way.
struct Slot {
  DigitLane lane;
  std::size_t index = 0;
  std::int32_t left = 0;         // symbols
  std::uint8_t* next = nullptr;  // symbol
  std::vector<Trace> traces;
};

struct Encode {
  std::vector<CodedLane>& coded;

  void open(const Slot& slot, SlotCoders& coders, int at) const {
    CodedLane& out = coded[slot.index];
    out.resize(static_cast<std::size_t>(lane_bound(2 * std::int64_t{slot.lane.count})));
    const RangeEncoder coder;
    coders.low[at] = coder.low;
    coders.range[at] = coder.range;
    coders.out[at] = out.data();
  }
  void code(const DigitKernels& kernels, SlotCoders& coders, int active, const SlotStarts& starts,
            std::int32_t* digits) const {
    kernels.encode(coders, active, starts, digits);
  }
  void close(const Slot& slot, const SlotCoders& coders, int at) const {
    CodedLane& out = coded[slot.index];
    RangeEncoder coder;
    coder.low = coders.low[at];
    coder.range = coders.range[at];
    coder.out = out.data();
    coder.size = coders.out[at] - out.data();
    out.resize(static_cast<std::size_t>(coder.finish()));
    out.shrink_to_fit();
  }
};

struct Decode {
  const std::vector<LaneBytes>& bytes;

  void open(const Slot& slot, SlotCoders& coders, int at) const {
    const LaneBytes& own = bytes[slot.index];
    RangeDecoder coder;
    coder.start(own.data, static_cast<std::int64_t>(own.size));
    coders.low[at] = coder.code;
    coders.range[at] = coder.range;
    coders.in[at] = own.data + coder.position;
    coders.end[at] = own.data + own.size;
  }
  void code(const DigitKernels& kernels, SlotCoders& coders, int active, const SlotStarts& starts,
            std::int32_t* digits) const {
    kernels.decode(coders, active, starts, digits);
  }
  void close(const Slot&, const SlotCoders&, int) const {}
};

// One thread's sixteen slots. The first `active` are in use.
template <class Direction>
class Batch {
 public:
  Batch(const DigitPriorView& prior, const DigitKernels& kernels,
        const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
        std::atomic<std::size_t>& next, const Direction& direction)
      : prior_(prior),
        kernels_(kernels),
        matrices_(matrices),
        lanes_(lanes),
        next_(next),
        direction_(direction) {}

  void run() {
    while (active_ < digit_slots && take_lane(active_)) ++active_;
    while (active_ > 0) step();
  }

 private:
  // Puts the next lane that there is into a slot.
  bool take_lane(int at) {
    const std::size_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= lanes_.size()) return false;
    Slot& own = slots_[at];
    own.index = index;
    own.lane = lanes_[index];
    const DigitMatrix& matrix = matrices_[static_cast<std::size_t>(own.lane.matrix)];
    own.left = own.lane.count;
    own.next = matrix.symbols + own.lane.first;
    const auto count = static_cast<std::size_t>(own.lane.count);
    if (own.traces.size() < count) own.traces.resize(count);
    under_way_.known[at] = matrix.known + own.lane.first;
    under_way_.context[at].start(matrix.geometry, own.lane.first, own.traces.data());
    kernels_.start(under_way_, at);
    direction_.open(own, coders_, at);
    return true;
  }

  void step() {
    for (int at = 0; at < active_; ++at) {
      // What is to be coded; nothing that a decoder looks at.
      const int symbol = *slots_[at].next;
      highs_[at] = symbol >> 4;
      lows_[at] = symbol & 15;
    }
    kernels_.look(under_way_, active_, inputs_, contexts_);
    kernels_.weights(prior_, inputs_, weights_);
    kernels_.starts(prior_, weights_, contexts_, nullptr, starts_);
    direction_.code(kernels_, coders_, active_, starts_, highs_);
    kernels_.starts(prior_, weights_, contexts_, highs_, starts_);
    direction_.code(kernels_, coders_, active_, starts_, lows_);
    std::int32_t symbols[digit_slots];
    for (int at = 0; at < digit_slots; ++at) symbols[at] = 16 * highs_[at] + lows_[at];
    kernels_.learn(under_way_, active_, symbols);
    for (int at = active_ - 1; at >= 0; --at) {
      *slots_[at].next++ = static_cast<std::uint8_t>(symbols[at]);
      ++under_way_.known[at];
      if (--slots_[at].left > 0) continue;
      direction_.close(slots_[at], coders_, at);
      if (!take_lane(at)) drop(at);
    }
  }

  // The last slot in use takes this one's place.
  void drop(int at) {
    const int last = --active_;
    if (at == last) return;
    std::swap(slots_[at], slots_[last]);
    under_way_.known[at] = under_way_.known[last];
    under_way_.context[at] = under_way_.context[last];
    for (auto& field : under_way_.side) field[at] = field[last];
    coders_.low[at] = coders_.low[last];
    coders_.range[at] = coders_.range[last];
    coders_.out[at] = coders_.out[last];
    coders_.in[at] = coders_.in[last];
    coders_.end[at] = coders_.end[last];
  }

  const DigitPriorView& prior_;
  const DigitKernels& kernels_;
  const std::vector<DigitMatrix>& matrices_;
  const std::vector<DigitLane>& lanes_;
  std::atomic<std::size_t>& next_;
  const Direction& direction_;
  int active_ = 0;
  Slot slots_[digit_slots];
  SlotLanes under_way_;
  // Slots that are not in use have numbers that kernels can work on.
  SlotCoders coders_ = {};
  alignas(64) std::int8_t inputs_[digit_slots * input_stride] = {};
  SlotWeights weights_ = {};
  SlotStarts starts_ = {};
  std::int32_t contexts_[digit_slots] = {}, highs_[digit_slots] = {}, lows_[digit_slots] = {};
};

}  // namespace

template <class Direction>
void DigitEngine::run(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
                      const Direction& direction) const {
  std::atomic<std::size_t> next{0};
  const auto batches = static_cast<std::int64_t>((lanes.size() + digit_slots - 1) / digit_slots);
  parallel_(std::min<std::int64_t>(threads_, batches), [&](std::int64_t) {
    std::make_unique<Batch<Direction>>(prior_, kernels_, matrices, lanes, next, direction)->run();
  });
}

std::vector<CodedLane> DigitEngine::encode(const std::vector<DigitMatrix>& matrices,
                                           const std::vector<DigitLane>& lanes) const {
  std::vector<CodedLane> coded(lanes.size());
  run(matrices, lanes, Encode{coded});
  return coded;
}

void DigitEngine::decode(const std::vector<DigitMatrix>& matrices,
                         const std::vector<DigitLane>& lanes,
                         const std::vector<LaneBytes>& bytes) const {
  run(matrices, lanes, Decode{bytes});
}

}  // namespace lmgc
