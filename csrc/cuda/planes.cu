#include "cuda/planes.h"

#include <algorithm>
#include <array>
#include <vector>

#include "cuda/planes_kernels.cuh"

namespace lmgc::cuda {
namespace {

std::int64_t chunks_of(std::int64_t elements) { return (elements + chunk - 1) / chunk; }

// ---- host side ----------------------------------------------------------------------------------

// Calls body(width) with the element size as a constant.
template <class Body>
int with_width(FloatFormat format, Body body) {
  switch (format.bytes) {
    case 1:
      return body(std::integral_constant<int, 1>{});
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 4:
      return body(std::integral_constant<int, 4>{});
    case 8:
      return body(std::integral_constant<int, 8>{});
    default:
      return body(std::integral_constant<int, 16>{});
  }
}

int download_sample(const void* data, std::int64_t elements, FloatFormat format,
                    const Allocate& allocate, void* stream, std::vector<std::uint64_t>& sample) {
  const std::int64_t count = sample_size(elements);
  const auto bytes = static_cast<std::size_t>(count) * format.bytes;
  sample.resize((bytes + 7) / 8);
  if (count == elements) return download(sample.data(), data, bytes, stream);
  std::uint64_t* gathered = nullptr;
  if (int error = allocate_array(allocate, sample.size(), &gathered)) return error;
  const int error = with_width(format, [&](auto width) {
    return start(gather_sample<width.value>, chunks_of(count) * warp_size, threads, stream, data,
                 elements, static_cast<void*>(gathered));
  });
  return error ? error : download(sample.data(), gathered, bytes, stream);
}

// counts[0, chunks] holds 0 and the counts of the chunks; they become the kept elements before each
// chunk, and *kept the number of all.
int add_up_chunks(std::int64_t* counts, std::int64_t chunks, void* stream, std::int64_t* kept) {
  if (int error = clear(counts, sizeof *counts, stream)) return error;
  if (int error = start(add_up, 1, scan_threads, stream, counts, chunks + 1)) return error;
  return download(kept, counts + chunks, sizeof *kept, stream);
}

}  // namespace

int PlanesEncoder::prepare(const void* data, std::int64_t elements, FloatFormat format,
                           const Allocate& allocate, void* stream) {
  *this = {};
  data_ = data;
  elements_ = kept_ = elements;
  format_ = format;
  std::vector<std::uint64_t> sample;
  if (int error = download_sample(data, elements, format, allocate, stream, sample)) return error;
  PlanesChoice choice = choose_planes(sample.data(), elements, format);
  masked_ = choice.masked;
  if (masked_) {
    if (int error = make_mask(allocate, stream)) return error;
    if (!mask_pays(mask_stream_.head, elements, kept_, format)) {
      masked_ = false;
      kept_ = elements;
      choice.coded.fill(true);
    }
  }
  if (int error = code_planes(choice, allocate, stream)) return error;

  PlanesHead head;
  head.masked = masked_;
  head.kept = kept_;
  head.mask = mask_stream_.head;
  for (int p = 0; p < format.bytes; ++p) head.planes[p] = planes_[p].head;
  ByteWriter head_bytes;
  write_planes_head(head, format, head_bytes);
  head_bytes_ = head_bytes.take();
  size_ = head_bytes_.size() + planes_body_size(head, elements, format);
  return 0;
}

int PlanesEncoder::make_mask(const Allocate& allocate, void* stream) {
  const std::int64_t chunks = chunks_of(elements_);
  if (int error = allocate_array(allocate, static_cast<std::size_t>(chunks) * threads, &mask_))
    return error;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(chunks) + 1, &kept_before_))
    return error;
  const int error = with_width(format_, [&](auto width) {
    return start(mask_chunks<width.value>, chunks, threads, stream, data_, elements_, mask_,
                 kept_before_);
  });
  if (error) return error;
  if (int failure = add_up_chunks(kept_before_, chunks, stream, &kept_)) return failure;
  return code_stream(reinterpret_cast<const std::uint8_t*>(mask_), mask_symbols(elements_),
                     mask_segment_bits, allocate, stream, mask_stream_);
}

int PlanesEncoder::code_planes(const PlanesChoice& choice, const Allocate& allocate, void* stream) {
  const auto kept = static_cast<std::size_t>(kept_);
  std::array<std::uint8_t*, most_planes> bytes{};
  for (int p = 0; p < format_.bytes; ++p) {
    if (!choice.coded[p] || kept == 0) continue;
    if (int error = allocate_array(allocate, kept, &bytes[p])) return error;
  }
  if (int error = split(bytes, stream)) return error;
  for (int p = 0; p < format_.bytes; ++p) {
    if (bytes[p] == nullptr) continue;
    if (int error = code_stream(bytes[p], kept, plane_segment_bits, allocate, stream, planes_[p]))
      return error;
  }
  return 0;
}

int PlanesEncoder::split(const std::array<std::uint8_t*, most_planes>& planes, void* stream) const {
  if (std::all_of(planes.begin(), planes.end(), [](auto* plane) { return plane == nullptr; }))
    return 0;
  Targets to{};
  std::copy(planes.begin(), planes.end(), to.plane);
  const bool is_float = format_.is_float();
  return with_width(format_, [&](auto width) {
    if (masked_) {
      return start(split_kept<width.value>, chunks_of(elements_), threads, stream, data_, elements_,
                   is_float, mask_, kept_before_, to);
    }
    return start(split_all<width.value>, (elements_ + threads - 1) / threads, threads, stream,
                 data_, elements_, is_float, to);
  });
}

int PlanesEncoder::write(std::uint8_t* out, const Allocate& allocate, void* stream) const {
  if (int error = upload(out, head_bytes_.data(), head_bytes_.size(), stream)) return error;
  out += head_bytes_.size();
  if (masked_) {
    const auto* mask = reinterpret_cast<const std::uint8_t*>(mask_);
    if (int error = write_body(mask_stream_, mask, mask_symbols(elements_), out, allocate, stream))
      return error;
    out += body_size(mask_stream_.head, mask_symbols(elements_));
  }
  std::array<std::uint8_t*, most_planes> raw{};
  const auto kept = static_cast<std::uint64_t>(kept_);
  for (int p = 0; p < format_.bytes; ++p) {
    const StreamHead& head = planes_[p].head;
    if (head.kind == StreamKind::raw) {
      raw[p] = kept == 0 ? nullptr : out;
    } else if (int error = write_body(planes_[p], nullptr, kept, out, allocate, stream)) {
      return error;
    }
    out += body_size(head, kept);
  }
  return split(raw, stream);
}

// ---- decoder ------------------------------------------------------------------------------------

namespace {

// Downloads as much of the section as its heads take: 64 KiB are nearly always enough.
int download_head(const std::uint8_t* section, std::size_t size, std::int64_t elements,
                  FloatFormat format, void* stream, PlanesHead& head, std::size_t& head_size,
                  Status& status) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t part = std::min<std::size_t>(size, 1 << 16);; part = std::min(size, 16 * part)) {
    bytes.resize(part);
    if (int error = download(bytes.data(), section, part, stream)) return error;
    ByteReader in(bytes.data(), part);
    head = {};
    status = read_planes_head(in, elements, format, head);
    head_size = in.position();
    if (status != Status::truncated || part == size) return 0;
  }
}

}  // namespace

int PlanesDecoder::open(const std::uint8_t* section, std::size_t size, std::int64_t elements,
                        FloatFormat format, void* stream, Status& status) {
  elements_ = elements;
  format_ = format;
  std::size_t head_size = 0;
  if (int error = download_head(section, size, elements, format, stream, head_, head_size, status))
    return error;
  if (status != Status::ok) return 0;
  bodies_ = section + head_size;
  const std::uint64_t bodies = planes_body_size(head_, elements, format);
  if (bodies != size - head_size)
    status = bodies > size - head_size ? Status::truncated : Status::bad_section;
  return 0;
}

int PlanesDecoder::decode(void* out, const Allocate& allocate, void* stream, Status& status) const {
  const std::int64_t elements = elements_;
  const FloatFormat format = format_;
  const PlanesHead& head = head_;
  status = Status::ok;
  if (elements == 0) return 0;
  const std::uint8_t* body = bodies_;
  int* failed = nullptr;
  if (int error = allocate_array(allocate, 1, &failed)) return error;
  if (int error = clear(failed, sizeof *failed, stream)) return error;

  const std::int64_t chunks = chunks_of(elements);
  std::uint32_t* mask = nullptr;
  std::int64_t* kept_before = nullptr;
  if (head.masked) {
    if (int error = allocate_array(allocate, static_cast<std::size_t>(chunks) * threads, &mask))
      return error;
    if (int error = allocate_array(allocate, static_cast<std::size_t>(chunks) + 1, &kept_before))
      return error;
    if (int error = decode_stream(head.mask, body, mask_symbols(elements), allocate, stream,
                                  reinterpret_cast<std::uint8_t*>(mask), failed)) {
      return error;
    }
    body += body_size(head.mask, mask_symbols(elements));
    if (int error = start(count_chunks, chunks, threads, stream, mask, elements, kept_before))
      return error;
    std::int64_t kept = 0;
    if (int error = add_up_chunks(kept_before, chunks, stream, &kept)) return error;
    if (kept != head.kept) {
      status = Status::bad_section;
      return 0;
    }
  }

  Sources from{};
  const auto kept = static_cast<std::uint64_t>(head.kept);
  for (int p = 0; p < format.bytes; ++p) {
    const StreamHead& own = head.planes[p];
    if (own.kind == StreamKind::constant) {
      from.constant[p] = own.constant;
    } else if (own.kind == StreamKind::raw) {
      from.plane[p] = body;
    } else {
      std::uint8_t* decoded = nullptr;
      if (int error = allocate_array(allocate, kept, &decoded)) return error;
      if (int error = decode_stream(own, body, kept, allocate, stream, decoded, failed))
        return error;
      from.plane[p] = decoded;
    }
    body += body_size(own, kept);
  }
  const bool is_float = format.is_float();
  const int error = with_width(format, [&](auto width) {
    if (head.masked) {
      return start(join_kept<width.value>, chunks, threads, stream, from, elements, is_float, mask,
                   kept_before, out);
    }
    return start(join_all<width.value>, (elements + threads - 1) / threads, threads, stream, from,
                 elements, is_float, out);
  });
  if (error) return error;
  int failure = 0;
  if (int failed_download = download(&failure, failed, sizeof failure, stream))
    return failed_download;
  if (failure != 0) status = Status::bad_stream;
  return 0;
}

}  // namespace lmgc::cuda
