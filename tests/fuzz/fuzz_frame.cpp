// Headers of frames: any bytes, and any bytes behind a checksum that is right.
#include <cstring>

#include "core/checksum.h"
#include "core/frame.h"
#include "fuzz_bytes.h"

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

}  // namespace

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
