// The inner loop of segments.cpp in versions for different processors, which all compute the same.
// Internal to it.
#pragma once

#include <cstdint>

namespace lmgc {

// TableCosts in both directions.
struct NameCosts {
  const std::uint16_t (*rows)[16];            // of a symbol: its cost in each table
  alignas(64) std::uint8_t columns[16][256];  // of a table: what each symbol costs there; tables
                                              // beyond the last cost as much as can be
  int tables;
};

// names[i] becomes the cheapest table, the first of equals, for data[i * length, (i + 1) * length).
// length is 64, 128 or 256.
using NameRun = void (*)(const std::uint8_t* data, std::int64_t segments, int length,
                         const NameCosts& costs, std::uint8_t* names);

void name_run_portable(const std::uint8_t* data, std::int64_t segments, int length,
                       const NameCosts& costs, std::uint8_t* names);
#if defined(__x86_64__)
bool has_avx512_vbmi();
void name_run_avx512(const std::uint8_t* data, std::int64_t segments, int length,
                     const NameCosts& costs, std::uint8_t* names);
#endif

}  // namespace lmgc
