// The `ieee` serializer: the bits of each element as hexadecimal digits (LM-GC, arXiv 2409.17836,
// section 3.2), grouped and separated, as text and as token ids; and its exact inverse.
//
// The text of a tensor is the concatenation of its groups. A group is the digits of
// `bytes_per_group` consecutive bytes of the tensor (elements in C order, each element's bytes in
// `byte_order`), two lower-case digits a byte, high one first. Separators stand between groups;
// `0x` stands before every group. With iso_8859_1 there are no digits and no separators: every byte
// is the character with that code. A last group may be shorter. The text of no elements is empty.
// docs/format.md is the specification.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "core/float_format.h"
#include "core/host_device.h"

namespace lmgc {

// Codes are part of the frame format.
enum class Separator : std::uint8_t {
  none = 0,
  space = 1,        // " "
  comma = 2,        // ","
  comma_space = 3,  // ", "
  semicolon = 4,    // ";"
  hex_prefix = 5,   // "0x", before the group
  iso_8859_1 = 6,   // one character a byte
};

enum class ByteOrder : std::uint8_t { big = 0, little = 1 };

struct SerializeOptions {
  Separator separator = Separator::none;
  std::uint8_t bytes_per_group = 0;  // 1, 2, 3, 4, 8, or 0: one group for the whole tensor
  ByteOrder byte_order = ByteOrder::big;
};

// Token ids: digits 0..15 (bytes 0..255 with iso_8859_1), and one id for a separator, however many
// characters it has.
inline constexpr int separator_token = 256;

// The characters of a separator; "" for none and iso_8859_1.
const char* separator_text(Separator separator);

// Bits of one symbol: 4 for digits, 8 with iso_8859_1.
LMGC_HD constexpr int symbol_bits(Separator separator) {
  return separator == Separator::iso_8859_1 ? 8 : 4;
}

// The element that the serializer sees: the four floats as themselves, every other type as single
// bytes in memory order (so that `byte_order` does not matter to it).
LMGC_HD constexpr FloatFormat serialized_format(FloatFormat format) {
  return format.is_float() ? format : FloatFormat{1, 0, 0};
}

// Symbols an element is written with.
LMGC_HD constexpr int symbols_per_element(int element_bytes, Separator separator) {
  return 8 * element_bytes / symbol_bits(separator);
}

// How far the bits of symbol `symbol` (in the order of the text) stand above the least significant
// bit of the element.
LMGC_HD constexpr int symbol_shift(int symbol, int element_bytes, const SerializeOptions& options) {
  const int bits = symbol_bits(options.separator);
  const int per_byte = 8 / bits;
  const int byte = options.byte_order == ByteOrder::big ? element_bytes - 1 - symbol / per_byte
                                                        : symbol / per_byte;
  return 8 * byte + 8 - bits * (symbol % per_byte + 1);
}

// ---- the pattern of the tokens
// -------------------------------------------------------------------

// The text of a tensor repeats one pattern of tokens: separators fall on the same places every
// `elements` elements.
struct PatternToken {
  std::int32_t element;  // within the period
  std::int32_t symbol;   // within the element, in the order of the text; -1: a separator
};
struct TokenPattern {
  std::int32_t elements = 1;  // elements in one period: the least number that makes whole groups
  std::vector<PatternToken> tokens;
};

// Separators follow their group (`0x` precedes it), also at the end of the period; a separator
// belongs to the element of the nearest byte of its group. With bytes_per_group == 0 the period is
// one element without separators. `element_bytes` is 1, 2, 4 or 8.
TokenPattern token_pattern(int element_bytes, const SerializeOptions& options);

// ---- whole tensors
// -------------------------------------------------------------------------------

// Where the items of a whole tensor's text (items are characters) or token list (items are tokens)
// stand. The *stream* is the tensor's bytes in the order of the text. It is cut into *units*, a few
// bytes that make whole groups; a call of a function object below does one unit, and units share
// neither bytes nor items.
struct SerializedLayout {
  std::int64_t bytes = 0;           // of the tensor
  std::int64_t items = 0;           // of the text or the token list
  std::int32_t unit_bytes = 8;      // at most 8; the last unit may be shorter
  std::int32_t unit_items = 16;     // of a full unit with all its separators
  std::int32_t group_bytes = 8;     // at most unit_bytes
  std::int32_t items_per_byte = 2;  // 1 with iso_8859_1
  std::int32_t head = 0;            // separator items before the first unit
  std::int32_t before = 0;          // separator items before every group
  std::int32_t after = 0;           // separator items after every group but the last of the tensor
  std::int32_t byte_flip = 0;       // stream position ^ byte_flip is the place in memory
  std::int16_t separator[2] = {};   // the items of a separator

  LMGC_HD constexpr std::int64_t units() const { return (bytes + unit_bytes - 1) / unit_bytes; }
};

// The layouts of `elements` elements of `format`; nothing if elements < 0 or for more than 2^60
// bytes.
std::optional<SerializedLayout> text_layout(std::int64_t elements, FloatFormat format,
                                            const SerializeOptions& options);
std::optional<SerializedLayout> token_layout(std::int64_t elements, FloatFormat format,
                                             const SerializeOptions& options);

// Characters of the text, and tokens of the token list, of `elements` elements; nothing as above.
std::optional<std::int64_t> text_size(std::int64_t elements, FloatFormat format,
                                      const SerializeOptions& options);
std::optional<std::int64_t> token_count(std::int64_t elements, FloatFormat format,
                                        const SerializeOptions& options);

// What stands at item `item` (0 <= item < layout.items): the index of an item of the separator, or
// -1 for a digit or byte. For error messages.
int separator_index(const SerializedLayout& layout, std::int64_t item);

// The value of DeserializeUnits::first_bad before the first call, and after the last one if every
// item was right.
inline constexpr std::int64_t no_bad_item = std::numeric_limits<std::int64_t>::max();

namespace detail {

// Items of text are single bytes, wider items are tokens.
template <class Item>
inline constexpr bool is_text = sizeof(Item) == 1;

template <class Item>
LMGC_HD constexpr int digit_item(int digit) {
  if constexpr (is_text<Item>) return digit < 10 ? '0' + digit : 'a' + digit - 10;
  return digit;
}

// The digit of an item that holds one; some digit for any other item.
template <class Item>
LMGC_HD constexpr int item_digit(Item item) {
  if constexpr (is_text<Item>) return ((item & 15) + 9 * (item >> 6 & 1)) & 15;
  return static_cast<int>(item & 15);
}

// Eight digits, one in each byte, as characters.
LMGC_HD constexpr std::uint64_t digit_characters(std::uint64_t digits) {
  const std::uint64_t letters = (digits + 0x0606060606060606) >> 4 & 0x0101010101010101;
  return digits + 0x3030303030303030 + letters * ('a' - 10 - '0');
}

// Four bytes, the least significant one first, as eight digits in eight bytes.
LMGC_HD constexpr std::uint64_t split_digits(std::uint32_t bytes) {
  std::uint64_t pairs = bytes;
  pairs = (pairs | pairs << 16) & 0x0000ffff0000ffff;
  pairs = (pairs | pairs << 8) & 0x00ff00ff00ff00ff;
  return (pairs >> 4 & 0x000f000f000f000f) | (pairs & 0x000f000f000f000f) << 8;
}

// The inverses; digit_values gives some digits if not all characters are digits.
LMGC_HD constexpr std::uint64_t digit_values(std::uint64_t characters) {
  const std::uint64_t letters = characters >> 6 & 0x0101010101010101;
  return ((characters & 0x0f0f0f0f0f0f0f0f) + letters * 9) & 0x0f0f0f0f0f0f0f0f;
}
LMGC_HD constexpr std::uint32_t join_digits(std::uint64_t digits) {
  std::uint64_t pairs = (digits << 4 & 0x00f000f000f000f0) | (digits >> 8 & 0x000f000f000f000f);
  pairs = (pairs | pairs >> 8) & 0x0000ffff0000ffff;
  return static_cast<std::uint32_t>(pairs | pairs >> 16);
}

// Moves byte i of `word` to place i ^ flip; flip is 0, 1, 3 or 7.
LMGC_HD constexpr std::uint64_t flip_bytes(std::uint64_t word, int flip) {
  if (flip & 1) word = (word >> 8 & 0x00ff00ff00ff00ff) | (word & 0x00ff00ff00ff00ff) << 8;
  if (flip & 2) word = (word >> 16 & 0x0000ffff0000ffff) | (word & 0x0000ffff0000ffff) << 16;
  if (flip & 4) word = word >> 32 | word << 32;
  return word;
}

// Eight bytes at any address. A GPU has no unaligned accesses: there memcpy goes byte by byte,
// unless it is told better.
LMGC_HD inline std::uint64_t load_8(const std::uint8_t* from) {
  std::uint64_t word;
#if defined(__CUDA_ARCH__)
  if (reinterpret_cast<std::uintptr_t>(from) % 8 == 0) {
    return *reinterpret_cast<const std::uint64_t*>(from);
  }
#endif
  std::memcpy(&word, from, 8);
  return word;
}
LMGC_HD inline void store_8(std::uint8_t* to, std::uint64_t word) {
#if defined(__CUDA_ARCH__)
  if (reinterpret_cast<std::uintptr_t>(to) % 8 == 0) {
    *reinterpret_cast<std::uint64_t*>(to) = word;
    return;
  }
#endif
  std::memcpy(to, &word, 8);
}

LMGC_HD inline void atomic_min(std::int64_t* target, std::int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMin(reinterpret_cast<long long*>(target), static_cast<long long>(value));
#else
  std::atomic_ref<std::int64_t> shared(*target);
  std::int64_t seen = shared.load(std::memory_order_relaxed);
  while (value < seen && !shared.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
#endif
}

// One unit of a layout.
struct Unit {
  std::int64_t first_byte;  // in the stream
  std::int64_t first_item;
  int bytes;

  LMGC_HD Unit(const SerializedLayout& layout, std::int64_t index)
      : first_byte(index * layout.unit_bytes),
        first_item(layout.head + index * layout.unit_items),
        bytes(static_cast<int>(layout.bytes - first_byte < layout.unit_bytes
                                   ? layout.bytes - first_byte
                                   : layout.unit_bytes)) {}

  // Sixteen digits and nothing else.
  LMGC_HD bool is_plain(const SerializedLayout& layout) const {
    return bytes == 8 && layout.unit_items == 16 && (layout.head == 0 || first_byte > 0);
  }
};

// Bytes of the stream <-> bits of a word, from the least significant ones up.
LMGC_HD inline std::uint64_t load_stream(const SerializedLayout& layout, const Unit& unit,
                                         const std::uint8_t* data) {
  if (unit.bytes == 8) return flip_bytes(load_8(data + unit.first_byte), layout.byte_flip);
  std::uint64_t word = 0;
  for (int i = 0; i < unit.bytes; ++i) {
    word |= std::uint64_t{data[(unit.first_byte + i) ^ layout.byte_flip]} << 8 * i;
  }
  return word;
}
LMGC_HD inline void store_stream(const SerializedLayout& layout, const Unit& unit,
                                 std::uint64_t word, std::uint8_t* data) {
  if (unit.bytes == 8) {
    store_8(data + unit.first_byte, flip_bytes(word, layout.byte_flip));
    return;
  }
  for (int i = 0; i < unit.bytes; ++i) {
    data[(unit.first_byte + i) ^ layout.byte_flip] = static_cast<std::uint8_t>(word >> 8 * i);
  }
}

// sink(place, item) for every item of the unit, in the order of the places.
template <class Item, class Sink>
LMGC_HD void for_each_item(const SerializedLayout& layout, const Unit& unit, std::uint64_t word,
                           const Sink& sink) {
  if (unit.first_byte == 0) {
    for (int i = 0; i < layout.head; ++i) sink(i, layout.separator[i]);
  }
  std::int64_t item = unit.first_item;
  for (int byte = 0; byte < unit.bytes;) {
    for (int i = 0; i < layout.before; ++i) sink(item++, layout.separator[i]);
    const int left = unit.bytes - byte;
    const int end = byte + (left < layout.group_bytes ? left : layout.group_bytes);
    for (; byte < end; ++byte) {
      const int value = static_cast<int>(word >> 8 * byte & 255);
      if (layout.items_per_byte == 1) {
        sink(item++, value);
      } else {
        sink(item++, digit_item<Item>(value >> 4));
        sink(item++, digit_item<Item>(value & 15));
      }
    }
    if (unit.first_byte + byte == layout.bytes) return;  // nothing follows the last group
    for (int i = 0; i < layout.after; ++i) sink(item++, layout.separator[i]);
  }
}

}  // namespace detail

// Writes one unit's items. Run it for every unit: 0 <= unit < layout.units().
template <class Item>
struct SerializeUnits {
  SerializedLayout layout;   // of text or tokens, as Item says
  const std::uint8_t* data;  // layout.bytes bytes, at any address
  Item* items;               // room for layout.items

  LMGC_HD void operator()(std::int64_t index) const {
    const detail::Unit unit(layout, index);
    const std::uint64_t word = detail::load_stream(layout, unit, data);
    if constexpr (detail::is_text<Item>) {
      if (unit.is_plain(layout)) {
        for (int half = 0; half < 2; ++half) {
          const auto bytes = static_cast<std::uint32_t>(word >> 32 * half);
          detail::store_8(items + unit.first_item + 8 * half,
                          detail::digit_characters(detail::split_digits(bytes)));
        }
        return;
      }
    }
    Item* const to = items;
    detail::for_each_item<Item>(layout, unit, word, [to](std::int64_t place, int item) {
      to[place] = static_cast<Item>(item);
    });
  }
};

// Reads one unit's items. Run it for every unit. It reads leniently, then compares the items with
// those that the bytes it found are written with: what is accepted is what SerializeUnits writes
// and nothing else. The bytes of a unit with a bad item are unspecified.
template <class Item>
struct DeserializeUnits {
  SerializedLayout layout;  // of text or tokens, as Item says
  const Item* items;        // layout.items of them: the caller has checked that
  std::uint8_t* data;       // room for layout.bytes, at any address
  std::int64_t* first_bad;  // no_bad_item before; the place of the first bad item after all calls

  LMGC_HD void operator()(std::int64_t index) const {
    const detail::Unit unit(layout, index);
    if constexpr (detail::is_text<Item>) {
      if (unit.is_plain(layout)) {
        std::uint64_t wrong = 0;
        std::uint64_t word = 0;
        for (int half = 0; half < 2; ++half) {
          const std::uint64_t characters = detail::load_8(items + unit.first_item + 8 * half);
          const std::uint64_t digits = detail::digit_values(characters);
          wrong |= characters ^ detail::digit_characters(digits);
          word |= std::uint64_t{detail::join_digits(digits)} << 32 * half;
        }
        detail::store_stream(layout, unit, word, data);
        if (wrong != 0) report(unit, word);
        return;
      }
    }
    std::uint64_t word = 0;
    std::int64_t item = unit.first_item;
    for (int byte = 0; byte < unit.bytes;) {
      item += layout.before;
      for (int i = 0; i < layout.group_bytes && byte < unit.bytes; ++i, ++byte) {
        std::uint64_t value;
        if (layout.items_per_byte == 1) {
          value = static_cast<std::uint8_t>(items[item++]);
        } else {
          value = static_cast<std::uint64_t>(detail::item_digit(items[item++]) << 4);
          value |= static_cast<std::uint64_t>(detail::item_digit(items[item++]));
        }
        word |= value << 8 * byte;
      }
      item += layout.after;
    }
    detail::store_stream(layout, unit, word, data);
    report(unit, word);
  }

 private:
  LMGC_HD void report(const detail::Unit& unit, std::uint64_t word) const {
    const Item* const from = items;
    std::int64_t bad = no_bad_item;
    detail::for_each_item<Item>(layout, unit, word, [from, &bad](std::int64_t place, int item) {
      if (static_cast<std::int64_t>(from[place]) != item && place < bad) bad = place;
    });
    if (bad != no_bad_item) detail::atomic_min(first_bad, bad);
  }
};

using SerializeText = SerializeUnits<std::uint8_t>;
using DeserializeText = DeserializeUnits<std::uint8_t>;
using SerializeTokens = SerializeUnits<std::int16_t>;
// Models hand out wider ids than we write.
using DeserializeTokens16 = DeserializeUnits<std::int16_t>;
using DeserializeTokens32 = DeserializeUnits<std::int32_t>;
using DeserializeTokens64 = DeserializeUnits<std::int64_t>;

}  // namespace lmgc
