#include <optional>
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

// What is in a section: its parts in bytes, which add up to it, and what else its head says.
struct SectionFacts {
  std::vector<std::pair<const char*, std::uint64_t>> parts;
  std::optional<std::int64_t> rank;
  bool reference = false;
};

SectionFacts facts_of(const at::Tensor& frame, const FrameHeader& header,
                      const TensorRecord& record, const std::string& where) {
  const auto offset = static_cast<std::int64_t>(record.section_offset);
  const auto size = static_cast<std::int64_t>(record.section_size);
  switch (record.method) {
    case Method::raw:
    case Method::planes:
      break;
    case Method::scale:
    case Method::lowrank: {
      const FixedSource source = read_fixed_section(frame, offset, size, record.sizes,
                                                    record.method == Method::lowrank, where);
      return {{{"side", source.sizes.side},
               {"digits", source.sizes.digits},
               {"escapes", source.sizes.escapes},
               {"tails", source.sizes.tails}},
              source.head.low_rank.factors.rank,
              source.head.reference.is_there};
    }
    case Method::lm: {
      const LmSource source = read_lm_section(frame, offset, size, record.sizes, where);
      std::uint64_t lanes = 0;
      for (const StreamSource* stream : {&source.u, &source.v, &source.residuals}) {
        for (const LaneBytes& lane : stream->lanes) lanes += lane.size;
      }
      return {{{"side", source.side},
               {"lanes", lanes},
               {"tails", record.section_size - source.side - lanes}},
              source.fixed.head.low_rank.factors.rank};
    }
    case Method::lmgc: {
      const FloatFormat format = serialized_format(float_format(record.dtype));
      const LmgcSection section = read_lmgc_section(
          frame, offset, size, format, static_cast<std::int64_t>(record.bytes / format.bytes),
          header.prior.serialize, where);
      return {{{"side", section.lanes_offset},
               {"lanes", section.tails_offset - section.lanes_offset},
               {"tails", record.section_size - section.tails_offset}},
              std::nullopt};
    }
  }
  return {{{name(record.method), record.section_size}}, std::nullopt};
}

}  // namespace

std::tuple<std::string, std::vector<std::string>> contents(const at::Tensor& data) {
  const FrameHeader header = read_header(frame_bytes(data));
  std::vector<std::string> used;
  for (const ListedTensor& one : listed(header))
    used.emplace_back(name(header.tensors[one.record].method));
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
  const std::vector<ListedTensor> list = listed(header);
  std::vector<std::optional<SectionFacts>> facts(header.tensors.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const ListedTensor& one = list[i];
    const TensorRecord& record = header.tensors[one.record];
    std::optional<SectionFacts>& told = facts[one.record];
    if (!told.has_value()) told = facts_of(frame, header, record, describe_tensor(i, record));
    out << (i == 0 ? "" : ", ") << "{\"dtype\": \"" << name(record.dtype) << "\", \"shape\": [";
    for (std::size_t d = 0; d < one.sizes->size(); ++d)
      out << (d == 0 ? "" : ", ") << (*one.sizes)[d];
    std::uint64_t sum = 0;
    std::ostringstream parts;
    for (const auto& [part, size] : told->parts) {
      const std::uint64_t share = one.share(size, record);
      parts << (parts.tellp() == 0 ? "" : ", ") << '"' << part << "\": " << share;
      sum += share;
    }
    out << "], \"method\": \"" << name(record.method) << "\", \"raw_bytes\": " << one.bytes
        << ", \"section_bytes\": " << sum
        << ", \"joined\": " << (record.joined.empty() ? "false" : "true")
        << ", \"spare_bits\": " << static_cast<int>(record.spare.mantissa_bits)
        << ", \"spare_exponents\": " << record.spare.exponents << ", \"sections\": {" << parts.str()
        << "}";
    if (told->rank.has_value()) out << ", \"rank\": " << *told->rank;
    if (told->reference) out << ", \"reference\": true";
    out << "}";
  }
  out << "]}";
  return out.str();
}

}  // namespace lmgc::ops
