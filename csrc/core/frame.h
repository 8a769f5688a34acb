// The frame: self-contained compressed bytes of a list of tensors. docs/format.md specifies it;
// this is its header.
//
//   header   magic, version, flags, size, metadata, [prior block], [past], one record a tensor,
//            checksums
//   payload  one section a record, in order
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/float_format.h"
#include "core/serialize.h"
#include "core/short_floats.h"
#include "core/status.h"
#include "core/windows.h"

namespace lmgc {

inline constexpr std::uint8_t frame_magic[4] = {'L', 'M', 'G', 'C'};
inline constexpr std::size_t most_dimensions = 64;

// How a tensor's section is coded. Codes are part of the format.
enum class Method : std::uint8_t {
  raw = 0,      // the bytes themselves
  planes = 1,   // byte grouping, static tables (planes.h)
  lmgc = 2,     // ieee serializer, causal language model, range coder lanes (lanes.h)
  scale = 3,    // fixed serializer, row and column scales, static tables (fixed_section.h)
  lowrank = 4,  // the same, predicted by a low-rank product
  lm = 5        // scale or lowrank with a causal language model for the tables (lm_section.h)
};
inline constexpr int methods = 6;
const char* name(Method method);  // "unknown" for a code that is not a Method
// Whether the fixed serializer is what it uses: scale, lowrank, lm.
bool is_fixed(Method method);

// What a decoder must agree on with the encoder before it may run a language model.
struct PriorBlock {
  SerializeOptions serialize;
  WindowKind window = WindowKind::disjoint;
  std::uint64_t window_tokens = 0;    // the prior's max_context
  std::uint64_t fingerprint[2] = {};  // hash of the model's parameters, buffers and attributes
  std::uint64_t probe = 0;            // hash of the CDFs of a fixed probe input
  bool portable = true;
  std::uint64_t batch_lanes = 0;  // lanes in a batch; matters to bound priors only, else 0
  std::string environment;        // where a bound prior encoded; empty for a portable one
};

// One of several tensors that are coded as one.
struct JoinedTensor {
  std::uint64_t place = 0;  // in the list of all tensors
  std::vector<std::int64_t> sizes;
  std::uint32_t data_checksum = 0;
  std::uint64_t bytes = 0;  // derived; not 0
};

// Of a tensor, or of several of one type as a flat one: their elements, one after the other.
struct TensorRecord {
  DType dtype = DType::float32;
  Method method = Method::raw;
  Spare spare;  // of the elements, where is_fixed(method); else without effect
  std::vector<std::int64_t> sizes;
  std::uint32_t data_checksum = 0;  // low half of checksum() of the decoded bytes
  std::uint64_t section_size = 0;
  // Two or more, in the order of their places; `sizes` is then {elements}, and the checksums are
  // theirs.
  std::vector<JoinedTensor> joined;

  bool has_short_floats() const { return is_fixed(method) && spare.any(); }

  // Derived, checked to fit std::int64_t when parsed.
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;           // of what is decoded
  std::uint64_t section_offset = 0;  // within the frame
};

struct FrameHeader {
  bool has_prior = false;
  PriorBlock prior;
  std::optional<std::uint64_t> past;  // the identity of the frame that sections refer to
  bool has_references = false;        // a section has one; only for write_header
  std::string metadata;               // the caller's, opaque here
  std::vector<TensorRecord> tensors;
  std::uint64_t payload_checksum = 0;
  std::uint64_t header_size = 0;  // set by parse_header
  std::uint8_t version = 0;       // likewise; write_header writes the required one
  std::uint64_t identity = 0;     // likewise: the header's checksum, which covers the payload's
};

// A tensor of the list that was compressed, and where it is.
struct ListedTensor {
  std::size_t record = 0;
  std::uint64_t offset = 0, bytes = 0;  // of the record's
  const std::vector<std::int64_t>* sizes = nullptr;
  std::uint32_t data_checksum = 0;

  // Its part of `size` bytes of the record's section, by its bytes: the parts add up.
  std::uint64_t share(std::uint64_t size, const TensorRecord& of) const;
};

// All tensors in order. Joined ones stand at their places, which are distinct and below the number
// of all; the others fill what is left. Points into `header`.
std::vector<ListedTensor> listed(const FrameHeader& header);

// The place in that list of each record's tensor, or of the first of them.
std::vector<std::size_t> places_of(const FrameHeader& header);

// Bytes of all decoded tensors together; the largest number where they are more than it holds.
std::uint64_t decoded_bytes(const FrameHeader& header);

// The oldest version of the format that can express the frame: decoders that know no more read it.
std::uint8_t required_version(const FrameHeader& header);

// The header's bytes, checksums included. `section_size` of every record and `payload_checksum` are
// final.
std::vector<std::uint8_t> write_header(const FrameHeader& header);

// Reads an untrusted header. `size` is the size of the whole frame, of which the first `available`
// bytes are at `data`; a header longer than `available` gives Status::truncated with
// `header.header_size` set to what is needed (so that a frame on a device can be fetched
// piecewise). On ok: every record's sizes multiply without overflow, sections lie inside the frame
// one after the other and end exactly at `size`, codes are known, joined tensors have distinct
// places in the list, raw sections have exactly the tensor's size, and no allocation was larger
// than a small multiple of `available`.
Status parse_header(const std::uint8_t* data, std::size_t available, std::size_t size,
                    FrameHeader& header);

}  // namespace lmgc
