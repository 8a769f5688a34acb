// Method `planes`: bytes of equal significance as separate coded streams, and, where it pays, the
// zeros of the tensor as a mask of one bit an element, so that the planes hold the other elements
// only. docs/format.md, section 5, specifies the section that is written here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/entropy.h"
#include "core/float_format.h"
#include "core/parallel.h"
#include "core/plane_bytes.h"
#include "core/spread.h"
#include "core/status.h"

namespace lmgc {

inline constexpr int mask_segment_bits = 6;  // rows of zeros are short
inline constexpr int plane_segment_bits = 8;

// ---- what the encoder decides from a sample -----------------------------------------------------

// Element number i of the sample of `elements` elements: 256 runs of 64, or everything.
inline constexpr std::int64_t sample_run = 64;
inline constexpr std::int64_t most_sample_runs = 256;
LMGC_HD constexpr std::int64_t sample_size(std::int64_t elements) {
  return elements < sample_run * most_sample_runs ? elements : sample_run * most_sample_runs;
}
LMGC_HD constexpr std::int64_t sample_element(std::int64_t i, std::int64_t elements) {
  if (elements <= sample_run * most_sample_runs) return i;
  return spread_place(i / sample_run, most_sample_runs, elements / sample_run) * sample_run +
         i % sample_run;
}

struct PlanesChoice {
  bool masked = false;
  std::array<bool, most_planes> coded{};  // worth a try; the others are stored raw
};
// `sample` holds the sample_size(elements) elements of the sample, back to back.
PlanesChoice choose_planes(const void* sample, std::int64_t elements, FloatFormat format);

// Whether a mask, coded as `stream`, saves more than it takes when `kept` of the elements are not
// zero: the sample may have promised too much. Without it every plane is worth a try.
bool mask_pays(const StreamHead& stream, std::int64_t elements, std::int64_t kept,
               FloatFormat format);

// ---- heads --------------------------------------------------------------------------------------

// What a decoder must know before it can start, on any device. The bodies follow: the mask's, if
// there is one, then the planes', each of body_size() bytes.
struct PlanesHead {
  bool masked = false;
  std::int64_t kept = 0;                       // elements that the planes hold
  StreamHead mask;                             // of mask_symbols(elements) symbols
  std::array<StreamHead, most_planes> planes;  // of `kept` symbols each
};

constexpr std::uint64_t mask_symbols(std::int64_t elements) {
  return (static_cast<std::uint64_t>(elements) + 7) / 8;
}

void write_planes_head(const PlanesHead& head, FloatFormat format, ByteWriter& out);

// Untrusted bytes: ok, truncated, bad_section or bad_table. The bodies begin at in.position().
Status read_planes_head(ByteReader& in, std::int64_t elements, FloatFormat format,
                        PlanesHead& head);

// All bodies together, in bytes.
std::uint64_t planes_body_size(const PlanesHead& head, std::int64_t elements, FloatFormat format);

// ---- encoder ------------------------------------------------------------------------------------

// Bytes of no section are more: every stream raw.
constexpr std::size_t planes_bound(std::int64_t elements, FloatFormat format) {
  return static_cast<std::size_t>(elements) * format.bytes + 1 + format.bytes;
}

// Encodes in two steps, so that the caller allocates the section once and planes that are stored
// raw are never copied twice. Equal tensors give equal sections whatever `parallel` does.
class PlanesEncoder {
 public:
  // Decides and codes: what is left to do is to split the raw planes. `data` holds `elements`
  // elements of 1, 2, 4, 8 or 16 bytes, aligned to their size (16: to 8), which must stay unchanged
  // until write() has returned.
  PlanesEncoder(const void* data, std::int64_t elements, FloatFormat format,
                const Parallel& parallel);

  // The exact size of the section, at most planes_bound().
  std::size_t size() const { return size_; }

  // Writes size() bytes.
  void write(std::uint8_t* out, const Parallel& parallel) const;

 private:
  void make_mask(const Parallel& parallel);
  void code_planes(const PlanesChoice& choice, const Parallel& parallel);
  // The tables that a plane of all elements pays for.
  TableCosts sample_tables(int plane) const;
  // Splits those planes whose pointer is not null; each pointer has room for all kept elements.
  void split(std::uint8_t* const* planes, const Parallel& parallel) const;

  const void* data_;
  std::int64_t elements_;
  FloatFormat format_;
  bool masked_ = false;
  std::int64_t kept_ = 0;                  // elements that the planes hold
  std::vector<std::uint8_t> mask_;         // where it is stored raw
  std::vector<std::int64_t> kept_before_;  // each task's first element among the kept ones
  CodedStream mask_stream_;
  std::array<CodedStream, most_planes> planes_;
  std::vector<std::uint8_t> head_bytes_;
  std::size_t size_ = 0;
};

std::vector<std::uint8_t> encode_planes(const void* data, std::int64_t elements, FloatFormat format,
                                        const Parallel& parallel);

// ---- decoder ------------------------------------------------------------------------------------

// Decodes in two steps, so that the caller allocates the elements once it is clear that the section
// tells all of them. Reads nothing beyond the section and writes nothing beyond the elements.
class PlanesDecoder {
 public:
  // Reads the heads of the untrusted bytes section[0, size) and finds the bodies, which must end
  // with the section: ok, truncated, bad_section or bad_table. The bytes stay where they are while
  // this is used. Takes a small multiple of them, and 17 KiB a table.
  Status open(const std::uint8_t* section, std::size_t size, std::int64_t elements,
              FloatFormat format);

  // Decodes into `elements` elements at `out`, aligned as for the encoder: ok, bad_section or
  // bad_stream; `out` may hold anything unless it is ok. Temporary memory: an eighth of a byte an
  // element for a mask, and per task 128 KiB a plane.
  Status decode(void* out, const Parallel& parallel) const;

 private:
  std::int64_t elements_ = 0, kept_ = 0;
  FloatFormat format_{};
  bool masked_ = false;
  StreamDecoder mask_;
  std::array<StreamDecoder, most_planes> planes_;
};

// Both steps at once. Any status but ok means that the bytes are not a section of such a tensor.
Status decode_planes(const std::uint8_t* section, std::size_t size, std::int64_t elements,
                     FloatFormat format, void* out, const Parallel& parallel);

}  // namespace lmgc
