// The device must write the sections that the CPU writes, byte for byte, and read them back.
#include <cuda_runtime.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../core/plane_cases.h"
#include "../core/stream_cases.h"
#include "core/planes.h"
#include "cuda/planes.h"
#include "cuda/runtime.h"

namespace {

using namespace lmgc;
using test::Tensor;

using Bytes = std::vector<std::uint8_t>;

// Device memory that lives as long as this.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (void* pointer : all_) cudaFree(pointer);
  }
  void* allocate(std::size_t bytes) {
    void* pointer = nullptr;
    REQUIRE(cudaMalloc(&pointer, bytes) == cudaSuccess);
    all_.push_back(pointer);
    return pointer;
  }
  void* copy_of(const void* host, std::size_t bytes) {
    void* pointer = allocate(bytes + 1);
    REQUIRE(cudaMemcpy(pointer, host, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    return pointer;
  }

 private:
  std::vector<void*> all_;
};

Bytes encoded(const Tensor& tensor) {
  Memory memory;
  const auto allocate = [&](std::size_t bytes) { return memory.allocate(bytes); };
  const void* data = memory.copy_of(tensor.words.data(), tensor.bytes());
  cuda::PlanesEncoder encoder;
  REQUIRE(encoder.prepare(data, tensor.elements, tensor.format, allocate, nullptr) == cudaSuccess);
  Bytes section(encoder.size());
  auto* out = static_cast<std::uint8_t*>(memory.allocate(section.size() + 1)) + 1;  // unaligned
  REQUIRE(encoder.write(out, allocate, nullptr) == cudaSuccess);
  REQUIRE(cudaMemcpy(section.data(), out, section.size(), cudaMemcpyDeviceToHost) == cudaSuccess);
  return section;
}

Status decoded(const Bytes& section, Tensor& tensor) {
  Memory memory;
  const auto allocate = [&](std::size_t bytes) { return memory.allocate(bytes); };
  const auto* data =
      static_cast<const std::uint8_t*>(memory.copy_of(section.data(), section.size()));
  void* out = memory.allocate(tensor.bytes() + 1);
  Status status{};
  cuda::PlanesDecoder decoder;
  REQUIRE(decoder.open(data, section.size(), tensor.elements, tensor.format, nullptr, status) ==
          cudaSuccess);
  if (status != Status::ok) return status;
  REQUIRE(decoder.decode(out, allocate, nullptr, status) == cudaSuccess);
  REQUIRE(cudaMemcpy(tensor.words.data(), out, tensor.bytes(), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
  return status;
}

bool no_device() {
  if (cuda::device_count() > 0) return false;
  WARN("there is no CUDA device here: nothing is tested");
  return true;
}

}  // namespace

TEST_CASE("the device writes the CPU's sections and reads them") {
  if (no_device()) return;
  for (const auto& kind : test::tensor_kinds) {
    for (const FloatFormat format : test::formats) {
      for (const std::int64_t elements :
           {0, 1, 31, 64, 1000, 4095, 4097, 16385, 65536, 70001, 1000003}) {
        CAPTURE(kind, int{format.bytes}, format.is_float(), elements);
        const Tensor tensor(kind, elements, format);
        const Bytes section = encode_planes(tensor.words.data(), elements, format, run_serially);
        CHECK(encoded(tensor) == section);
        Tensor back("random", elements, format);
        CHECK(decoded(section, back) == Status::ok);
        CHECK(std::memcmp(back.words.data(), tensor.words.data(), tensor.bytes()) == 0);
      }
    }
  }
}

TEST_CASE("the device refuses the damaged sections that the CPU refuses") {
  if (no_device()) return;
  for (const auto& kind : test::tensor_kinds) {
    for (const std::int64_t elements : {9, 1000, 66000}) {
      const FloatFormat format = float_format(DType::float32);
      const Tensor tensor(kind, elements, format);
      const Bytes good = encode_planes(tensor.words.data(), elements, format, run_serially);
      test::for_each_damage(good, 20, [&](const Bytes& bad) {
        Tensor by_cpu = tensor, by_device = tensor;
        const Status status = decode_planes(bad.data(), bad.size(), elements, format,
                                            by_cpu.words.data(), run_serially);
        CHECK((decoded(bad, by_device) == Status::ok) == (status == Status::ok));
        if (status == Status::ok) CHECK(by_device.words == by_cpu.words);
      });
    }
  }
}
