// Headers of frames: any bytes, and any bytes behind a checksum that is right.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/checksum.h"
#include "core/frame.h"
#include "fuzz_bytes.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using namespace lmgc;
using fuzz::require;

void check(const FrameHeader& header, std::uint64_t size) {
  std::uint64_t offset = header.header_size;
  for (const TensorRecord& record : header.tensors) {
    require(record.section_offset == offset, "sections lie one after the other");
    require(record.section_size <= size - offset, "sections lie inside the frame");
    require(record.section_size <= record.bytes, "no section is larger than its tensor");
    require(float_format(record.dtype).bytes != 0, "types are known");
    offset += record.section_size;
  }
  require(offset == size, "sections end with the frame");
  std::vector<std::uint64_t> bytes(header.tensors.size());
  for (const ListedTensor& one : listed(header)) {
    require(one.sizes != nullptr, "every place of the list is taken");
    require(one.offset <= header.tensors[one.record].bytes, "tensors lie inside their record's");
    bytes[one.record] += one.bytes;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i)
    require(bytes[i] == header.tensors[i].bytes, "a record's tensors are all of it");

  // Whatever can be read can be written, and is the same then.
  const std::vector<std::uint8_t> written = write_header(header);
  const std::uint64_t payload = size - header.header_size;
  FrameHeader again;
  require(
      parse_header(written.data(), written.size(), written.size() + payload, again) == Status::ok,
      "a header that was written reads");
  require(write_header(again) == written, "a header that was read is written as it was");
  require(again.tensors.size() == header.tensors.size(), "no tensor is lost");
}

// Sizes of sections that are wrong one by one, and whose sum is not.
void change_sizes(std::vector<TensorRecord>& records, std::mt19937_64& random) {
  if (random() % 2 == 0) {
    const std::uint64_t moved = random() >> random() % 64;
    records[random() % records.size()].section_size += moved;
    records[random() % records.size()].section_size -= moved;
    return;
  }
  // Three in place of one: their sum wraps around to its size.
  constexpr std::int64_t most = INT64_MAX;
  TensorRecord own = records.back();
  const std::uint64_t size = own.section_size;
  own.dtype = DType::uint8;
  own.method = Method::planes;
  own.spare = {};
  own.sizes = {most};
  own.joined.clear();
  own.section_size = most;
  records.back() = own;
  records.push_back(own);
  own.section_size = size + 2;
  records.push_back(own);
}

void change(FrameHeader& header, std::mt19937_64& random) {
  TensorRecord& record = header.tensors[random() % header.tensors.size()];
  if (!record.joined.empty() && random() % 2 == 0) {
    JoinedTensor& one = record.joined[random() % record.joined.size()];
    if (random() % 2 == 0) {
      one.place = random() % (2 * record.joined.size());
    } else {
      one.sizes.assign(random() % 4, static_cast<std::int64_t>(random() >> (1 + random() % 63)));
    }
    return;
  }
  switch (random() % 4) {
    case 0:
      record.dtype = static_cast<DType>(random() % 40);
      break;
    case 1:
      record.method = static_cast<Method>(random() % (methods + 1));
      break;
    case 2:
      record.sizes.assign(random() % 4, static_cast<std::int64_t>(random() >> (1 + random() % 63)));
      break;
    default:
      change_sizes(header.tensors, random);
  }
}

}  // namespace

// Every other change is one of a field, behind checksums that are right.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::mt19937_64 random(seed);
  fuzz::FuzzBytes input(data, size);
  const auto payload = input.take<std::uint32_t>();
  const std::vector<std::uint8_t> bytes = input.rest();
  FrameHeader header;
  if (random() % 2 == 0 ||
      parse_header(bytes.data(), bytes.size(), bytes.size() + std::uint64_t{payload}, header) !=
          Status::ok ||
      header.tensors.empty())
    return LLVMFuzzerMutate(data, size, most);
  change(header, random);
  const std::vector<std::uint8_t> changed = write_header(header);
  if (4 + changed.size() > most) return LLVMFuzzerMutate(data, size, most);
  std::copy(changed.begin(), changed.end(), data + 4);
  return 4 + changed.size();
}

// The size of the payload, 4 bytes, and a header.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzBytes input(data, size);
  const auto payload = input.take<std::uint32_t>();
  std::vector<std::uint8_t> bytes = input.rest();
  const std::uint64_t all = bytes.size() + std::uint64_t{payload};
  FrameHeader header;
  if (parse_header(bytes.data(), bytes.size(), all, header) == Status::ok) check(header, all);

  if (bytes.size() < 26) return 0;
  const auto header_size = static_cast<std::uint32_t>(bytes.size());
  std::memcpy(bytes.data() + 6, &header_size, 4);
  const std::uint64_t sum = checksum(bytes.data(), bytes.size() - 8);
  std::memcpy(bytes.data() + bytes.size() - 8, &sum, 8);
  if (parse_header(bytes.data(), bytes.size(), all, header) == Status::ok) check(header, all);
  // Too little of it is at hand.
  require(parse_header(bytes.data(), bytes.size() - 1, all, header) != Status::ok,
          "a header that is cut is refused");
  return 0;
}
