// Lists of tensors coded with method `planes` by csrc/cuda on some device (device_cases.h says what
// it has) and by csrc/core, which must agree.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/planes.h"
#include "cuda/planes.h"
#include "plane_cases.h"
#include "stream_cases.h"

namespace lmgc::test {

using Bytes = std::vector<std::uint8_t>;

inline Bytes encoded(const Tensor& tensor) {
  return encode_planes(tensor.words.data(), tensor.elements, tensor.format, run_serially);
}

inline Status decoded(const Bytes& section, Tensor& tensor) {
  return decode_planes(section.data(), section.size(), tensor.elements, tensor.format,
                       tensor.words.data(), run_serially);
}

// All tensors at once; sections lie anywhere, elements are aligned.
template <class Device>
std::vector<Bytes> encoded_on(Device&& device, const std::vector<Tensor>& tensors) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::PlanesInput> inputs;
  for (const Tensor& tensor : tensors) {
    void* const data = device.allocate(tensor.bytes());
    device.write(data, tensor.words.data(), tensor.bytes());
    inputs.push_back({data, tensor.elements, tensor.format});
  }
  cuda::PlanesEncoder encoder;
  REQUIRE(encoder.prepare(inputs, run_backwards, allocate, nullptr) == 0);
  std::vector<cuda::PlanesTarget> targets;
  for (std::size_t k = tensors.size(); k-- > 0;) {
    const std::size_t offset = k % 4;
    auto* const room = static_cast<std::uint8_t*>(device.allocate(encoder.size(k) + offset));
    targets.push_back({k, room + offset});
  }
  REQUIRE(encoder.write(targets, allocate, nullptr) == 0);
  std::vector<Bytes> sections(tensors.size());
  for (const auto& [k, out] : targets) {
    sections[k].resize(encoder.size(k));
    device.read(sections[k].data(), out, sections[k].size());
  }
  return sections;
}

// Into `tensors`, all at once.
template <class Device>
std::vector<Status> decoded_on(Device&& device, const std::vector<Bytes>& sections,
                               std::vector<Tensor>& tensors) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::PlanesSource> sources;
  std::vector<void*> outs(tensors.size());  // null where no room was asked for
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const std::size_t offset = (k + 1) % 4;
    auto* const section =
        static_cast<std::uint8_t*>(device.allocate(sections[k].size() + offset)) + offset;
    device.write(section, sections[k].data(), sections[k].size());
    sources.push_back({section, sections[k].size(), tensors[k].elements, tensors[k].format,
                       [&device, &tensors, &outs, k] {
                         REQUIRE(outs[k] == nullptr);
                         return outs[k] = device.allocate(tensors[k].bytes());
                       }});
  }
  std::vector<Status> statuses;
  REQUIRE(cuda::decode_planes(sources, allocate, nullptr, statuses) == 0);
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    if (outs[k] != nullptr) device.read(tensors[k].words.data(), outs[k], tensors[k].bytes());
  }
  return statuses;
}

// Both ways, against csrc/core.
template <class Device>
void check_device(const std::vector<Tensor>& tensors) {
  const std::vector<Bytes> sections = encoded_on(Device(), tensors);
  std::vector<Tensor> back;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    CAPTURE(k, tensors[k].elements, int{tensors[k].format.bytes}, tensors[k].format.is_float());
    REQUIRE(sections[k] == encoded(tensors[k]));
    back.emplace_back("random", tensors[k].elements, tensors[k].format);
  }
  REQUIRE(decoded_on(Device(), sections, back) == std::vector<Status>(tensors.size(), Status::ok));
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    CAPTURE(k, tensors[k].elements, int{tensors[k].format.bytes}, tensors[k].format.is_float());
    REQUIRE(std::memcmp(back[k].words.data(), tensors[k].words.data(), tensors[k].bytes()) == 0);
  }
}

// The tensors of all kinds and formats with these numbers of elements, a list of each kind.
template <class Device>
void check_device_kinds(const std::vector<std::int64_t>& sizes) {
  for (const auto& kind : tensor_kinds) {
    CAPTURE(kind);
    std::vector<Tensor> tensors;
    for (const std::int64_t elements : sizes) {
      for (const FloatFormat format : formats) tensors.emplace_back(kind, elements, format);
    }
    check_device<Device>(tensors);
  }
}

// A list of good sections and damaged ones: what is refused is what the CPU refuses, and nothing
// else. Damaged ones are about `limit` of each kind and size.
template <class Device>
void check_device_damage(const std::vector<std::int64_t>& sizes, FloatFormat format,
                         std::size_t limit) {
  for (const auto& kind : tensor_kinds) {
    for (const std::int64_t elements : sizes) {
      CAPTURE(kind, elements, int{format.bytes});
      const Tensor tensor(kind, elements, format);
      const Bytes good = encoded(tensor);
      std::vector<Bytes> sections(1, good);
      for_each_damage(good, limit, [&](const Bytes& bad) { sections.push_back(bad); });
      sections.push_back(good);
      std::vector<Tensor> by_device(sections.size(), tensor);
      const std::vector<Status> statuses = decoded_on(Device(), sections, by_device);
      for (std::size_t k = 0; k < sections.size(); ++k) {
        Tensor by_core = tensor;
        const Status status = decoded(sections[k], by_core);
        REQUIRE((statuses[k] == Status::ok) == (status == Status::ok));
        if (status == Status::ok) REQUIRE(by_device[k].words == by_core.words);
      }
      REQUIRE(statuses.front() == Status::ok);
      REQUIRE(statuses.back() == Status::ok);
    }
  }
}

}  // namespace lmgc::test
