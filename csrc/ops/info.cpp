#include <sstream>
#include <utility>

#include "ops/compress.h"
#include "ops/fixed.h"
#include "ops/lm.h"
#include "ops/lmgc.h"
#include "ops/options.h"

namespace lmgc::ops {
namespace {

// Text as a JSON string. Bytes that are not UTF-8 are the caller's own doing.
std::string quoted(const std::string& text) {
  std::ostringstream out;
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out << "\\u00"
          << "0123456789abcdef"[c >> 4] << "0123456789abcdef"[c & 15];
    } else {
      out << c;
    }
  }
  out << '"';
  return out.str();
}

std::string prior_json(const FrameHeader& header) {
  if (!header.has_prior) return "null";
  const PriorBlock& prior = header.prior;
  std::ostringstream out;
  out << "{\"fingerprint\": \"" << std::hex;
  for (const std::uint64_t half : prior.fingerprint) {
    out.width(16);
    out.fill('0');
    out << half;
  }
  out << std::dec << "\", \"portable\": " << (prior.portable ? "true" : "false")
      << ", \"window\": " << quoted(window_name(prior.window))
      << ", \"window_tokens\": " << prior.window_tokens
      << ", \"separator\": " << quoted(separator_name(prior.serialize.separator))
      << ", \"bytes_per_group\": " << static_cast<int>(prior.serialize.bytes_per_group)
      << ", \"byte_order\": \"" << (prior.serialize.byte_order == ByteOrder::big ? "big" : "little")
      << "\", \"environment\": " << quoted(prior.environment) << "}";
  return out.str();
}

// Fields that say what is in a section: its parts in bytes, which add up to it, and the rank of a
// prediction.
std::string sections_json(const at::Tensor& frame, std::size_t index, const FrameHeader& header) {
  const TensorRecord& record = header.tensors[index];
  std::ostringstream out;
  out << "\"sections\": ";
  if (record.method == Method::scale || record.method == Method::lowrank) {
    const FixedSource source =
        read_fixed_section(frame, static_cast<std::int64_t>(record.section_offset),
                           static_cast<std::int64_t>(record.section_size), record.sizes,
                           record.method == Method::lowrank, describe_tensor(index, record));
    out << "{\"side\": " << source.sizes.side << ", \"digits\": " << source.sizes.digits
        << ", \"escapes\": " << source.sizes.escapes << ", \"tails\": " << source.sizes.tails << "}"
        << ", \"rank\": " << source.head.low_rank.factors.rank
        << ", \"reference\": " << (source.head.reference.is_there ? "true" : "false");
    return out.str();
  }
  if (record.method == Method::lm) {
    const LmSource source = read_lm_section(frame, static_cast<std::int64_t>(record.section_offset),
                                            static_cast<std::int64_t>(record.section_size),
                                            record.sizes, describe_tensor(index, record));
    std::uint64_t lanes = 0;
    for (const StreamSource* stream : {&source.u, &source.v, &source.residuals}) {
      for (const LaneBytes& lane : stream->lanes) lanes += lane.size;
    }
    out << "{\"side\": " << source.side << ", \"lanes\": " << lanes
        << ", \"tails\": " << record.section_size - source.side - lanes << "}"
        << ", \"rank\": " << source.fixed.head.low_rank.factors.rank;
    return out.str();
  }
  if (record.method != Method::lmgc) {
    out << "{\"" << name(record.method) << "\": " << record.section_size << "}";
    return out.str();
  }
  const FloatFormat format = serialized_format(float_format(record.dtype));
  const LmgcSection section =
      read_lmgc_section(frame, static_cast<std::int64_t>(record.section_offset),
                        static_cast<std::int64_t>(record.section_size), format,
                        static_cast<std::int64_t>(record.bytes / format.bytes),
                        header.prior.serialize, describe_tensor(index, record));
  out << "{\"side\": " << section.lanes_offset
      << ", \"lanes\": " << section.tails_offset - section.lanes_offset
      << ", \"tails\": " << record.section_size - section.tails_offset << "}";
  return out.str();
}

}  // namespace

std::tuple<std::string, std::vector<std::string>> contents(const at::Tensor& data) {
  const FrameHeader header = read_header(frame_bytes(data));
  std::vector<std::string> used;
  for (const TensorRecord& record : header.tensors) used.emplace_back(name(record.method));
  return {header.metadata, std::move(used)};
}

std::string info(const at::Tensor& data) {
  const at::Tensor frame = frame_bytes(data);
  const FrameHeader header = read_header(frame);
  std::ostringstream out;
  out << "{\"version\": " << static_cast<int>(header.version)
      << ", \"metadata\": " << quoted(header.metadata) << ", \"bytes\": " << frame.numel()
      << ", \"header_bytes\": " << header.header_size << ", \"prior\": " << prior_json(header)
      << ", \"past\": " << (header.past.has_value() ? "true" : "false") << ", \"tensors\": [";
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorRecord& record = header.tensors[i];
    out << (i == 0 ? "" : ", ") << "{\"dtype\": \"" << name(record.dtype) << "\", \"shape\": [";
    for (std::size_t d = 0; d < record.sizes.size(); ++d)
      out << (d == 0 ? "" : ", ") << record.sizes[d];
    out << "], \"method\": \"" << name(record.method) << "\", \"raw_bytes\": " << record.bytes
        << ", \"section_bytes\": " << record.section_size
        << ", \"spare_bits\": " << static_cast<int>(record.spare.mantissa_bits)
        << ", \"spare_exponents\": " << record.spare.exponents << ", "
        << sections_json(frame, i, header) << "}";
  }
  out << "]}";
  return out.str();
}

}  // namespace lmgc::ops
