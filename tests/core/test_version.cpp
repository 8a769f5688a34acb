#include <catch2/catch.hpp>
#include <string>

#include "core/version.h"

TEST_CASE("the library reports the version of its header") {
  REQUIRE(std::string(lmgc::library_version()) == LMGC_VERSION);
}

TEST_CASE("the format version is not zero") { REQUIRE(lmgc::format_version > 0); }
