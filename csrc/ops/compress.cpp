#include "ops/compress.h"

#include <c10/core/DeviceGuard.h>

#include <cstring>

#include "ops/checksum.h"
#include "ops/digit_module.h"
#include "ops/dtype.h"
#include "ops/error.h"
#include "ops/for_each.h"
#include "ops/joining.h"
#include "ops/lm.h"
#include "ops/lmgc.h"
#include "ops/options.h"
#include "ops/past_frame.h"
#include "ops/section.h"
#include "ops/tables.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

enum class Choice { automatic, raw, planes, lmgc, scale, lowrank, lm };

Choice parse_method(const std::string& method) {
  if (method == "auto") return Choice::automatic;
  if (method == "raw") return Choice::raw;
  if (method == "planes") return Choice::planes;
  if (method == "lmgc") return Choice::lmgc;
  if (method == "scale") return Choice::scale;
  if (method == "lowrank") return Choice::lowrank;
  if (method == "lm") return Choice::lm;
  TORCH_CHECK_VALUE(false, "unknown method '", method,
                    "': choose 'auto', 'raw', 'planes', 'scale', 'lowrank', 'lm' or 'lmgc'");
}

Tables tables_of(Choice choice) {
  return choice == Choice::planes    ? Tables::planes
         : choice == Choice::scale   ? Tables::scale
         : choice == Choice::lowrank ? Tables::lowrank
                                     : Tables::all;
}

// A language model of elements sees each tensor's own shape; small tensors are its affair.
Joinable joinable_by(Choice choice, bool has_references) {
  if (choice == Choice::raw || choice == Choice::lmgc || has_references) return Joinable::none;
  return choice == Choice::planes ? Joinable::all : Joinable::flat;
}

// Dense copies or views of the inputs, on one device.
std::vector<at::Tensor> plain_tensors(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> result;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string what = "tensor " + std::to_string(i);
    const at::Tensor& tensor = tensors[i];
    TORCH_CHECK_VALUE(tensor.defined(), what, " is None");
    TORCH_CHECK_VALUE(tensor.device() == tensors[0].device(), what, " is on ", tensor.device(),
                      ", tensor 0 on ", tensors[0].device(),
                      ": one frame holds tensors of one device");
    TORCH_CHECK_VALUE(tensor.dim() <= static_cast<std::int64_t>(most_dimensions), what, " has ",
                      tensor.dim(), " dimensions, a frame holds at most ", most_dimensions);
    result.push_back(plain(tensor.requires_grad() ? tensor.detach() : tensor, what.c_str()));
  }
  return result;
}

at::Tensor assemble(Frame& frame, const at::Device& device) {
  std::int64_t payload = 0;
  for (std::size_t i = 0; i < frame.sections.size(); ++i) {
    frame.header.tensors[i].section_size = static_cast<std::uint64_t>(frame.sections[i].size);
    payload += frame.sections[i].size;
  }
  const auto header_size = static_cast<std::int64_t>(write_header(frame.header).size());
  TORCH_CHECK_VALUE(header_size <= UINT32_MAX,
                    "a frame's header is at most 4 GiB: split the list of tensors");
  const at::Tensor out =
      at::empty({header_size + payload}, at::TensorOptions().device(device).dtype(at::kByte));
  std::vector<std::int64_t> offsets, sizes;
  std::int64_t at_byte = header_size;
  for (const Section& section : frame.sections) {
    offsets.push_back(at_byte);
    sizes.push_back(section.size);
    at_byte += section.size;
  }
  for_each_tensor(device, sizes, [&](std::size_t i) {
    frame.sections[i].write(part_of(out, offsets[i], sizes[i]));
  });
  for (const Section& section : frame.sections) {
    if (section.finish) section.finish();
  }
  frame.header.payload_checksum = checksum_of(part_of(out, header_size, payload));
  const std::vector<std::uint8_t> header = write_header(frame.header);
  std::memcpy(&frame.header.identity, header.data() + header.size() - sizeof frame.header.identity,
              sizeof frame.header.identity);
  if (device.is_cpu()) {
    std::memcpy(out.data_ptr(), header.data(), header.size());
  } else {
    out.narrow(0, 0, header_size).copy_(upload(header, at::kCPU));
  }
  return out;
}

// Sections of the tensors that the prior makes smaller, in the places of `which`; the others drop
// out of it.
std::vector<Section> code_with_prior(const Prior& prior, const std::vector<at::Tensor>& bytes,
                                     const FrameHeader& header, const LmgcOptions& options,
                                     std::vector<std::size_t>& which) {
  for (;;) {
    std::vector<LmgcTensor> tensors;
    for (const std::size_t i : which) {
      const TensorRecord& record = header.tensors[i];
      tensors.push_back({bytes[i], serialized_format(float_format(record.dtype)), record.sizes});
    }
    std::vector<Section> sections = encode_lmgc(tensors, prior, options);
    std::vector<std::size_t> smaller;
    std::vector<Section> kept;
    for (std::size_t k = 0; k < which.size(); ++k) {
      if (sections[k].size >= bytes[which[k]].numel()) continue;
      smaller.push_back(which[k]);
      kept.push_back(std::move(sections[k]));
    }
    const bool all = smaller.size() == which.size();
    which = std::move(smaller);
    // A bound prior's numbers depend on the batch: what is left must be coded without the others.
    if (all || which.empty() || prior.portable()) return kept;
  }
}

// Puts sections of a prior's method in their places, if they save more than the prior block takes.
void set_prior(PriorBlock block, Method method, const std::vector<std::size_t>& which,
               std::vector<Section> sections, Frame& frame) {
  FrameHeader with = frame.header;
  with.has_prior = true;
  with.prior = std::move(block);
  std::int64_t saved = 0;
  for (std::size_t k = 0; k < which.size(); ++k)
    saved += frame.sections[which[k]].size - sections[k].size;
  const auto size_of = [](const FrameHeader& header) {
    return static_cast<std::int64_t>(write_header(header).size());
  };
  for (const std::size_t i : which) with.tensors[i].method = method;
  if (which.empty() || saved <= size_of(with) - size_of(frame.header)) return;
  frame.header = std::move(with);
  for (std::size_t k = 0; k < which.size(); ++k) frame.sections[which[k]] = std::move(sections[k]);
}

void use_lmgc(const Prior& prior, const std::vector<at::Tensor>& bytes, const LmgcOptions& options,
              Frame& frame) {
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i].numel() != 0) which.push_back(i);
  }
  if (which.empty()) return;
  prior.check_repeatable();
  std::vector<Section> sections = code_with_prior(prior, bytes, frame.header, options, which);
  if (which.empty()) return;
  set_prior(prior.describe(options.serialize, options.window,
                           bound_batch_lanes(prior, options.memory_limit)),
            Method::lmgc, which, std::move(sections), frame);
}

// Puts sections of method lm in the places of larger ones.
void use_lm(const Prior& prior, const std::vector<at::Tensor>& bytes, const FixedHeads& heads,
            const LmOptions& options, Frame& frame) {
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (heads[i] != nullptr) which.push_back(i);
  }
  if (which.empty()) return;
  prior.check_repeatable();
  std::vector<Section> sections;
  for (bool all = false; !all && !which.empty();) {
    std::vector<LmTensor> tensors;
    for (const std::size_t i : which) {
      const TensorRecord& record = frame.header.tensors[i];
      tensors.push_back(
          {bytes[i], float_format(record.dtype), record.spare, record.sizes, heads[i]});
    }
    std::vector<std::size_t> smaller;
    std::vector<Section> kept;
    sections = encode_lm(tensors, prior, options);
    for (std::size_t k = 0; k < which.size(); ++k) {
      if (sections[k].size >= frame.sections[which[k]].size) continue;
      smaller.push_back(which[k]);
      kept.push_back(std::move(sections[k]));
    }
    // A bound prior's numbers depend on the batch: what is left must be coded without the others.
    all = smaller.size() == which.size() || prior.portable();
    which = std::move(smaller);
    sections = std::move(kept);
  }
  const std::int64_t lanes = prior.portable() ? 0 : bound_digit_lanes(prior, options.memory_limit);
  set_prior(prior.describe({}, WindowKind::disjoint, lanes), Method::lm, which, std::move(sections),
            frame);
}

// Whether a frame of a bound prior gives back what went in: a model may keep to itself over a short
// input and differ from call to call all the same.
bool decodes(const at::Tensor& frame, const std::vector<at::Tensor>& bytes,
             const OptionalPrior& prior) {
  try {
    const std::vector<at::Tensor> decoded = decompress(frame, prior);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (!at::equal(bytes_of(decoded[i]), bytes[i])) return false;
    }
    return true;
  } catch (const c10::Error& error) {
    // Other errors are not about these bytes: the model failed, or memory ran out.
    if (!is_corrupt_frame(error)) throw;
    return false;
  }
}

}  // namespace

namespace {

at::Tensor compress(const std::vector<at::Tensor>& tensors, const OptionalPrior& prior,
                    const std::string& method, const std::string& separator,
                    std::int64_t bytes_per_group, const std::string& byte_order,
                    const std::string& window, std::int64_t lane_elements, bool bypass,
                    std::int64_t memory_limit, std::int64_t effort, const std::string& metadata,
                    WarmStart* warm_start, PastFrame* past,
                    const std::vector<at::Tensor>* references) {
  const Choice choice = parse_method(method);
  const SearchLimits limits = search_limits(effort);
  const LmgcOptions options{parse_options(separator, bytes_per_group, byte_order),
                            parse_window(window), lane_elements, bypass, memory_limit};
  TORCH_CHECK_VALUE(
      lane_elements >= 0 && lane_elements <= static_cast<std::int64_t>(most_lane_elements),
      "lane_elements is ", lane_elements,
      ": it should be between 1 and 65536, or 0 to have it chosen");
  TORCH_CHECK_VALUE(memory_limit >= (1 << 20), "memory_limit is ", memory_limit,
                    " bytes: it should be 1 MiB at least");
  const std::vector<at::Tensor> inputs = plain_tensors(tensors);
  const at::Device device = inputs.empty() ? at::Device(at::kCPU) : inputs[0].device();
  const c10::OptionalDeviceGuard guard(device);
  if (choice == Choice::lmgc || choice == Choice::lm) {
    TORCH_CHECK_VALUE(prior.has_value(), "method '", method,
                      "' needs a prior: pass torch.classes.lmgc.Prior(path), or use "
                      "lmgc_torch.compress, which brings one");
    TORCH_CHECK_VALUE(inputs.empty() || (*prior)->device() == device, "the prior is on ",
                      (*prior)->device(), " and the tensors on ", device,
                      ": move one of them with .to()");
  }

  Frame frame;
  frame.header.metadata = metadata;
  std::vector<at::Tensor> input_bytes;
  for (const at::Tensor& input : inputs) input_bytes.push_back(bytes_of(input));
  Joining joining = join(inputs, input_bytes, checksums_of(input_bytes),
                         joinable_by(choice, references != nullptr));
  frame.header.tensors = std::move(joining.records);
  const std::vector<at::Tensor>& bytes = joining.bytes;
  for (const at::Tensor& one : bytes) frame.sections.push_back(raw_section(one));
  if (choice == Choice::lmgc) {
    (*prior)->features();  // raises an error if it is made for method lm
    use_lmgc(**prior, bytes, options, frame);
  } else if (choice == Choice::lm) {
    (*prior)->digit_features();  // likewise
    const FixedHeads heads = use_tables(Tables::all, bytes, device, {}, limits, frame);
    use_lm(**prior, bytes, heads, {lane_elements, memory_limit}, frame);
  } else if (choice != Choice::raw) {
    const auto lock_of = [](auto* shared) {
      using Lock = std::unique_lock<std::mutex>;
      return shared != nullptr ? Lock(shared->mutex) : Lock();
    };
    const auto warm_lock = lock_of(warm_start);
    const auto past_lock = lock_of(past);
    Beside beside;
    beside.places = places_of(frame.header);
    if (warm_start != nullptr) beside.memories = &warm_start->recall(inputs, device);
    if (past != nullptr && past->identity.has_value()) beside.past = &past->tensors;
    beside.references = references;
    const FixedHeads heads = use_tables(tables_of(choice), bytes, device, beside, limits, frame);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      if (is_fixed(frame.header.tensors[i].method) && heads[i]->reference.is_there)
        frame.header.has_references = true;
    }
    if (past == nullptr) return assemble(frame, device);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      if (frame.header.tensors[i].method == Method::lowrank && heads[i]->projected())
        frame.header.past = past->identity;
    }
    at::Tensor out = assemble(frame, device);
    past->keep(frame.header, heads);
    return out;
  }
  at::Tensor out = assemble(frame, device);

  if (frame.header.has_prior && !(*prior)->portable() && !decodes(out, input_bytes, prior)) {
    TORCH_WARN(
        "this prior does not compute the same probabilities twice; the tensors were compressed "
        "with method 'auto' instead, which needs no prior");
    frame.header.has_prior = false;
    use_tables(Tables::all, bytes, device, {}, limits, frame);
    out = assemble(frame, device);
  }
  return out;
}

}  // namespace

at::Tensor compress(const std::vector<at::Tensor>& tensors, const OptionalPrior& prior,
                    const std::string& method, const std::string& separator,
                    std::int64_t bytes_per_group, const std::string& byte_order,
                    const std::string& window, std::int64_t lane_elements, bool bypass,
                    std::int64_t memory_limit, std::int64_t effort, const std::string& metadata) {
  return compress(tensors, prior, method, separator, bytes_per_group, byte_order, window,
                  lane_elements, bypass, memory_limit, effort, metadata, nullptr, nullptr, nullptr);
}

namespace {

at::Tensor compress_next(const std::vector<at::Tensor>& tensors, const std::string& method,
                         std::int64_t effort, const std::string& metadata, WarmStart* warm_start,
                         PastFrame* past) {
  TORCH_CHECK_VALUE(method == "auto" || method == "lowrank", "method is '", method,
                    "': warm starts and past frames are for 'auto' and 'lowrank'");
  return compress(tensors, std::nullopt, method, "none", 0, "big", "disjoint", 0, true,
                  std::int64_t{256} << 20, effort, metadata, warm_start, past, nullptr);
}

}  // namespace

at::Tensor compress_warm(const std::vector<at::Tensor>& tensors,
                         const c10::intrusive_ptr<WarmStart>& warm_start, const std::string& method,
                         std::int64_t effort, const std::string& metadata) {
  return compress_next(tensors, method, effort, metadata, warm_start.get(), nullptr);
}

at::Tensor compress_past(const std::vector<at::Tensor>& tensors,
                         const c10::intrusive_ptr<PastFrame>& past,
                         const OptionalWarmStart& warm_start, const std::string& method,
                         std::int64_t effort, const std::string& metadata) {
  return compress_next(tensors, method, effort, metadata,
                       warm_start.has_value() ? warm_start->get() : nullptr, past.get());
}

std::vector<at::Tensor> reference_bytes(const std::vector<at::Tensor>& references,
                                        const std::vector<at::ScalarType>& types,
                                        const std::vector<std::vector<std::int64_t>>& sizes) {
  TORCH_CHECK_VALUE(references.size() == sizes.size(), "there are ", references.size(),
                    " references for ", sizes.size(), " tensors");
  std::vector<at::Tensor> bytes;
  for (std::size_t i = 0; i < references.size(); ++i) {
    const at::Tensor& one = references[i];
    const bool fits = one.defined() && one.scalar_type() == types[i] && one.sizes() == sizes[i] &&
                      one.numel() > 0 && float_format(dtype_of(types[i])).is_float();
    const std::string what = "reference " + std::to_string(i);
    bytes.push_back(fits ? bytes_of(plain(one.detach().cpu(), what.c_str())) : at::Tensor());
  }
  return bytes;
}

at::Tensor compress_reference(const std::vector<at::Tensor>& tensors,
                              const std::vector<at::Tensor>& reference, const std::string& method,
                              std::int64_t effort, const std::string& metadata) {
  TORCH_CHECK_VALUE(method == "auto" || method == "lowrank" || method == "scale", "method is '",
                    method, "': references are for 'auto', 'lowrank' and 'scale'");
  const std::vector<at::Tensor> inputs = plain_tensors(tensors);
  std::vector<at::Tensor> host;
  std::vector<at::ScalarType> types;
  std::vector<std::vector<std::int64_t>> sizes;
  for (const at::Tensor& input : inputs) {
    host.push_back(input.cpu());
    types.push_back(input.scalar_type());
    sizes.push_back(input.sizes().vec());
  }
  const std::vector<at::Tensor> references = reference_bytes(reference, types, sizes);
  const at::Tensor frame =
      compress(host, std::nullopt, method, "none", 0, "big", "disjoint", 0, true,
               std::int64_t{256} << 20, effort, metadata, nullptr, nullptr, &references);
  return inputs.empty() ? frame : frame.to(inputs[0].device());
}

at::Tensor compress_with_prior(const std::vector<at::Tensor>& tensors,
                               const c10::intrusive_ptr<Prior>& prior, const std::string& method,
                               const std::string& separator, std::int64_t bytes_per_group,
                               const std::string& byte_order, const std::string& window,
                               std::int64_t lane_elements, bool bypass, std::int64_t memory_limit,
                               std::int64_t effort, const std::string& metadata) {
  return compress(tensors, prior, method, separator, bytes_per_group, byte_order, window,
                  lane_elements, bypass, memory_limit, effort, metadata);
}

}  // namespace lmgc::ops
