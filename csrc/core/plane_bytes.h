// Between elements and planes of bytes, on the CPU: splitting and joining bytes of equal
// significance, and dropping or putting back elements that are zero. Plain kernels over pointers:
// nothing is allocated, nothing is checked.
//
// Floats are seen rotated left by one bit, which puts the sign beside the mantissa and the whole
// exponent of float32 and bfloat16 into one byte. Plane p is byte p of each element (so seen), the
// least significant first.
#pragma once

#include <cstdint>

#include "core/float_format.h"

namespace lmgc {

inline constexpr int most_planes = 16;

// planes[p][i] = byte p of element first + i, for i in [0, count) and every p whose pointer is not
// null.
void split_planes(const void* data, std::int64_t first, std::int64_t count, FloatFormat format,
                  std::uint8_t* const* planes);

// The same for those of the elements that are not zero; returns how many they are.
std::int64_t split_kept_planes(const void* data, std::int64_t first, std::int64_t count,
                               FloatFormat format, std::uint8_t* const* planes);

// Element first + i of `out` = the bytes planes[p][i], for i in [0, count). No pointer is null.
void join_planes(const std::uint8_t* const* planes, std::int64_t count, FloatFormat format,
                 void* out, std::int64_t first);

// Bit i % 8 of mask[i / 8] = element first + i is not zero, for i in [0, count); the bits that are
// left in the last byte are 0. Returns the number of ones.
std::int64_t mask_zeros(const void* data, std::int64_t first, std::int64_t count,
                        FloatFormat format, std::uint8_t* mask);

// Ones among bits [first, first + count) of `mask`; first is a multiple of 8.
std::int64_t count_ones(const std::uint8_t* mask, std::int64_t first, std::int64_t count);

// Elements [first, last) of `out`: zero where the mask has a 0, the next elements that the planes
// make where it has a 1. The planes hold as many elements as there are ones; no pointer is null.
void join_kept_planes(const std::uint8_t* const* planes, FloatFormat format,
                      const std::uint8_t* mask, std::int64_t first, std::int64_t last, void* out);

}  // namespace lmgc
