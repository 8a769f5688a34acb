#include "ops/digit_module.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/lanes.h"
#include "core/range_coder.h"
#include "ops/for_each.h"
#include "ops/prior_state.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t digits_of_symbol = 2;

std::vector<std::size_t> longest_first(const std::vector<DigitLane>& lanes) {
  std::vector<std::size_t> order(lanes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lanes[a].count > lanes[b].count; });
  return order;
}

// A lane that goes through a module.
struct ModuleLane {
  DigitLane lane;
  std::size_t index = 0;
  const DigitMatrix* matrix = nullptr;
  LaneContext context;
  std::vector<Trace> traces;
  CodedLane coded;
  RangeEncoder encoder;
  RangeDecoder decoder;
  bool finite = true;

  // Of the next symbol.
  const Known& known() const { return matrix->known[lane.first + context.position]; }
  std::uint8_t& symbol(std::int64_t position) const {
    return matrix->symbols[lane.first + position];
  }
};

class ModuleCoder : public DigitCoder {
 public:
  ModuleCoder(const Prior& prior, std::int64_t memory_limit, std::int64_t batch_lanes)
      : prior_(prior), memory_limit_(memory_limit), batch_lanes_(batch_lanes) {
    for (int d = 0; d < digits_of; ++d)
      ids_[d] = static_cast<std::int32_t>(prior.token(std::string(1, "0123456789abcdef"[d])));
    bos_ = prior.bos();
    features_ = prior.digit_features();
    window_ = std::clamp<std::int64_t>(prior.max_context() / digits_of_symbol, 1, 1 << 16);
  }

  std::vector<CodedLane> encode(const std::vector<DigitMatrix>& matrices,
                                const std::vector<DigitLane>& lanes) const override {
    std::vector<CodedLane> coded(lanes.size());
    for_each_batch(matrices, lanes, [&](std::vector<ModuleLane>& batch) {
      for (ModuleLane& own : batch) {
        own.coded.resize(
            static_cast<std::size_t>(lane_bound(digits_of_symbol * std::int64_t{own.lane.count})));
        own.encoder.out = own.coded.data();
      }
      const auto code = [](ModuleLane& own, std::int64_t position, const std::uint32_t* frequency,
                           int high) {
        const int symbol = own.symbol(position);
        const int digit = high < 0 ? symbol >> 4 : symbol & 15;
        own.encoder.put(std::accumulate(frequency, frequency + digit, std::uint32_t{0}),
                        frequency[digit]);
        return digit;
      };
      if (prior_.portable()) {
        teacher_forced(batch, code);
      } else {
        lockstep(batch, code);
      }
      for (ModuleLane& own : batch) {
        TORCH_CHECK_VALUE(own.finite,
                          "the prior's logits are not finite (NaN or infinity) for a digit that it "
                          "was asked to predict: it must know a number for each of them, for any "
                          "input");
        own.coded.resize(static_cast<std::size_t>(own.encoder.finish()));
        coded[own.index] = std::move(own.coded);
      }
    });
    return coded;
  }

  void decode(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
              const std::vector<LaneBytes>& bytes) const override {
    for_each_batch(matrices, lanes, [&](std::vector<ModuleLane>& batch) {
      for (ModuleLane& own : batch) {
        own.decoder.start(bytes[own.index].data, static_cast<std::int64_t>(bytes[own.index].size));
      }
      lockstep(batch, [](ModuleLane& own, std::int64_t, const std::uint32_t* frequency, int) {
        std::uint32_t start;
        const int digit = find_symbol(frequency, digits_of, own.decoder.target(), start);
        own.decoder.take(start, frequency[digit]);
        return digit;
      });
    });
  }

 private:
  // body(batch) for lanes side by side, longest first. The batches of a bound prior are part of
  // what it computes, one after the other; others are as threads and memory want them.
  template <class Body>
  void for_each_batch(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
                      const Body& body) const {
    const std::vector<std::size_t> order = longest_first(lanes);
    const auto count = static_cast<std::int64_t>(order.size());
    const auto make = [&](std::int64_t first, std::int64_t stride, std::int64_t last) {
      std::vector<ModuleLane> batch;
      for (std::int64_t i = first; i < last; i += stride) {
        ModuleLane own;
        own.index = order[static_cast<std::size_t>(i)];
        own.lane = lanes[own.index];
        own.matrix = &matrices[static_cast<std::size_t>(own.lane.matrix)];
        own.traces.resize(static_cast<std::size_t>(own.lane.count));
        batch.push_back(std::move(own));
      }
      for (ModuleLane& own : batch) {
        own.context.start(own.matrix->geometry, own.lane.first, own.traces.data());
      }
      return batch;
    };
    if (!prior_.portable()) {
      for (std::int64_t first = 0; first < count; first += batch_lanes_) {
        std::vector<ModuleLane> batch = make(first, 1, std::min(count, first + batch_lanes_));
        body(batch);
      }
      return;
    }
    const std::int64_t most =
        std::max<std::int64_t>(1, memory_limit_ / (1024 + 16 * position_bytes()));
    const std::int64_t threads =
        prior_.device().is_cpu() ? std::min<std::int64_t>(at::get_num_threads(), (count + 31) / 32)
                                 : 1;
    const std::int64_t batches = std::max(threads, (count + most - 1) / most);
    // Dealt out, so that all are equally long.
    const auto run = [&](std::int64_t begin, std::int64_t end) {
      const PlainDispatch plain;
      for (std::int64_t i = begin; i < end; ++i) {
        std::vector<ModuleLane> batch = make(i, batches, count);
        body(batch);
      }
    };
    if (prior_.device().is_cpu()) {
      at::parallel_for(0, batches, 1, run);
    } else {
      run(0, batches);
    }
  }

  // What a module takes and gives at one position of a lane.
  std::int64_t position_bytes() const {
    return static_cast<std::int64_t>(features_.size() + prior_.vocab().size()) * 4 + 8;
  }

  // Writes the features of the lane's next symbol, the digit left 0.
  void write_features(ModuleLane& own, float* out) const {
    std::int8_t inputs[digit_inputs];
    own.context.inputs(own.known(), inputs);
    for (const int feature : features_)
      *out++ = digit_feature(feature, 0, own.known(), own.matrix->geometry.kind, inputs);
  }

  // Frequencies of one lane's digit; false where a logit is no number.
  bool frequencies_of(const float* logits, std::uint32_t* frequency) const {
    bool finite = true;
    for (const std::int32_t id : ids_)
      finite &= std::isfinite(logits[id]) || logits[id] == -INFINITY;
    logits_to_frequencies(logits, ids_, digits_of, prior_.steps_per_unit(), frequency);
    return finite;
  }

  // Sets the digit's feature in rows [rows, F] of features.
  void set_digit(const at::Tensor& features, float digit) const {
    const auto found = std::find(features_.begin(), features_.end(), 0);
    if (found != features_.end()) features.select(-1, found - features_.begin()).fill_(digit);
  }

  // Symbol after symbol, all lanes at once, as a decoder must go. code(lane, position, frequency,
  // high) returns the digit: the high one where `high` is negative.
  template <class Code>
  void lockstep(std::vector<ModuleLane>& batch, const Code& code) const {
    const at::Device device = prior_.device();
    const auto width = static_cast<std::int64_t>(features_.size());
    auto active = static_cast<std::int64_t>(batch.size());
    c10::IValue state;
    at::Tensor tokens;
    std::vector<int> highs(batch.size());
    for (std::int32_t position = 0;; ++position) {
      const std::int64_t before = active;
      while (active > 0 && batch[static_cast<std::size_t>(active - 1)].lane.count <= position)
        --active;
      if (active == 0) break;
      if (position % window_ == 0) {
        state = prior_.init_state(active);
        tokens = at::full({active}, bos_, at::kLong);
      } else if (active != before) {
        state = narrow_state(state, active);
        tokens = tokens.narrow(0, 0, active);
      }
      at::Tensor features = at::zeros({active, width}, at::kFloat);
      auto* const first = features.data_ptr<float>();
      for (std::int64_t i = 0; i < active; ++i)
        write_features(batch[static_cast<std::size_t>(i)], first + i * width);
      for (int which = 0; which < digits_of_symbol; ++which) {
        // A state may hold on to what step() was given: tokens and features are made anew.
        if (which == 1) features = features.clone();
        set_digit(features, static_cast<float>(which));
        const at::Tensor logits = prior_.step(tokens.to(device), features.to(device), state).cpu();
        const auto* const own_logits = logits.data_ptr<float>();
        tokens = at::empty({active}, at::kLong);
        auto* const token = tokens.data_ptr<std::int64_t>();
        for (std::int64_t i = 0; i < active; ++i) {
          ModuleLane& own = batch[static_cast<std::size_t>(i)];
          int& high = highs[static_cast<std::size_t>(i)];
          std::uint32_t frequency[digits_of];
          own.finite &= frequencies_of(own_logits + i * logits.size(1), frequency);
          const int digit = code(own, position, frequency, which == 0 ? -1 : high);
          token[i] = ids_[digit];
          if (which == 0) {
            high = digit;
            continue;
          }
          own.symbol(position) = static_cast<std::uint8_t>(16 * high + digit);
          own.context.update(own.known(), own.symbol(position));
        }
      }
    }
  }

  // Known symbols: window after window goes through forward.
  template <class Code>
  void teacher_forced(std::vector<ModuleLane>& batch, const Code& code) const {
    const std::int64_t longest = batch.front().lane.count;
    const std::int64_t window_bytes =
        digits_of_symbol * std::min(window_, longest) * position_bytes();
    const auto most_rows =
        static_cast<std::size_t>(std::max<std::int64_t>(1, memory_limit_ / 4 / window_bytes));
    for (std::int64_t begin = 0; begin < longest; begin += window_) {
      for (std::size_t row = 0; row < batch.size() && batch[row].lane.count > begin;
           row += most_rows) {
        std::size_t rows = 0;
        while (rows < most_rows && row + rows < batch.size() &&
               batch[row + rows].lane.count > begin)
          ++rows;
        forward_rows(&batch[row], static_cast<std::int64_t>(rows), begin, code);
      }
    }
  }

  // One window of `rows` lanes, longest first.
  template <class Code>
  void forward_rows(ModuleLane* lanes, std::int64_t rows, std::int64_t begin,
                    const Code& code) const {
    const at::Device device = prior_.device();
    const auto width = static_cast<std::int64_t>(features_.size());
    const auto count_of = [&](const ModuleLane& own) {
      return std::min<std::int64_t>(window_, own.lane.count - begin);
    };
    const std::int64_t symbols = count_of(lanes[0]), positions = digits_of_symbol * symbols;
    at::Tensor tokens = at::full({rows, positions}, bos_, at::kLong);
    at::Tensor features = at::zeros({rows, symbols, digits_of_symbol, width}, at::kFloat);
    for (std::int64_t r = 0; r < rows; ++r) {
      ModuleLane& own = lanes[r];
      auto* const token = tokens.data_ptr<std::int64_t>() + r * positions;
      auto* feature = features.data_ptr<float>() + r * positions * width;
      for (std::int64_t i = 0; i < count_of(own); ++i, feature += digits_of_symbol * width) {
        write_features(own, feature);
        std::copy_n(feature, width, feature + width);
        const int symbol = own.symbol(begin + i);
        token[2 * i + 1] = ids_[symbol >> 4];
        if (2 * i + 2 < positions) token[2 * i + 2] = ids_[symbol & 15];
        own.context.update(own.known(), symbol);
      }
    }
    for (int which = 0; which < digits_of_symbol; ++which)
      set_digit(features.select(2, which), static_cast<float>(which));
    const at::Tensor logits =
        prior_.forward(tokens.to(device), features.view({rows, positions, width}).to(device)).cpu();
    const std::int64_t vocabulary = logits.size(2);
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto* own_logits = logits.data_ptr<float>() + r * positions * vocabulary;
      for (std::int64_t i = 0; i < count_of(lanes[r]); ++i) {
        int high = -1;
        for (int which = 0; which < digits_of_symbol; ++which, own_logits += vocabulary) {
          std::uint32_t frequency[digits_of];
          lanes[r].finite &= frequencies_of(own_logits, frequency);
          high = code(lanes[r], begin + i, frequency, high);
        }
      }
    }
  }

  const Prior& prior_;
  std::int64_t memory_limit_, batch_lanes_, bos_ = 0, window_ = 1;
  std::int32_t ids_[digits_of];
  std::vector<int> features_;
};

}  // namespace

std::unique_ptr<DigitCoder> module_coder(const Prior& prior, std::int64_t memory_limit,
                                         std::int64_t batch_lanes) {
  return std::make_unique<ModuleCoder>(prior, memory_limit, std::max<std::int64_t>(batch_lanes, 1));
}

std::int64_t bound_digit_lanes(const Prior& prior, std::int64_t memory_limit) {
  const auto token =
      static_cast<std::int64_t>(prior.digit_features().size() + prior.vocab().size()) * 4 + 8;
  return std::clamp<std::int64_t>(memory_limit / (prior.state_bytes() + 16 * token), 1, 1024);
}

}  // namespace lmgc::ops
