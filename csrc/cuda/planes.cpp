// The host's side; the device's is planes_jobs.h. Plain C++, so that tests can run it with another
// device (tests/core/emulated_device.h).
#include "cuda/planes.h"

#include <algorithm>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/planes_jobs.h"

namespace lmgc::cuda {
namespace {

std::int64_t chunks_of(std::int64_t elements) {
  return (elements + chunk_elements - 1) / chunk_elements;
}

// Calls body(width) for every size of elements, as a constant, until one fails.
template <class Body>
int for_each_width(const Body& body) {
  if (int error = body(std::integral_constant<int, 1>{})) return error;
  if (int error = body(std::integral_constant<int, 2>{})) return error;
  if (int error = body(std::integral_constant<int, 4>{})) return error;
  if (int error = body(std::integral_constant<int, 8>{})) return error;
  return body(std::integral_constant<int, 16>{});
}

// counts[0, count) become the sums of those before each.
int add_up(std::int64_t* counts, std::int64_t count, const Allocate& allocate, void* stream) {
  const std::int64_t stretches = (count + SumStretches::stretch - 1) / SumStretches::stretch;
  if (stretches == 1) return launch_warps(1, AddUp{counts, count, count, nullptr}, stream);
  const auto sums_size = static_cast<std::size_t>(stretches) * sizeof(std::int64_t);
  std::int64_t* sums = nullptr;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(stretches), &sums))
    return error;
  if (int error = clear(sums, sums_size, stream)) return error;
  if (int error = launch_warps(stretches, SumStretches{counts, count, sums}, stream)) return error;
  if (int error = launch_warps(1, AddUp{sums, stretches, stretches, nullptr}, stream)) return error;
  return launch_warps(stretches, AddUp{counts, count, SumStretches::stretch, sums}, stream);
}

// The masks of tensors, and what there is to know of their chunks.
class ChunkCounts {
 public:
  // `elements` of each tensor.
  int allocate_for(const std::vector<std::int64_t>& elements, const Allocate& allocate) {
    first_.assign(1, 0);
    for (const std::int64_t own : elements) first_.push_back(first_.back() + chunks_of(own));
    const auto chunks = static_cast<std::size_t>(first_.back());
    if (int error = allocate_array(allocate, chunks * warp_lanes, &masks_)) return error;
    return allocate_array(allocate, chunks + 1, &counts_);
  }

  std::uint32_t* mask(std::size_t k) const { return masks_ + first_[k] * warp_lanes; }
  // The counts of tensor k's chunks, and after add_up() the kept elements before each, those of
  // other tensors included.
  std::int64_t* counts(std::size_t k) const { return counts_ + first_[k]; }

  // kept[k]: the ones of mask k.
  int add_up(const Allocate& allocate, void* stream, std::vector<std::int64_t>& kept) const {
    const std::int64_t chunks = first_.back();
    std::int64_t *places = nullptr, *sums = nullptr;
    if (int error = clear(counts_ + chunks, sizeof *counts_, stream)) return error;
    if (int error = cuda::add_up(counts_, chunks + 1, allocate, stream)) return error;
    if (int error = upload_array(first_, allocate, stream, &places)) return error;
    if (int error = allocate_array(allocate, first_.size(), &sums)) return error;
    const PickSums job{counts_, places, sums};
    if (int error = launch(static_cast<std::int64_t>(first_.size()), job, stream)) return error;
    std::vector<std::int64_t> before(first_.size());
    if (int error = download(before.data(), sums, before.size() * sizeof before[0], stream))
      return error;
    kept.clear();
    for (std::size_t k = 0; k + 1 < before.size(); ++k) kept.push_back(before[k + 1] - before[k]);
    return 0;
  }

 private:
  std::vector<std::int64_t> first_;  // chunk of each tensor, and how many there are
  std::uint32_t* masks_ = nullptr;
  std::int64_t* counts_ = nullptr;
};

}  // namespace

// ---- encoder ------------------------------------------------------------------------------------

int PlanesEncoder::prepare(const std::vector<PlanesInput>& inputs, const Parallel& parallel,
                           const Allocate& allocate, void* stream) {
  tensors_.assign(inputs.size(), {});
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    tensors_[k].input = inputs[k];
    tensors_[k].kept = inputs[k].elements;
  }
  if (int error = choose(parallel, allocate, stream)) return error;
  if (int error = make_masks(parallel, allocate, stream)) return error;
  if (int error = code_planes(parallel, allocate, stream)) return error;
  for (Tensor& tensor : tensors_) write_head(tensor);
  return 0;
}

int PlanesEncoder::choose(const Parallel& parallel, const Allocate& allocate, void* stream) {
  std::vector<std::size_t> at(1, 0);  // of each sample, in words of 8 bytes
  for (const Tensor& tensor : tensors_) {
    const auto size = static_cast<std::size_t>(sample_size(tensor.input.elements));
    at.push_back(at.back() + (size * tensor.input.format.bytes + 7) / 8);
  }
  std::uint64_t* samples = nullptr;
  if (int error = allocate_array(allocate, at.back(), &samples)) return error;
  TaskListBuilder<GatherUnits::Source> sources;
  for (std::size_t k = 0; k < tensors_.size(); ++k) {
    const auto& [data, elements, format] = tensors_[k].input;
    const std::int64_t sampled = sample_size(elements);
    const std::int64_t runs = (sampled + sample_run - 1) / sample_run;
    sources.add({static_cast<const std::uint8_t*>(data), sample_run * format.bytes, runs,
                 sampled == elements ? runs : elements / sample_run, sampled * format.bytes,
                 reinterpret_cast<std::uint8_t*>(samples + at[k])},
                runs);
  }
  if (int error = sources.launch_warps<GatherUnits>(allocate, stream)) return error;
  std::vector<std::uint64_t> sample(at.back());
  if (int error = download(sample.data(), samples, sample.size() * sizeof sample[0], stream))
    return error;
  parallel(static_cast<std::int64_t>(tensors_.size()), [&](std::int64_t task) {
    const auto k = static_cast<std::size_t>(task);
    tensors_[k].choice =
        choose_planes(sample.data() + at[k], tensors_[k].input.elements, tensors_[k].input.format);
  });
  return 0;
}

int PlanesEncoder::make_masks(const Parallel& parallel, const Allocate& allocate, void* stream) {
  std::vector<Tensor*> which;
  std::vector<std::int64_t> elements;
  for (Tensor& tensor : tensors_) {
    if (!tensor.choice.masked) continue;
    which.push_back(&tensor);
    elements.push_back(tensor.input.elements);
  }
  if (which.empty()) return 0;
  ChunkCounts chunks;
  if (int error = chunks.allocate_for(elements, allocate)) return error;
  const int error = for_each_width([&](auto width) {
    using Job = MaskChunks<width.value>;
    TaskListBuilder<typename Job::Tensor> list;
    for (std::size_t k = 0; k < which.size(); ++k) {
      const PlanesInput& input = which[k]->input;
      if (input.format.bytes != width.value) continue;
      list.add({input.data, input.elements, chunks.mask(k), chunks.counts(k)},
               chunks_of(input.elements));
    }
    return list.template launch_warps<Job>(allocate, stream);
  });
  if (error) return error;
  std::vector<std::int64_t> kept;
  if (int failure = chunks.add_up(allocate, stream, kept)) return failure;

  std::vector<StreamInput> inputs;
  for (std::size_t k = 0; k < which.size(); ++k) {
    inputs.push_back({reinterpret_cast<const std::uint8_t*>(chunks.mask(k)),
                      mask_symbols(elements[k]), mask_segment_bits});
  }
  std::vector<CodedStream> coded;
  if (int failure = code_streams(inputs, parallel, allocate, stream, coded)) return failure;
  for (std::size_t k = 0; k < which.size(); ++k) {
    Tensor& tensor = *which[k];
    if (mask_pays(coded[k].head, elements[k], kept[k], tensor.input.format)) {
      tensor.kept = kept[k];
      tensor.mask = chunks.mask(k);
      tensor.kept_before = chunks.counts(k);
      tensor.mask_stream = std::move(coded[k]);
    } else {
      tensor.choice.coded.fill(true);
    }
  }
  return 0;
}

int PlanesEncoder::code_planes(const Parallel& parallel, const Allocate& allocate, void* stream) {
  std::size_t size = 0;
  for (const Tensor& tensor : tensors_) {
    for (int p = 0; p < tensor.input.format.bytes; ++p)
      size += tensor.choice.coded[p] ? static_cast<std::size_t>(tensor.kept) : 0;
  }
  if (size == 0) return 0;
  std::uint8_t* bytes = nullptr;
  if (int error = allocate_array(allocate, size, &bytes)) return error;
  std::vector<Planes> planes(tensors_.size(), Planes{});
  std::vector<StreamInput> inputs;
  std::vector<CodedStream*> targets;
  for (std::size_t k = 0; k < tensors_.size(); ++k) {
    Tensor& tensor = tensors_[k];
    for (int p = 0; p < tensor.input.format.bytes; ++p) {
      if (!tensor.choice.coded[p] || tensor.kept == 0) continue;
      planes[k][p] = bytes;
      inputs.push_back({bytes, static_cast<std::uint64_t>(tensor.kept), plane_segment_bits});
      targets.push_back(&tensor.planes[p]);
      bytes += tensor.kept;
    }
  }
  if (int error = split(planes, allocate, stream)) return error;
  std::vector<CodedStream> coded;
  if (int error = code_streams(inputs, parallel, allocate, stream, coded)) return error;
  for (std::size_t i = 0; i < coded.size(); ++i) *targets[i] = std::move(coded[i]);
  return 0;
}

int PlanesEncoder::split(const std::vector<Planes>& planes, const Allocate& allocate,
                         void* stream) const {
  return for_each_width([&](auto width) {
    using Job = SplitChunks<width.value>;
    TaskListBuilder<typename Job::Tensor> list;
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
      const auto& [data, elements, format] = tensors_[k].input;
      const auto wanted = [](const std::uint8_t* plane) { return plane != nullptr; };
      if (format.bytes != width.value || std::none_of(planes[k].begin(), planes[k].end(), wanted))
        continue;
      typename Job::Tensor own{
          {elements, tensors_[k].mask, tensors_[k].kept_before, format.is_float()}, data, {}};
      std::copy_n(planes[k].begin(), width.value, own.planes);
      list.add(own, chunks_of(elements));
    }
    return list.template launch_warps<Job>(allocate, stream);
  });
}

void PlanesEncoder::write_head(Tensor& tensor) {
  const auto& [data, elements, format] = tensor.input;
  PlanesHead head;
  head.masked = tensor.mask != nullptr;
  head.kept = tensor.kept;
  head.mask = tensor.mask_stream.head;
  for (int p = 0; p < format.bytes; ++p) head.planes[p] = tensor.planes[p].head;
  ByteWriter bytes;
  write_planes_head(head, format, bytes);
  tensor.head_bytes = bytes.take();
  tensor.size = tensor.head_bytes.size() + planes_body_size(head, elements, format);
}

int PlanesEncoder::write(const std::vector<PlanesTarget>& targets, const Allocate& allocate,
                         void* stream) const {
  std::vector<std::uint8_t> heads;
  for (const PlanesTarget& target : targets) {
    const std::vector<std::uint8_t>& own = tensors_[target.tensor].head_bytes;
    heads.insert(heads.end(), own.begin(), own.end());
  }
  std::uint8_t* device_heads = nullptr;
  if (int error = upload_array(heads, allocate, stream, &device_heads)) return error;
  std::vector<CopyParts::Part> parts;
  std::vector<Planes> raw(tensors_.size(), Planes{});
  for (const auto& [k, place] : targets) {
    const Tensor& tensor = tensors_[k];
    std::uint8_t* out = place;
    add_part(device_heads, out, tensor.head_bytes.size(), parts);
    device_heads += tensor.head_bytes.size();
    out += tensor.head_bytes.size();
    if (tensor.mask != nullptr) {
      const std::uint64_t symbols = mask_symbols(tensor.input.elements);
      add_body(tensor.mask_stream, reinterpret_cast<const std::uint8_t*>(tensor.mask), symbols, out,
               parts);
      out += body_size(tensor.mask_stream.head, symbols);
    }
    const auto kept = static_cast<std::uint64_t>(tensor.kept);
    for (int p = 0; p < tensor.input.format.bytes; ++p) {
      const CodedStream& plane = tensor.planes[p];
      if (plane.head.kind == StreamKind::raw) {
        raw[k][p] = kept == 0 ? nullptr : out;
      } else {
        add_body(plane, nullptr, kept, out, parts);
      }
      out += body_size(plane.head, kept);
    }
  }
  if (int error = copy_parts(parts, allocate, stream)) return error;
  return split(raw, allocate, stream);
}

// ---- decoder ------------------------------------------------------------------------------------

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
    const std::uint32_t* mask = nullptr;
    const std::int64_t* kept_before = nullptr;
    std::array<const std::uint8_t*, most_planes> planes{};  // null: constant
  };

  // Whether tensor k is still to be decoded.
  bool is_left(std::size_t k) const {
    return statuses_[k] == Status::ok && tensors_[k].source->elements != 0;
  }

  // Downloads as much of the sections as their heads take: 16 KiB of each are nearly always enough.
  int read_heads() {
    std::vector<std::size_t> which;
    for (std::size_t k = 0; k < tensors_.size(); ++k) which.push_back(k);
    for (std::size_t most = 1 << 14; !which.empty(); most *= 16) {
      std::vector<std::size_t> at(1, 0);
      for (const std::size_t k : which)
        at.push_back(at.back() + std::min(tensors_[k].source->size, most));
      std::uint8_t* gathered = nullptr;
      if (int error = allocate_array(allocate_, at.back(), &gathered)) return error;
      std::vector<CopyParts::Part> parts;
      for (std::size_t i = 0; i < which.size(); ++i)
        add_part(tensors_[which[i]].source->section, gathered + at[i], at[i + 1] - at[i], parts);
      if (int error = copy_parts(parts, allocate_, stream_)) return error;
      std::vector<std::uint8_t> bytes(at.back());
      if (int error = download(bytes.data(), gathered, bytes.size(), stream_)) return error;
      std::vector<std::size_t> longer;
      for (std::size_t i = 0; i < which.size(); ++i) {
        const std::size_t k = which[i], part = at[i + 1] - at[i];
        read_head(bytes.data() + at[i], part, k);
        if (statuses_[k] == Status::truncated && part < tensors_[k].source->size)
          longer.push_back(k);
      }
      which = std::move(longer);
    }
    return 0;
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
      const auto& [section, size, elements, format, out] = *tensors_[k].source;
      const std::uint64_t bodies = planes_body_size(tensors_[k].head, elements, format);
      const std::size_t there = size - tensors_[k].head_size;
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
        const auto& [section, size, elements, format, out] = *own.source;
        if (!is_left(k) || format.bytes != width.value) continue;
        typename Job::Tensor there{
            {elements, own.mask, own.kept_before, format.is_float()}, out, {}, {}};
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
