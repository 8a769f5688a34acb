// Reading and writing little-endian fields and LEB128 varints. Readers are bounded and remember
// failure, so that a parser may read a whole record and test `ok()` once.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace lmgc {

static_assert(std::endian::native == std::endian::little,
              "lmgc stores little-endian words as they lie in memory");

// Bytes of ByteWriter::varint(value).
constexpr std::size_t varint_size(std::uint64_t value) {
  std::size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}

class ByteWriter {
 public:
  void bytes(const void* data, std::size_t size) {
    const auto* first = static_cast<const std::uint8_t*>(data);
    out_.insert(out_.end(), first, first + size);
  }
  template <class Integer>
  void fixed(Integer value) {
    if constexpr (sizeof value == 1) {
      out_.push_back(static_cast<std::uint8_t>(value));
    } else {
      bytes(&value, sizeof value);
    }
  }
  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      out_.push_back(static_cast<std::uint8_t>(value | 0x80));
      value >>= 7;
    }
    out_.push_back(static_cast<std::uint8_t>(value));
  }
  std::size_t size() const { return out_.size(); }
  const std::vector<std::uint8_t>& view() const { return out_; }
  std::vector<std::uint8_t> take() { return std::move(out_); }

 private:
  std::vector<std::uint8_t> out_;
};

// Reads from [data, data + size), untrusted. After the first failed read every further read fails
// and returns zero or null.
class ByteReader {
 public:
  ByteReader(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  // The next `count` bytes, or null when fewer are left.
  const std::uint8_t* bytes(std::uint64_t count) {
    if (!ok_ || count > size_ - position_) {
      ok_ = false;
      return nullptr;
    }
    const std::uint8_t* first = data_ + position_;
    position_ += static_cast<std::size_t>(count);
    return first;
  }
  template <class Integer>
  Integer fixed() {
    Integer value{};
    if (const auto* first = bytes(sizeof value)) std::memcpy(&value, first, sizeof value);
    return value;
  }
  // At most 10 bytes and 64 bits; anything longer is a failure.
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = fixed<std::uint8_t>();
      if (!ok_ || (shift == 63 && byte > 1)) break;
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  bool ok() const { return ok_; }
  std::size_t position() const { return position_; }
  std::size_t left() const { return size_ - position_; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace lmgc
