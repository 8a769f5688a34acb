// The inner loops of blocks with 32 lanes, in versions for different processors. Internal to
// rans_block.cpp; all versions compute the same.
#pragma once

#include <cstdint>

#include "core/rans.h"

namespace lmgc::rans {

// A step codes 32 consecutive symbols with one table, symbol i with states[i].

// Puts symbols[0, 32 * steps), the last step first, and writes the words so that they end at `at`.
// Returns where they begin. 32 bytes beyond the words of each step are writable before `at`.
using EncodeRun = std::uint8_t* (*)(const std::uint8_t* symbols, std::uint32_t steps,
                                    const EncodeEntry* entries, std::uint32_t* states,
                                    std::uint8_t* at);

// Gets at most `steps` steps into symbols[0, 32 * steps) while a step is sure to find its words
// before `end`; moves *at behind the words that were read. Returns the number of steps done.
using DecodeRun = std::uint32_t (*)(std::uint8_t* symbols, std::uint32_t steps,
                                    const DecodeEntry* entries, std::uint32_t* states,
                                    const std::uint8_t** at, const std::uint8_t* end);

// The most bytes that a DecodeRun looks at from *at on in one step: a word a lane, and one more.
constexpr int most_read(int lanes) { return 2 * (lanes + 1); }

std::uint8_t* encode_run_portable(const std::uint8_t* symbols, std::uint32_t steps,
                                  const EncodeEntry* entries, std::uint32_t* states,
                                  std::uint8_t* at);
std::uint32_t decode_run_portable(std::uint8_t* symbols, std::uint32_t steps,
                                  const DecodeEntry* entries, std::uint32_t* states,
                                  const std::uint8_t** at, const std::uint8_t* end);
#if defined(__x86_64__)
bool has_avx512();
bool has_avx2();
std::uint8_t* encode_run_avx512(const std::uint8_t* symbols, std::uint32_t steps,
                                const EncodeEntry* entries, std::uint32_t* states,
                                std::uint8_t* at);
std::uint32_t decode_run_avx512(std::uint8_t* symbols, std::uint32_t steps,
                                const DecodeEntry* entries, std::uint32_t* states,
                                const std::uint8_t** at, const std::uint8_t* end);
std::uint32_t decode_run_avx2(std::uint8_t* symbols, std::uint32_t steps,
                              const DecodeEntry* entries, std::uint32_t* states,
                              const std::uint8_t** at, const std::uint8_t* end);
#endif

}  // namespace lmgc::rans
