// Coded streams on the device, many at a time: the same bytes as core/entropy.h, which makes all
// decisions. Samples and counts come down to the host, tables go up; each of the three times for
// all streams together. Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something. They return a cudaError_t as int, 0 for success.
#pragma once

#include <cstdint>
#include <vector>

#include "core/entropy.h"
#include "core/parallel.h"
#include "cuda/entropy_jobs.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// ---- bytes --------------------------------------------------------------------------------------

// What copies from[0, size), or `value` size times where `from` is null, to `to`: parts that are
// short enough to be shared.
void add_part(const std::uint8_t* from, std::uint8_t* to, std::uint64_t size,
              std::vector<CopyParts::Part>& parts, std::uint8_t value = 0);

int copy_parts(const std::vector<CopyParts::Part>& parts, const Allocate& allocate, void* stream);

// Decoding tables one after the other in device memory: 4096 entries each.
int make_decode_entries(const std::vector<rans::Table>& tables, const Allocate& allocate,
                        void* stream, rans::DecodeEntry** entries);

// ---- encoder ------------------------------------------------------------------------------------

// Device bytes data[0, symbols) to be coded. segment_bits is 5 to 8.
struct StreamInput {
  const std::uint8_t* data;
  std::uint64_t symbols;
  int segment_bits;
};

// What core's CodedStream is, with its body in device memory of the caller's allocator.
struct CodedStream {
  StreamHead head;
  const std::uint8_t* names = nullptr;   // packed
  const std::uint8_t* blocks = nullptr;  // block b ends at (b + 1) * stride
  std::uint64_t stride = 0;
};

// Decides how each of the inputs is stored, and codes it: core's code_stream. Allocates about 2
// bytes a symbol, and 1/32 more for names of the shortest segments. Waits three times, or less
// where nothing is worth it.
int code_streams(const std::vector<StreamInput>& inputs, const Parallel& parallel,
                 const Allocate& allocate, void* stream, std::vector<CodedStream>& coded);

// Adds what writes body_size(coded.head, symbols) bytes to device memory `out`, of any alignment.
// The memory of `coded` must be valid until then; `data` is read if the stream is raw.
void add_body(const CodedStream& coded, const std::uint8_t* data, std::uint64_t symbols,
              std::uint8_t* out, std::vector<CopyParts::Part>& parts);

// ---- decoder ------------------------------------------------------------------------------------

// A body in device memory, of any alignment, and `symbols` device bytes to decode it into. `head`
// is what read_head accepted, and the body has body_size(head, symbols) bytes, untrusted. *failed,
// a device integer, becomes not zero if they are no body of that head; `out` may then hold
// anything.
struct StreamSource {
  const StreamHead* head;
  const std::uint8_t* body;
  std::uint64_t symbols;
  std::uint8_t* out;
  std::int32_t* failed;
};

// Waits for nothing.
int decode_streams(const std::vector<StreamSource>& sources, const Allocate& allocate,
                   void* stream);

}  // namespace lmgc::cuda
