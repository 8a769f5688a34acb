// The loops of digit_context.h that devices and processors without SSE2 run: the same header once
// more, under a name of its own.
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#undef __SSE2__
#define lmgc lmgc_plain
#include "core/digit_context.h"
#undef lmgc

#if defined(LMGC_DIGIT_SSE2)
#error "these are not the plain loops"
#endif

namespace lmgc::test {

void plain_digit_inputs(const void* geometry, const void* known, const std::uint8_t* symbols,
                        std::int64_t first, std::int64_t count, std::int16_t* coefficients,
                        std::int8_t* inputs) {
  lmgc_plain::DigitGeometry own;
  std::memcpy(&own, geometry, sizeof own);
  std::vector<lmgc_plain::Known> elements(static_cast<std::size_t>(count));
  std::memcpy(elements.data(), known, elements.size() * sizeof elements[0]);
  std::vector<lmgc_plain::Trace> traces(static_cast<std::size_t>(count));
  lmgc_plain::LaneContext context;
  context.start(own, first, traces.data());
  std::memcpy(context.coefficient, coefficients, sizeof context.coefficient);
  for (std::int64_t i = 0; i < count; ++i) {
    const lmgc_plain::Known& element = elements[static_cast<std::size_t>(i)];
    context.inputs(element, inputs + i * lmgc_plain::digit_inputs);
    context.update(element, symbols[i]);
  }
  std::memcpy(coefficients, context.coefficient, sizeof context.coefficient);
}

}  // namespace lmgc::test
