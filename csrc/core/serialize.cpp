#include "core/serialize.h"

#include <cstring>
#include <numeric>

namespace lmgc {
namespace {

// What fills the longest separator, with room to spare below 2^63 for every size in items.
constexpr std::int64_t most_bytes = std::int64_t{1} << 60;

bool has_separators(const SerializeOptions& options) {
  return separator_text(options.separator)[0] != '\0';
}

// `width` items make a separator.
std::optional<SerializedLayout> layout_of(std::int64_t elements, FloatFormat format,
                                          const SerializeOptions& options, int width) {
  if (elements < 0 || elements > most_bytes / std::max<int>(format.bytes, 1)) return std::nullopt;
  SerializedLayout layout;
  layout.bytes = elements * format.bytes;
  layout.items_per_byte = 8 / symbol_bits(options.separator);
  // Element sizes are powers of two, so turning an element round is an exclusive or.
  if (options.byte_order == ByteOrder::big) layout.byte_flip = serialized_format(format).bytes - 1;
  const bool prefix = options.separator == Separator::hex_prefix;
  if (has_separators(options)) {
    if (options.bytes_per_group != 0) {
      layout.group_bytes = options.bytes_per_group;
      layout.unit_bytes = 8 / layout.group_bytes * layout.group_bytes;
      (prefix ? layout.before : layout.after) = width;
    } else if (prefix) {
      layout.head = width;
    }
  }
  const int groups_per_unit = layout.unit_bytes / layout.group_bytes;
  layout.unit_items =
      layout.unit_bytes * layout.items_per_byte + groups_per_unit * (layout.before + layout.after);
  if (layout.bytes > 0) {
    const std::int64_t groups = (layout.bytes + layout.group_bytes - 1) / layout.group_bytes;
    layout.items = layout.head + layout.bytes * layout.items_per_byte + groups * layout.before +
                   (groups - 1) * layout.after;
  }
  return layout;
}

}  // namespace

const char* separator_text(Separator separator) {
  switch (separator) {
    case Separator::space:
      return " ";
    case Separator::comma:
      return ",";
    case Separator::comma_space:
      return ", ";
    case Separator::semicolon:
      return ";";
    case Separator::hex_prefix:
      return "0x";
    case Separator::none:
    case Separator::iso_8859_1:
      break;
  }
  return "";
}

TokenPattern token_pattern(int element_bytes, const SerializeOptions& options) {
  const bool separated = has_separators(options) && options.bytes_per_group != 0;
  const bool prefix = options.separator == Separator::hex_prefix;
  const int group_bytes = separated ? options.bytes_per_group : element_bytes;
  const int symbols_per_byte = 8 / symbol_bits(options.separator);
  const int period_bytes = std::lcm(element_bytes, group_bytes);

  TokenPattern pattern;
  pattern.elements = period_bytes / element_bytes;
  for (int byte = 0; byte < period_bytes; ++byte) {
    const int element = byte / element_bytes;
    if (separated && prefix && byte % group_bytes == 0) pattern.tokens.push_back({element, -1});
    for (int i = 0; i < symbols_per_byte; ++i) {
      pattern.tokens.push_back({element, byte % element_bytes * symbols_per_byte + i});
    }
    if (separated && !prefix && (byte + 1) % group_bytes == 0) {
      pattern.tokens.push_back({element, -1});
    }
  }
  return pattern;
}

std::optional<SerializedLayout> text_layout(std::int64_t elements, FloatFormat format,
                                            const SerializeOptions& options) {
  const char* const text = separator_text(options.separator);
  const int width = static_cast<int>(std::strlen(text));
  auto layout = layout_of(elements, format, options, width);
  if (layout) {
    for (int i = 0; i < width; ++i) {
      layout->separator[i] = static_cast<unsigned char>(text[i]);
    }
  }
  return layout;
}

std::optional<SerializedLayout> token_layout(std::int64_t elements, FloatFormat format,
                                             const SerializeOptions& options) {
  auto layout = layout_of(elements, format, options, 1);
  if (layout) layout->separator[0] = separator_token;
  return layout;
}

std::optional<std::int64_t> text_size(std::int64_t elements, FloatFormat format,
                                      const SerializeOptions& options) {
  const auto layout = text_layout(elements, format, options);
  return layout ? std::optional(layout->items) : std::nullopt;
}

std::optional<std::int64_t> token_count(std::int64_t elements, FloatFormat format,
                                        const SerializeOptions& options) {
  const auto layout = token_layout(elements, format, options);
  return layout ? std::optional(layout->items) : std::nullopt;
}

int separator_index(const SerializedLayout& layout, std::int64_t item) {
  if (item < layout.head) return static_cast<int>(item);
  const int digits = layout.group_bytes * layout.items_per_byte;
  const auto place =
      static_cast<int>((item - layout.head) % (layout.before + digits + layout.after));
  if (place < layout.before) return place;
  const int past_digits = place - layout.before - digits;
  return past_digits >= 0 ? past_digits : -1;
}

}  // namespace lmgc
