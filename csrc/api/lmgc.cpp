// The C++ face of the library: the operators' functions, with their errors as classes.
#include "lmgc_torch/lmgc.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/version.h"
#include "ops/compress.h"
#include "ops/dtype.h"
#include "ops/past_frame.h"
#include "ops/prior.h"
#include "ops/warm_start.h"

namespace lmgc {

struct Prior::Handle {
  c10::intrusive_ptr<ops::Prior> prior;
};

struct WarmStart::Handle {
  c10::intrusive_ptr<ops::WarmStart> warm_start;
};

struct PastFrame::Handle {
  c10::intrusive_ptr<ops::PastFrame> past;
};

struct Access {
  static ops::OptionalPrior of(const std::optional<Prior>& prior) {
    if (!prior) return std::nullopt;
    return prior->handle_->prior;
  }
  static ops::OptionalWarmStart of(const std::optional<WarmStart>& warm_start) {
    if (!warm_start) return std::nullopt;
    return warm_start->handle_->warm_start;
  }
  static const c10::intrusive_ptr<ops::PastFrame>& of(const PastFrame& past) {
    return past.handle_->past;
  }
};

namespace {

template <class Kind>
void raise_if(const c10::Error& error, const std::string& name) {
  if (error.msg().rfind(name, 0) != 0) return;
  throw Kind(error.msg().substr(name.size()), error.backtrace());
}

// Calls `work`; errors that begin with the name of one of our classes become it.
template <class Work>
auto translated(Work&& work) {
  try {
    return work();
  } catch (const c10::Error& error) {
    raise_if<CorruptFrameError>(error, "CorruptFrameError: ");
    raise_if<TooLargeError>(error, "TooLargeError: ");
    raise_if<PriorMismatchError>(error, "PriorMismatchError: ");
    raise_if<PastMismatchError>(error, "PastMismatchError: ");
    raise_if<ReferenceMismatchError>(error, "ReferenceMismatchError: ");
    throw;
  }
}

}  // namespace

Prior::Prior(std::shared_ptr<Handle> handle) : handle_(std::move(handle)) {}

Prior Prior::load(const std::string& path, at::Device device) {
  auto prior = ops::Prior::load(path);
  if (device != prior->device()) prior->to(device.str());
  return Prior(std::make_shared<Handle>(Handle{std::move(prior)}));
}

std::string Prior::fingerprint() const { return handle_->prior->fingerprint(); }

bool Prior::portable() const { return handle_->prior->portable(); }

at::Device Prior::device() const { return handle_->prior->device(); }

WarmStart::WarmStart()
    : handle_(std::make_shared<Handle>(Handle{c10::make_intrusive<ops::WarmStart>()})) {}

void WarmStart::clear() { handle_->warm_start->clear(); }

PastFrame::PastFrame()
    : handle_(std::make_shared<Handle>(Handle{c10::make_intrusive<ops::PastFrame>()})) {}

void PastFrame::clear() { handle_->past->clear(); }

at::Tensor compress(const std::vector<at::Tensor>& tensors, const CompressOptions& options) {
  return translated([&] {
    const ops::OptionalWarmStart warm_start = Access::of(options.warm_start);
    const bool remembers = options.method == "auto" || options.method == "lowrank";
    if (options.reference && (remembers || options.method == "scale")) {
      TORCH_CHECK_VALUE(!options.past && !warm_start,
                        "a reference goes neither with a past frame nor with a warm start");
      return ops::compress_reference(tensors, *options.reference, options.method, options.effort,
                                     options.metadata);
    }
    if (options.past && remembers) {
      return ops::compress_past(tensors, Access::of(*options.past), warm_start, options.method,
                                options.effort, options.metadata);
    }
    if (warm_start && remembers)
      return ops::compress_warm(tensors, *warm_start, options.method, options.effort,
                                options.metadata);
    return ops::compress(tensors, Access::of(options.prior), options.method, "none", 0, "big",
                         "disjoint", options.lane_elements, true, options.memory_limit,
                         options.effort, options.metadata);
  });
}

std::vector<at::Tensor> decompress(const at::Tensor& frame, const std::optional<Prior>& prior,
                                   std::optional<std::int64_t> max_bytes) {
  TORCH_CHECK_VALUE(frame.defined(), "the frame is an undefined tensor");
  return translated([&] { return ops::decompress(frame, Access::of(prior), max_bytes); });
}

std::vector<at::Tensor> decompress(const at::Tensor& frame,
                                   const std::vector<at::Tensor>& reference,
                                   std::optional<std::int64_t> max_bytes) {
  TORCH_CHECK_VALUE(frame.defined(), "the frame is an undefined tensor");
  return translated([&] { return ops::decompress_reference(frame, reference, max_bytes); });
}

std::vector<at::Tensor> decompress(const at::Tensor& frame, const PastFrame& past,
                                   std::optional<std::int64_t> max_bytes) {
  TORCH_CHECK_VALUE(frame.defined(), "the frame is an undefined tensor");
  return translated([&] { return ops::decompress_past(frame, Access::of(past), max_bytes); });
}

std::int64_t FrameInfo::raw_bytes() const {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  std::int64_t sum = 0;
  for (const TensorInfo& tensor : tensors) sum += std::min(tensor.raw_bytes, most - sum);
  return sum;
}

FrameInfo info(const at::Tensor& frame) {
  TORCH_CHECK_VALUE(frame.defined(), "the frame is an undefined tensor");
  return translated([&] {
    const at::Tensor bytes = ops::frame_bytes(frame);
    const FrameHeader header = ops::read_header(bytes);
    FrameInfo info{header.version,
                   header.metadata,
                   {},
                   bytes.numel(),
                   static_cast<std::int64_t>(header.header_size),
                   header.has_prior,
                   header.past.has_value()};
    for (const ListedTensor& one : listed(header)) {
      const TensorRecord& record = header.tensors[one.record];
      info.tensors.push_back({ops::scalar_type(record.dtype), *one.sizes, name(record.method),
                              static_cast<std::int64_t>(one.bytes),
                              static_cast<std::int64_t>(one.share(record.section_size, record))});
    }
    return info;
  });
}

std::string version() { return library_version(); }

}  // namespace lmgc
