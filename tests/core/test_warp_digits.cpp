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
  test::check_device<EmulatedDevice>({own}, rank > 0 ? rans::block_symbols : 1 << 23);
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

TEST_CASE("warps write the CPU's sections and read them: lists") {
  std::vector<LiveCase> cases;
  for (const FloatFormat format : test::float_formats) {
    for (const auto& kind : {"noise", "zeros", "any"}) {
      cases.emplace_back(kind, Sizes{1}, format, 0);
      cases.emplace_back(kind, Sizes{70001}, format, 0);
      cases.emplace_back(kind, Sizes{90, 100}, format, 3);
      cases.emplace_back(kind, Sizes{2, 16}, format, 0);
      cases.emplace_back(kind, Sizes{5000, 17}, format, 0);
      cases.emplace_back(kind, Sizes{100, 1500}, format, 2);
      cases.emplace_back(kind, Sizes{3, 4097}, format, 0);
    }
  }
  test::check_device<EmulatedDevice>(cases, rans::block_symbols);
  test::check_device<EmulatedDevice>({}, rans::block_symbols);
}

TEST_CASE("a long list of matrices takes as many launches and waits as one") {
  const auto counts_of = [](std::size_t matrices) {
    const FloatFormat format = float_format(DType::float32);
    std::vector<LiveCase> list(matrices, LiveCase("noise", {30, 500}, format, 0));
    list.emplace_back("zeros", Sizes{100}, format, 0);
    const test::DeviceCounts before = test::device_counts();
    const auto sections = test::encoded_on(EmulatedDevice(), list, 1 << 23);
    const test::DeviceCounts between = test::device_counts();
    std::vector<std::vector<std::uint64_t>> words;
    REQUIRE(test::decoded_on(EmulatedDevice(), sections, 0, list, 1 << 23, words) ==
            std::vector<Status>(list.size(), Status::ok));
    const test::DeviceCounts after = test::device_counts();
    return std::vector<std::int64_t>{
        between.waits - before.waits, between.launches - before.launches,
        after.waits - between.waits, after.launches - between.launches};
  };
  CHECK(counts_of(1) == counts_of(30));
  CHECK(counts_of(30)[0] == 12);  // what cuda/fixed.h says
  CHECK(counts_of(30)[2] == 1);
}

TEST_CASE("warps refuse the damaged sections that the CPU refuses") {
  for (const std::int64_t rank : {0, 2}) {
    for (const FloatFormat format : {float_format(DType::bfloat16), float_format(DType::float64)})
      test::check_device_damage<EmulatedDevice>(LiveCase("any", {30, 60}, format, rank), 40);
  }
}

TEST_CASE("warps refuse parts of other sizes, and bits behind the tails") {
  const LiveCase own("any", {30, 60}, float_format(DType::float32), 0);
  const Bytes good = test::encoded(own);
  const auto check_refused = [&](const Bytes& section, const test::Moved& moved) {
    std::vector<std::uint64_t> by_core;
    std::vector<std::vector<std::uint64_t>> by_device;
    CHECK(test::decoded(section, own, by_core, moved) == Status::bad_stream);
    CHECK(test::decoded_on(EmulatedDevice(), {section}, 0, {own}, 1 << 23, by_device, moved) ==
          std::vector<Status>{Status::bad_stream});
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

TEST_CASE("an allocation that fails ends methods scale and lowrank") {
  const std::vector<LiveCase> cases = {LiveCase("noise", {40, 50}, float_format(DType::float32), 2),
                                       LiveCase("any", {3000}, float_format(DType::bfloat16), 0)};
  test::ScarceDevice device;
  const cuda::Allocate allocate = device.allocate();
  std::vector<std::vector<std::uint64_t>> words;
  std::vector<cuda::FixedMatrix> matrices;
  for (const LiveCase& own : cases) words.push_back(own.words);
  for (std::size_t k = 0; k < cases.size(); ++k) {
    const LiveCase& own = cases[k];
    matrices.push_back(
        {own.input(words[k].data()), own.head,
         test::device_product(device.device(), own.head, own.shape.columns, rans::block_symbols)});
  }
  cuda::FixedEncoder encoder;
  CHECK(device.needed([&] {
    const int error = encoder.prepare(matrices, run_serially, allocate, nullptr);
    if (error != 0) REQUIRE(encoder.size(0) == 0);
    return error;
  }) > 3);
  std::vector<Bytes> sections;
  std::vector<cuda::FixedTarget> targets;
  for (std::size_t k = 0; k < cases.size(); ++k) sections.emplace_back(encoder.size(k));
  for (std::size_t k = 0; k < cases.size(); ++k) targets.push_back({k, sections[k].data()});
  device.allow(0);
  CHECK(encoder.write(targets, allocate, nullptr) == cuda::out_of_memory());
  device.allow(1000);
  CHECK(encoder.write(targets, allocate, nullptr) == 0);
  std::vector<FixedSource> sources(cases.size());
  std::vector<cuda::FixedCoded> coded;
  for (std::size_t k = 0; k < cases.size(); ++k) {
    const LiveCase& own = cases[k];
    CHECK(sections[k] == test::encoded(own));
    REQUIRE(read_fixed(sections[k].data(), sections[k].size(), own.sizes.data(), own.sizes.size(),
                       own.head.predicted(), true, run_serially, sources[k]) == Status::ok);
    coded.push_back({&sources[k], own.format,
                     test::device_product(device.device(), own.head, own.shape.columns, 1 << 23),
                     words[k].data()});
  }
  std::vector<Status> statuses;
  CHECK(device.needed([&] {
    return cuda::decode_fixed(coded, run_serially, allocate, nullptr, statuses);
  }) > 3);
}
