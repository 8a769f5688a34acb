#include "ops/joining.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/predict.h"
#include "ops/dtype.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t small_bytes = 16 << 10;  // of a tensor that joins others
constexpr std::int64_t most_bytes = 1 << 20;    // of all that are one
constexpr int octaves = 8;                      // that magnitudes of those that join may span

bool is_joinable(const TensorRecord& record, std::int64_t bytes, Joinable joinable) {
  if (joinable == Joinable::none || bytes == 0 || bytes > small_bytes) return false;
  return joinable == Joinable::all || !float_format(record.dtype).is_float() ||
         matrix_shape(record.sizes.data(), record.sizes.size()).flat;
}

// About the exponent of a tensor's elements but zeros, in units of `octaves`; -1 for zeros and what
// are no floats. From so few of them that it costs next to nothing.
int magnitude_of(const std::uint8_t* data, std::int64_t bytes, FloatFormat format) {
  if (!format.is_float()) return -1;
  constexpr std::int64_t most = 64;
  const std::int64_t elements = bytes / format.bytes, count = std::min(elements, most);
  std::int64_t sum = 0, some = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + i * elements / count * format.bytes,
                static_cast<std::size_t>(format.bytes));
    const std::uint64_t magnitude = word & ((std::uint64_t{1} << (format.bits() - 1)) - 1);
    if (magnitude == 0) continue;
    sum += static_cast<std::int64_t>(magnitude >> format.mantissa_bits);
    ++some;
  }
  return some == 0 ? -1 : static_cast<int>(sum / some / octaves);
}

TensorRecord record_of(const at::Tensor& input, std::uint64_t checksum) {
  TensorRecord record;
  record.dtype = dtype_of(input.scalar_type());
  record.sizes = input.sizes().vec();
  record.data_checksum = static_cast<std::uint32_t>(checksum);
  return record;
}

}  // namespace

Joining join(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& bytes,
             const std::vector<std::uint64_t>& checksums, Joinable joinable) {
  struct Group {
    std::vector<std::size_t> tensors;
    std::int64_t bytes = 0;
  };
  std::vector<Group> groups;
  std::vector<TensorRecord> records;
  std::vector<at::Tensor> small;
  std::vector<bool> is_small(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    records.push_back(record_of(inputs[i], checksums[i]));
    is_small[i] = is_joinable(records[i], bytes[i].numel(), joinable);
    if (is_small[i]) small.push_back(bytes[i]);
  }
  // A device tells of all at once.
  const bool on_device = !small.empty() && !small[0].is_cpu();
  const at::Tensor there = on_device ? at::cat(small).cpu() : at::Tensor();
  const std::uint8_t* next = on_device ? there.data_ptr<std::uint8_t>() : nullptr;

  // The group that the next tensor of a type and magnitude joins.
  std::map<std::pair<DType, int>, std::size_t> open;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::int64_t size = bytes[i].numel();
    if (!is_small[i]) {
      groups.push_back({{i}, size});
      continue;
    }
    const std::uint8_t* const data = on_device ? next : bytes[i].data_ptr<std::uint8_t>();
    if (on_device) next += size;
    const DType dtype = records[i].dtype;
    const auto [found, is_new] =
        open.try_emplace({dtype, magnitude_of(data, size, float_format(dtype))}, groups.size());
    if (is_new || groups[found->second].bytes + size > most_bytes) {
      found->second = groups.size();
      groups.push_back({});
    }
    groups[found->second].tensors.push_back(i);
    groups[found->second].bytes += size;
  }

  Joining result;
  for (const Group& group : groups) {
    const std::size_t first = group.tensors[0];
    if (group.tensors.size() == 1) {
      result.records.push_back(std::move(records[first]));
      result.bytes.push_back(bytes[first]);
      continue;
    }
    TensorRecord record;
    record.dtype = records[first].dtype;
    record.sizes = {group.bytes / static_cast<std::int64_t>(inputs[first].element_size())};
    std::vector<at::Tensor> parts;
    for (const std::size_t i : group.tensors) {
      parts.push_back(bytes[i]);
      record.joined.push_back({i, std::move(records[i].sizes), records[i].data_checksum,
                               static_cast<std::uint64_t>(bytes[i].numel())});
    }
    result.records.push_back(std::move(record));
    result.bytes.push_back(at::cat(parts));
  }
  return result;
}

}  // namespace lmgc::ops
