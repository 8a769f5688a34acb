// Sections of method lm, under a small prior: any bytes, and tensors that are encoded, changed or
// not, and decoded.
#include <stdexcept>

#include "../core/lm_cases.h"
#include "../core/stream_cases.h"
#include "fuzz_tensors.h"

namespace {

using namespace lmgc;
using fuzz::FuzzBytes, fuzz::require;
using test::Bytes, test::Case;

constexpr int most_changes = 3;
constexpr std::int64_t most_elements = 2048;  // every symbol takes a network
enum Flag : std::uint8_t { flag_threads = 32, flag_section = 128 };

// Twice: by the kernels of this processor, and by the portable ones in another order.
Status decode(const Bytes& section, const Case& tensor, Bytes& out) {
  const test::Sizes& sizes = tensor.wish.sizes;
  const FloatFormat format = tensor.wish.format;
  Bytes other;
  const Status status = test::decoded(section, sizes, format, out);
  require(test::decoded(section, sizes, format, other, test::run_backwards, 3,
                        digit_kernels_portable) == status,
          "the status depends neither on kernels nor on how work is shared");
  require(status != Status::ok || out == other, "nor do the elements");
  return status;
}

}  // namespace

// What take_tensor() takes (flag 32: encoded on threads, too; 128: a section follows instead of
// words), 1 byte of the elements a lane shall have, changes of the section that is made (2 bytes of
// the place, 1 byte of the bits that flip), the words or the section.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzBytes input(data, size);
  fuzz::TensorInput taken = fuzz::take_tensor(input);
  const Case& tensor = taken.tensor;
  const auto lane_elements = input.take<std::uint8_t>();
  std::uint16_t places[most_changes];
  std::uint8_t flips[most_changes];
  for (int i = 0; i < most_changes; ++i) {
    places[i] = input.take<std::uint16_t>();
    flips[i] = input.take<std::uint8_t>();
  }
  const test::Sizes& sizes = tensor.wish.sizes;
  if (sizes.empty() || matrix_shape(sizes.data(), sizes.size()).elements > most_elements) return 0;

  Bytes back;
  if ((taken.flags & flag_section) != 0) {
    decode(input.rest(), tensor, back);
    return 0;
  }
  fuzz::set_words(input.rest(), taken);
  const test::Encoded encoded(tensor, lane_elements);
  Bytes section = encoded.write();
  if ((taken.flags & flag_threads) != 0) {
    std::vector<DigitStream> streams = test::streams_of(tensor, encoded.head, test::run_on_threads);
    require(write_lm_section(encoded.head, test::coded(streams, lane_elements, test::run_on_threads,
                                                       2)) == section,
            "the section does not depend on how work is shared");
  }
  require(decode(section, tensor, back) == Status::ok, "the section decodes");
  require(test::is(tensor, back), "bytes come back");
  bool changed = false;
  for (int i = 0; i < most_changes; ++i) {
    changed = changed || flips[i] != 0;
    section[places[i] % section.size()] ^= flips[i];
  }
  if (changed) decode(section, tensor, back);
  return 0;
}
