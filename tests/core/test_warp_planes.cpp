// Method `planes` by the device's code, on an emulated device: its sections must be the CPU's.
#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "cuda/planes.h"
#include "device_plane_cases.h"
#include "emulated_device.h"

using namespace lmgc;
using test::EmulatedDevice;
using test::Tensor;

TEST_CASE("warps write the CPU's planes and read them: all kinds and formats") {
  test::check_device_kinds<EmulatedDevice>({0, 1, 31, 32, 33, 64, 1000, 1023, 1024, 1025, 4097,
                                            16383, 16384, 16385, 16448, 65536, 70001});
}

TEST_CASE("warps add up the counts of many chunks") {
  // 1024 chunks are a stretch.
  const FloatFormat format = float_format(DType::bfloat16);
  for (const std::int64_t elements : {1 << 20, (1 << 20) + 1, 2500000}) {
    test::check_device<EmulatedDevice>(
        {Tensor("rows zero", elements, format), Tensor("few zero", 5000, format)});
  }
}

TEST_CASE("warps refuse the damaged planes that the CPU refuses") {
  for (const FloatFormat format : {float_format(DType::uint8), float_format(DType::bfloat16),
                                   float_format(DType::float32), float_format(DType::complex128)}) {
    test::check_device_damage<EmulatedDevice>({0, 1, 9, 130, 1000}, format, 200);
  }
  test::check_device_damage<EmulatedDevice>({66000}, float_format(DType::float32), 20);
}

TEST_CASE("warps ask for no room where a head or a size is wrong") {
  const Tensor tensor("rows zero", 5000, float_format(DType::float32));
  test::Bytes good = test::encoded(tensor);
  test::Bytes cut = good, other_flags = good, longer = good;
  cut.pop_back();
  other_flags[0] = 0xFF;
  longer.push_back(0);
  EmulatedDevice device;
  std::vector<int> asked(4);
  std::vector<Tensor> back(4, tensor);
  std::vector<cuda::PlanesSource> sources;
  for (const test::Bytes* section : {&cut, &good, &other_flags, &longer}) {
    const std::size_t k = sources.size();
    sources.push_back(
        {section->data(), section->size(), tensor.elements, tensor.format, [&asked, &back, k] {
           ++asked[k];
           return static_cast<void*>(back[k].words.data());
         }});
  }
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<Status> statuses;
  REQUIRE(cuda::decode_planes(sources, allocate, nullptr, statuses) == 0);
  CHECK(asked == std::vector<int>{0, 1, 0, 0});
  CHECK(statuses == std::vector<Status>{Status::truncated, Status::ok, Status::bad_section,
                                        Status::bad_section});
}

TEST_CASE("a long list takes as many launches and waits as one tensor") {
  const auto counts_of = [](std::size_t tensors) {
    const FloatFormat format = float_format(DType::float32);
    std::vector<Tensor> list(tensors, Tensor("rows zero", 20000, format));
    list.emplace_back("gradient", 100, format);
    const test::DeviceCounts before = test::device_counts();
    const auto sections = test::encoded_on(EmulatedDevice(), list);
    const test::DeviceCounts between = test::device_counts();
    REQUIRE(test::decoded_on(EmulatedDevice(), sections, list) ==
            std::vector<Status>(list.size(), Status::ok));
    const test::DeviceCounts after = test::device_counts();
    return std::vector<std::int64_t>{
        between.waits - before.waits, between.launches - before.launches,
        after.waits - between.waits, after.launches - between.launches};
  };
  CHECK(counts_of(1) == counts_of(30));
  CHECK(counts_of(30)[0] == 8);  // what cuda/planes.h says
  CHECK(counts_of(30)[2] == 3);
}

TEST_CASE("an allocation that fails ends method planes") {
  const std::vector<Tensor> tensors = {Tensor("rows zero", 30000, float_format(DType::float32)),
                                       Tensor("gradient", 30000, float_format(DType::bfloat16))};
  test::ScarceDevice device;
  const cuda::Allocate allocate = device.allocate();
  std::vector<cuda::PlanesInput> inputs;
  for (const Tensor& tensor : tensors)
    inputs.push_back({tensor.words.data(), tensor.elements, tensor.format});
  cuda::PlanesEncoder encoder;
  CHECK(device.needed([&] { return encoder.prepare(inputs, run_serially, allocate, nullptr); }) >
        3);
  std::vector<test::Bytes> sections;
  std::vector<cuda::PlanesTarget> targets;
  for (std::size_t k = 0; k < tensors.size(); ++k) sections.emplace_back(encoder.size(k));
  for (std::size_t k = 0; k < tensors.size(); ++k) targets.push_back({k, sections[k].data()});
  device.allow(0);
  CHECK(encoder.write(targets, allocate, nullptr) == cuda::out_of_memory());
  device.allow(1000);
  CHECK(encoder.write(targets, allocate, nullptr) == 0);
  std::vector<Tensor> back = tensors;
  std::vector<cuda::PlanesSource> sources;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    CHECK(sections[k] == test::encoded(tensors[k]));
    sources.push_back({sections[k].data(), sections[k].size(), back[k].elements, back[k].format,
                       [&back, k] { return static_cast<void*>(back[k].words.data()); }});
  }
  std::vector<Status> statuses;
  CHECK(device.needed([&] { return cuda::decode_planes(sources, allocate, nullptr, statuses); }) >
        3);
}
