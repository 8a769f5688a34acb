// The device must write the sections of methods `scale` and `lowrank` that the CPU writes, and read
// them.
#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "../core/device_cases.h"
#include "cuda_device.h"

namespace {

using namespace lmgc;
using test::Bytes;
using test::CudaDevice;
using test::LiveCase;
using Sizes = std::vector<std::int64_t>;

void check(const std::string& kind, const Sizes& sizes, FloatFormat format, std::int64_t rank) {
  CAPTURE(kind, sizes, int{format.bytes}, int{format.mantissa_bits}, rank);
  const LiveCase own(kind, sizes, format, rank);
  test::check_device<CudaDevice>({own}, rank > 0 ? rans::block_symbols : 1 << 23);
}

}  // namespace

TEST_CASE("the device writes the CPU's fixed sections and reads them") {
  if (test::no_device()) return;
  for (const auto& kind : test::live_kinds) {
    for (const FloatFormat format : test::float_formats) {
      for (const std::int64_t elements : {1, 31, 513, 4097, 16385, 65536, 70001})
        check(kind, {elements}, format, 0);
      for (const Sizes& sizes :
           std::vector<Sizes>{{2, 16}, {40, 50}, {2, 70000}, {5000, 17}, {300, 700}}) {
        check(kind, sizes, format, 0);
        check(kind, sizes, format, 2);
      }
    }
  }
}

TEST_CASE("the device writes the CPU's fixed sections and reads them: lists") {
  if (test::no_device()) return;
  std::vector<LiveCase> cases;
  for (const FloatFormat format : test::float_formats) {
    for (const auto& kind : test::live_kinds) {
      cases.emplace_back(kind, Sizes{70001}, format, 0);
      cases.emplace_back(kind, Sizes{40, 50}, format, 0);
      cases.emplace_back(kind, Sizes{300, 700}, format, 2);
    }
  }
  test::check_device<CudaDevice>(cases, rans::block_symbols);
}

TEST_CASE("the device refuses the damaged fixed sections that the CPU refuses") {
  if (test::no_device()) return;
  for (const std::int64_t rank : {0, 2})
    test::check_device_damage<CudaDevice>(
        LiveCase("any", {30, 60}, float_format(DType::float32), rank), 20);
}
