#include "ops/options.h"

#include <c10/util/Exception.h>

#include <array>
#include <string>
#include <utility>

namespace lmgc::ops {
namespace {

template <class Value, std::size_t Count>
using Names = std::array<std::pair<std::string_view, Value>, Count>;

constexpr Names<Separator, 7> separators{{{"none", Separator::none},
                                          {"space", Separator::space},
                                          {"comma", Separator::comma},
                                          {"comma_space", Separator::comma_space},
                                          {"semicolon", Separator::semicolon},
                                          {"0x", Separator::hex_prefix},
                                          {"iso-8859-1", Separator::iso_8859_1}}};

constexpr Names<ByteOrder, 2> byte_orders{{{"big", ByteOrder::big}, {"little", ByteOrder::little}}};

constexpr Names<WindowKind, 2> windows{
    {{"disjoint", WindowKind::disjoint}, {"sliding", WindowKind::sliding}}};

template <class Value, std::size_t Count>
const char* name_of(Value given, const Names<Value, Count>& names) {
  for (const auto& [name, value] : names) {
    if (value == given) return name.data();  // a literal: null-terminated
  }
  return "unknown";
}

template <class Value, std::size_t Count>
Value parse(const char* option, std::string_view given, const Names<Value, Count>& names) {
  std::string legal;
  for (const auto& [name, value] : names) {
    if (name == given) return value;
    if (!legal.empty()) legal += ", ";
    legal.append("'").append(name).append("'");
  }
  TORCH_CHECK_VALUE(false, option, " is '", given, "'; it must be one of ", legal);
}

}  // namespace

Separator parse_separator(std::string_view separator) {
  return parse("separator", separator, separators);
}

const char* separator_name(Separator separator) { return name_of(separator, separators); }

WindowKind parse_window(std::string_view window) { return parse("window", window, windows); }

const char* window_name(WindowKind window) { return name_of(window, windows); }

ByteOrder parse_byte_order(std::string_view byte_order) {
  return parse("byte_order", byte_order, byte_orders);
}

SerializeOptions parse_options(std::string_view separator, std::int64_t bytes_per_group,
                               std::string_view byte_order) {
  const bool known = (bytes_per_group >= 0 && bytes_per_group <= 4) || bytes_per_group == 8;
  TORCH_CHECK_VALUE(known, "bytes_per_group is ", bytes_per_group,
                    "; it must be one of 1, 2, 3, 4, 8, or 0 for one group");
  return {parse_separator(separator), static_cast<std::uint8_t>(bytes_per_group),
          parse_byte_order(byte_order)};
}

}  // namespace lmgc::ops
