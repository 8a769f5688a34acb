// Coded streams on the device: the same bytes as core/entropy.h, which makes all decisions; small
// tables and counts make round trips to the host. Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something. They return a cudaError_t as int, 0 for success.
#pragma once

#include <cstdint>

#include "core/entropy.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// What core's CodedStream is, with its body in device memory of the caller's allocator.
struct CodedStream {
  StreamHead head;
  const std::uint8_t* names = nullptr;   // packed
  const std::uint8_t* blocks = nullptr;  // block b ends at (b + 1) * block_stride
};

// Decides how the device bytes data[0, symbols) are stored and codes them: core's code_stream.
// Allocates about 2 bytes a symbol, and 1/32 more for names of the shortest segments.
int code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                const Allocate& allocate, void* stream, CodedStream& coded);

// Writes body_size(coded.head, symbols) bytes to device memory `out`, of any alignment: core's
// write_body. The memory of `coded` must still be valid; `data` is read if the stream is raw.
int write_body(const CodedStream& coded, const std::uint8_t* data, std::uint64_t symbols,
               std::uint8_t* out, const Allocate& allocate, void* stream);

// Decodes a body in device memory, of any alignment, into `symbols` device bytes. `head` is what
// read_head accepted, and the body has body_size(head, symbols) bytes, untrusted. *failed, a device
// integer, becomes not zero if they are no body of that head; `out` may then hold anything. Waits
// for nothing.
int decode_stream(const StreamHead& head, const std::uint8_t* body, std::uint64_t symbols,
                  const Allocate& allocate, void* stream, std::uint8_t* out, int* failed);

}  // namespace lmgc::cuda
