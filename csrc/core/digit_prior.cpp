#include "core/digit_prior.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace lmgc {
namespace {

// LayerView's `words`.
std::vector<std::int32_t> words_of(const std::vector<std::int8_t>& weight, std::size_t inputs,
                                   std::size_t outputs) {
  constexpr std::size_t together = outputs_together;
  const std::size_t row = inputs / 4;
  std::vector<std::int32_t> words((outputs + together - 1) / together * row * together, 0);
  for (std::size_t o = 0; o < outputs; ++o) {
    for (std::size_t w = 0; w < row; ++w) {
      std::memcpy(&words[(o / together * row + w) * together + o % together],
                  &weight[o * inputs + 4 * w], 4);
    }
  }
  return words;
}

// Room for `count` entries from the beginning of a cache line on, in a vector that is made to hold
// them: a row of sixteen pairs is a line.
std::int16_t* lines_of(std::vector<std::int16_t>& room, std::size_t count) {
  constexpr std::size_t line = 64;
  room.assign(count + line / sizeof(std::int16_t), 0);
  const auto beyond = reinterpret_cast<std::uintptr_t>(room.data()) % line;
  return room.data() + (line - beyond) % line / sizeof(std::int16_t);
}

}  // namespace

std::string DigitPrior::set(const DigitLayer (&layers)[3], const std::int16_t* table) {
  int inputs = digit_inputs;
  for (int l = 0; l < 3; ++l) {
    const DigitLayer& layer = layers[l];
    const bool last = l == 2;
    const bool fits =
        last ? layer.outputs == prior_scores
             : layer.outputs >= 16 && layer.outputs <= most_hidden && layer.outputs % 16 == 0;
    const auto cells = static_cast<std::size_t>(layer.inputs) *
                       static_cast<std::size_t>(std::max(layer.outputs, 0));
    if (!fits || layer.inputs != inputs || layer.weight.size() != cells ||
        layer.bias.size() != static_cast<std::size_t>(layer.outputs) ||
        layer.shift.size() != layer.bias.size())
      return "its layers do not have the sizes of the architecture";
    const int padded = (inputs + 3) / 4 * 4;
    bias_of_unsigned_[l].clear();
    weight_[l].assign(static_cast<std::size_t>(padded) * static_cast<std::size_t>(layer.outputs),
                      0);
    for (int o = 0; o < layer.outputs; ++o) {
      std::int32_t sum = 0;
      std::int64_t most = std::abs(std::int64_t{layer.bias[static_cast<std::size_t>(o)]});
      for (int i = 0; i < inputs; ++i) {
        const std::int8_t weight =
            layer.weight[static_cast<std::size_t>(o) * static_cast<std::size_t>(inputs) +
                         static_cast<std::size_t>(i)];
        if (weight == -128) return "a weight is below -127";
        sum += weight;
        most += 128 * std::abs(int{weight});
        weight_[l][static_cast<std::size_t>(o) * static_cast<std::size_t>(padded) +
                   static_cast<std::size_t>(i)] = weight;
      }
      const std::int32_t shift = layer.shift[static_cast<std::size_t>(o)];
      if (most >= 1 << 24) return "a layer's sums could reach 2^24";
      bias_of_unsigned_[l].push_back(layer.bias[static_cast<std::size_t>(o)] - 128 * sum);
      if (shift < 0 || shift > 24) return "a shift is not between 0 and 24";
    }
    bias_[l] = layer.bias;
    shift_[l] = layer.shift;
    words_[l] = words_of(weight_[l], static_cast<std::size_t>(padded),
                         static_cast<std::size_t>(layer.outputs));
    view_.layer[l] = {
        weight_[l].data(), bias_[l].data(), shift_[l].data(), bias_of_unsigned_[l].data(), padded,
        layer.outputs,     words_[l].data()};
    inputs = layer.outputs;
  }

  constexpr std::size_t block = component_pairs * digits_of * 2;
  std::int16_t* const low_rows =
      lines_of(low_, static_cast<std::size_t>(digit_contexts) * digits_of * block);
  std::int16_t* const high_rows = lines_of(high_, static_cast<std::size_t>(digit_contexts) * block);
  const auto place = [](std::size_t component, std::size_t digit) {
    return component / 2 * 2 * digits_of + 2 * digit + component % 2;
  };
  for (std::size_t context = 0; context < digit_contexts; ++context) {
    for (std::size_t component = 0; component < prior_components; ++component) {
      std::int32_t sum = 0;
      for (std::size_t high = 0; high < digits_of; ++high) {
        const std::size_t at = context * digits_of + high;
        const std::int16_t* const from = table + (at * prior_components + component) * digits_of;
        std::int32_t part = 0;
        for (std::size_t low = 0; low < digits_of; ++low) {
          if (from[low] < 0) return "a table has a negative entry";
          low_rows[at * block + place(component, low)] = from[low];
          part += from[low];
        }
        high_rows[context * block + place(component, high)] =
            static_cast<std::int16_t>(std::min(part, whole_probability - 1));
        sum += part;
      }
      if (sum != whole_probability) return "a component's table does not sum to 2^15";
    }
  }
  view_.low = low_rows;
  view_.high = high_rows;
  return "";
}

}  // namespace lmgc
