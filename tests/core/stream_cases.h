// What the tests of streams and planes share: threads, damaged bytes, and byte sequences of all
// kinds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/parallel.h"

namespace lmgc::test {

inline void run_backwards(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t i = count; i-- > 0;) body(i);
}

inline void run_on_threads(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  std::atomic<std::int64_t> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::int64_t i; (i = next++) < count;) body(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Calls body(bytes) with `good` cut at every length and with every byte changed in several ways, in
// a buffer of exactly that size; at most about `limit` times.
template <class Body>
void for_each_damage(const std::vector<std::uint8_t>& good, std::size_t limit, Body body) {
  const std::size_t step = good.size() / (limit / 5 + 1) + 1;
  for (std::size_t i = 0; i < good.size(); i += i < 64 ? 1 : step) {
    body(std::vector<std::uint8_t>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i)));
    for (const int change : {0x01, 0x10, 0x80, 0xFF}) {
      std::vector<std::uint8_t> bad = good;
      bad[i] ^= static_cast<std::uint8_t>(change);
      body(bad);
    }
  }
  std::vector<std::uint8_t> longer = good;
  longer.push_back(0);
  body(longer);
}

inline const std::vector<std::string> byte_kinds = {"constant",    "uniform",  "skewed",     "runs",
                                                    "one differs", "two rows", "half random"};

inline std::vector<std::uint8_t> some_bytes(const std::string& kind, std::size_t size) {
  std::mt19937 random(static_cast<unsigned>(size) + 1);
  std::vector<std::uint8_t> bytes(size, 200);
  for (std::size_t i = 0; i < size; ++i) {
    const auto value = static_cast<std::uint8_t>(random());
    if (kind == "uniform" || (kind == "half random" && i > size / 2)) bytes[i] = value;
    if (kind == "skewed")
      bytes[i] = static_cast<std::uint8_t>(100 + std::countl_zero(random()) * 2 + value % 3);
    if (kind == "runs") bytes[i] = (i / 700) % 3 == 0 ? 0 : value % 4;
    if (kind == "two rows")
      bytes[i] = static_cast<std::uint8_t>(((i / 512) % 2 ? 10 : 90) + value % 7);
  }
  if (kind == "one differs" && size > 0) bytes[size / 3] = 7;
  return bytes;
}

}  // namespace lmgc::test
