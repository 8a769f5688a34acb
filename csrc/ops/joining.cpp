#include "ops/joining.h"

#include <ATen/ATen.h>

#include <map>

#include "core/predict.h"
#include "ops/dtype.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t small_bytes = 16 << 10;  // of a tensor that joins others
constexpr std::int64_t most_bytes = 1 << 20;    // of all that are one

bool is_joinable(const TensorRecord& record, std::int64_t bytes, Joinable joinable) {
  if (joinable == Joinable::none || bytes == 0 || bytes > small_bytes) return false;
  return joinable == Joinable::all || !float_format(record.dtype).is_float() ||
         matrix_shape(record.sizes.data(), record.sizes.size()).flat;
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
  std::map<DType, std::size_t> open;  // the group that the next tensor of a type joins
  std::vector<TensorRecord> records;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    records.push_back(record_of(inputs[i], checksums[i]));
    const std::int64_t size = bytes[i].numel();
    if (!is_joinable(records[i], size, joinable)) {
      groups.push_back({{i}, size});
      continue;
    }
    const auto [found, is_new] = open.try_emplace(records[i].dtype, groups.size());
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
