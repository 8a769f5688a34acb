// Versions of the library and of the frame format.
#pragma once

#include <cstdint>

// The one place where the C++ side states its version; CMakeLists.txt reads this line.
#define LMGC_VERSION "0.1.0"

namespace lmgc {

// Written into every frame. A decoder reads all versions up to its own.
inline constexpr std::uint8_t format_version = 1;

// LMGC_VERSION as compiled into this library, which may differ from the header's.
const char* library_version() noexcept;

}  // namespace lmgc
