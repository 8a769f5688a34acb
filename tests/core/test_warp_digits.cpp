// The device's code for methods `scale` and `lowrank`, run by an emulated device: everything but
// the launches and a warp's own instructions is what a GPU runs, and it must write the CPU's bytes.
#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "cuda/fixed.h"
#include "cuda/memory.h"
#include "device_cases.h"
#include "emulated_device.h"

namespace {

using namespace lmgc;
using test::Bytes;
using test::EmulatedDevice;
using test::LiveCase;
using Sizes = std::vector<std::int64_t>;

void check(const std::string& kind, const Sizes& sizes, FloatFormat format, std::int64_t rank,
           int factor_bits = 5) {
  CAPTURE(kind, sizes, int{format.bytes}, int{format.mantissa_bits}, rank, factor_bits);
  const LiveCase own(kind, sizes, format, rank, factor_bits);
  test::check_device<EmulatedDevice>(own, rank > 0 ? rans::block_symbols : 1 << 23);
}

}  // namespace

TEST_CASE("warps write the CPU's sections and read them: all kinds of elements") {
  for (const auto& kind : test::live_kinds) {
    for (const FloatFormat format : test::float_formats) {
      check(kind, {1}, format, 0);
      check(kind, {3000}, format, 0);
      check(kind, {40, 50}, format, 0);
      check(kind, {90, 100}, format, 3);
      check(kind, {20, 4500}, format, 2);
    }
  }
}

TEST_CASE("warps write the CPU's sections and read them: all numbers of lanes") {
  const FloatFormat format = float_format(DType::bfloat16);
  for (const std::int64_t elements :
       {1,     2,     31,    32,    33,    255,   256,   257,   511,   512,    513,
        1023,  1024,  1025,  2047,  2048,  4095,  4096,  4097,  8191,  8192,   16383,
        16384, 16415, 65535, 65536, 65537, 66047, 66048, 69632, 70001, 131073, 200000}) {
    for (const auto& kind : {"noise", "any"}) check(kind, {elements}, format, 0);
  }
}

TEST_CASE("warps write the CPU's sections and read them: all shapes") {
  for (const FloatFormat format : {float_format(DType::float32), float_format(DType::float16)}) {
    for (const Sizes& sizes : std::vector<Sizes>{
             {2, 16}, {2, 70000}, {5000, 17}, {513, 129}, {64, 1024}, {1030, 64}, {3, 4097}}) {
      check("noise", sizes, format, 0);
      check("outlier", sizes, format, 1);
    }
  }
}

TEST_CASE("warps follow wide and narrow predictions") {
  for (const int bits : {0, 1, 10, 18}) {
    for (const FloatFormat format : test::float_formats)
      check("outlier", {80, 300}, format, 4, bits);
  }
}

TEST_CASE("warps refuse the damaged sections that the CPU refuses") {
  for (const std::int64_t rank : {0, 2}) {
    for (const FloatFormat format : {float_format(DType::bfloat16), float_format(DType::float64)}) {
      const LiveCase own("any", {30, 60}, format, rank);
      const Bytes good = test::encoded(own);
      int accepted = 0, refused = 0;
      test::for_each_damage(good, 40, [&](const Bytes& bad) {
        std::vector<std::uint64_t> by_core, by_device;
        const Status status = test::decoded(bad, own, by_core);
        const Status other =
            test::decoded_on(EmulatedDevice(), bad, 1, own, rans::block_symbols, by_device);
        REQUIRE(other == status);
        if (status == Status::ok) REQUIRE(by_device == by_core);
        ++(status == Status::ok ? accepted : refused);
      });
      CHECK(accepted > 0);
      CHECK(refused > 0);
    }
  }
}

TEST_CASE("warps refuse parts of other sizes, and bits behind the tails") {
  const LiveCase own("any", {30, 60}, float_format(DType::float32), 0);
  const Bytes good = test::encoded(own);
  const auto check_refused = [&](const Bytes& section, const test::Moved& moved) {
    std::vector<std::uint64_t> words;
    CHECK(test::decoded(section, own, words, moved) == Status::bad_stream);
    CHECK(test::decoded_on(EmulatedDevice(), section, 0, own, 1 << 23, words, moved) ==
          Status::bad_stream);
  };
  check_refused(good, {0, 1, -1});
  check_refused(good, {0, -1, 1});
  check_refused(good, {1, 0, -2});
  check_refused(good, {-1, 0, 2});
  check_refused(good, {-1, 2, 0});
  check_refused(good, {0, 0, -1});
  Bytes longer = good;
  longer.back() ^= 0x80;  // the last bit of the padding, here
  check_refused(longer, {});
}

TEST_CASE("an allocation that fails ends the encoder") {
  const LiveCase own("noise", {40, 50}, float_format(DType::float32), 2);
  EmulatedDevice device;
  std::vector<std::uint64_t> words = own.words;
  for (int left = 0;; ++left) {
    int remaining = left;
    const auto allocate = [&](std::size_t bytes) {
      return remaining-- > 0 ? device.allocate(bytes) : nullptr;
    };
    cuda::FixedEncoder encoder;
    const int error = encoder.prepare(
        own.input(words.data()), own.head,
        test::device_product(device, own.head, own.shape.columns, rans::block_symbols),
        run_serially, allocate, nullptr);
    if (error == 0) break;
    REQUIRE(error == cuda::out_of_memory());
    REQUIRE(encoder.size() == 0);
    REQUIRE(left < 100);
  }
}
