// Streams of symbols and priors of all kinds, for the tests of method lm.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/digit_context.h"
#include "core/digit_kernels.h"
#include "core/digit_prior.h"

namespace lmgc::test {

// ---- symbols ------------------------------------------------------------------------------------

inline const std::vector<std::string> symbol_kinds = {"noise", "smooth", "zeros",
                                                      "far",   "swings", "any"};

// Symbols, and what is known of each.
struct SymbolCase {
  SymbolCase(const std::string& kind, DigitKind of, std::int64_t count, std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    double state = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      Known own;
      own.width = static_cast<std::int8_t>(static_cast<int>(random() % 32) - 16);
      if (kind != "any" && random() % 4 != 0)
        own.width = static_cast<std::int8_t>(static_cast<int>(random() % 8) + 4);
      if (of == DigitKind::factor) own.fraction = 16;
      if (of == DigitKind::predicted) {
        own.fraction = static_cast<std::uint8_t>(random() % 32);
        own.level = static_cast<std::int8_t>(static_cast<int>(random() % 127) - 63);
      }
      state =
          (kind == "smooth" ? 0.95 : 0.0) * state + (kind == "smooth" ? 0.3 : 1) * normal(random);
      const double residual = state * std::exp2(own.width / 4.0) * (kind == "far" ? 30 : 1);
      int symbol = residual < -most_residual || residual > most_residual
                       ? symbol_escape
                       : static_cast<int>(std::lround(residual)) + symbol_origin;
      if (kind == "zeros" && random() % 8 != 0) symbol = random() % 8 == 0 ? 2 : 1;
      if (kind == "swings") symbol = i % 2 == 0 ? 255 : 3;
      if (kind == "any") symbol = static_cast<int>(random() % 256);
      known.push_back(own);
      symbols.push_back(static_cast<std::uint8_t>(symbol));
    }
  }

  std::vector<Known> known;
  std::vector<std::uint8_t> symbols;
};

// What LaneContext gives networks for every symbol of a lane, by the loops for processors without
// SSE2 (plain_digit_context.cpp): digit_inputs bytes each. `geometry` and `known` are lmgc's.
// `coefficients`, as many as a LaneContext has: those before the first symbol, then those after the
// last.
void plain_digit_inputs(const void* geometry, const void* known, const std::uint8_t* symbols,
                        std::int64_t first, std::int64_t count, std::int16_t* coefficients,
                        std::int8_t* inputs);

// ---- priors -------------------------------------------------------------------------------------

enum class Zeros { some, never, always };

// The numbers of a prior. An `extreme` one has weights and biases as large as they may be.
struct PriorCase {
  PriorCase(int hidden1, int hidden2, unsigned seed, bool extreme = false,
            Zeros zeros = Zeros::some) {
    std::mt19937 random(seed);
    const int sizes[4] = {digit_inputs, hidden1, hidden2, prior_scores};
    for (int l = 0; l < 3; ++l) make_layer(sizes[l], sizes[l + 1], l, extreme, random);
    if (zeros != Zeros::some) {
      for (int k = prior_components; k < prior_scores; ++k) {
        const auto score = static_cast<std::size_t>(k);
        std::fill_n(layers[2].weight.begin() + k * hidden2, hidden2, std::int8_t{0});
        layers[2].bias[score] = zeros == Zeros::never ? -(1 << 23) : 1 << 23;
        layers[2].shift[score] = 0;
      }
      for (std::size_t k = 0; k < prior_components; ++k) layers[2].shift[k] = 12;
    }
    make_table(random);
  }

  const std::int16_t* rows(int context, int high) const {
    return table.data() + (context * digits_of + high) * prior_components * digits_of;
  }

  DigitLayer layers[3];
  std::vector<std::int16_t> table;

 private:
  void make_layer(int inputs, int outputs, int l, bool extreme, std::mt19937& random) {
    DigitLayer& layer = layers[l];
    layer.inputs = inputs;
    layer.outputs = outputs;
    std::normal_distribution<double> normal(0, 15);
    for (int o = 0; o < outputs; ++o) {
      std::int32_t sum = 0;
      for (int i = 0; i < inputs; ++i) {
        const int weight = extreme ? (random() % 2 == 0 ? 127 : -127)
                                   : std::clamp(static_cast<int>(normal(random)), -127, 127);
        sum += 128 * std::abs(weight);
        layer.weight.push_back(static_cast<std::int8_t>(weight));
      }
      if (extreme) {
        const std::int32_t most = (1 << 24) - 1 - sum;
        layer.bias.push_back(random() % 2 == 0 ? most : -most);
        layer.shift.push_back(static_cast<std::int32_t>(random() % 25));
      } else {
        layer.bias.push_back(static_cast<std::int32_t>(random() % 2001) - 1000);
        layer.shift.push_back(static_cast<std::int32_t>(random() % 3) + 5);
      }
    }
  }

  // A component is a hump, all alike, or nearly all in one symbol.
  void make_table(std::mt19937& random) {
    table.resize(std::size_t{digit_contexts} * 256 * prior_components);
    std::vector<std::int32_t> own(256);
    for (int context = 0; context < digit_contexts; ++context) {
      for (int k = 0; k < prior_components; ++k) {
        std::fill(own.begin(), own.end(), 0);
        if (k % 5 == 0) {
          own[3 + random() % 253] = whole_probability - 1;
        } else if (k % 5 == 1) {
          std::fill(own.begin() + 3, own.end(), whole_probability / 256);
        } else {
          const auto reach = static_cast<int>(random() % 100) + 2;
          for (int s = -reach; s <= reach; ++s)
            own[static_cast<std::size_t>(symbol_origin + s)] =
                whole_probability * (reach + 1 - std::abs(s)) / ((reach + 1) * (reach + 1));
        }
        std::int32_t left = whole_probability;
        for (const std::int32_t entry : own) left -= entry;
        own[symbol_escape] += left;
        for (int s = 0; s < 256; ++s) {
          table[static_cast<std::size_t>(
              ((context * digits_of + s / 16) * prior_components + k) * digits_of + s % 16)] =
              static_cast<std::int16_t>(own[static_cast<std::size_t>(s)]);
        }
      }
    }
  }
};

// A prior that was set.
struct ReadyPrior {
  explicit ReadyPrior(const PriorCase& of) { error = prior.set(of.layers, of.table.data()); }
  DigitPrior prior;
  std::string error;
};

// Inputs of a network: anything from -128 to 127, the extremes often.
inline std::vector<std::int8_t> some_inputs(int count, std::mt19937& random) {
  std::vector<std::int8_t> inputs(static_cast<std::size_t>(count) * padded_inputs, 0);
  for (int i = 0; i < count; ++i) {
    const bool extremes = random() % 3 == 0;
    for (int x = 0; x < digit_inputs; ++x) {
      const int value =
          extremes ? (random() % 2 == 0 ? -128 : 127) : static_cast<int>(random() % 256) - 128;
      inputs[static_cast<std::size_t>(i * padded_inputs + x)] = static_cast<std::int8_t>(value);
    }
  }
  return inputs;
}

// ---- kernels ------------------------------------------------------------------------------------

struct NamedKernels {
  const char* name;
  const DigitKernels& kernels;
};

// Those that this processor can run.
inline std::vector<NamedKernels> all_kernels() {
  std::vector<NamedKernels> all = {{"portable", digit_kernels_portable}};
#if defined(__x86_64__)
  if (has_digits_avx2()) all.push_back({"avx2", digit_kernels_avx2});
  if (has_digits_avx512()) all.push_back({"avx512", digit_kernels_avx512});
#endif
  return all;
}

// Inputs of all slots.
struct alignas(64) SlotInputs {
  std::int8_t of[digit_slots * input_stride] = {};
  const std::int8_t* row(int slot) const { return of + slot * input_stride; }
};

inline SlotInputs some_slot_inputs(std::mt19937& random) {
  const std::vector<std::int8_t> rows = some_inputs(digit_slots, random);
  SlotInputs inputs;
  for (int slot = 0; slot < digit_slots; ++slot)
    std::copy_n(rows.begin() + slot * padded_inputs, padded_inputs,
                inputs.of + slot * input_stride);
  return inputs;
}

}  // namespace lmgc::test
