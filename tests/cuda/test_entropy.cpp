// The device must write the CPU's coded streams and read them.
#include <catch2/catch.hpp>

#include "../core/device_stream_cases.h"
#include "cuda_device.h"

using namespace lmgc;
using test::CudaDevice;

TEST_CASE("the device writes the CPU's streams and reads them") {
  if (test::no_device()) return;
  for (const int segment_bits : {5, 6, 7, 8})
    test::check_device_streams<CudaDevice>(segment_bits, {0, 1, 300, 5000, 65537, 3000001});
}

TEST_CASE("the device refuses the damaged streams that the CPU refuses") {
  if (test::no_device()) return;
  test::check_device_stream_damage<CudaDevice>({1, 300, 3000, 70000}, 100);
}
