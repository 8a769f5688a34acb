// Sections of method planes: any bytes.
#include "core/planes.h"

#include "../core/stream_cases.h"
#include "fuzz_bytes.h"

using namespace lmgc;
using fuzz::require;

// The code of a type, 1 byte; the number of elements, 2 bytes; the section.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::FuzzBytes input(data, size);
  const FloatFormat format = float_format(static_cast<DType>(input.take<std::uint8_t>()));
  const auto elements = input.take<std::uint16_t>();
  if (format.bytes == 0) return 0;
  const std::vector<std::uint8_t> section = input.rest();

  // Twice, over other bytes, in another order: what is decoded depends on the section alone.
  const std::size_t bytes = std::size_t{elements} * format.bytes;
  const auto one = fuzz::filled(bytes, 0xAA), other = fuzz::filled(bytes, 0x55);
  const Status status =
      decode_planes(section.data(), section.size(), elements, format, one.get(), run_serially);
  require(decode_planes(section.data(), section.size(), elements, format, other.get(),
                        test::run_backwards) == status,
          "the status does not depend on how work is shared");
  if (status == Status::ok)
    require(std::equal(one.get(), one.get() + bytes, other.get()), "every element is written");
  return 0;
}
