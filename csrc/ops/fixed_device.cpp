// Methods `scale` and `lowrank` on CUDA.
#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "ops/delta.h"
#include "ops/error.h"
#include "ops/fixed.h"
#include "ops/for_each.h"
#include "ops/upload.h"

#ifdef LMGC_WITH_CUDA
#include "cuda/fixed.h"
#include "cuda/heads.h"
#include "ops/device_memory.h"
#include "ops/panel_product.h"
#endif

namespace lmgc::ops {

#ifdef LMGC_WITH_CUDA
namespace {

// Panels of products, each of which takes the place of the one before it.
class Panels {
 public:
  explicit Panels(const at::Device& device) : device_(device) {}

  // Of factors that stay where they are, whose panels are asked for in order: they are on the
  // device from the first to the last.
  cuda::DeviceProduct of(const Factors& factors, const LiveShape& shape,
                         std::uint64_t bound) const {
    return {[own = own_, device = device_, &factors, shape, bound](std::int64_t first,
                                                                   std::int64_t count) {
      if (first == 0) own->product.emplace(factors, shape.columns, bound, device);
      own->panel.reset();
      own->panel = own->product->panel(first, count);
      if (first + count == shape.elements) own->product.reset();
      return own->panel.data_ptr<std::int64_t>();
    }};
  }

 private:
  struct Own {
    std::optional<PanelProduct> product;
    at::Tensor panel;
  };
  at::Device device_;
  std::shared_ptr<Own> own_ = std::make_shared<Own>();
};

// ---- encoder ------------------------------------------------------------------------------------

// A tensor with its plan's prediction or without one.
struct Candidate {
  const FixedTensor& tensor;
  bool predicted;
  FixedView view;

  Candidate(const FixedTensor& tensor, bool predicted)
      : tensor(tensor),
        predicted(predicted),
        view(predicted ? tensor.predicted_view() : tensor.plain_view()) {}

  cuda::FixedMatrix matrix(const Panels& panels) const {
    const FixedInput input{view.live.data_ptr(), tensor.coded_format(), view.shape,
                           predicted || !tensor.is_flat(), predicted ? tensor.past : nullptr};
    if (!predicted) return {input, head_by(view, {}), {}};
    const Factors& factors = tensor.plan.low_rank.factors;
    return {input, head_by(view, tensor.plan),
            panels.of(factors, view.shape, product_bound(factors, aten_parallel()))};
  }
};

// A tensor of zeros: its section is a head.
FixedResult encode_nothing(const FixedView& view) {
  const auto head = std::make_shared<const FixedHead>(view.head);
  const at::Tensor bytes = upload(write_fixed_head(*head), view.live.device());
  return {{bytes.numel(), [bytes](const at::Tensor& out) { out.copy_(bytes); }}, head};
}

std::vector<FixedResult> encode(const std::vector<Candidate>& candidates) {
  struct Job {
    Job(const at::Device& device, void* stream) : memory(device), stream(stream) {}
    DeviceMemory memory;
    void* stream;
    cuda::FixedEncoder encoder;
    std::vector<cuda::FixedTarget> targets;
  };
  if (candidates.empty()) return {};
  const at::Tensor& first = candidates[0].view.live;
  const auto job = std::make_shared<Job>(first.device(), stream_of(first));
  const Panels panels(first.device());
  std::vector<cuda::FixedMatrix> matrices;
  for (const Candidate& candidate : candidates) {
    if (candidate.view.shape.elements > 0) matrices.push_back(candidate.matrix(panels));
  }
  check_cuda(job->encoder.prepare(std::move(matrices), aten_parallel(), job->memory.allocate(),
                                  job->stream));
  std::vector<FixedResult> results;
  std::size_t next = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.view.shape.elements == 0) {
      results.push_back(encode_nothing(candidate.view));
      continue;
    }
    const std::size_t k = next++;
    const auto note = [job, k](const at::Tensor& out) {
      job->targets.push_back({k, out.data_ptr<std::uint8_t>()});
    };
    const auto write_noted = [job] {
      if (job->targets.empty()) return;
      check_cuda(
          job->encoder.write(std::exchange(job->targets, {}), job->memory.allocate(), job->stream));
    };
    results.push_back({{static_cast<std::int64_t>(job->encoder.size(k)), note, write_noted},
                       // A copy: it may be kept for longer than the section and its memory.
                       std::make_shared<const FixedHead>(job->encoder.head(k))});
  }
  return results;
}

}  // namespace

std::vector<FixedResult> encode_fixed_sections(const std::vector<FixedTensor>& tensors) {
  const PlainDispatch plain;
  std::vector<Candidate> candidates;
  for (const FixedTensor& tensor : tensors)
    candidates.emplace_back(tensor, tensor.has_prediction());
  std::vector<FixedResult> results = encode(candidates);
  // What a prediction made so small that no section without one could be smaller is settled.
  std::vector<std::size_t> which;
  std::vector<Candidate> without;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const std::int64_t least = tensors[k].least_size(candidates[k].view.shape.elements);
    if (!tensors[k].has_prediction() || results[k].section.size <= least) continue;
    which.push_back(k);
    without.emplace_back(tensors[k], false);
  }
  std::vector<FixedResult> others = encode(without);
  for (std::size_t i = 0; i < which.size(); ++i) {
    FixedResult& own = results[which[i]];
    if (others[i].section.size <= own.section.size) own = std::move(others[i]);
  }
  return results;
}

// ---- decoder ------------------------------------------------------------------------------------

std::vector<std::shared_ptr<const FixedHead>> decode_fixed_sections(
    const at::Tensor& frame, const std::vector<FixedCodedTensor>& tensors) {
  constexpr std::size_t first_part = 1 << 16;
  const PlainDispatch plain;
  DeviceMemory memory(frame.device());
  std::vector<cuda::DeviceSection> sections;
  for (const FixedCodedTensor& tensor : tensors) {
    sections.push_back(
        {frame.data_ptr<std::uint8_t>() + tensor.offset, static_cast<std::size_t>(tensor.size)});
  }
  std::vector<std::shared_ptr<FixedSource>> sources(tensors.size());
  std::vector<Status> statuses(tensors.size(), Status::ok);
  const auto read = [&](std::size_t k, const std::uint8_t* bytes, std::size_t size) {
    const FixedCodedTensor& own = tensors[k];
    sources[k] = std::make_shared<FixedSource>();
    statuses[k] = read_fixed_part(bytes, size, sections[k].size, own.sizes.data(), own.sizes.size(),
                                  own.predicted, true, aten_parallel(), *sources[k], own.past);
    return statuses[k] != Status::truncated;
  };
  void* const stream = stream_of(frame);
  check_cuda(cuda::read_heads(sections, first_part, memory.allocate(), stream, read));

  struct Decoded {
    at::Tensor bytes, live;
  };
  const Panels panels(frame.device());
  std::vector<Decoded> decoded;
  std::vector<cuda::FixedCoded> matrices;
  std::vector<std::size_t> which;  // tensor of each matrix
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const FixedCodedTensor& own = tensors[k];
    check_frame(statuses[k], own.where);
    FixedSource& source = *sources[k];
    FixedHead& head = source.head;
    // References are on the CPU, and so are tensors that have them.
    if (head.reference.is_there)
      attach_reference({}, own.format, own.spare, own.sizes, own.where, head);
    const at::Tensor bytes = own.room();
    decoded.push_back({bytes, live_room(bytes, own.format, own.spare, head, source.shape)});
    if (source.shape.elements == 0) continue;
    source.residuals = sections[k].data + source.sizes.side;
    cuda::DeviceProduct product;
    if (head.predicted())
      product = panels.of(head.low_rank.factors, source.shape, source.product_bound);
    matrices.push_back({&source, shortened(own.format, own.spare), std::move(product),
                        decoded.back().live.data_ptr()});
    which.push_back(k);
  }
  std::vector<Status> elements;
  check_cuda(cuda::decode_fixed(matrices, aten_parallel(), memory.allocate(), stream, elements));
  for (std::size_t i = 0; i < which.size(); ++i) check_frame(elements[i], tensors[which[i]].where);
  std::vector<std::shared_ptr<const FixedHead>> heads;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const FixedCodedTensor& own = tensors[k];
    put_live(decoded[k].live, sources[k]->head, own.format, own.spare, own.sizes, decoded[k].bytes);
    heads.push_back(std::shared_ptr<const FixedHead>(sources[k], &sources[k]->head));
  }
  return heads;
}

#else

// check_device() has refused tensors on CUDA.
std::vector<FixedResult> encode_fixed_sections(const std::vector<FixedTensor>&) { return {}; }
std::vector<std::shared_ptr<const FixedHead>> decode_fixed_sections(
    const at::Tensor&, const std::vector<FixedCodedTensor>&) {
  return {};
}

#endif

}  // namespace lmgc::ops
