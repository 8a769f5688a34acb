// Methods `scale` and `lowrank` on the device: the same sections as core/fixed_section.h for the
// same head. The host decides (scales, tables, factors); counts and sums come down to it.
// Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something. They return a cudaError_t as int, 0 for success. Device pointers to
// elements are aligned to the element's size, those to sections may lie anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/fixed_section.h"
#include "core/float_format.h"
#include "core/parallel.h"
#include "core/status.h"
#include "cuda/entropy.h"
#include "cuda/fixed_jobs.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// The predictions of a matrix, of which there is a panel at a time, so that memory stays bounded.
struct DeviceProduct {
  // Elements [first, first + count) as core's Product writes them, in device memory that is valid
  // for what is enqueued until the next call.
  std::function<const std::int64_t*(std::int64_t first, std::int64_t count)> panel;
  // The most elements of a panel, whole blocks. A block keeps a warp busy for a millisecond or two:
  // small panels leave the device idle.
  std::int64_t most_elements = std::int64_t{1} << 23;
};

// What a head says of the elements, on the device.
class DeviceHead {
 public:
  int upload_weights(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                     const Allocate& allocate, void* stream);
  int upload_scales(const FixedHead& head, const Allocate& allocate, void* stream);

  // With the predictions of elements from `first` on; null where there are none.
  KnownMatrix with(const std::int64_t* product, std::int64_t first) const;

 private:
  KnownMatrix known_{FixedFormat(float_format(DType::float32))};
};

// Encodes in two steps, so that the caller allocates the section once.
class FixedEncoder {
 public:
  // Decides and codes. input.words is device memory, the live matrix, not empty; head and product
  // are as for core's encode_fixed(). Allocates 4.1 bytes an element and twice the tails. Memory
  // from `allocate` must stay valid until what write() enqueues is done; the matrix, only here.
  int prepare(const FixedInput& input, FixedHead head, const DeviceProduct& product,
              const Parallel& parallel, const Allocate& allocate, void* stream);

  // The exact size of the section. Zero before prepare() has succeeded.
  std::size_t size() const { return size_; }

  // Complete after prepare().
  const FixedHead& head() const { return head_; }

  // Writes size() bytes to device memory. On the stream that prepare() had.
  int write(std::uint8_t* out, const Allocate& allocate, void* stream) const;

 private:
  int find_scales(const DeviceProduct& product, std::int16_t* levels, const Allocate& allocate,
                  void* stream);
  int split(const DeviceProduct& product, std::uint8_t* contexts, std::uint8_t* symbols,
            const Allocate& allocate, void* stream);
  int write_panel_tails(const KnownMatrix& known, std::int64_t first, std::int64_t count,
                        const std::uint32_t* piece_bits, const Allocate& allocate, void* stream);
  int code_blocks(const std::uint8_t* contexts, std::uint8_t* symbols, const Parallel& parallel,
                  const Allocate& allocate, void* stream);

  struct Part {
    const std::uint8_t* from;
    std::uint64_t at, size;
  };

  FixedInput input_;
  FixedHead head_;
  DeviceHead known_;
  CodedFactors factors_;
  std::vector<std::uint8_t> head_bytes_;
  std::vector<const std::uint8_t*> tails_;  // of each block
  std::vector<std::uint32_t> tail_sizes_;   // in bytes
  std::vector<Part> parts_;                 // of the section, but for what the host has
  std::size_t size_ = 0;
};

// Decodes the elements of the live matrix into device memory, and waits for it. source.residuals is
// device memory; everything else of `source` is the host's. `status` becomes ok or bad_stream, as
// core's decode_fixed() says for the same bytes; `words` may hold anything unless it is ok.
// Allocates two bytes an element of a panel, or of the matrix where nothing is predicted.
int decode_fixed(const FixedSource& source, FloatFormat format, const DeviceProduct& product,
                 void* words, const Parallel& parallel, const Allocate& allocate, void* stream,
                 Status& status);

}  // namespace lmgc::cuda
