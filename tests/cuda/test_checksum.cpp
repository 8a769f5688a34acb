// The device must compute the CPU's checksums.
#include <catch2/catch.hpp>

#include "../core/device_checksum_cases.h"
#include "cuda_device.h"

TEST_CASE("the device computes the CPU's checksums") {
  if (lmgc::test::no_device()) return;
  lmgc::test::check_device_checksums(lmgc::test::CudaDevice());
}
