// Checksums of bytes in device memory: core/checksum.h, for many byte strings at a time. Plain C++:
// includable without nvcc.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/memory.h"

namespace lmgc::cuda {

// Device bytes data[0, size), of any alignment.
struct ByteString {
  const std::uint8_t* data;
  std::int64_t size;
};

// checksums[k]: checksum() of all[k]. Waits once for all of them. Returns a cudaError_t as int, 0
// for success.
int checksums_of(const std::vector<ByteString>& all, const Allocate& allocate, void* stream,
                 std::vector<std::uint64_t>& checksums);

}  // namespace lmgc::cuda
