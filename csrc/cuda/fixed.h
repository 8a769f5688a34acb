// Methods `scale` and `lowrank` on the device, for many matrices at a time: the same sections as
// core/fixed_section.h for the same heads. The host decides (scales, tables, factors); counts and
// sums come down to it. Plain C++: includable without nvcc.
//
// Functions enqueue on `stream` (a cudaStream_t) of the current device, and wait for it where the
// host has to know something, once for all matrices together unless it is said otherwise. They
// return a cudaError_t as int, 0 for success. Device pointers to elements are aligned to the
// element's size, those to sections may lie anywhere.
#pragma once

#include <algorithm>
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
#include "cuda/uploads.h"

namespace lmgc::cuda {

// The predictions of a matrix, of which there is a panel at a time, so that memory stays bounded.
struct DeviceProduct {
  // Elements [first, first + count) as core's Product writes them, in device memory that is valid
  // for what is enqueued until the next call.
  std::function<const std::int64_t*(std::int64_t first, std::int64_t count)> panel;
  // The most elements of a panel, whole blocks. A block keeps a warp busy for a millisecond or two:
  // small panels leave the device idle.
  std::int64_t most_elements = std::int64_t{1} << 23;

  // Calls body(first, count, product) for one panel of a matrix after the other until one fails.
  template <class Body>
  int for_each_panel(std::int64_t elements, const Body& body) const {
    for (std::int64_t first = 0; first < elements; first += most_elements) {
      const std::int64_t count = std::min(most_elements, elements - first);
      if (const int error = body(first, count, panel(first, count))) return error;
    }
    return 0;
  }
};

// What a head says of elements, for the device: all but scales and predictions, then scales. Of
// `known`, which stays where it is, pointers are set by uploads.upload().
void know_weights(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                  Uploads& uploads, KnownMatrix& known);
void know_scales(const FixedHead& head, Uploads& uploads, KnownMatrix& known);

// ---- encoder ------------------------------------------------------------------------------------

// input.words is device memory, the live matrix, not empty; head and product are as for core's
// encode_fixed().
struct FixedMatrix {
  FixedInput input;
  FixedHead head;
  DeviceProduct product;
};

// Where matrix number `matrix` of an encoder shall go.
struct FixedTarget {
  std::size_t matrix;
  std::uint8_t* out;
};

// Encodes in two steps, so that the caller allocates the sections once.
class FixedEncoder {
 public:
  // Decides and codes. Allocates 4.1 bytes an element, twice the tails, up to 88 bytes a line, and
  // 3 KiB for each context of a matrix (24 of them, 124 where it is predicted). Memory from
  // `allocate` must stay valid until what write() enqueues is done; the elements, only here. Waits
  // for scales three times, six times where there may be some of columns and nine times where a
  // matrix with these has fewer than 64 rows; then twice, once for all matrices without a
  // prediction, and once for each panel of the others.
  int prepare(std::vector<FixedMatrix> matrices, const Parallel& parallel, const Allocate& allocate,
              void* stream);

  // The exact size of a matrix's section. Zero before prepare() has succeeded.
  std::size_t size(std::size_t matrix) const { return matrices_[matrix].size; }

  // Complete after prepare().
  const FixedHead& head(std::size_t matrix) const { return matrices_[matrix].own.head; }

  // Writes sections of size() bytes to device memory, each matrix's at most once in a call. On the
  // stream that prepare() had; waits for nothing.
  int write(const std::vector<FixedTarget>& targets, const Allocate& allocate, void* stream) const;

 private:
  struct Part {
    const std::uint8_t* from;
    std::uint64_t at, size;
  };
  struct Matrix {
    FixedMatrix own;
    KnownMatrix known{FixedFormat(float_format(DType::float32))};
    CodedFactors factors;
    std::int16_t* levels = nullptr;  // device: one an element, until there are contexts
    std::uint8_t *contexts = nullptr, *symbols = nullptr;  // device: in their place
    std::uint32_t* counts = nullptr;                       // device: of contexts and symbols
    std::vector<const std::uint8_t*> tails;                // device: of each block
    std::vector<std::uint32_t> tail_sizes;                 // in bytes
    std::vector<std::uint8_t> head_bytes;
    std::vector<Part> parts;  // of the section, but for what the host has
    std::size_t size = 0;
  };
  // Elements of a matrix that are split together with those of others.
  struct Share {
    Matrix* matrix;
    MatrixPart part;
  };

  // Calls body(shares) for matrices without a prediction, all at once, and for each panel of one
  // with a prediction, until one fails.
  template <class Body>
  int for_each_lot(const Body& body);

  int find_levels(const Allocate& allocate, void* stream);
  int find_scales(const Allocate& allocate, void* stream);
  int split(const Parallel& parallel, const Allocate& allocate, void* stream);
  static int split_shares(const std::vector<Share>& shares, const Allocate& allocate, void* stream);
  int code_blocks(const Parallel& parallel, const Allocate& allocate, void* stream);
  static void finish(Matrix& matrix, const std::uint8_t* room, std::int64_t stride,
                     const DigitsBlockSize* sizes);

  std::vector<Matrix> matrices_;
};

// ---- decoder ------------------------------------------------------------------------------------

// What core's read_fixed() made of a section; source.residuals is device memory, everything else of
// `source` is the host's. `words`: where the elements of the live matrix go. Not empty.
struct FixedCoded {
  const FixedSource* source;
  FloatFormat format;
  DeviceProduct product;
  void* words;
};

// Decodes all of them and waits for it, once. statuses[k] becomes ok or bad_stream, as core's
// decode_fixed() says for the same bytes; the elements of matrix k may be anything unless it is ok.
// Allocates a byte an element (of a predicted matrix, of a panel) and 16 KiB for each context of
// each matrix.
int decode_fixed(const std::vector<FixedCoded>& matrices, const Parallel& parallel,
                 const Allocate& allocate, void* stream, std::vector<Status>& statuses);

}  // namespace lmgc::cuda
