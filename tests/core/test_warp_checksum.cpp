// Checksums by the device's code, on an emulated device.
#include <catch2/catch.hpp>

#include "device_checksum_cases.h"
#include "emulated_device.h"

TEST_CASE("warps compute the CPU's checksums") {
  lmgc::test::check_device_checksums(lmgc::test::EmulatedDevice());
}
