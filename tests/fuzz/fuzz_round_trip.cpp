// Tensors of any words and shapes through encoder and decoder of planes and of the fixed
// serializer, with factors and a reference: what comes back is identical.
#include "../core/stream_cases.h"
#include "core/fixed_section.h"
#include "core/planes.h"
#include "fuzz_tensors.h"

namespace {

using namespace lmgc;
using fuzz::FuzzBytes, fuzz::require;
using Bytes = std::vector<std::uint8_t>;

void planes(const std::uint8_t* words, std::int64_t elements, FloatFormat format) {
  const Bytes section = encode_planes(words, elements, format, run_serially);
  require(encode_planes(words, elements, format, test::run_backwards) == section,
          "planes: the section does not depend on how work is shared");
  require(section.size() <= planes_bound(elements, format), "planes: the bound holds");
  const std::size_t bytes = static_cast<std::size_t>(elements) * format.bytes;
  const auto back = fuzz::filled(bytes, 0xAA);
  require(decode_planes(section.data(), section.size(), elements, format, back.get(),
                        run_serially) == Status::ok,
          "planes: the section decodes");
  require(std::equal(words, words + bytes, back.get()), "planes: bytes come back");
}

void fixed(const std::uint8_t* words, const test::Case& tensor) {
  const FloatFormat format = tensor.wish.format;
  const LiveShape& shape = tensor.shape;
  const test::Sizes& sizes = tensor.wish.sizes;
  const FixedHead& head = tensor.head;
  const Reference& reference = head.reference;
  const Factors& factors = head.low_rank.factors;
  const Product product = test::product_of(head, shape);
  const FixedInput input{words, format, shape, tensor.may_have_columns};
  const auto encode = [&](const Parallel& parallel) {
    const FixedSection section = encode_fixed(input, head, product, parallel);
    Bytes bytes(section.size());
    section.write(bytes.data());
    return bytes;
  };
  const Bytes section = encode(run_serially);
  require(encode(test::run_backwards) == section,
          "fixed: the section does not depend on how work is shared");
  FixedSource source;
  require(read_fixed(section.data(), section.size(), sizes.data(), sizes.size(), head.predicted(),
                     true, run_serially, source) == Status::ok,
          "fixed: the section reads");
  require(source.head.low_rank.factors.u.entries == factors.u.entries &&
              source.head.low_rank.factors.v.entries == factors.v.entries,
          "fixed: factors come back");
  require(source.head.reference.is_there == reference.is_there &&
              (!reference.is_there || source.head.reference.factor == reference.factor),
          "fixed: the reference comes back");
  source.head.reference.words = reference.words;
  const std::size_t bytes = static_cast<std::size_t>(shape.elements) * format.bytes;
  const auto back = fuzz::filled(bytes, 0xAA);
  require(decode_fixed(source, format, product, back.get(), run_serially) == Status::ok,
          "fixed: the section decodes");
  require(std::equal(words, words + bytes, back.get()), "fixed: bytes come back");
}

}  // namespace

// What take_tensor() takes (flag 8: a reference), 4 bytes of the reference's factor, the words.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzBytes input(data, size);
  auto [tensor, words_of_byte, flags] = fuzz::take_tensor(input);
  const auto factor = input.take<std::uint32_t>() % (most_delta_factor + 1);
  if (tensor.wish.sizes.empty()) return 0;
  const FloatFormat format = tensor.wish.format;
  const std::int64_t elements = tensor.shape.elements;

  const Bytes rest = input.rest();
  const auto words = fuzz::words_from(rest, words_of_byte, elements, format);
  planes(words.get(), elements, is_short(format) ? FloatFormat{format.bytes, 0, 0} : format);

  // The reference: the same words, later.
  const Bytes later(rest.begin() + static_cast<std::ptrdiff_t>(rest.size() / 16), rest.end());
  const auto reference = fuzz::words_from(later, words_of_byte, elements, format);
  if ((flags & 8) != 0) tensor.head.reference = {true, 7, factor, reference.get()};
  fixed(words.get(), tensor);
  return 0;
}
