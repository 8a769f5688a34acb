// The memory functions of the test program, which remember the largest piece.
#include "allocations.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace lmgc::test {

std::atomic<std::size_t> largest_allocation{0};

}  // namespace lmgc::test

using lmgc::test::largest_allocation;

// Not inlined: GCC warns of a malloc that a delete frees, and the other way round.
#define LMGC_NOINLINE __attribute__((noinline))
LMGC_NOINLINE void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  std::size_t largest = largest_allocation;
  while (size > largest && !largest_allocation.compare_exchange_weak(largest, size)) {
  }
  return std::malloc(std::max<std::size_t>(size, 1));
}
LMGC_NOINLINE void* operator new(std::size_t size) {
  if (void* const memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
LMGC_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
LMGC_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
