#include "ops/tables.h"

#include <optional>
#include <utility>

#include "ops/delta.h"
#include "ops/dtype.h"
#include "ops/fixed_view.h"
#include "ops/for_each.h"
#include "ops/planes.h"

namespace lmgc::ops {
namespace {

// Tensors on CUDA that are coded in the same few launches: enough for many small ones, and little
// of the memory that all tensors would take at once. However small it is, one takes 72 KiB, or 372
// where it is predicted (cuda/fixed.h).
constexpr std::int64_t most_group_bytes = std::int64_t{64} << 20;
constexpr std::size_t most_group_tensors = 1024;

// A tensor's way to its section.
struct Attempt {
  bool search = true;    // all that may be tried is; else only what memory says
  bool refused = false;  // memory did not tell
  FixedPlan plan;
  DeltaPlan delta;
  // On CUDA, until they are offered.
  Section planes_section;
  std::optional<FixedResult> fixed_result;
  bool all_live = false;  // as in Survey
  // Of the sections that were made; 0: none.
  std::int64_t planes = 0, fixed = 0;
};

class Coding {
 public:
  Coding(Tables tables, const std::vector<at::Tensor>& bytes, const at::Device& device,
         const Beside& beside, const SearchLimits& limits, Frame& frame)
      : tables_(tables),
        bytes_(bytes),
        device_(device),
        places_(beside.places),
        memories_(beside.memories),
        past_(beside.past),
        references_(beside.references),
        limits_(limits),
        frame_(frame),
        attempts_(bytes.size()),
        heads_(bytes.size()) {}

  FixedHeads run() {
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if (bytes_[i].numel() != 0) which.push_back(i);
    }
    for (const std::size_t i : which) attempts_[i].search = memories_ == nullptr || must_search(i);
    plan_and_encode(which);
    if (memories_ == nullptr) return std::move(heads_);
    // What came out much larger than the last time is searched for after all.
    std::vector<std::size_t> again;
    for (const std::size_t i : which) {
      if (attempts_[i].search || frame_.sections[i].size <= expected(i)) continue;
      again.push_back(i);
      attempts_[i].search = true;
    }
    plan_and_encode(again);
    for (const std::size_t i : which) remember(i);
    return std::move(heads_);
  }

 private:
  bool is_float(std::size_t i) const { return format(i).is_float(); }
  FloatFormat format(std::size_t i) const { return float_format(frame_.header.tensors[i].dtype); }
  Spare spare(std::size_t i) const { return frame_.header.tensors[i].spare; }
  bool only_fixed(std::size_t i) const {
    return is_float(i) && (tables_ == Tables::scale || tables_ == Tables::lowrank);
  }

  TensorMemory& memory_of(std::size_t i) const { return (*memories_)[places_[i]]; }

  bool must_search(std::size_t i) const {
    const TensorMemory& memory = memory_of(i);
    return is_search_due(memory) || (memory.method == Method::planes && only_fixed(i));
  }

  std::int64_t expected(std::size_t i) const {
    const std::int64_t bytes = memory_of(i).bytes;
    return bytes + bytes / 8 + 64;
  }

  void plan(std::size_t i) {
    if (!is_float(i) || tables_ == Tables::planes) return;
    if (device_.is_cpu()) frame_.header.tensors[i].spare = find_spare(bytes_[i], format(i));
    const auto& sizes = frame_.header.tensors[i].sizes;
    if (const at::Tensor reference = reference_of(i); reference.defined()) {
      attempts_[i].delta = plan_delta(bytes_[i], reference, format(i), spare(i), sizes,
                                      tables_ == Tables::scale ? nullptr : &limits_);
    }
    if (tables_ == Tables::scale) return;
    Attempt& attempt = attempts_[i];
    if (!attempt.search) {
      const TensorMemory& memory = memory_of(i);
      if (memory.method != Method::lowrank) return;
      std::optional<FixedPlan> plan;
      if (!memory.refused)
        plan = replan_fixed(bytes_[i], format(i), spare(i), sizes, memory.fixed, limits_);
      attempt.search = !plan.has_value();
      attempt.refused = attempt.search;
      if (plan.has_value()) attempt.plan = std::move(*plan);
    }
    if (attempt.search) attempt.plan = plan_fixed(bytes_[i], format(i), spare(i), sizes, limits_);
    if (const PastFactors* const past = past_of(i)) project_fixed(*past, attempt.plan);
  }

  const PastFactors* past_of(std::size_t i) const {
    return past_ != nullptr && places_[i] < past_->size() ? (*past_)[places_[i]].get() : nullptr;
  }

  at::Tensor reference_of(std::size_t i) const {
    return references_ != nullptr ? (*references_)[places_[i]] : at::Tensor();
  }

  template <class Body>
  void for_each(const std::vector<std::size_t>& which, const Body& body) const {
    std::vector<std::int64_t> sizes;
    for (const std::size_t i : which) sizes.push_back(bytes_[i].numel());
    for_each_tensor(device_, sizes, [&](std::size_t k) { body(which[k]); });
  }

  void plan_and_encode(const std::vector<std::size_t>& which) {
    if (!device_.is_cpu()) survey_floats(which);
    // A tensor at a time: while one is searched, others are encoded, which shares better.
    for_each(which, [&](std::size_t i) {
      plan(i);
      if (device_.is_cpu()) encode(i);
    });
    if (!device_.is_cpu()) encode_on_device(which);
  }

  // On CUDA, of all at once.
  void survey_floats(const std::vector<std::size_t>& which) {
    std::vector<std::size_t> floats;
    std::vector<FloatTensor> tensors;
    for (const std::size_t i : which) {
      if (!is_float(i) || tables_ == Tables::planes) continue;
      floats.push_back(i);
      tensors.push_back({bytes_[i], format(i), frame_.header.tensors[i].sizes});
    }
    const std::vector<Survey> surveys = survey(tensors);
    for (std::size_t k = 0; k < floats.size(); ++k) {
      frame_.header.tensors[floats[k]].spare = surveys[k].spare;
      attempts_[floats[k]].all_live = surveys[k].all_live;
    }
  }

  void encode_on_device(const std::vector<std::size_t>& which) {
    for (std::size_t first = 0; first < which.size();) {
      std::vector<std::size_t> group;
      std::int64_t size = 0;
      while (first < which.size() && size < most_group_bytes && group.size() < most_group_tensors) {
        group.push_back(which[first]);
        size += bytes_[which[first++]].numel();
      }
      encode_planes(group);
      encode_fixed(group);
      for_each(group, [&](std::size_t i) { encode(i); });
    }
  }

  // On CUDA, of all at once.
  void encode_planes(const std::vector<std::size_t>& group) {
    const PlainDispatch plain;
    std::vector<PlanesTensor> tensors;
    for (const std::size_t i : group) {
      if (may_have_planes(i)) tensors.push_back({bytes_[i], format(i)});
    }
    std::vector<Section> sections = encode_planes_sections(tensors);
    auto section = sections.begin();
    for (const std::size_t i : group) {
      if (may_have_planes(i)) attempts_[i].planes_section = std::move(*section++);
    }
  }

  void encode_fixed(const std::vector<std::size_t>& group) {
    std::vector<std::size_t> own;
    std::vector<FixedTensor> tensors;
    for (const std::size_t i : group) {
      if (!may_be_fixed(i)) continue;
      own.push_back(i);
      tensors.push_back(fixed_tensor(i));
    }
    std::vector<FixedResult> results = encode_fixed_sections(tensors);
    for (std::size_t k = 0; k < own.size(); ++k)
      attempts_[own[k]].fixed_result = std::move(results[k]);
  }

  FixedTensor fixed_tensor(std::size_t i) const {
    return {bytes_[i],
            format(i),
            spare(i),
            frame_.header.tensors[i].sizes,
            attempts_[i].plan,
            past_of(i),
            attempts_[i].all_live};
  }

  // The method that is known to win by far is the only one; raw: none is.
  Method only_method(std::size_t i) const {
    return !attempts_[i].search && memory_of(i).clearly ? memory_of(i).method : Method::raw;
  }
  bool may_have_planes(std::size_t i) const { return !only_fixed(i) && !is_fixed(only_method(i)); }
  bool may_be_fixed(std::size_t i) const {
    return tables_ != Tables::planes && is_float(i) && only_method(i) != Method::planes;
  }

  void encode(std::size_t i) {
    TensorRecord& record = frame_.header.tensors[i];
    record.method = Method::raw;
    frame_.sections[i] = raw_section(bytes_[i]);
    if (may_have_planes(i)) {
      offer(i, Method::planes,
            device_.is_cpu() ? encode_planes_section({bytes_[i], format(i)})
                             : std::exchange(attempts_[i].planes_section, {}),
            attempts_[i].planes);
    }
    if (may_be_fixed(i)) {
      // Relative to a reference first: what that leaves, others may not reach.
      const at::Tensor reference = reference_of(i);
      if (reference.defined()) {
        offer_fixed(i, encode_delta_section(bytes_[i], reference, format(i), spare(i), record.sizes,
                                            attempts_[i].delta));
      }
      const std::int64_t limit = reference.defined() ? frame_.sections[i].size : INT64_MAX;
      std::optional<FixedResult> alone = device_.is_cpu()
                                             ? encode_fixed_section(fixed_tensor(i), limit)
                                             : std::exchange(attempts_[i].fixed_result, {});
      if (alone.has_value()) offer_fixed(i, std::move(*alone));
    }
  }

  // Its head is kept where it is the only one or the smallest section so far.
  void offer_fixed(std::size_t i, FixedResult result) {
    if (heads_[i] == nullptr || result.section.size < frame_.sections[i].size)
      heads_[i] = result.head;
    offer(i, result.predicted() ? Method::lowrank : Method::scale, std::move(result.section),
          attempts_[i].fixed);
  }

  void offer(std::size_t i, Method method, Section section, std::int64_t& size) {
    size = section.size;
    frame_.offer(i, method, std::move(section));
  }

  void remember(std::size_t i) {
    TensorMemory& memory = memory_of(i);
    const Attempt& attempt = attempts_[i];
    const Method method = frame_.header.tensors[i].method;
    if (attempt.search) {
      if (attempt.refused) {
        remember_refusal(memory);
      } else {
        remember_search(method, memory);
      }
      // By two per cent.
      const std::int64_t other = method == Method::planes ? attempt.fixed : attempt.planes;
      memory.clearly =
          method != Method::raw &&
          (other == 0 || other > frame_.sections[i].size + frame_.sections[i].size / 50);
    } else {
      ++memory.calls;
    }
    memory.bytes = frame_.sections[i].size;
    if (heads_[i] == nullptr || method != Method::lowrank) return;
    remember_fixed(attempt.plan, *heads_[i], frame_.header.tensors[i].sizes, memory.fixed);
  }

  const Tables tables_;
  const std::vector<at::Tensor>& bytes_;
  const at::Device device_;
  const std::vector<std::size_t> places_;
  std::vector<TensorMemory>* const memories_;
  const PastTensors* const past_;
  const std::vector<at::Tensor>* const references_;
  const SearchLimits limits_;
  Frame& frame_;
  std::vector<Attempt> attempts_;
  FixedHeads heads_;
};

}  // namespace

Section raw_section(const at::Tensor& bytes) {
  return {bytes.numel(), [bytes](const at::Tensor& out) { copy_bytes(bytes, out); }};
}

FixedHeads use_tables(Tables tables, const std::vector<at::Tensor>& bytes, const at::Device& device,
                      const Beside& beside, const SearchLimits& limits, Frame& frame) {
  return Coding(tables, bytes, device, beside, limits, frame).run();
}

}  // namespace lmgc::ops
