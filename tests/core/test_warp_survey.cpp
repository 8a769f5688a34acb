// The device's survey of tensors, on an emulated device.
#include <catch2/catch.hpp>
#include <cstdint>

#include "device_survey_cases.h"
#include "emulated_device.h"

using namespace lmgc;
using test::EmulatedDevice;

TEST_CASE("warps find the bits that tensors use, and whether their lines live") {
  const std::vector<test::SurveyCase> cases = test::survey_cases();
  bool alive = false, dead = false;
  for (const test::SurveyCase& own : cases) {
    test::check_survey(EmulatedDevice(), {own}, FindUsedBits::stretch);
    (own.words[0] == 0 ? dead : alive) = true;
  }
  CHECK(alive);
  CHECK(dead);
  for (const std::int64_t most : {std::int64_t{1}, FindUsedBits::stretch, std::int64_t{1} << 40})
    test::check_survey(EmulatedDevice(), cases, most);
  test::check_survey(EmulatedDevice(), {}, FindUsedBits::stretch);
}

TEST_CASE("a survey of a long list takes two launches and a wait") {
  const std::vector<test::SurveyCase> cases = test::survey_cases();
  const test::DeviceCounts before = test::device_counts();
  test::check_survey(EmulatedDevice(), cases, 10000);
  const test::DeviceCounts after = test::device_counts();
  CHECK(after.launches - before.launches == 2);
  CHECK(after.waits - before.waits == 1);
}
