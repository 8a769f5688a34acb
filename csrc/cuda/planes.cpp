// The encoder's host side; the device's is planes_jobs.h. Plain C++, so that tests can run it with
// another device (tests/core/emulated_device.h).
#include "cuda/planes.h"

#include <algorithm>

#include "cuda/planes_chunks.h"
#include "cuda/planes_jobs.h"

namespace lmgc::cuda {

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

}  // namespace lmgc::cuda
