#include <algorithm>

#include "core/lane_tails.h"
#include "ops/error.h"
#include "ops/for_each.h"
#include "ops/lane_group.h"
#include "ops/lmgc.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t least_lanes_per_thread = 32;

DeviceScales read_section_scales(const LmgcSection& section, const LmgcSource& source,
                                 const at::Device& device) {
  if (!section.has_scales) return {};
  Scales scales;
  const MatrixShape shape = matrix_shape(source.sizes.data(), source.sizes.size());
  check_frame(read_scales(section.scales.data(), section.scales.size(), shape, scales),
              source.where);
  return upload_scales(scales, device);
}

// Lanes of one group, as the frame holds them.
struct CodedLanes {
  std::vector<Lane> lanes;
  std::vector<std::int64_t> offsets;  // within the frame
  std::vector<std::int64_t> sizes;
};

CodedLanes pick(const CodedLanes& from, const std::vector<std::int32_t>& which) {
  CodedLanes picked;
  for (const std::int32_t i : which) {
    const auto lane = static_cast<std::size_t>(i);
    picked.lanes.push_back(from.lanes[lane]);
    picked.offsets.push_back(from.offsets[lane]);
    picked.sizes.push_back(from.sizes[lane]);
  }
  return picked;
}

class GroupDecoder {
 public:
  GroupDecoder(const at::Tensor& frame, const Prior& prior, const GroupPattern& pattern,
               const std::vector<LaneTensor>& tensors, const std::vector<void*>& words)
      : frame_(frame), prior_(prior), pattern_(pattern), device_(prior.device()) {
    tensors_device_ = upload(tensors, device_);
    words_device_ = upload(words, device_);
  }

  void decode_lanes(const CodedLanes& coded, const PriorBlock& block, std::int64_t memory_limit) {
    const std::vector<std::int32_t> order = longest_first(coded.lanes);
    const auto count = static_cast<std::int64_t>(order.size());
    if (!prior_.portable()) {
      const auto batch = std::max<std::int64_t>(
          1, static_cast<std::int64_t>(std::min<std::uint64_t>(block.batch_lanes, order.size())));
      for (std::int64_t begin = 0; begin < count; begin += batch) {
        decode_batch(
            pick(coded, {order.begin() + begin, order.begin() + std::min(count, begin + batch)}));
      }
      return;
    }
    // Any split decodes the same: one batch for each thread, dealt out so that all are equally
    // long.
    const std::int64_t threads =
        device_.is_cpu() ? std::min<std::int64_t>(at::get_num_threads(),
                                                  (count - 1) / least_lanes_per_thread + 1)
                         : 1;
    const std::int64_t most_lanes =
        std::max<std::int64_t>(1, memory_limit / threads / lane_bytes(prior_));
    const std::int64_t batches = std::max(threads, (count - 1) / most_lanes + 1);
    std::vector<std::vector<std::int32_t>> dealt(static_cast<std::size_t>(batches));
    for (std::int64_t i = 0; i < count; ++i) {
      dealt[static_cast<std::size_t>(i % batches)].push_back(order[static_cast<std::size_t>(i)]);
    }
    if (!device_.is_cpu()) {
      for (const auto& batch : dealt) decode_batch(pick(coded, batch));
      return;
    }
    at::parallel_for(0, batches, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        decode_batch(pick(coded, dealt[static_cast<std::size_t>(i)]));
    });
  }

  // Fills in the raw symbols of decoded elements from `size` bytes at `offset` of the frame.
  bool decode_tails(const std::vector<Lane>& lanes, std::int64_t offset, std::int64_t size) {
    const auto count = static_cast<std::int64_t>(lanes.size());
    const at::Tensor lanes_device = upload(lanes, device_);
    const at::Tensor sizes = at::empty({count}, on(device_, at::kLong));
    for_each(device_, count,
             MeasureTails{items_of<LaneTensor>(tensors_device_), items_of<Lane>(lanes_device),
                          sizes.data_ptr<std::int64_t>()});
    const at::Tensor host = sizes.cpu();
    std::vector<std::int64_t> offsets(host.data_ptr<std::int64_t>(),
                                      host.data_ptr<std::int64_t>() + count);
    offsets = offsets_of(offsets);
    if (offsets.back() != size) return false;
    const at::Tensor offsets_device = upload(offsets, device_);
    for_each(device_, count,
             UnpackTails{items_of<LaneTensor>(tensors_device_), items_of<Lane>(lanes_device),
                         frame_.data_ptr<std::uint8_t>() + offset,
                         items_of<std::int64_t>(offsets_device), items_of<void*>(words_device_)});
    return true;
  }

 private:
  // `coded` is sorted longest first.
  void decode_batch(const CodedLanes& coded) {
    const auto count = static_cast<std::int64_t>(coded.lanes.size());
    const at::Tensor lanes = upload(coded.lanes, device_);
    const at::Tensor offsets = upload(coded.offsets, device_), sizes = upload(coded.sizes, device_);
    const at::Tensor states =
        at::empty({count * static_cast<std::int64_t>(sizeof(LaneState))}, on(device_, at::kByte));
    for_each(device_, count,
             StartLanes{frame_.data_ptr<std::uint8_t>(), items_of<std::int64_t>(offsets),
                        items_of<std::int64_t>(sizes), items_of<LaneState>(states)});
    run_lockstep(
        prior_, pattern_, items_of<LaneTensor>(tensors_device_), coded.lanes, items_of<Lane>(lanes),
        [&](std::int32_t element, std::int32_t symbol, bool first, bool last, std::int64_t active,
            const at::Tensor& logits, const at::Tensor& tokens) {
          for_each(
              device_, active,
              StepDecode{items_of<LaneTensor>(tensors_device_), items_of<Lane>(lanes),
                         pattern_.view(), element, symbol, first, last, logits.data_ptr<float>(),
                         logits.size(1), prior_.steps_per_unit(), items_of<LaneState>(states),
                         tokens.data_ptr<std::int64_t>(), items_of<void*>(words_device_)},
              64);
        });
  }

  const at::Tensor& frame_;
  const Prior& prior_;
  const GroupPattern& pattern_;
  at::Tensor tensors_device_, words_device_;
  at::Device device_;
};

}  // namespace

LmgcSection read_lmgc_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                              FloatFormat format, std::int64_t elements,
                              const SerializeOptions& options, const std::string& where) {
  LmgcSection section;
  std::int64_t available = frame.is_cpu() ? size : std::min<std::int64_t>(size, 1 << 16);
  for (;;) {
    const at::Tensor head = frame.narrow(0, offset, available).cpu();
    const Status status =
        parse_section(head.data_ptr<std::uint8_t>(), static_cast<std::size_t>(available),
                      static_cast<std::size_t>(size), format, options, elements, section);
    if (status != Status::truncated) {
      check_frame(status, where);
      return section;
    }
    available = std::min(size, 4 * available);
  }
}

void decode_lmgc(const at::Tensor& frame, const std::vector<LmgcSource>& sources,
                 const Prior& prior, const PriorBlock& block, std::int64_t memory_limit) {
  const at::Device device = prior.device();
  std::vector<LmgcSection> sections;
  std::vector<FloatFormat> formats;
  std::vector<SymbolPlan> plans;
  std::vector<DeviceScales> scales;
  for (const LmgcSource& source : sources) {
    sections.push_back(read_lmgc_section(frame, source.offset, source.size, source.format,
                                         source.elements, block.serialize, source.where));
    formats.push_back(source.format);
    plans.push_back(sections.back().plan);
    scales.push_back(read_section_scales(sections.back(), source, device));
  }
  std::vector<LmgcTensor> tensors;
  for (const LmgcSource& source : sources)
    tensors.push_back({source.room(), source.format, source.sizes});

  for (const std::vector<std::size_t>& group : group_by_plan(formats, plans)) {
    std::vector<LaneTensor> lane_tensors;
    std::vector<void*> words;
    CodedLanes coded;
    for (const std::size_t i : group) {
      const LmgcSource& source = sources[i];
      append_lanes(static_cast<std::int32_t>(lane_tensors.size()), source.elements,
                   static_cast<std::int64_t>(sections[i].lane_elements), coded.lanes);
      std::int64_t offset = source.offset + static_cast<std::int64_t>(sections[i].lanes_offset);
      for (const std::uint64_t size : sections[i].lane_sizes) {
        coded.offsets.push_back(offset);
        coded.sizes.push_back(static_cast<std::int64_t>(size));
        offset += static_cast<std::int64_t>(size);
      }
      lane_tensors.push_back(lane_tensor(tensors[i], plans[i], scales[i]));
      words.push_back(tensors[i].bytes.data_ptr());
    }
    const GroupPattern pattern = [&] {
      try {
        return GroupPattern(prior, plans[group.front()], formats[group.front()].bytes,
                            block.serialize, block.window);
      } catch (const c10::ValueError& error) {
        LMGC_CHECK_PRIOR(false, error.what_without_backtrace());
      }
    }();
    GroupDecoder decoder(frame, prior, pattern, lane_tensors, words);
    decoder.decode_lanes(coded, block, memory_limit);

    std::size_t lane = 0;
    for (std::size_t member = 0; member < group.size(); ++member) {
      const LmgcSource& source = sources[group[member]];
      std::vector<Lane> lanes;
      for (; lane < coded.lanes.size() &&
             coded.lanes[lane].tensor == static_cast<std::int32_t>(member);
           ++lane) {
        lanes.push_back(coded.lanes[lane]);
      }
      const auto tails = static_cast<std::int64_t>(sections[group[member]].tails_offset);
      check_frame(decoder.decode_tails(lanes, source.offset + tails, source.size - tails)
                      ? Status::ok
                      : Status::bad_section,
                  source.where);
    }
  }
}

}  // namespace lmgc::ops
