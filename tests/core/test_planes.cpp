#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/plane_kernels.h"
#include "core/planes.h"
#include "plane_cases.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;

using Bytes = std::vector<std::uint8_t>;

using test::formats;
using test::Tensor;
using test::tensor_kinds;

Bytes encoded(const Tensor& tensor, const Parallel& parallel = run_serially) {
  return encode_planes(tensor.words.data(), tensor.elements, tensor.format, parallel);
}

Status decoded(const Bytes& section, Tensor& out, const Parallel& parallel = run_serially) {
  return decode_planes(section.data(), section.size(), out.elements, out.format, out.words.data(),
                       parallel);
}

void check_round_trip(const std::string& kind, std::int64_t elements, FloatFormat format) {
  CAPTURE(kind, elements, int{format.bytes}, format.is_float());
  const Tensor tensor(kind, elements, format);
  const Bytes section = encoded(tensor);
  REQUIRE(section.size() <= planes_bound(elements, format));
  Tensor back("random", elements, format);
  REQUIRE(decoded(section, back) == Status::ok);
  REQUIRE(std::memcmp(back.words.data(), tensor.words.data(), tensor.bytes()) == 0);
}

}  // namespace

TEST_CASE("tensors of all formats and kinds decode to what they were") {
  for (const auto& kind : tensor_kinds) {
    for (const FloatFormat format : formats) {
      for (std::int64_t elements = 0; elements <= 70; ++elements)
        check_round_trip(kind, elements, format);
      for (const std::int64_t elements : {255, 256, 257, 511, 512, 2047, 2049, 16383, 16384, 16385,
                                          16448, 65535, 65536, 65537, 131072, 200003}) {
        check_round_trip(kind, elements, format);
      }
    }
  }
}

TEST_CASE("sections are small where tensors are simple") {
  for (const FloatFormat format : formats) {
    CHECK(encoded(Tensor("zero", 1 << 20, format)).size() <= 8u + format.bytes);
    CHECK(encoded(Tensor("constant", 1 << 20, format)).size() == 1u + 2u * format.bytes);
    CHECK(encoded(Tensor("random", 1 << 17, format)).size() == planes_bound(1 << 17, format));
  }
  const Tensor zeros("rows zero", 1 << 18, float_format(DType::float32));
  const Bytes section = encoded(zeros);
  ByteReader in(section.data(), section.size());
  PlanesHead head;
  REQUIRE(read_planes_head(in, zeros.elements, zeros.format, head) == Status::ok);
  CHECK(head.masked);
  CHECK(section.size() < zeros.bytes() / 4);
}

TEST_CASE("sections do not depend on how work is shared") {
  for (const auto& kind : tensor_kinds) {
    const Tensor tensor(kind, 300001, float_format(DType::float32));
    const Bytes section = encoded(tensor);
    CHECK(encoded(tensor, test::run_backwards) == section);
    CHECK(encoded(tensor, test::run_on_threads) == section);
    Tensor back("random", tensor.elements, tensor.format);
    REQUIRE(decoded(section, back, test::run_on_threads) == Status::ok);
    CHECK(back.words == tensor.words);
    REQUIRE(decoded(section, back, test::run_backwards) == Status::ok);
    CHECK(back.words == tensor.words);
  }
}

TEST_CASE("damaged sections give a status, never a crash") {
  for (const auto& kind : tensor_kinds) {
    for (const FloatFormat format : {float_format(DType::bfloat16), float_format(DType::float32),
                                     float_format(DType::complex128)}) {
      for (const std::int64_t elements : {0, 1, 9, 130, 1000, 66000}) {
        const Tensor tensor(kind, elements, format);
        const Bytes good = encoded(tensor);
        Tensor back = tensor;
        test::for_each_damage(good, elements < 2000 ? 1000 : 200, [&](const Bytes& bad) {
          const Status status = decoded(bad, back);
          if (bad.size() != good.size()) CHECK(status != Status::ok);
        });
      }
    }
  }
  std::mt19937 random(6);
  for (int round = 0; round < 20000; ++round) {
    Bytes bad(random() % 200);
    for (auto& byte : bad) byte = static_cast<std::uint8_t>(random() % (round % 2 ? 256 : 4));
    Tensor back("zero", random() % 300, formats[random() % formats.size()]);
    decoded(bad, back);
  }
}

TEST_CASE("a mask that contradicts the number of kept elements is refused") {
  const FloatFormat format = float_format(DType::float32);
  PlanesHead head;
  head.masked = true;
  head.kept = 3;
  ByteWriter out;
  write_planes_head(head, format, out);
  const std::uint8_t mask[2] = {0b10010000, 0b00000001};
  out.bytes(mask, 2);
  for (int i = 0; i < 12; ++i) out.fixed(static_cast<std::uint8_t>(i + 1));
  Tensor back("random", 9, format);
  REQUIRE(decoded(out.view(), back) == Status::ok);
  const auto* words = reinterpret_cast<const std::uint32_t*>(back.words.data());
  CHECK(words[0] == 0);
  CHECK(words[4] == std::rotr(0x0A070401u, 1));
  CHECK(words[7] == std::rotr(0x0B080502u, 1));
  CHECK(words[8] == std::rotr(0x0C090603u, 1));
  Bytes bad = out.view();
  for (const std::uint8_t byte : {0b00010000, 0b10110000}) {
    bad[7] = byte;  // behind flag, count, and five heads
    CHECK(decoded(bad, back) == Status::bad_section);
  }
}

TEST_CASE("the sample is spread over the tensor and stays inside it") {
  for (const std::int64_t elements : {1, 64, 16384, 16385, 16448, 1000000, 123456789}) {
    const std::int64_t size = sample_size(elements);
    CHECK(size <= elements);
    std::int64_t last = -1;
    for (std::int64_t i = 0; i < size; ++i) {
      REQUIRE(sample_element(i, elements) > last);
      last = sample_element(i, elements);
    }
    CHECK(last < elements);
    CHECK(last >= elements - elements / 200 - 129);
  }
}

#if defined(__x86_64__)
namespace {

template <class Word>
void check_kernels() {
  const PlaneKernels<Word> plain = portable_plane_kernels<Word>();
  const PlaneKernels<Word> wide = avx512_plane_kernels<Word>();
  constexpr std::size_t width = sizeof(Word);
  std::mt19937 random(9);
  for (const std::int64_t count : {0, 1, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 200, 2048, 5001}) {
    for (const unsigned zeros : {0u, 1u, 2u, 7u}) {  // one in how many
      CAPTURE(width, count, zeros);
      const auto room = static_cast<std::size_t>(count) + 64;
      std::vector<Word> words(static_cast<std::size_t>(count));
      for (Word& word : words)
        word = zeros != 0 && random() % zeros == 0 ? Word{0} : static_cast<Word>(random() | 1);

      for (const bool rotated : {false, true}) {
        for (unsigned chosen = 0; chosen < 1u << width; ++chosen) {  // planes that are asked for
          std::vector<std::uint8_t> planes[2][width];
          for (int k = 0; k < 2; ++k) {
            std::uint8_t* targets[width];
            for (std::size_t p = 0; p < width; ++p) {
              planes[k][p].assign(room, 0xAA);
              targets[p] = chosen >> p & 1 ? planes[k][p].data() : nullptr;
            }
            (k == 0 ? plain : wide).split(words.data(), count, rotated, targets);
          }
          for (std::size_t p = 0; p < width; ++p) REQUIRE(planes[0][p] == planes[1][p]);
          if (chosen + 1 != 1u << width) continue;
          const std::uint8_t* sources[width];
          for (std::size_t p = 0; p < width; ++p) sources[p] = planes[0][p].data();
          for (const auto& kernels : {plain, wide}) {
            std::vector<Word> back(room, Word{77});
            kernels.join(sources, count, rotated, back.data());
            REQUIRE(std::equal(words.begin(), words.end(), back.begin()));
            REQUIRE(std::count(back.begin() + count, back.end(), Word{77}) == 64);
          }
        }
      }

      std::vector<Word> kept[2];
      std::vector<std::uint8_t> masks[2];
      std::int64_t ones[2];
      for (int k = 0; k < 2; ++k) {
        const auto& kernels = k == 0 ? plain : wide;
        kept[k].assign(room, Word{0});
        masks[k].assign(room, 0xAA);
        ones[k] = kernels.keep(words.data(), count, kept[k].data());
        kept[k].resize(static_cast<std::size_t>(ones[k]));
        REQUIRE(kernels.mask(words.data(), count, masks[k].data()) == ones[k]);
      }
      REQUIRE(kept[0] == kept[1]);
      REQUIRE(masks[0] == masks[1]);
      kept[0].resize(room);
      for (const auto& kernels : {plain, wide}) {
        const std::int64_t whole = count & ~std::int64_t{7};
        std::vector<Word> back(room, Word{77});
        const std::int64_t taken =
            kernels.expand(kept[0].data(), masks[0].data(), whole, back.data());
        REQUIRE(taken == std::count_if(words.begin(), words.begin() + whole,
                                       [](Word word) { return word != 0; }));
        REQUIRE(std::equal(words.begin(), words.begin() + whole, back.begin()));
        REQUIRE(back[static_cast<std::size_t>(whole)] == Word{77});
      }
    }
  }
}

}  // namespace

TEST_CASE("the versions of the loops over planes for newer processors compute the same") {
  if (!has_avx512_bytes()) return;
  check_kernels<std::uint16_t>();
  check_kernels<std::uint32_t>();
}
#endif
