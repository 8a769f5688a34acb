// From counts to the intervals of digits, for kernels whose vectors hold a slot in each word: the
// arithmetic of counts_to_frequencies(), one digit of all slots after the other. The sources that
// are compiled for newer processors include it, each with a type of its own: internal linkage.
#pragma once

#include <cstdint>

#include "core/digit_kernels.h"

namespace lmgc {
namespace {

// Vector: a processor's vectors of 32-bit words, as digit_kernels_avx2.cpp and _avx512.cpp have it.
//   Words                                 the type
//   all(n), load(p), store(p, x)          p is aligned
//   add, sub, both (and), either (or), least, most (signed)
//   up<n>, down<n>, down64<n>             shifts; of words, filled with zeros; of pairs of words
//   shift_down(x, by)                     each word by its own number of bits
//   logarithm(n)                          the bits of the float that n is, n below 2^24
//   pair_sums(x, y)                       signed halves of words, multiplied, both added
//   high_products(x, y)                   the upper halves of products of halves, unsigned
//   even_products(x, y)                   of the even words, 64 bits
//   with_odd(x, y)                        even words of x, odd words of y
//   quotient_of_even(n, x)                floor(n / x) of the even words as 64 bits, below 2^18
//   powers(x)                             host_exp2_table.step[x]
//   add_beyond(x, n, y, z)                x + z where n > y, else x

// 16 count_log2(counts / 2^8 + 1) + `low`, and as much more as the bits of a float's exponent are;
// 0 <= low < 16.
template <class Vector>
[[gnu::always_inline]] inline typename Vector::Words log2_of(typename Vector::Words counts,
                                                             int low) {
  using V = Vector;
  const auto bits = V::template down<11>(
      V::logarithm(V::add(V::template down<8>(counts), V::all(1))));  // below 2^24
  const auto fraction = V::both(bits, V::all(4095));
  const auto parabola = V::template down<6>(V::pair_sums(fraction, V::sub(V::all(4096), fraction)));
  // 2^16 at the top of the parabola: one less makes no difference there, and fits half a word.
  const auto factor = V::sub(V::all(6895), V::high_products(fraction, V::all(2562 << 4)));
  const auto bend =
      V::template down<4>(V::high_products(V::least(parabola, V::all(65535)), factor));
  const auto sum = V::add(V::add(bits, bend), V::all(8));
  return V::either(V::both(sum, V::all(-16)), V::all(low));
}

// counts: of each digit, in as many slots as a vector holds. start: of the first of these slots,
// rows of digit_slots.
template <class Vector>
[[gnu::always_inline]] inline void starts_of(typename Vector::Words (&counts)[digits_of],
                                             std::uint32_t* start) {
  using V = Vector;
  using Words = typename Vector::Words;
  // Logarithms in sixteenths of their unit: the lower the digit, the larger among equals.
  Words best = V::all(0);
#pragma GCC unroll 16
  for (int d = 0; d < digits_of; ++d) {
    counts[d] = log2_of<V>(counts[d], digits_of - 1 - d);
    best = V::most(best, counts[d]);
  }
  const Words last = V::all(digits_of - 1);
  const Words first_best = V::sub(last, V::both(best, last));  // the digit
  best = V::either(best, last);
  Words sum = V::all(0);
  for (int d = 0; d < digits_of; ++d) {
    const Words steps = V::template down<4>(V::sub(best, counts[d]));
    // Less than 24 octaves.
    counts[d] = V::shift_down(V::powers(V::both(steps, V::all(cdf_steps_per_octave - 1))),
                              V::template down<8>(steps));
    sum = V::add(sum, counts[d]);
  }
  // In 2^32nds, so that the whole part of a product is its upper word.
  constexpr double whole = static_cast<double>(std::uint64_t{cdf_total - digits_of} << 28);
  const Words even_scale = V::template up<4>(V::quotient_of_even(whole, sum)),
              odd_scale =
                  V::template up<4>(V::quotient_of_even(whole, V::template down64<32>(sum)));
  Words before = V::all(0);
  for (int d = 0; d < digits_of; ++d) {
    V::store(start + d * digit_slots, before);
    const Words even = V::template down64<32>(V::even_products(counts[d], even_scale)),
                odd = V::even_products(V::template down64<32>(counts[d]), odd_scale);
    before = V::add(before, V::add(V::with_odd(even, odd), V::all(1)));
  }
  // The first of the best has what rounding down left over: all that come after it move.
  const Words total = V::all(static_cast<int>(cdf_total)), left = V::sub(total, before);
  for (int d = 1; d < digits_of; ++d) {
    std::uint32_t* const own = start + d * digit_slots;
    V::store(own, V::add_beyond(V::load(own), V::all(d), first_best, left));
  }
  V::store(start + digits_of * digit_slots, total);
}

}  // namespace
}  // namespace lmgc
