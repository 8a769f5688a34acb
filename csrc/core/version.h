// Versions of the library and of the frame format.
#pragma once

#include <cstdint>

// The one place where the C++ side states its version; CMakeLists.txt reads this line.
#define LMGC_VERSION "0.1.0"

namespace lmgc {

// The newest version of the frame format. A decoder reads all versions up to its own; what an
// encoder writes has the oldest version that can express it (required_version in frame.h).
inline constexpr std::uint8_t format_version = 4;

// LMGC_VERSION as compiled into this library, which may differ from the header's.
const char* library_version() noexcept;

}  // namespace lmgc
