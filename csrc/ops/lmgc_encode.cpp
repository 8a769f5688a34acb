#include <algorithm>

#include "core/lane_tails.h"
#include "ops/for_each.h"
#include "ops/lane_group.h"
#include "ops/lmgc.h"
#include "ops/scales.h"

namespace lmgc::ops {
namespace {

// On a CPU a forward batch that outgrows the cache is slower than two that fit.
constexpr std::int64_t most_elements_per_forward = 1 << 13;

std::vector<std::int64_t> to_host(const at::Tensor& numbers) {
  const at::Tensor host = numbers.cpu();
  return {host.data_ptr<std::int64_t>(), host.data_ptr<std::int64_t>() + host.numel()};
}

// ---- serialise: which symbols are worth a model
// ----------------------------------------------------

SymbolPlan choose_plan(const LmgcTensor& tensor, const LmgcOptions& options) {
  const at::Device device = tensor.bytes.device();
  const std::int64_t blocks = (tensor.elements() - 1) / CountSymbols::block_elements + 1;
  CountSymbols count{tensor.bytes.data_ptr(), tensor.format, tensor.elements(), {}, nullptr};
  const std::uint8_t constant[most_symbols] = {};
  complete_plan(tensor.format, options.serialize, constant, count.plan);
  const at::Tensor counts = at::zeros({blocks, count.stride()}, on(device, at::kInt));
  count.counts = reinterpret_cast<std::uint32_t*>(counts.data_ptr<std::int32_t>());
  for_each(device, blocks, count);
  const std::vector<std::int64_t> total = to_host(counts.sum(0, /*keepdim=*/false, at::kLong));
  SymbolPlan plan = make_plan(tensor.format, options.serialize, options.bypass,
                              reinterpret_cast<const std::uint64_t*>(total.data()));

  const at::Tensor zeros = at::zeros({blocks, 2}, on(device, at::kInt));
  for_each(device, blocks,
           CountZeros{tensor.bytes.data_ptr(), tensor.format, tensor.elements(), plan,
                      reinterpret_cast<std::uint32_t*>(zeros.data_ptr<std::int32_t>())});
  const std::vector<std::int64_t> with_prefix = to_host(zeros.sum(0, false, at::kLong));
  set_zero_flag(static_cast<std::uint64_t>(with_prefix[0]),
                static_cast<std::uint64_t>(with_prefix[1]), plan);
  return plan;
}

// Longer lanes see more of their tensor and cost fewer bytes; more lanes keep the model busy.
// benchmarks/README.md and docs/prior.md have the numbers.
std::int64_t choose_lane_elements(std::int64_t elements, const Prior& prior, const Windows& windows,
                                  const LmgcOptions& options) {
  if (options.lane_elements > 0) return options.lane_elements;
  const std::int64_t few = elements < (1 << 17)   ? 512
                           : elements < (1 << 23) ? 1024
                           : elements < (1 << 25) ? 2048
                                                  : 4096;
  // With short windows it matters little where a lane ends. A long one that is cut off is context
  // thrown away, and sliding ones gain by being many, if lanes are left to fill a batch.
  const std::int64_t window = windows.elements, stride = windows.stride();
  if (4 * window <= few) return few;
  std::int64_t wanted = std::max(few, window);
  if (windows.overlap != 0) {
    const std::int64_t share = elements / bound_batch_lanes(prior, options.memory_limit);
    wanted = std::clamp(share, wanted, std::max(wanted, 4 * window));
  }
  const std::int64_t more = (wanted - window + stride - 1) / stride;
  return std::min<std::int64_t>(window + more * stride, most_lane_elements);
}

// ---- infer and code
// ----------------------------------------------------------------------------------

// The lanes of one group, coded, side by side in their order.
struct CodedLanes {
  at::Tensor bytes;
  std::vector<std::int64_t> sizes;
};

class GroupEncoder {
 public:
  GroupEncoder(const Prior& prior, const GroupPattern& pattern, std::vector<LaneTensor> tensors,
               std::int64_t memory_limit)
      : prior_(prior),
        pattern_(pattern),
        tensors_(std::move(tensors)),
        memory_limit_(memory_limit),
        device_(prior.device()) {
    tensors_device_ = upload(tensors_, device_);
  }

  CodedLanes encode(const std::vector<Lane>& lanes) {
    // A bound prior must be run as the decoder will: in its order, in its batches.
    const std::vector<std::int32_t> order =
        prior_.portable() ? std::vector<std::int32_t>() : longest_first(lanes);
    CodedLanes coded;
    coded.sizes.resize(lanes.size());
    std::vector<at::Tensor> pieces;
    std::vector<Lane> batch;
    std::vector<std::int64_t> batch_sizes;
    for (std::size_t begin = 0; begin < lanes.size(); begin += batch.size()) {
      batch.clear();
      std::int64_t elements = 0;
      for (std::size_t i = begin; i < lanes.size() && !is_full(batch.size(), elements); ++i) {
        batch.push_back(order.empty() ? lanes[i] : lanes[static_cast<std::size_t>(order[i])]);
        elements += batch.back().count;
      }
      pieces.push_back(encode_batch(batch, batch_sizes));
      for (std::size_t i = 0; i < batch.size(); ++i) {
        coded.sizes[order.empty() ? begin + i : static_cast<std::size_t>(order[begin + i])] =
            batch_sizes[i];
      }
    }
    coded.bytes = pieces.size() == 1 ? pieces[0] : at::cat(pieces);
    if (!order.empty()) restore_order(order, coded);
    return coded;
  }

 private:
  static constexpr std::int64_t working_bytes(const BatchPattern& view) {
    return view.coded_count * static_cast<std::int64_t>(sizeof(Interval) + 2) +
           16;  // an element's, between model and coder
  }

  bool is_full(std::size_t lanes, std::int64_t elements) const {
    if (!prior_.portable())
      return static_cast<std::int64_t>(lanes) >= bound_batch_lanes(prior_, memory_limit_);
    return elements > 0 && elements * working_bytes(pattern_.view()) >= memory_limit_ / 2;
  }

  // Returns the batch's coded lanes, compact and in the batch's order.
  at::Tensor encode_batch(const std::vector<Lane>& lanes, std::vector<std::int64_t>& sizes) {
    const auto count = static_cast<std::int64_t>(lanes.size());
    const at::Tensor lanes_device = upload(lanes, device_);
    std::vector<std::int64_t> symbols, bounds;
    for (const Lane& lane : lanes) {
      symbols.push_back(static_cast<std::int64_t>(lane.count) * pattern_.view().coded_count);
      bounds.push_back(
          lane_bound(tensors_[static_cast<std::size_t>(lane.tensor)].plan, lane.count));
    }
    const std::vector<std::int64_t> symbol_offsets = offsets_of(symbols),
                                    bound_offsets = offsets_of(bounds);
    const at::Tensor offsets_device = upload(symbol_offsets, device_);
    const at::Tensor intervals =
        at::empty({symbol_offsets.back() * static_cast<std::int64_t>(sizeof(Interval))},
                  on(device_, at::kByte));

    const Inference inference{lanes, items_of<Lane>(lanes_device), items_of<Interval>(intervals),
                              items_of<std::int64_t>(offsets_device)};
    if (prior_.portable()) {
      infer_forward(inference);
    } else {
      infer_lockstep(inference);
    }

    const at::Tensor coded = at::empty({bound_offsets.back()}, on(device_, at::kByte));
    const at::Tensor coded_offsets = upload(bound_offsets, device_);
    const at::Tensor coded_sizes = at::empty({count}, on(device_, at::kLong));
    for_each(
        device_, count,
        EncodeLanes{items_of<LaneTensor>(tensors_device_), inference.lanes_device,
                    inference.intervals, inference.lane_offset, items_of<std::uint8_t>(coded),
                    items_of<std::int64_t>(coded_offsets), coded_sizes.data_ptr<std::int64_t>()});
    sizes = to_host(coded_sizes);
    TORCH_CHECK_VALUE(std::find(sizes.begin(), sizes.end(), -1) == sizes.end(),
                      "the prior's logits are not finite (NaN or infinity) for a digit that it was "
                      "asked to predict: it must know a number for each of them, for any input");
    const std::vector<std::int64_t> compact_offsets = offsets_of(sizes);
    const at::Tensor compact_offsets_device = upload(compact_offsets, device_);
    const at::Tensor compact = at::empty({compact_offsets.back()}, on(device_, at::kByte));
    for_each(
        device_, count,
        CopyLanes{items_of<std::uint8_t>(coded), items_of<std::int64_t>(coded_offsets),
                  items_of<std::uint8_t>(compact), items_of<std::int64_t>(compact_offsets_device),
                  coded_sizes.data_ptr<std::int64_t>()});
    return compact;
  }

  struct Inference {
    const std::vector<Lane>& lanes;
    const Lane* lanes_device;
    Interval* intervals;
    const std::int64_t* lane_offset;
  };

  // Teacher-forced: all windows of all lanes are independent rows.
  void infer_forward(const Inference& inference) {
    BatchPattern view = pattern_.view();
    std::vector<WindowRow> rows;
    std::int32_t longest = 0;
    for (std::size_t lane = 0; lane < inference.lanes.size(); ++lane) {
      for_each_window(view.windows, inference.lanes[lane].count,
                      [&](std::int32_t first, std::int32_t known, std::int32_t count) {
                        rows.push_back({static_cast<std::int32_t>(lane), first, known, count});
                        longest = std::max(longest, count);
                      });
    }
    // Rows need not be longer than what they hold, however far the model could look back.
    view.row_elements = (longest - 1) / view.elements * view.elements + view.elements;
    const at::Tensor rows_device = upload(rows, device_);
    const auto row_count = static_cast<std::int64_t>(rows.size());
    const std::int64_t at_once = rows_at_once(view);
    const std::int64_t batches = (row_count - 1) / at_once + 1;
    const auto infer = [&](std::int64_t batch) {
      const std::int64_t begin = batch * at_once, end = std::min(row_count, begin + at_once);
      infer_rows(inference, view, items_of<WindowRow>(rows_device) + begin, end - begin);
    };
    if (device_.is_cpu()) {
      at::parallel_for(0, batches, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t batch = begin; batch < end; ++batch) infer(batch);
      });
    } else {
      for (std::int64_t batch = 0; batch < batches; ++batch) infer(batch);
    }
  }

  std::int64_t rows_at_once(const BatchPattern& view) const {
    const auto vocabulary = static_cast<std::int64_t>(prior_.vocab().size());
    // Tokens, features, logits twice (the model's own intermediates are likely as large).
    const std::int64_t row_bytes =
        view.row_tokens() * (8 + 4 * view.feature_count * 4 + 4 * vocabulary * 4);
    const std::int64_t threads = device_.is_cpu() ? at::get_num_threads() : 1;
    std::int64_t rows = memory_limit_ / 2 / threads / row_bytes;
    if (device_.is_cpu()) rows = std::min(rows, most_elements_per_forward / view.row_elements);
    return std::max<std::int64_t>(rows, 1);
  }

  void infer_rows(const Inference& inference, const BatchPattern& view, const WindowRow* rows,
                  std::int64_t count) {
    const auto* tensors = items_of<LaneTensor>(tensors_device_);
    const std::int64_t row_tokens = view.row_tokens();
    const at::Tensor tokens = at::empty({count, row_tokens}, on(device_, at::kLong));
    const at::Tensor features =
        at::empty({count, row_tokens, view.feature_count}, on(device_, at::kFloat));
    for_each(device_, count * view.row_elements,
             PrepareWindows{tensors, inference.lanes_device, rows, view,
                            tokens.data_ptr<std::int64_t>(), features.data_ptr<float>()},
             256);
    const at::Tensor logits = prior_.forward(tokens, features);
    for_each(device_, count * row_tokens,
             CodeWindows{tensors, inference.lanes_device, rows, view, logits.data_ptr<float>(),
                         logits.size(2), prior_.steps_per_unit(), inference.intervals,
                         inference.lane_offset},
             256);
  }

  void infer_lockstep(const Inference& inference) {
    const auto* tensors = items_of<LaneTensor>(tensors_device_);
    run_lockstep(prior_, pattern_, tensors, inference.lanes, inference.lanes_device,
                 [&](std::int32_t element, std::int32_t symbol, bool, bool, std::int64_t active,
                     const at::Tensor& logits, const at::Tensor& tokens) {
                   for_each(device_, active,
                            StepEncode{tensors, inference.lanes_device, pattern_.view(), element,
                                       symbol, logits.data_ptr<float>(), logits.size(1),
                                       prior_.steps_per_unit(), tokens.data_ptr<std::int64_t>(),
                                       inference.intervals, inference.lane_offset},
                            64);
                 });
  }

  // From the order of coding back to the order of the tensors.
  void restore_order(const std::vector<std::int32_t>& order, CodedLanes& coded) const {
    const std::vector<std::int64_t> to = offsets_of(coded.sizes);
    std::vector<std::int64_t> from_offset, to_offset, sizes;
    std::int64_t from = 0;
    for (const std::int32_t lane : order) {
      from_offset.push_back(from);
      to_offset.push_back(to[static_cast<std::size_t>(lane)]);
      sizes.push_back(coded.sizes[static_cast<std::size_t>(lane)]);
      from += sizes.back();
    }
    const at::Tensor bytes = at::empty_like(coded.bytes);
    const at::Tensor from_device = upload(from_offset, device_),
                     to_device = upload(to_offset, device_);
    const at::Tensor sizes_device = upload(sizes, device_);
    for_each(device_, static_cast<std::int64_t>(order.size()),
             CopyLanes{items_of<std::uint8_t>(coded.bytes), items_of<std::int64_t>(from_device),
                       items_of<std::uint8_t>(bytes), items_of<std::int64_t>(to_device),
                       items_of<std::int64_t>(sizes_device)});
    coded.bytes = bytes;
  }

  const Prior& prior_;
  const GroupPattern& pattern_;
  std::vector<LaneTensor> tensors_;
  at::Tensor tensors_device_;
  std::int64_t memory_limit_;
  at::Device device_;
};

// The raw symbols of all lanes, side by side.
CodedLanes pack_tails(const std::vector<LaneTensor>& tensors, const std::vector<Lane>& lanes,
                      const at::Device& device) {
  const auto count = static_cast<std::int64_t>(lanes.size());
  const at::Tensor tensors_device = upload(tensors, device), lanes_device = upload(lanes, device);
  const at::Tensor sizes = at::empty({count}, on(device, at::kLong));
  for_each(device, count,
           MeasureTails{items_of<LaneTensor>(tensors_device), items_of<Lane>(lanes_device),
                        sizes.data_ptr<std::int64_t>()});
  CodedLanes tails;
  tails.sizes = to_host(sizes);
  const std::vector<std::int64_t> offsets = offsets_of(tails.sizes);
  const at::Tensor offsets_device = upload(offsets, device);
  tails.bytes = at::empty({offsets.back()}, on(device, at::kByte));
  for_each(device, count,
           PackTails{items_of<LaneTensor>(tensors_device), items_of<Lane>(lanes_device),
                     items_of<std::uint8_t>(tails.bytes), items_of<std::int64_t>(offsets_device)});
  return tails;
}

// Bytes that lie in pieces.
Section section_of(std::vector<at::Tensor> pieces) {
  std::int64_t size = 0;
  for (const at::Tensor& piece : pieces) size += piece.numel();
  return {size, [pieces = std::move(pieces)](const at::Tensor& out) {
            std::int64_t at_byte = 0;
            for (const at::Tensor& piece : pieces) {
              out.narrow(0, at_byte, piece.numel()).copy_(piece);
              at_byte += piece.numel();
            }
          }};
}

}  // namespace

std::int64_t bound_batch_lanes(const Prior& prior, std::int64_t memory_limit) {
  return std::clamp<std::int64_t>(memory_limit / lane_bytes(prior), 1, 1024);
}

std::vector<Section> encode_lmgc(const std::vector<LmgcTensor>& tensors, const Prior& prior,
                                 const LmgcOptions& options) {
  const at::Device device = prior.device();
  std::int64_t elements = 0;
  for (const LmgcTensor& tensor : tensors) elements += tensor.elements();

  std::vector<FloatFormat> formats;
  std::vector<SymbolPlan> plans;
  std::vector<DeviceScales> scales(tensors.size());
  std::vector<LmgcSection> sections(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const LmgcTensor& tensor = tensors[i];
    formats.push_back(tensor.format);
    plans.push_back(choose_plan(tensor, options));
    sections[i].plan = plans[i];
    sections[i].has_scales = tensor.format.is_float() && wants_scales(prior);
    if (!sections[i].has_scales) continue;
    const Scales estimated = estimate_scales(
        tensor.bytes, tensor.format, matrix_shape(tensor.sizes.data(), tensor.sizes.size()));
    sections[i].scales = write_scales(estimated);
    scales[i] = upload_scales(estimated, device);
  }

  std::vector<Section> result(tensors.size());
  for (const std::vector<std::size_t>& group : group_by_plan(formats, plans)) {
    const GroupPattern pattern(prior, plans[group.front()], formats[group.front()].bytes,
                               options.serialize, options.window);
    const std::int64_t lane_elements =
        choose_lane_elements(elements, prior, pattern.view().windows, options);
    std::vector<LaneTensor> lane_tensors;
    std::vector<Lane> lanes;
    for (const std::size_t i : group) {
      sections[i].lane_elements = static_cast<std::uint64_t>(lane_elements);
      append_lanes(static_cast<std::int32_t>(lane_tensors.size()), tensors[i].elements(),
                   lane_elements, lanes);
      lane_tensors.push_back(lane_tensor(tensors[i], plans[i], scales[i]));
    }
    const CodedLanes coded =
        GroupEncoder(prior, pattern, lane_tensors, options.memory_limit).encode(lanes);
    const CodedLanes tails = pack_tails(lane_tensors, lanes, device);

    std::size_t lane = 0;
    std::int64_t coded_at = 0, tails_at = 0;
    for (std::size_t member = 0; member < group.size(); ++member) {
      LmgcSection& section = sections[group[member]];
      std::int64_t coded_size = 0, tails_size = 0;
      for (; lane < lanes.size() && lanes[lane].tensor == static_cast<std::int32_t>(member);
           ++lane) {
        section.lane_sizes.push_back(static_cast<std::uint64_t>(coded.sizes[lane]));
        coded_size += coded.sizes[lane];
        tails_size += tails.sizes[lane];
      }
      result[group[member]] = section_of({upload(write_section(section), at::kCPU),
                                          coded.bytes.narrow(0, coded_at, coded_size),
                                          tails.bytes.narrow(0, tails_at, tails_size)});
      coded_at += coded_size;
      tails_at += tails_size;
    }
  }
  return result;
}

}  // namespace lmgc::ops
