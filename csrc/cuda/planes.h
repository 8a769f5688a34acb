// Method `planes` on the device: the same sections as core/planes.h, which makes all decisions.
// Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something. They return a cudaError_t as int, 0 for success. Device pointers to
// elements are aligned to the element's size (16: to 8), those to sections may lie anywhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/float_format.h"
#include "core/planes.h"
#include "core/status.h"
#include "cuda/entropy.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// Encodes in two steps, so that the caller allocates the section once.
class PlanesEncoder {
 public:
  // Decides and codes `elements` elements in device memory. Allocates at most 3.1 bytes for each
  // element and plane that is worth coding, and 0.6 bytes an element for a mask. Memory from
  // `allocate` and the data must stay valid and unchanged until what write() enqueues is done.
  int prepare(const void* data, std::int64_t elements, FloatFormat format, const Allocate& allocate,
              void* stream);

  // The exact size of the section, at most planes_bound(). Zero before prepare() has succeeded.
  std::size_t size() const { return size_; }

  // Writes size() bytes to device memory. On the stream that prepare() had.
  int write(std::uint8_t* out, const Allocate& allocate, void* stream) const;

 private:
  int make_mask(const Allocate& allocate, void* stream);
  int code_planes(const PlanesChoice& choice, const Allocate& allocate, void* stream);
  int split(const std::array<std::uint8_t*, most_planes>& planes, void* stream) const;

  const void* data_ = nullptr;
  std::int64_t elements_ = 0;
  FloatFormat format_{};
  bool masked_ = false;
  std::int64_t kept_ = 0;
  std::uint32_t* mask_ = nullptr;        // device: 32 elements a word
  std::int64_t* kept_before_ = nullptr;  // device: kept elements before each chunk
  CodedStream mask_stream_;
  std::array<CodedStream, most_planes> planes_;
  std::vector<std::uint8_t> head_bytes_;
  std::size_t size_ = 0;
};

// Decodes in two steps, so that the caller allocates the elements once it is clear that the section
// tells all of them. `status` becomes what core's PlanesDecoder returns for the same bytes, up to
// which of several faults is named.
class PlanesDecoder {
 public:
  // Reads the heads of the untrusted bytes section[0, size) in device memory, which stay where they
  // are while this is used.
  int open(const std::uint8_t* section, std::size_t size, std::int64_t elements, FloatFormat format,
           void* stream, Status& status);

  // Decodes into `elements` elements in device memory, and waits for it; `out` may hold anything
  // unless the status is ok. Allocates a byte for each kept element and coded plane, 1/8 byte an
  // element for a mask, and 16 KiB a table. On the stream that open() had.
  int decode(void* out, const Allocate& allocate, void* stream, Status& status) const;

 private:
  const std::uint8_t* bodies_ = nullptr;  // device
  std::int64_t elements_ = 0;
  FloatFormat format_{};
  PlanesHead head_;
};

}  // namespace lmgc::cuda
