#include "core/frame.h"

#include <algorithm>
#include <cstring>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/version.h"

namespace lmgc {
namespace {

constexpr std::uint8_t flag_prior = 1;
constexpr std::uint8_t flag_past = 2;            // from version 3 on
constexpr std::uint8_t flag_short_floats = 128;  // of a record's method
constexpr std::uint8_t flag_joined = 64;         // likewise, from version 4 on
constexpr std::size_t fixed_size = 10;           // magic, version, flags, header size
constexpr std::size_t checksums_size = 16;       // of the payload, of the header

void write_prior(ByteWriter& out, const PriorBlock& prior, std::uint8_t version) {
  out.fixed(static_cast<std::uint8_t>(prior.serialize.separator));
  out.fixed(prior.serialize.bytes_per_group);
  out.fixed(static_cast<std::uint8_t>(prior.serialize.byte_order));
  out.fixed(static_cast<std::uint8_t>(prior.portable));
  if (version >= 2) out.fixed(static_cast<std::uint8_t>(prior.window));
  out.varint(prior.window_tokens);
  out.fixed(prior.fingerprint[0]);
  out.fixed(prior.fingerprint[1]);
  out.fixed(prior.probe);
  out.varint(prior.batch_lanes);
  out.varint(prior.environment.size());
  out.bytes(prior.environment.data(), prior.environment.size());
}

void write_tensor(ByteWriter& out, const std::vector<std::int64_t>& sizes,
                  std::uint32_t data_checksum) {
  out.varint(sizes.size());
  for (const auto size : sizes) out.varint(static_cast<std::uint64_t>(size));
  out.fixed(data_checksum);
}

// Well-formed UTF-8, as far as lengths and continuation bytes go: what Python needs to make a
// string.
bool is_utf8(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    int length = 1;
    unsigned low = 0x80, high = 0xBF;  // of the second byte
    if (byte < 0x80) {
      ++i;
      continue;
    }
    if (byte >= 0xC2 && byte <= 0xDF) {
      length = 2;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
      length = 3;
      if (byte == 0xE0) low = 0xA0;   // overlong
      if (byte == 0xED) high = 0x9F;  // surrogates
    } else if (byte >= 0xF0 && byte <= 0xF4) {
      length = 4;
      if (byte == 0xF0) low = 0x90;
      if (byte == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (next(1) < low || next(1) > high) return false;
    for (int k = 2; k < length; ++k) {
      if ((next(static_cast<std::size_t>(k)) & 0xC0) != 0x80) return false;
    }
    i += static_cast<std::size_t>(length);
  }
  return true;
}

bool read_text(ByteReader& in, std::string& text) {
  const std::uint64_t size = in.varint();
  const std::uint8_t* first = in.bytes(size);
  if (first == nullptr) return false;
  text.assign(reinterpret_cast<const char*>(first), static_cast<std::size_t>(size));
  return is_utf8(text);
}

// Digits of residuals are no text: nothing may be said of how it is written.
bool suits_lm(const PriorBlock& prior) {
  return prior.serialize.separator == Separator::none && prior.serialize.bytes_per_group == 0 &&
         prior.serialize.byte_order == ByteOrder::big && prior.window == WindowKind::disjoint;
}

bool read_prior(ByteReader& in, PriorBlock& prior, std::uint8_t version) {
  const auto separator = in.fixed<std::uint8_t>();
  const auto group = in.fixed<std::uint8_t>();
  const auto order = in.fixed<std::uint8_t>();
  const auto portable = in.fixed<std::uint8_t>();
  const auto window = version >= 2 ? in.fixed<std::uint8_t>() : std::uint8_t{0};
  prior.serialize = {static_cast<Separator>(separator), group, static_cast<ByteOrder>(order)};
  prior.portable = portable != 0;
  prior.window = static_cast<WindowKind>(window);
  prior.window_tokens = in.varint();
  prior.fingerprint[0] = in.fixed<std::uint64_t>();
  prior.fingerprint[1] = in.fixed<std::uint64_t>();
  prior.probe = in.fixed<std::uint64_t>();
  prior.batch_lanes = in.varint();
  const bool known_group = group <= 4 || group == 8;
  if (!read_text(in, prior.environment)) return false;
  // A portable prior needs nothing of where it encoded, a bound one everything.
  const bool bound = prior.batch_lanes != 0 && !prior.environment.empty();
  const bool free = prior.batch_lanes == 0 && prior.environment.empty();
  return (prior.portable ? free : bound) && prior.window_tokens != 0 &&
         separator <= static_cast<int>(Separator::iso_8859_1) && order <= 1 && portable <= 1 &&
         window < window_kinds && known_group;
}

// Sizes of a tensor, and its bytes.
Status read_sizes(ByteReader& in, FloatFormat format, std::vector<std::int64_t>& sizes,
                  std::uint64_t& bytes) {
  const std::uint64_t dimensions = in.varint();
  if (!in.ok()) return Status::truncated;
  if (dimensions > most_dimensions) return Status::bad_header;
  sizes.resize(static_cast<std::size_t>(dimensions));
  // The product of the non-zero sizes must fit too, as torch computes strides from it.
  std::uint64_t product = format.bytes;
  bool empty = false;
  for (auto& size : sizes) {
    const std::uint64_t value = in.varint();
    if (value > INT64_MAX) return Status::bad_header;
    size = static_cast<std::int64_t>(value);
    empty = empty || value == 0;
    if (value != 0 && __builtin_mul_overflow(product, value, &product)) return Status::bad_header;
    if (product > INT64_MAX) return Status::bad_header;
  }
  bytes = empty ? 0 : product;
  return in.ok() ? Status::ok : Status::truncated;
}

Status read_joined(ByteReader& in, FloatFormat format, TensorRecord& record) {
  const std::uint64_t count = in.varint();
  constexpr std::uint64_t least_bytes = 6;  // of each
  if (!in.ok()) return Status::truncated;
  if (count < 2 || count > in.left() / least_bytes) return Status::bad_header;
  record.joined.resize(static_cast<std::size_t>(count));
  std::uint64_t place = 0;
  for (JoinedTensor& one : record.joined) {
    const std::uint64_t skipped = in.varint();
    if (__builtin_add_overflow(place, skipped, &one.place) || one.place == UINT64_MAX)
      return Status::bad_header;
    place = one.place + 1;
    const Status status = read_sizes(in, format, one.sizes, one.bytes);
    if (status != Status::ok) return status;
    one.data_checksum = in.fixed<std::uint32_t>();
    if (one.bytes == 0 || one.bytes > INT64_MAX - record.bytes) return Status::bad_header;
    record.bytes += one.bytes;
  }
  record.sizes = {static_cast<std::int64_t>(record.bytes / format.bytes)};
  return Status::ok;
}

Status read_record(ByteReader& in, std::uint8_t version, TensorRecord& record) {
  record.dtype = static_cast<DType>(in.fixed<std::uint8_t>());
  auto method = in.fixed<std::uint8_t>();
  std::uint64_t spare_exponents = 0;
  const bool has_short_floats = version >= 3 && (method & flag_short_floats) != 0;
  if (has_short_floats) {
    method &= static_cast<std::uint8_t>(~flag_short_floats);
    record.spare.mantissa_bits = in.fixed<std::uint8_t>();
    spare_exponents = in.varint();
  }
  const bool is_joined = version >= 4 && (method & flag_joined) != 0;
  if (is_joined) method &= static_cast<std::uint8_t>(~flag_joined);
  record.method = static_cast<Method>(method);
  if (!in.ok()) return Status::truncated;
  const FloatFormat format = float_format(record.dtype);
  if (format.bytes == 0 || method >= methods) return Status::bad_header;
  const Status status = is_joined ? read_joined(in, format, record)
                                  : read_sizes(in, format, record.sizes, record.bytes);
  if (status != Status::ok) return status;
  record.elements = static_cast<std::int64_t>(record.bytes / format.bytes);
  if (record.bytes == 0 && record.method != Method::raw) return Status::bad_header;
  if (is_fixed(record.method) && !format.is_float()) return Status::bad_header;
  if (has_short_floats) {
    if (!is_fixed(record.method) || !record.spare.any() || spare_exponents > UINT16_MAX)
      return Status::bad_header;
    record.spare.exponents = static_cast<std::uint16_t>(spare_exponents);
    if (!suits(record.spare, format)) return Status::bad_header;
  }
  if (!is_joined) record.data_checksum = in.fixed<std::uint32_t>();
  record.section_size = in.varint();
  if (!in.ok()) return Status::truncated;
  const bool raw = record.method == Method::raw;
  if (raw ? record.section_size != record.bytes : record.section_size > record.bytes)
    return Status::bad_section;
  return Status::ok;
}

std::size_t count_of(const TensorRecord& record) {
  return record.joined.empty() ? 1 : record.joined.size();
}

// Whether the places of joined tensors are places of the list, and those of one tensor each.
bool are_places(const std::vector<TensorRecord>& records) {
  std::size_t count = 0;  // no more than there are bytes
  for (const TensorRecord& record : records) count += count_of(record);
  std::vector<bool> taken(count);
  for (const TensorRecord& record : records) {
    for (const JoinedTensor& one : record.joined) {
      if (one.place >= count || taken[static_cast<std::size_t>(one.place)]) return false;
      taken[static_cast<std::size_t>(one.place)] = true;
    }
  }
  return true;
}

}  // namespace

const char* name(Method method) {
  switch (method) {
    case Method::raw:
      return "raw";
    case Method::planes:
      return "planes";
    case Method::lmgc:
      return "lmgc";
    case Method::scale:
      return "scale";
    case Method::lowrank:
      return "lowrank";
    case Method::lm:
      return "lm";
  }
  return "unknown";
}

bool is_fixed(Method method) {
  return method == Method::scale || method == Method::lowrank || method == Method::lm;
}

std::uint64_t ListedTensor::share(std::uint64_t size, const TensorRecord& of) const {
  if (of.joined.empty()) return size;
  const auto below = [&](std::uint64_t end) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Wide>(size) * end / of.bytes);
  };
  return below(offset + bytes) - below(offset);
}

std::vector<ListedTensor> listed(const FrameHeader& header) {
  std::size_t count = 0;
  for (const TensorRecord& record : header.tensors) count += count_of(record);
  std::vector<ListedTensor> result(count);
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    std::uint64_t offset = 0;
    for (const JoinedTensor& one : header.tensors[i].joined) {
      result[static_cast<std::size_t>(one.place)] = {i, offset, one.bytes, &one.sizes,
                                                     one.data_checksum};
      offset += one.bytes;
    }
  }
  auto next = result.begin();
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorRecord& record = header.tensors[i];
    if (!record.joined.empty()) continue;
    next = std::find_if(next, result.end(), [](const auto& one) { return one.sizes == nullptr; });
    *next = {i, 0, record.bytes, &record.sizes, record.data_checksum};
  }
  return result;
}

std::vector<std::size_t> places_of(const FrameHeader& header) {
  const std::vector<ListedTensor> list = listed(header);
  std::vector<std::size_t> places(header.tensors.size());
  for (std::size_t place = list.size(); place-- > 0;) places[list[place].record] = place;
  return places;
}

std::uint64_t decoded_bytes(const FrameHeader& header) {
  std::uint64_t sum = 0;
  for (const TensorRecord& record : header.tensors) {
    if (__builtin_add_overflow(sum, record.bytes, &sum)) return UINT64_MAX;
  }
  return sum;
}

std::uint8_t required_version(const FrameHeader& header) {
  const bool joined =
      std::any_of(header.tensors.begin(), header.tensors.end(),
                  [](const TensorRecord& record) { return !record.joined.empty(); });
  if (joined) return 4;
  const bool short_floats =
      std::any_of(header.tensors.begin(), header.tensors.end(),
                  [](const TensorRecord& record) { return record.has_short_floats(); });
  if (short_floats || header.past.has_value() || header.has_references) return 3;
  if (header.has_prior && header.prior.window != WindowKind::disjoint) return 2;
  const bool lm =
      std::any_of(header.tensors.begin(), header.tensors.end(),
                  [](const TensorRecord& record) { return record.method == Method::lm; });
  return lm ? 2 : 1;
}

std::vector<std::uint8_t> write_header(const FrameHeader& header) {
  const std::uint8_t version = required_version(header);
  ByteWriter body;
  body.varint(header.metadata.size());
  body.bytes(header.metadata.data(), header.metadata.size());
  if (header.has_prior) write_prior(body, header.prior, version);
  if (header.past.has_value()) body.fixed(*header.past);
  body.varint(header.tensors.size());
  for (const TensorRecord& record : header.tensors) {
    body.fixed(static_cast<std::uint8_t>(record.dtype));
    const bool is_short = record.has_short_floats();
    body.fixed(static_cast<std::uint8_t>(static_cast<std::uint8_t>(record.method) |
                                         (is_short ? flag_short_floats : 0) |
                                         (record.joined.empty() ? 0 : flag_joined)));
    if (is_short) {
      body.fixed(record.spare.mantissa_bits);
      body.varint(record.spare.exponents);
    }
    if (record.joined.empty()) {
      write_tensor(body, record.sizes, record.data_checksum);
    } else {
      body.varint(record.joined.size());
      std::uint64_t place = 0;
      for (const JoinedTensor& one : record.joined) {
        body.varint(one.place - place);
        place = one.place + 1;
        write_tensor(body, one.sizes, one.data_checksum);
      }
    }
    body.varint(record.section_size);
  }
  ByteWriter out;
  out.bytes(frame_magic, sizeof frame_magic);
  out.fixed(version);
  out.fixed(static_cast<std::uint8_t>((header.has_prior ? flag_prior : 0) |
                                      (header.past.has_value() ? flag_past : 0)));
  out.fixed(static_cast<std::uint32_t>(fixed_size + body.size() + checksums_size));
  out.bytes(body.view().data(), body.size());
  out.fixed(header.payload_checksum);
  out.fixed(checksum(out.view().data(), out.size()));
  return out.take();
}

Status parse_header(const std::uint8_t* data, std::size_t available, std::size_t size,
                    FrameHeader& header) {
  header = FrameHeader{};
  header.header_size = fixed_size + checksums_size;
  if (available >= 4 && std::memcmp(data, frame_magic, 4) != 0) return Status::bad_magic;
  if (available < fixed_size) return Status::truncated;
  if (data[4] < 1 || data[4] > format_version) return Status::bad_version;
  std::uint32_t header_size;
  std::memcpy(&header_size, data + 6, 4);
  if (header_size > size || header_size < fixed_size + checksums_size) return Status::truncated;
  header.header_size = header_size;
  header.version = data[4];
  if (header_size > available) return Status::truncated;

  const std::size_t body_end = header_size - checksums_size;
  std::uint64_t header_checksum;
  std::memcpy(&header.payload_checksum, data + body_end, 8);
  std::memcpy(&header_checksum, data + body_end + 8, 8);
  if (header_checksum != checksum(data, body_end + 8)) return Status::header_checksum;
  header.identity = header_checksum;

  const std::uint8_t flags = data[5];
  if (flags & ~(flag_prior | (header.version >= 3 ? flag_past : 0))) return Status::bad_header;
  header.has_prior = (flags & flag_prior) != 0;
  ByteReader in(data + fixed_size, body_end - fixed_size);
  if (!read_text(in, header.metadata)) return Status::bad_header;
  if (header.has_prior && !read_prior(in, header.prior, header.version)) return Status::bad_header;
  if ((flags & flag_past) != 0) header.past = in.fixed<std::uint64_t>();
  const std::uint64_t count = in.varint();
  constexpr std::uint64_t least_record = 8;  // bytes: bounds the allocation by what is really there
  if (!in.ok() || count > in.left() / least_record) return Status::bad_header;
  header.tensors.resize(static_cast<std::size_t>(count));
  std::uint64_t offset = header_size;
  bool uses_prior = false, uses_lm = false;
  for (TensorRecord& record : header.tensors) {
    const Status status = read_record(in, header.version, record);
    if (status != Status::ok) return status == Status::truncated ? Status::bad_header : status;
    if (record.method == Method::lm && header.version < 2) return Status::bad_header;
    uses_lm = uses_lm || record.method == Method::lm;
    uses_prior = uses_prior || record.method == Method::lmgc || record.method == Method::lm;
    record.section_offset = offset;
    if (record.section_size > size - offset) return Status::truncated;
    offset += record.section_size;
  }
  if (in.left() != 0 || uses_prior != header.has_prior) return Status::bad_header;
  if (!are_places(header.tensors)) return Status::bad_header;
  if (uses_lm && !suits_lm(header.prior)) return Status::bad_header;
  return offset == size ? Status::ok : Status::truncated;
}

}  // namespace lmgc
