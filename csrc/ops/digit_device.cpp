#include "ops/digit_device.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "core/digit_lane.h"
#include "core/lanes.h"
#include "ops/for_each.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

// Copies what lanes need to the device, and what they give back.
class DeviceCoder : public DigitCoder {
 public:
  DeviceCoder(const DigitPriorView& prior, const at::Device& device) : device_(device) {
    view_ = prior;
    for (LayerView& layer : view_.layer) {
      const auto cells = static_cast<std::int64_t>(layer.inputs) * layer.outputs;
      layer.weight = move(layer.weight, cells);
      layer.bias = move(layer.bias, layer.outputs);
      layer.shift = move(layer.shift, layer.outputs);
      layer.bias_of_unsigned = move(layer.bias_of_unsigned, layer.outputs);
    }
    view_.high = move(view_.high, std::int64_t{digit_contexts} * distribution_size);
    view_.low = move(view_.low, std::int64_t{digit_contexts} * digits_of * distribution_size);
  }

  std::vector<CodedLane> encode(const std::vector<DigitMatrix>& matrices,
                                const std::vector<DigitLane>& lanes) const override {
    const Job job = prepare(matrices, lanes);
    const auto count = static_cast<std::int64_t>(lanes.size());
    const at::Tensor out =
        at::empty({lane_bound(2 * job.symbols) + 2 * count}, on(device_, at::kByte));
    const at::Tensor sizes = at::empty({count}, on(device_, at::kLong));
    for_each(
        device_, count,
        EncodeDigitLane{job.all, out.data_ptr<std::uint8_t>(), sizes.data_ptr<std::int64_t>()});
    const at::Tensor bytes = out.cpu(), host_sizes = sizes.cpu();
    std::vector<CodedLane> coded;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto* const first =
          bytes.data_ptr<std::uint8_t>() + 4 * job.before[static_cast<std::size_t>(i)] + 2 * i;
      coded.emplace_back(first, first + host_sizes.data_ptr<std::int64_t>()[i]);
    }
    return coded;
  }

  void decode(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes,
              const std::vector<LaneBytes>& bytes) const override {
    const Job job = prepare(matrices, lanes);
    std::vector<std::uint8_t> all;
    for (const LaneBytes& own : bytes) all.insert(all.end(), own.data, own.data + own.size);
    const at::Tensor there = upload(all, device_);
    std::vector<LaneBytes> places;
    std::size_t offset = 0;
    for (const LaneBytes& own : bytes) {
      places.push_back({there.data_ptr<std::uint8_t>() + offset, own.size});
      offset += own.size;
    }
    const at::Tensor places_there = upload(places, device_);
    for_each(device_, static_cast<std::int64_t>(lanes.size()),
             DecodeDigitLane{job.all, items_of<LaneBytes>(places_there)});
    for (std::size_t m = 0; m < matrices.size(); ++m) {
      const at::Tensor host = job.symbols_of[m].cpu();
      std::copy_n(host.data_ptr<std::uint8_t>(), matrices[m].elements, matrices[m].symbols);
    }
  }

 private:
  // Everything of one call, on the device.
  struct Job {
    DigitLanes all;
    std::int64_t symbols = 0;
    std::vector<std::int64_t> before;
    std::vector<at::Tensor> symbols_of, held;
  };

  Job prepare(const std::vector<DigitMatrix>& matrices, const std::vector<DigitLane>& lanes) const {
    Job job;
    std::vector<DigitMatrix> there = matrices;
    for (DigitMatrix& matrix : there) {
      const auto count = static_cast<std::size_t>(matrix.elements);
      job.held.push_back(upload(std::vector<Known>(matrix.known, matrix.known + count), device_));
      matrix.known = items_of<Known>(job.held.back());
      job.symbols_of.push_back(
          upload(std::vector<std::uint8_t>(matrix.symbols, matrix.symbols + count), device_));
      matrix.symbols = job.symbols_of.back().data_ptr<std::uint8_t>();
    }
    for (const DigitLane& lane : lanes) {
      job.before.push_back(job.symbols);
      job.symbols += lane.count;
    }
    const auto keep = [&](const at::Tensor& tensor) {
      job.held.push_back(tensor);
      return job.held.back();
    };
    job.all = {view_, items_of<DigitMatrix>(keep(upload(there, device_))),
               items_of<DigitLane>(keep(upload(lanes, device_))),
               items_of<std::int64_t>(keep(upload(job.before, device_))),
               items_of<Trace>(keep(at::empty({2 * job.symbols}, on(device_, at::kByte))))};
    return job;
  }

  template <class T>
  const T* move(const T* from, std::int64_t count) {
    held_.push_back(upload(std::vector<T>(from, from + count), device_));
    return items_of<T>(held_.back());
  }

  at::Device device_;
  DigitPriorView view_;
  std::vector<at::Tensor> held_;
};

}  // namespace

std::unique_ptr<DigitCoder> device_coder(const DigitPriorView& prior, const at::Device& device) {
  return std::make_unique<DeviceCoder>(prior, device);
}

}  // namespace lmgc::ops
