// How much memory the library asks for at once: bytes that lie must not make it ask for much.
#pragma once

#include <atomic>
#include <cstddef>

namespace lmgc::test {

// The largest piece that operator new gave out since a test set it to 0.
extern std::atomic<std::size_t> largest_allocation;

}  // namespace lmgc::test
