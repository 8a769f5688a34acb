// Against a second serializer, written from docs/format.md one character at a time.
#include "core/serialize.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda/launch.h"

using namespace lmgc;

namespace {

using Bytes = std::vector<std::uint8_t>;

const FloatFormat kFormats[] = {
    float_format(DType::float16),    float_format(DType::float32), float_format(DType::float64),
    float_format(DType::bool8),      float_format(DType::uint16),  float_format(DType::int32),
    float_format(DType::complex128),
};
const int kGroups[] = {0, 1, 2, 3, 4, 8};
const char* const kSeparators[] = {"", " ", ",", ", ", ";", "0x", ""};

std::vector<SerializeOptions> all_options() {
  std::vector<SerializeOptions> all;
  for (int separator = 0; separator <= 6; ++separator) {
    for (const int group : kGroups) {
      for (const ByteOrder order : {ByteOrder::big, ByteOrder::little}) {
        all.push_back({static_cast<Separator>(separator), static_cast<std::uint8_t>(group), order});
      }
    }
  }
  return all;
}

Bytes random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

Bytes stream_of(const Bytes& data, FloatFormat format, const SerializeOptions& options) {
  Bytes stream = data;
  if (format.is_float() && options.byte_order == ByteOrder::big) {
    for (auto element = stream.begin(); element != stream.end(); element += format.bytes) {
      std::reverse(element, element + format.bytes);
    }
  }
  return stream;
}

struct Expected {
  std::string text;
  std::vector<std::int16_t> tokens;
};

Expected naive(const Bytes& data, FloatFormat format, const SerializeOptions& options) {
  const Bytes stream = stream_of(data, format, options);
  const std::string separator = kSeparators[static_cast<int>(options.separator)];
  Expected expected;
  for (std::size_t i = 0; i < stream.size(); ++i) {
    if (options.separator == Separator::iso_8859_1) {
      expected.text += static_cast<char>(stream[i]);
      expected.tokens.push_back(stream[i]);
      continue;
    }
    const bool starts_group =
        i == 0 || (options.bytes_per_group != 0 && i % options.bytes_per_group == 0);
    const bool wanted =
        options.separator == Separator::hex_prefix ? starts_group : starts_group && i > 0;
    if (wanted && !separator.empty()) {
      expected.text += separator;
      expected.tokens.push_back(256);
    }
    for (const int digit : {stream[i] / 16, stream[i] % 16}) {
      expected.text += "0123456789abcdef"[digit];
      expected.tokens.push_back(static_cast<std::int16_t>(digit));
    }
  }
  return expected;
}

std::string to_text(const Bytes& data, const SerializedLayout& layout) {
  std::string text(static_cast<std::size_t>(layout.items), '?');
  const SerializeText body{layout, data.data(), reinterpret_cast<std::uint8_t*>(text.data())};
  REQUIRE(cuda::launch(layout.units(), body, nullptr) == 0);
  return text;
}

template <class Item>
std::int64_t from_items(const Item* items, const SerializedLayout& layout, Bytes& data) {
  data.assign(static_cast<std::size_t>(layout.bytes), 0xa5);
  std::int64_t first_bad = no_bad_item;
  const DeserializeUnits<Item> body{layout, items, data.data(), &first_bad};
  REQUIRE(cuda::launch(layout.units(), body, nullptr) == 0);
  return first_bad;
}

std::int64_t from_text(const std::string& text, const SerializedLayout& layout, Bytes& data) {
  return from_items(reinterpret_cast<const std::uint8_t*>(text.data()), layout, data);
}

std::string text_of(const Bytes& data, FloatFormat format, const SerializeOptions& options) {
  return to_text(
      data, *text_layout(static_cast<std::int64_t>(data.size()) / format.bytes, format, options));
}

}  // namespace

TEST_CASE("serialize: one float in every spelling") {
  const FloatFormat f32 = float_format(DType::float32);
  const Bytes one_and_minus_two = {0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x00, 0xc0};
  const Bytes one(one_and_minus_two.begin(), one_and_minus_two.begin() + 4);
  CHECK(text_of(one, f32, {}) == "3f800000");
  CHECK(text_of(one, f32, {Separator::none, 0, ByteOrder::little}) == "0000803f");
  const auto two = [&](Separator separator, int group) {
    return text_of(one_and_minus_two, f32, {separator, static_cast<std::uint8_t>(group)});
  };
  CHECK(two(Separator::space, 4) == "3f800000 c0000000");
  CHECK(two(Separator::comma, 2) == "3f80,0000,c000,0000");
  CHECK(two(Separator::comma_space, 3) == "3f8000, 00c000, 0000");
  CHECK(two(Separator::semicolon, 8) == "3f800000c0000000");
  CHECK(two(Separator::hex_prefix, 4) == "0x3f8000000xc0000000");
  CHECK(two(Separator::hex_prefix, 0) == "0x3f800000c0000000");
  CHECK(two(Separator::iso_8859_1, 4) == std::string("\x3f\x80\x00\x00\xc0\x00\x00\x00", 8));
}

TEST_CASE("serialize: agrees with the naive serializer, and back") {
  std::int64_t compared = 0;
  for (const FloatFormat format : kFormats) {
    for (const SerializeOptions& options : all_options()) {
      for (int elements = 0; elements <= 27; ++elements) {
        const Bytes data =
            random_bytes(static_cast<std::size_t>(elements) * format.bytes, 7 + elements);
        const Expected expected = naive(data, format, options);
        const auto text = text_layout(elements, format, options);
        const auto tokens = token_layout(elements, format, options);
        REQUIRE(text);
        REQUIRE(tokens);
        REQUIRE(text->items == static_cast<std::int64_t>(expected.text.size()));
        REQUIRE(tokens->items == static_cast<std::int64_t>(expected.tokens.size()));
        REQUIRE(text_size(elements, format, options) == text->items);
        REQUIRE(token_count(elements, format, options) == tokens->items);
        REQUIRE(to_text(data, *text) == expected.text);

        std::vector<std::int16_t> written(expected.tokens.size(), -1);
        const SerializeTokens body{*tokens, data.data(), written.data()};
        REQUIRE(cuda::launch(tokens->units(), body, nullptr) == 0);
        REQUIRE(written == expected.tokens);

        Bytes back;
        REQUIRE(from_text(expected.text, *text, back) == no_bad_item);
        REQUIRE(back == data);
        REQUIRE(from_items(written.data(), *tokens, back) == no_bad_item);
        REQUIRE(back == data);
        const std::vector<std::int32_t> wider(written.begin(), written.end());
        REQUIRE(from_items(wider.data(), *tokens, back) == no_bad_item);
        REQUIRE(back == data);
        const std::vector<std::int64_t> widest(written.begin(), written.end());
        REQUIRE(from_items(widest.data(), *tokens, back) == no_bad_item);
        REQUIRE(back == data);
        ++compared;
      }
    }
  }
  CHECK(compared == 7 * 84 * 28);
}

TEST_CASE("serialize: data and text at odd addresses") {
  const FloatFormat f64 = float_format(DType::float64);
  for (const SerializeOptions& options : all_options()) {
    const Bytes data = random_bytes(17 * 8, 3);
    const auto layout = *text_layout(17, f64, options);
    Bytes shifted(data.size() + 3);
    std::copy(data.begin(), data.end(), shifted.begin() + 3);
    Bytes text(static_cast<std::size_t>(layout.items) + 1);
    for (std::int64_t unit = 0; unit < layout.units(); ++unit) {
      SerializeText{layout, shifted.data() + 3, text.data() + 1}(unit);
    }
    REQUIRE(std::string(text.begin() + 1, text.end()) == naive(data, f64, options).text);
    Bytes back(data.size() + 5);
    std::int64_t first_bad = no_bad_item;
    for (std::int64_t unit = 0; unit < layout.units(); ++unit) {
      DeserializeText{layout, text.data() + 1, back.data() + 5, &first_bad}(unit);
    }
    REQUIRE(first_bad == no_bad_item);
    REQUIRE(Bytes(back.begin() + 5, back.end()) == data);
  }
}

TEST_CASE("serialize: every wrong character is found at its place") {
  for (const int elements : {1, 2, 5, 9}) {
    const FloatFormat format = float_format(DType::float32);
    for (const SerializeOptions& options : all_options()) {
      if (options.separator == Separator::iso_8859_1) continue;  // every character is right
      const auto layout = *text_layout(elements, format, options);
      const Bytes data = random_bytes(static_cast<std::size_t>(elements) * 4, 11);
      const std::string text = to_text(data, layout);
      const std::string separator = kSeparators[static_cast<int>(options.separator)];
      Bytes back;
      for (std::size_t place = 0; place < text.size(); ++place) {
        const int index = separator_index(layout, static_cast<std::int64_t>(place));
        for (int code = 0; code < 256; ++code) {
          std::string changed = text;
          changed[place] = static_cast<char>(code);
          const bool digit = (code >= '0' && code <= '9') || (code >= 'a' && code <= 'f');
          const bool right =
              index < 0 ? digit : changed[place] == separator[static_cast<std::size_t>(index)];
          const std::int64_t bad = from_text(changed, layout, back);
          REQUIRE(bad == (right ? no_bad_item : static_cast<std::int64_t>(place)));
          if (right) REQUIRE(to_text(back, layout) == changed);
        }
      }
    }
  }
}

TEST_CASE("serialize: the first of many wrong characters is reported") {
  const FloatFormat format = float_format(DType::bfloat16);
  std::mt19937 random(5);
  for (const SerializeOptions& options : all_options()) {
    if (options.separator == Separator::iso_8859_1) continue;
    const auto layout = *text_layout(61, format, options);
    const std::string text = to_text(random_bytes(122, 5), layout);
    for (int round = 0; round < 20; ++round) {
      std::string changed = text;
      std::int64_t first = no_bad_item;
      for (int i = 0; i < 4; ++i) {
        const auto place = static_cast<std::int64_t>(random() % text.size());
        changed[static_cast<std::size_t>(place)] = "GF\xff/:"[random() % 5];
        first = std::min(first, place);
      }
      Bytes back;
      REQUIRE(from_text(changed, layout, back) == first);
    }
  }
}

TEST_CASE("serialize: tokens that are not in the vocabulary are found") {
  const FloatFormat format = float_format(DType::float16);
  for (const SerializeOptions& options : all_options()) {
    const auto layout = *token_layout(9, format, options);
    const Bytes data = random_bytes(18, 2);
    const auto tokens = naive(data, format, options).tokens;
    const int values = options.separator == Separator::iso_8859_1 ? 256 : 16;
    for (std::size_t place = 0; place < tokens.size(); ++place) {
      const bool separator = separator_index(layout, static_cast<std::int64_t>(place)) >= 0;
      for (const std::int64_t token :
           {std::int64_t{-1}, std::int64_t{15}, std::int64_t{16}, std::int64_t{255},
            std::int64_t{256}, std::int64_t{257}, std::int64_t{65536 + 3},
            (std::int64_t{1} << 32) + 3, std::numeric_limits<std::int64_t>::min()}) {
        std::vector<std::int64_t> changed(tokens.begin(), tokens.end());
        changed[place] = token;
        const bool right = separator ? token == 256 : token >= 0 && token < values;
        Bytes back;
        REQUIRE(from_items(changed.data(), layout, back) ==
                (right ? no_bad_item : static_cast<std::int64_t>(place)));
      }
    }
  }
}

TEST_CASE("serialize: sizes beyond 32 bits and beyond the machine") {
  const FloatFormat f32 = float_format(DType::float32);
  const std::int64_t elements = (std::int64_t{1} << 32) + 1;
  CHECK(text_size(elements, f32, {}) == 8 * elements);
  CHECK(text_size(elements, f32, {Separator::comma_space, 4}) == 10 * elements - 2);
  CHECK(text_size(elements, f32, {Separator::hex_prefix, 4}) == 10 * elements);
  CHECK(text_size(elements, f32, {Separator::hex_prefix, 0}) == 8 * elements + 2);
  CHECK(text_size(elements, f32, {Separator::space, 3}) ==
        8 * elements + (4 * elements + 2) / 3 - 1);
  CHECK(text_size(elements, f32, {Separator::iso_8859_1, 1}) == 4 * elements);
  CHECK(token_count(elements, f32, {Separator::comma_space, 4}) == 9 * elements - 1);
  const std::int64_t most = std::int64_t{1} << 58;
  CHECK(text_size(most, f32, {Separator::comma_space, 1}) == 16 * most - 2);
  CHECK_FALSE(text_size(most + 1, f32, {}));
  CHECK_FALSE(text_size(std::numeric_limits<std::int64_t>::max(), f32, {}));
  CHECK_FALSE(token_count(std::numeric_limits<std::int64_t>::max(), f32, {}));
  CHECK_FALSE(text_size(-1, f32, {}));
}

TEST_CASE("serialize: units far into a tensor do not wrap") {
  const SerializeOptions options{Separator::comma_space, 3, ByteOrder::big};
  const auto layout = *text_layout(std::int64_t{1} << 40, float_format(DType::float32), options);
  const std::int64_t index = layout.units() - 1;
  const detail::Unit unit(layout, index);
  CHECK(unit.first_byte == 6 * index);
  CHECK(unit.first_byte + unit.bytes == layout.bytes);
  CHECK(unit.first_item + 2 * unit.bytes + 2 * ((unit.bytes - 1) / 3) == layout.items);
}

TEST_CASE("serialize: symbol_shift finds the digits of the text") {
  for (const DType dtype : {DType::float16, DType::float32, DType::float64, DType::uint8}) {
    const FloatFormat format = serialized_format(float_format(dtype));
    for (const Separator separator : {Separator::none, Separator::iso_8859_1}) {
      for (const ByteOrder order : {ByteOrder::big, ByteOrder::little}) {
        const SerializeOptions options{separator, 0, order};
        const Bytes data = random_bytes(3 * format.bytes, 1);
        const auto tokens = naive(data, float_format(dtype), options).tokens;
        const int symbols = symbols_per_element(format.bytes, separator);
        REQUIRE(tokens.size() == static_cast<std::size_t>(3 * symbols));
        for (int i = 0; i < 3 * symbols; ++i) {
          const std::uint64_t word = load_word(data.data(), format.bytes, i / symbols);
          const int shift = symbol_shift(i % symbols, format.bytes, options);
          const auto mask = (std::uint64_t{1} << symbol_bits(separator)) - 1;
          REQUIRE((word >> shift & mask) == static_cast<std::uint64_t>(tokens[i]));
        }
      }
    }
  }
}

TEST_CASE("serialize: token_pattern repeats to the token list") {
  for (const int element_bytes : {1, 2, 4, 8}) {
    const FloatFormat format{static_cast<std::uint8_t>(element_bytes),
                             static_cast<std::uint8_t>(element_bytes == 1 ? 0 : 5), 0};
    for (const SerializeOptions& options : all_options()) {
      const TokenPattern pattern = token_pattern(element_bytes, options);
      const int group = options.bytes_per_group;
      const bool separated = group != 0 && separator_text(options.separator)[0] != '\0';
      REQUIRE(pattern.elements ==
              (separated ? std::max(group == 3 ? 3 : group / element_bytes, 1) : 1));

      const int repeats = 3;
      const Bytes data =
          random_bytes(static_cast<std::size_t>(repeats * pattern.elements * element_bytes), 4);
      std::vector<std::int16_t> built;
      for (int repeat = 0; repeat < repeats; ++repeat) {
        for (const PatternToken& token : pattern.tokens) {
          REQUIRE(token.element < pattern.elements);
          if (token.symbol < 0) {
            built.push_back(separator_token);
            continue;
          }
          const std::uint64_t word =
              load_word(data.data(), element_bytes, repeat * pattern.elements + token.element);
          const auto mask = (std::uint64_t{1} << symbol_bits(options.separator)) - 1;
          built.push_back(static_cast<std::int16_t>(
              word >> symbol_shift(token.symbol, element_bytes, options) & mask));
        }
      }
      std::vector<std::int16_t> expected = naive(data, format, options).tokens;
      if (options.separator == Separator::hex_prefix && group == 0) {
        expected.erase(expected.begin());  // the pattern has no place for the tensor's one prefix
      } else if (separated && options.separator != Separator::hex_prefix) {
        expected.push_back(separator_token);
      }
      REQUIRE(built == expected);
    }
  }
}

TEST_CASE("every dtype has a name and a format") {
  const DType all[] = {DType::float16,         DType::bfloat16,        DType::float32,
                       DType::float64,         DType::uint8,           DType::int8,
                       DType::int16,           DType::int32,           DType::int64,
                       DType::bool8,           DType::complex32,       DType::complex64,
                       DType::complex128,      DType::uint16,          DType::uint32,
                       DType::uint64,          DType::float8_e4m3fn,   DType::float8_e5m2,
                       DType::float8_e4m3fnuz, DType::float8_e5m2fnuz, DType::float8_e8m0fnu};
  int known = 0;
  for (int code = 0; code < 256; ++code) {
    const auto dtype = static_cast<DType>(code);
    const bool named = std::string(name(dtype)) != "unknown";
    CHECK(named == (float_format(dtype).bytes != 0));
    known += named;
  }
  CHECK(known == static_cast<int>(std::size(all)));
  CHECK(std::string(name(DType::bool8)) == "bool");
  CHECK(std::string(name(DType::float8_e4m3fn)) == "float8_e4m3fn");
}
