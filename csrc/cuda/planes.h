// Method `planes` on the device, for many tensors at a time: the same sections as core/planes.h,
// which makes all decisions. Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something, once for all tensors together. They return a cudaError_t as int, 0
// for success. Device pointers to elements are aligned to the element's size (16: to 8), those to
// sections may lie anywhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/float_format.h"
#include "core/parallel.h"
#include "core/planes.h"
#include "core/status.h"
#include "cuda/entropy.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// `elements` elements in device memory.
struct PlanesInput {
  const void* data;
  std::int64_t elements;
  FloatFormat format;
};

// Where tensor number `tensor` of an encoder shall go.
struct PlanesTarget {
  std::size_t tensor;
  std::uint8_t* out;
};

// Encodes in two steps, so that the caller allocates the sections once.
class PlanesEncoder {
 public:
  // Decides and codes. Allocates at most 3.1 bytes for each element and plane that is worth coding,
  // and 0.6 bytes an element for a mask. Memory from `allocate` and the data must stay valid and
  // unchanged until what write() enqueues is done. Waits four times, and four times more where
  // there are zeros.
  int prepare(const std::vector<PlanesInput>& inputs, const Parallel& parallel,
              const Allocate& allocate, void* stream);

  // The exact size of a tensor's section, at most planes_bound(), once prepare() has succeeded.
  std::size_t size(std::size_t tensor) const { return tensors_[tensor].size; }

  // Writes sections of size() bytes to device memory, each tensor's at most once in a call. On the
  // stream that prepare() had; waits for nothing.
  int write(const std::vector<PlanesTarget>& targets, const Allocate& allocate, void* stream) const;

 private:
  struct Tensor {
    PlanesInput input{};
    PlanesChoice choice{};
    std::int64_t kept = 0;
    const std::uint32_t* mask = nullptr;        // device: 32 elements a word; null: none
    const std::int64_t* kept_before = nullptr;  // device: of each chunk, up to a constant
    CodedStream mask_stream{};
    std::array<CodedStream, most_planes> planes{};
    std::vector<std::uint8_t> head_bytes{};
    std::size_t size = 0;
  };
  using Planes = std::array<std::uint8_t*, most_planes>;

  int choose(const Parallel& parallel, const Allocate& allocate, void* stream);
  int make_masks(const Parallel& parallel, const Allocate& allocate, void* stream);
  int code_planes(const Parallel& parallel, const Allocate& allocate, void* stream);
  // planes[k]: of tensor k, null where they are not wanted.
  int split(const std::vector<Planes>& planes, const Allocate& allocate, void* stream) const;
  static void write_head(Tensor& tensor);

  std::vector<Tensor> tensors_;
};

// The untrusted bytes section[0, size) in device memory. `room` gives the device memory for their
// elements: it is called once, when all heads were read, unless this one is wrong.
struct PlanesSource {
  const std::uint8_t* section;
  std::size_t size;
  std::int64_t elements;
  FloatFormat format;
  std::function<void*()> room;
};

// Decodes all of them and waits for it. statuses[k] becomes what core's decode_planes returns for
// the same bytes, up to which of several faults is named; the elements of tensor k may be anything
// unless it is ok, and those of all if an error is returned. Allocates a byte for each kept element
// and coded plane, 1/8 byte an element for a mask, and 16 KiB a table.
int decode_planes(const std::vector<PlanesSource>& sources, const Allocate& allocate, void* stream,
                  std::vector<Status>& statuses);

}  // namespace lmgc::cuda
