// The survey of tensors on a GPU.
#include <catch2/catch.hpp>

#include "../core/device_survey_cases.h"
#include "cuda_device.h"

TEST_CASE("the device finds the bits that tensors use, and whether their lines live") {
  if (lmgc::test::no_device()) return;
  for (const std::int64_t most : {std::int64_t{1}, std::int64_t{4096}, std::int64_t{1} << 40})
    lmgc::test::check_survey(lmgc::test::CudaDevice(), lmgc::test::survey_cases(), most);
}
