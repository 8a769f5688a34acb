// Options as operators take them (names and numbers) to options as csrc/core takes them. Every
// function raises a ValueError that names the legal values.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/serialize.h"
#include "core/windows.h"

namespace lmgc::ops {

// "none", "space", "comma", "comma_space", "semicolon", "0x" or "iso-8859-1".
Separator parse_separator(std::string_view separator);

// "big" or "little".
ByteOrder parse_byte_order(std::string_view byte_order);

// bytes_per_group: 1, 2, 3, 4, 8, or 0 for one group.
SerializeOptions parse_options(std::string_view separator, std::int64_t bytes_per_group,
                               std::string_view byte_order);

// "disjoint" or "sliding".
WindowKind parse_window(std::string_view window);

// The way back.
const char* separator_name(Separator separator);
const char* window_name(WindowKind window);

}  // namespace lmgc::ops
