// Operators of the `ieee` serializer: a tensor <-> its text (bytes of Latin-1) or its token ids.
// core/serialize.h says what they are; here are checks, allocations and messages.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/serialize.h"
#include "ops/dtype.h"
#include "ops/for_each.h"
#include "ops/options.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t grain_units = 4096;  // 32 kB of the tensor: tens of microseconds

std::uint8_t* bytes_of(const at::Tensor& tensor) {
  return static_cast<std::uint8_t*>(tensor.data_ptr());
}

// Text and tokens differ in the item and in what a separator is made of.
template <class Item>
SerializedLayout layout_of(std::int64_t elements, at::ScalarType dtype,
                           const SerializeOptions& options) {
  const FloatFormat format = float_format(dtype_of(dtype));
  const auto layout = sizeof(Item) == 1 ? text_layout(elements, format, options)
                                        : token_layout(elements, format, options);
  TORCH_CHECK_VALUE(layout, "a tensor of ", elements, " elements is too large to serialize");
  return *layout;
}

template <class Item>
at::Tensor write(const at::Tensor& tensor, const SerializeOptions& options,
                 at::ScalarType item_type) {
  const at::Tensor data = plain(tensor, "the tensor");
  const c10::DeviceGuard guard(data.device());
  const auto layout = layout_of<Item>(data.numel(), data.scalar_type(), options);
  at::Tensor items = at::empty({layout.items}, data.options().dtype(item_type));
  for_each(data.device(), layout.units(),
           SerializeUnits<Item>{layout, bytes_of(data), static_cast<Item*>(items.data_ptr())},
           grain_units);
  return items;
}

std::int64_t elements_of(at::IntArrayRef shape) {
  std::int64_t elements = 1;
  bool too_large = false;
  bool empty = false;
  for (const std::int64_t size : shape) {
    TORCH_CHECK_VALUE(size >= 0, "shape has a negative size: ", shape);
    empty |= size == 0;
    too_large |= __builtin_mul_overflow(elements, size, &elements);
  }
  if (empty) return 0;
  TORCH_CHECK_VALUE(!too_large, "a tensor of shape ", shape, " is too large to serialize");
  return elements;
}

std::string in_quotes(std::int64_t character) {
  return std::string{'\'', static_cast<char>(character), '\''};
}

// What an item holds, and what it should hold, for the message about a bad one.
std::string shown(std::int64_t item, bool text) {
  if (!text) return std::to_string(item);
  constexpr const char* digits = "0123456789abcdef";
  const std::string code = {'0', 'x', digits[item >> 4 & 15], digits[item & 15]};
  if (item < 0x20 || item > 0x7e) return code;
  return in_quotes(item) + " (" + code + ")";
}
std::string expected(const SerializedLayout& layout, std::int64_t place, bool text) {
  const int separator = separator_index(layout, place);
  if (separator >= 0) {
    const auto item = layout.separator[separator];
    return "the separator " + (text ? in_quotes(item) : std::to_string(item));
  }
  if (layout.items_per_byte == 1) return "a byte, 0 to 255";
  return text ? "a digit, 0-9 or a-f" : "a digit, 0 to 15";
}

template <class Item>
at::Tensor read(const at::Tensor& given, const char* what, const char* item_name,
                at::ScalarType dtype, at::IntArrayRef shape, const SerializeOptions& options) {
  constexpr bool text = sizeof(Item) == 1;
  const at::Tensor items = plain(given, what);
  TORCH_CHECK_VALUE(items.dim() == 1, what, " has ", items.dim(), " dimensions, not 1");
  const c10::DeviceGuard guard(items.device());
  const auto layout = layout_of<Item>(elements_of(shape), dtype, options);
  TORCH_CHECK_VALUE(items.numel() == layout.items, what, " has ", items.numel(), " ", item_name,
                    ", but a tensor of ", name(dtype_of(dtype)), " with shape ", shape,
                    " is written with ", layout.items);

  at::Tensor tensor = at::empty(shape, items.options().dtype(dtype));
  const at::Tensor first_bad = at::full({1}, no_bad_item, items.options().dtype(at::kLong));
  for_each(
      items.device(), layout.units(),
      DeserializeUnits<Item>{layout, static_cast<const Item*>(items.const_data_ptr()),
                             bytes_of(tensor), static_cast<std::int64_t*>(first_bad.data_ptr())},
      grain_units);
  const auto place = first_bad.item<std::int64_t>();
  if (place != no_bad_item) {
    TORCH_CHECK_VALUE(false, what, " is damaged at position ", place, ": ",
                      shown(items[place].item<std::int64_t>(), text), " where ",
                      expected(layout, place, text), " belongs");
  }
  return tensor;
}

at::Tensor serialize(const at::Tensor& tensor, std::string_view separator,
                     std::int64_t bytes_per_group, std::string_view byte_order) {
  const auto options = parse_options(separator, bytes_per_group, byte_order);
  return write<std::uint8_t>(tensor, options, at::kByte);
}

at::Tensor tokenize(const at::Tensor& tensor, std::string_view separator,
                    std::int64_t bytes_per_group, std::string_view byte_order) {
  const auto options = parse_options(separator, bytes_per_group, byte_order);
  return write<std::int16_t>(tensor, options, at::kShort);
}

at::Tensor deserialize(const at::Tensor& text, at::ScalarType dtype, at::IntArrayRef shape,
                       std::string_view separator, std::int64_t bytes_per_group,
                       std::string_view byte_order) {
  const auto options = parse_options(separator, bytes_per_group, byte_order);
  TORCH_CHECK_VALUE(text.scalar_type() == at::kByte, "the text is of ",
                    name(dtype_of(text.scalar_type())), "; it must be of uint8");
  return read<std::uint8_t>(text, "the text", "characters", dtype, shape, options);
}

at::Tensor detokenize(const at::Tensor& tokens, at::ScalarType dtype, at::IntArrayRef shape,
                      std::string_view separator, std::int64_t bytes_per_group,
                      std::string_view byte_order) {
  const auto options = parse_options(separator, bytes_per_group, byte_order);
  constexpr const char* what = "the token list";
  switch (tokens.scalar_type()) {
    case at::kShort:
      return read<std::int16_t>(tokens, what, "tokens", dtype, shape, options);
    case at::kInt:
      return read<std::int32_t>(tokens, what, "tokens", dtype, shape, options);
    case at::kLong:
      return read<std::int64_t>(tokens, what, "tokens", dtype, shape, options);
    default:
      TORCH_CHECK_VALUE(false, what, " is of ", name(dtype_of(tokens.scalar_type())),
                        "; it must be of int16, int32 or int64");
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lmgc, m) {
  m.set_python_module("lmgc_torch._fake");
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "serialize(Tensor tensor, *, str separator=\"none\", int bytes_per_group=0, "
      "str byte_order=\"big\") -> Tensor",
      tags);
  m.def(
      "deserialize(Tensor text, ScalarType dtype, SymInt[] shape, *, str separator=\"none\", "
      "int bytes_per_group=0, str byte_order=\"big\") -> Tensor",
      tags);
  m.def(
      "tokenize(Tensor tensor, *, str separator=\"none\", int bytes_per_group=0, "
      "str byte_order=\"big\") -> Tensor",
      tags);
  m.def(
      "detokenize(Tensor tokens, ScalarType dtype, SymInt[] shape, *, str separator=\"none\", "
      "int bytes_per_group=0, str byte_order=\"big\") -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(lmgc, CompositeExplicitAutograd, m) {
  m.impl("serialize", serialize);
  m.impl("deserialize", deserialize);
  m.impl("tokenize", tokenize);
  m.impl("detokenize", detokenize);
}

}  // namespace lmgc::ops
