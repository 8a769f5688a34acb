// Checksums of csrc/cuda on some device (device_cases.h says what it has), which must be those of
// csrc/core.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "core/checksum.h"
#include "cuda/checksum.h"
#include "stream_cases.h"

namespace lmgc::test {

// Of byte strings of many sizes at places of any alignment, all at once.
template <class Device>
void check_device_checksums(Device&& device) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::ByteString> all;
  std::vector<std::uint64_t> expected, checksums;
  for (const std::size_t size :
       {0,   1,   7,   8,    9,     15,    16,    17,    23,    24,    25,     64,
        250, 256, 257, 5000, 32760, 32767, 32768, 32769, 32776, 65536, 100001, 262145}) {
    for (std::size_t offset = 0; offset < 8; ++offset) {
      const std::vector<std::uint8_t> bytes = some_bytes("uniform", size);
      auto* const there = static_cast<std::uint8_t*>(device.allocate(size + offset)) + offset;
      device.write(there, bytes.data(), size);
      all.push_back({there, static_cast<std::int64_t>(size)});
      expected.push_back(checksum(bytes.data(), size));
    }
  }
  REQUIRE(cuda::checksums_of(all, allocate, nullptr, checksums) == 0);
  REQUIRE(checksums == expected);
  REQUIRE(cuda::checksums_of({}, allocate, nullptr, checksums) == 0);
  REQUIRE(checksums.empty());
}

}  // namespace lmgc::test
