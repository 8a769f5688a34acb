#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "ops/checksum.h"
#include "ops/compress.h"
#include "ops/dtype.h"
#include "ops/error.h"
#include "ops/fixed.h"
#include "ops/for_each.h"
#include "ops/lm.h"
#include "ops/lmgc.h"
#include "ops/planes.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t memory_limit = std::int64_t{256} << 20;

at::Tensor allocate(DType dtype, const std::vector<std::int64_t>& sizes, std::uint64_t bytes,
                    const at::Device& device, bool inference, const std::string& where) {
  const c10::InferenceMode mode(inference);
  const auto options = at::TensorOptions().device(device).dtype(scalar_type(dtype));
  try {
    return at::empty(sizes, options);
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, "CorruptFrameError: ", where, ": no memory for the ", bytes,
                " bytes that it announces (", error.what_without_backtrace(), ")");
  }
}

}  // namespace

at::Tensor frame_bytes(const at::Tensor& data) {
  TORCH_CHECK_VALUE(
      data.scalar_type() == at::kByte && data.dim() == 1 && data.layout() == at::kStrided,
      "a frame is a 1-D uint8 tensor, got ", data.scalar_type(), " with ", data.dim(),
      " dimensions");
  check_device(data.device(), "the frame");
  return data.detach().contiguous();
}

FrameHeader read_header(const at::Tensor& frame) {
  FrameHeader header;
  const std::int64_t size = frame.numel();
  std::int64_t available = frame.is_cpu() ? size : std::min<std::int64_t>(size, 1 << 14);
  for (;;) {
    const at::Tensor head = part_of(frame, 0, available).cpu();
    const Status status =
        parse_header(head.data_ptr<std::uint8_t>(), static_cast<std::size_t>(available),
                     static_cast<std::size_t>(size), header);
    const auto needed = static_cast<std::int64_t>(header.header_size);
    if (status == Status::truncated && available < needed && needed <= size) {
      available = needed;
      continue;
    }
    check_frame(status, "the frame");
    return header;
  }
}

std::string describe_tensor(std::size_t index, const TensorRecord& record) {
  return "tensor " + std::to_string(index) + " (" + name(record.dtype) + ", " +
         name(record.method) + ")";
}

namespace {

void check_past(const FrameHeader& header, const PastFrame* past) {
  if (!header.past.has_value()) return;
  LMGC_CHECK_PAST(past != nullptr,
                  "the frame refers to the one before it: decompress the whole sequence, in order, "
                  "with one PastFrame");
  LMGC_CHECK_PAST(past->identity == header.past,
                  "the frame refers to another one than was decompressed last: frames were lost, "
                  "came in another order, or the two sides did not begin together");
}

void check_announced(const FrameHeader& header, MaxBytes max_bytes) {
  if (!max_bytes.has_value()) return;
  TORCH_CHECK_VALUE(*max_bytes >= 0, "max_bytes is ", *max_bytes, "; it must not be negative");
  const std::uint64_t announced = decoded_bytes(header);
  LMGC_CHECK_SIZE(announced <= static_cast<std::uint64_t>(*max_bytes), "the frame announces ",
                  announced, " bytes of tensors, and max_bytes is ", *max_bytes);
}

FixedCodedTensor fixed_coded(const TensorRecord& record, const PastFactors* past, Room room,
                             std::string where) {
  return {std::move(room),
          float_format(record.dtype),
          record.spare,
          record.sizes,
          record.method == Method::lowrank,
          past,
          static_cast<std::int64_t>(record.section_offset),
          static_cast<std::int64_t>(record.section_size),
          std::move(where)};
}

const PastFactors* past_of(const PastTensors& known, std::size_t place) {
  return place < known.size() ? known[place].get() : nullptr;
}

// On CUDA, groups of tensors: their planes and decoding tables take memory until they are done, and
// the tables of a tensor take some, however small it is.
void decode_all_planes(const at::Tensor& frame, const FrameHeader& header,
                       const std::vector<std::size_t>& places,
                       const std::function<Room(std::size_t)>& room_of) {
  constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20, tensor_bytes = 1 << 18;
  const PlainDispatch plain;
  std::vector<PlanesSection> sections;
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorRecord& record = header.tensors[i];
    if (record.method != Method::planes) continue;
    sections.push_back({room_of(i), float_format(record.dtype), record.elements,
                        static_cast<std::int64_t>(record.section_offset),
                        static_cast<std::int64_t>(record.section_size),
                        describe_tensor(places[i], record)});
    size += record.bytes + tensor_bytes;
    if (size < most_bytes) continue;
    decode_planes_sections(frame, std::exchange(sections, {}));
    size = 0;
  }
  if (!sections.empty()) decode_planes_sections(frame, sections);
}

bool has_fixed_section(Method method) {
  return method == Method::scale || method == Method::lowrank;
}

// On CUDA, groups of tensors likewise: they have up to 24 tables of 16 KiB each, or 124 where they
// are predicted.
FixedHeads decode_all_fixed(const at::Tensor& frame, const FrameHeader& header,
                            const std::vector<std::size_t>& places, const PastTensors& known,
                            const std::function<Room(std::size_t)>& room_of) {
  constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20;
  FixedHeads heads(header.tensors.size());
  std::vector<FixedCodedTensor> tensors;
  std::vector<std::size_t> which;
  std::uint64_t size = 0;
  const auto decode_group = [&] {
    auto own = decode_fixed_sections(frame, tensors);
    for (std::size_t k = 0; k < which.size(); ++k) heads[which[k]] = std::move(own[k]);
    tensors.clear();
    which.clear();
    size = 0;
  };
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorRecord& record = header.tensors[i];
    if (!has_fixed_section(record.method)) continue;
    tensors.push_back(fixed_coded(record, past_of(known, places[i]), room_of(i),
                                  describe_tensor(places[i], record)));
    which.push_back(i);
    size += record.bytes + (std::uint64_t{record.method == Method::lowrank ? 124u : 24u} << 14);
    if (size >= most_bytes) decode_group();
  }
  if (!tensors.empty()) decode_group();
  return heads;
}

void check_data(std::uint64_t checksum, std::uint32_t expected, std::size_t index,
                const TensorRecord& record) {
  const bool good = static_cast<std::uint32_t>(checksum) == expected;
  check_frame(good ? Status::ok : Status::data_checksum, describe_tensor(index, record));
}

std::vector<at::Tensor> decompress(const at::Tensor& data, const OptionalPrior& prior,
                                   PastFrame* past, const std::vector<at::Tensor>* references,
                                   MaxBytes max_bytes) {
  const at::Tensor frame = frame_bytes(data);
  const at::Device device = frame.device();
  const c10::OptionalDeviceGuard guard(device);
  const FrameHeader header = read_header(frame);
  check_announced(header, max_bytes);
  const auto header_size = static_cast<std::int64_t>(header.header_size);
  check_frame(checksum_of(part_of(frame, header_size, frame.numel() - header_size)) ==
                      header.payload_checksum
                  ? Status::ok
                  : Status::payload_checksum,
              "the frame");
  check_past(header, past);
  if (header.has_prior) {
    LMGC_CHECK_PRIOR(prior.has_value(),
                     "the frame was made with a prior; pass the same one to decompress");
    TORCH_CHECK_VALUE((*prior)->device() == device, "the prior is on ", (*prior)->device(),
                      " and the frame on ", device, ": move one of them with .to()");
    (*prior)->check_matches(header.prior);
    for (const TensorRecord& record : header.tensors) {
      const bool suits = (record.method != Method::lmgc || (*prior)->for_elements()) &&
                         (record.method != Method::lm || (*prior)->for_digits());
      LMGC_CHECK_PRIOR(suits, "the frame has a tensor of method '", name(record.method),
                       "', which this prior was not made for");
    }
  }

  const std::size_t count = header.tensors.size();
  const std::vector<ListedTensor> list = listed(header);
  const std::vector<std::size_t> places = places_of(header);
  const auto describe = [&](std::size_t record) {
    return describe_tensor(places[record], header.tensors[record]);
  };
  std::vector<at::Tensor> outputs(count), bytes(count);
  // Tensors are allocated on any thread, and shall all be of the caller's kind.
  const bool inference = c10::InferenceMode::is_enabled();
  const auto room_of = [&](std::size_t i) -> Room {
    return [&, i] {
      const TensorRecord& record = header.tensors[i];
      outputs[i] =
          allocate(record.dtype, record.sizes, record.bytes, device, inference, describe(i));
      bytes[i] = bytes_of(outputs[i]);
      return bytes[i];
    };
  };
  std::vector<std::int64_t> sizes;
  std::vector<LmgcSource> sources;
  std::vector<LmSourceTensor> lm_sources;
  for (std::size_t i = 0; i < count; ++i) {
    const TensorRecord& record = header.tensors[i];
    const auto offset = static_cast<std::int64_t>(record.section_offset);
    const auto size = static_cast<std::int64_t>(record.section_size);
    sizes.push_back(static_cast<std::int64_t>(record.bytes));
    if (record.method == Method::lmgc) {
      const FloatFormat format = serialized_format(float_format(record.dtype));
      sources.push_back({room_of(i), format, record.sizes, sizes.back() / format.bytes, offset,
                         size, describe(i)});
    } else if (record.method == Method::lm) {
      lm_sources.push_back({room_of(i), float_format(record.dtype), record.spare, record.sizes,
                            record.elements, offset, size, describe(i)});
    }
  }
  if (!sources.empty()) decode_lmgc(frame, sources, **prior, header.prior, memory_limit);
  if (!lm_sources.empty()) decode_lm(frame, lm_sources, **prior, header.prior, memory_limit);

  std::vector<at::Tensor> given;
  if (references != nullptr) {
    std::vector<at::ScalarType> types;
    std::vector<std::vector<std::int64_t>> shapes;
    for (const ListedTensor& one : list) {
      types.push_back(scalar_type(header.tensors[one.record].dtype));
      shapes.push_back(*one.sizes);
    }
    given = reference_bytes(*references, types, shapes);
  }
  FixedHeads heads(past != nullptr ? count : 0);  // factors are kept for the next frame alone
  const PastTensors nothing;
  const PastTensors& known = header.past.has_value() ? past->tensors : nothing;
  if (!device.is_cpu()) {
    decode_all_planes(frame, header, places, room_of);
    FixedHeads own = decode_all_fixed(frame, header, places, known, room_of);
    if (past != nullptr) heads = std::move(own);
  }
  for_each_tensor(device, sizes, [&](std::size_t i) {
    const TensorRecord& record = header.tensors[i];
    const std::string where = describe(i);
    const auto offset = static_cast<std::int64_t>(record.section_offset);
    const auto size = static_cast<std::int64_t>(record.section_size);
    const FloatFormat format = float_format(record.dtype);
    if (record.method == Method::raw) {
      const at::Tensor own = room_of(i)();
      if (size != 0) copy_bytes(part_of(frame, offset, size), own);
    } else if (record.method == Method::planes && device.is_cpu()) {
      decode_planes_section(frame, offset, size, format, record.elements, room_of(i), where);
    } else if (has_fixed_section(record.method) && device.is_cpu()) {
      const bool has_reference = !given.empty() && record.joined.empty();
      auto head = decode_fixed_section(
          frame, fixed_coded(record, past_of(known, places[i]), room_of(i), where),
          has_reference ? given[places[i]] : at::Tensor());
      if (past != nullptr) heads[i] = std::move(head);
    }
    if (device.is_cpu() && record.joined.empty())
      check_data(checksum_of(bytes[i]), record.data_checksum, places[i], record);
  });

  // Tensors of their own, also of what was coded as one.
  std::vector<at::Tensor> tensors(list.size()), to_check(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto& [from, offset, size, own_sizes, checksum] = list[i];
    const TensorRecord& record = header.tensors[from];
    if (record.joined.empty()) {
      tensors[i] = outputs[from];
      to_check[i] = bytes[from];
      continue;
    }
    tensors[i] =
        allocate(record.dtype, *own_sizes, size, device, inference, describe_tensor(i, record));
    to_check[i] = bytes_of(tensors[i]);
    copy_bytes(
        part_of(bytes[from], static_cast<std::int64_t>(offset), static_cast<std::int64_t>(size)),
        to_check[i]);
    if (device.is_cpu()) check_data(checksum_of(to_check[i]), checksum, i, record);
  }
  if (!device.is_cpu()) {
    const std::vector<std::uint64_t> checksums = checksums_of(to_check);
    for (std::size_t i = 0; i < list.size(); ++i)
      check_data(checksums[i], list[i].data_checksum, i, header.tensors[list[i].record]);
  }
  if (past != nullptr) past->keep(header, heads);
  return tensors;
}

}  // namespace

std::vector<at::Tensor> decompress(const at::Tensor& data, const OptionalPrior& prior,
                                   MaxBytes max_bytes) {
  return decompress(data, prior, nullptr, nullptr, max_bytes);
}

std::vector<at::Tensor> decompress_past(const at::Tensor& data,
                                        const c10::intrusive_ptr<PastFrame>& past,
                                        MaxBytes max_bytes) {
  const std::lock_guard<std::mutex> lock(past->mutex);
  return decompress(data, std::nullopt, past.get(), nullptr, max_bytes);
}

std::vector<at::Tensor> decompress_reference(const at::Tensor& data,
                                             const std::vector<at::Tensor>& reference,
                                             MaxBytes max_bytes) {
  std::vector<at::Tensor> tensors =
      decompress(data.cpu(), std::nullopt, nullptr, &reference, max_bytes);
  for (at::Tensor& tensor : tensors) tensor = tensor.to(data.device());
  return tensors;
}

}  // namespace lmgc::ops
