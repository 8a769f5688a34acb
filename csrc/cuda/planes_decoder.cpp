// The decoder's host side, as planes.cpp is the encoder's.
#include <algorithm>
#include <array>

#include "cuda/heads.h"
#include "cuda/planes.h"
#include "cuda/planes_chunks.h"
#include "cuda/planes_jobs.h"

namespace lmgc::cuda {
namespace {

class Decoder {
 public:
  Decoder(const std::vector<PlanesSource>& sources, const Allocate& allocate, void* stream,
          std::vector<Status>& statuses)
      : allocate_(allocate), stream_(stream), statuses_(statuses) {
    statuses.assign(sources.size(), Status::ok);
    tensors_.resize(sources.size());
    for (std::size_t k = 0; k < sources.size(); ++k) tensors_[k].source = &sources[k];
  }

  int run() {
    if (int error = read_heads()) return error;
    check_sizes();
    for (std::size_t k = 0; k < tensors_.size(); ++k)
      if (is_left(k)) tensors_[k].out = tensors_[k].source->room();
    if (int error = allocate_array(allocate_, tensors_.size(), &failed_)) return error;
    const std::size_t failed_size = tensors_.size() * sizeof *failed_;
    if (int error = clear(failed_, failed_size, stream_)) return error;
    if (int error = decode_masks()) return error;
    if (int error = decode_streams()) return error;
    if (int error = join()) return error;
    std::vector<std::int32_t> failed(tensors_.size());
    if (int error = download(failed.data(), failed_, failed_size, stream_)) return error;
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
      if (statuses_[k] == Status::ok && failed[k] != 0) statuses_[k] = Status::bad_stream;
    }
    return 0;
  }

 private:
  struct Tensor {
    const PlanesSource* source = nullptr;
    PlanesHead head{};
    std::size_t head_size = 0;
    void* out = nullptr;
    const std::uint32_t* mask = nullptr;
    const std::int64_t* kept_before = nullptr;
    std::array<const std::uint8_t*, most_planes> planes{};  // null: constant
  };

  // Whether tensor k is still to be decoded.
  bool is_left(std::size_t k) const {
    return statuses_[k] == Status::ok && tensors_[k].source->elements != 0;
  }

  // 16 KiB of each section are nearly always enough.
  int read_heads() {
    std::vector<DeviceSection> sections;
    for (const Tensor& tensor : tensors_)
      sections.push_back({tensor.source->section, tensor.source->size});
    return cuda::read_heads(sections, 1 << 14, allocate_, stream_,
                            [&](std::size_t k, const std::uint8_t* bytes, std::size_t size) {
                              read_head(bytes, size, k);
                              return statuses_[k] != Status::truncated;
                            });
  }

  void read_head(const std::uint8_t* bytes, std::size_t size, std::size_t k) {
    Tensor& own = tensors_[k];
    ByteReader in(bytes, size);
    own.head = {};
    statuses_[k] = read_planes_head(in, own.source->elements, own.source->format, own.head);
    own.head_size = in.position();
  }

  void check_sizes() {
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
      if (statuses_[k] != Status::ok) continue;
      const PlanesSource& source = *tensors_[k].source;
      const std::uint64_t bodies =
          planes_body_size(tensors_[k].head, source.elements, source.format);
      const std::size_t there = source.size - tensors_[k].head_size;
      if (bodies > there) statuses_[k] = Status::truncated;
      if (bodies < there) statuses_[k] = Status::bad_section;
    }
  }

  int decode_masks() {
    std::vector<std::size_t> which;
    std::vector<std::int64_t> elements;
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
      if (!is_left(k) || !tensors_[k].head.masked) continue;
      which.push_back(k);
      elements.push_back(tensors_[k].source->elements);
    }
    if (which.empty()) return 0;
    ChunkCounts chunks;
    if (int error = chunks.allocate_for(elements, allocate_)) return error;
    std::vector<StreamSource> streams;
    TaskListBuilder<CountChunks::Tensor> list;
    for (std::size_t i = 0; i < which.size(); ++i) {
      const Tensor& own = tensors_[which[i]];
      streams.push_back({&own.head.mask, own.source->section + own.head_size,
                         mask_symbols(elements[i]), reinterpret_cast<std::uint8_t*>(chunks.mask(i)),
                         failed_ + which[i]});
      list.add({chunks.mask(i), elements[i], chunks.counts(i)}, chunks_of(elements[i]));
    }
    if (int error = cuda::decode_streams(streams, allocate_, stream_)) return error;
    if (int error = list.launch_warps<CountChunks>(allocate_, stream_)) return error;
    std::vector<std::int64_t> kept;
    if (int error = chunks.add_up(allocate_, stream_, kept)) return error;
    for (std::size_t i = 0; i < which.size(); ++i) {
      Tensor& own = tensors_[which[i]];
      if (kept[i] != own.head.kept) statuses_[which[i]] = Status::bad_section;
      own.mask = chunks.mask(i);
      own.kept_before = chunks.counts(i);
    }
    return 0;
  }

  // Coded planes are decoded to bytes; raw ones stay where they are.
  int decode_streams() {
    std::size_t size = 0;
    for_each_plane([&](std::size_t, int, const StreamSource& own) {
      if (own.head->kind == StreamKind::rans) size += own.symbols;
    });
    std::uint8_t* decoded = nullptr;
    if (int error = allocate_array(allocate_, size, &decoded)) return error;
    std::vector<StreamSource> streams;
    for_each_plane([&](std::size_t k, int p, StreamSource own) {
      if (own.head->kind == StreamKind::raw) tensors_[k].planes[p] = own.body;
      if (own.head->kind != StreamKind::rans) return;
      own.out = decoded;
      tensors_[k].planes[p] = decoded;
      decoded += own.symbols;
      streams.push_back(own);
    });
    return cuda::decode_streams(streams, allocate_, stream_);
  }

  // Calls body(tensor, plane, source) for all planes that are left.
  template <class Body>
  void for_each_plane(const Body& body) const {
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
      if (!is_left(k)) continue;
      const Tensor& own = tensors_[k];
      const std::uint8_t* at = own.source->section + own.head_size;
      if (own.head.masked) at += body_size(own.head.mask, mask_symbols(own.source->elements));
      const auto kept = static_cast<std::uint64_t>(own.head.kept);
      for (int p = 0; p < own.source->format.bytes; ++p) {
        body(k, p, StreamSource{&own.head.planes[p], at, kept, nullptr, failed_ + k});
        at += body_size(own.head.planes[p], kept);
      }
    }
  }

  int join() {
    return for_each_width([&](auto width) {
      using Job = JoinChunks<width.value>;
      TaskListBuilder<typename Job::Tensor> list;
      for (std::size_t k = 0; k < tensors_.size(); ++k) {
        const Tensor& own = tensors_[k];
        const std::int64_t elements = own.source->elements;
        const FloatFormat format = own.source->format;
        if (!is_left(k) || format.bytes != width.value) continue;
        typename Job::Tensor there{
            {elements, own.mask, own.kept_before, format.is_float()}, own.out, {}, {}};
        for (int p = 0; p < width.value; ++p) {
          there.planes[p] = own.planes[p];
          if (own.planes[p] == nullptr) there.constant.set_byte(p, own.head.planes[p].constant);
        }
        list.add(there, chunks_of(elements));
      }
      return list.template launch_warps<Job>(allocate_, stream_);
    });
  }

  const Allocate& allocate_;
  void* const stream_;
  std::vector<Status>& statuses_;
  std::vector<Tensor> tensors_;
  std::int32_t* failed_ = nullptr;  // device: one a tensor
};

}  // namespace

int decode_planes(const std::vector<PlanesSource>& sources, const Allocate& allocate, void* stream,
                  std::vector<Status>& statuses) {
  return Decoder(sources, allocate, stream, statuses).run();
}

}  // namespace lmgc::cuda
