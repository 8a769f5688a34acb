// The device must write the sections of method `planes` that the CPU writes, byte for byte, and
// read them back.
#include <catch2/catch.hpp>

#include "../core/device_plane_cases.h"
#include "cuda_device.h"

using namespace lmgc;
using test::CudaDevice;

TEST_CASE("the device writes the CPU's sections and reads them") {
  if (test::no_device()) return;
  test::check_device_kinds<CudaDevice>(
      {0, 1, 31, 64, 1000, 4095, 4097, 16385, 65536, 70001, 1000003});
}

TEST_CASE("the device refuses the damaged sections that the CPU refuses") {
  if (test::no_device()) return;
  for (const FloatFormat format : {float_format(DType::bfloat16), float_format(DType::float32)})
    test::check_device_damage<CudaDevice>({9, 1000, 66000}, format, 20);
}
