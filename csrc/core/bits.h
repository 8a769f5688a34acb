// Runs of bits in bytes, the least significant first.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace lmgc {

class BitWriter {
 public:
  static constexpr int most_bits = 56;  // in one put()

  // The low `count` bits of `value`, whose other bits are zero; 0 <= count <= most_bits.
  void put(std::uint64_t value, int count) {
    if (bytes_ + sizeof held_ > out_.size()) out_.resize(out_.size() * 2 + 64);
    held_ |= value << used_;
    std::memcpy(out_.data() + bytes_, &held_, sizeof held_);
    used_ += count;
    bytes_ += static_cast<unsigned>(used_) / 8;
    held_ = used_ >= 8 ? held_ >> (used_ & ~7) : held_;
    used_ %= 8;
  }

  // Everything so far, padded with zeros to a whole byte; the writer is empty afterwards.
  std::vector<std::uint8_t> take() {
    out_.resize(bytes_ + (used_ > 0 ? 1 : 0));
    bytes_ = 0;
    held_ = 0;
    used_ = 0;
    return std::exchange(out_, {});
  }

 private:
  std::vector<std::uint8_t> out_;
  std::size_t bytes_ = 0;  // whole ones
  std::uint64_t held_ = 0;
  int used_ = 0;  // bits of held_, below 8 between calls
};

// Reads from [data, data + size), untrusted. After the first failed read every further one fails
// and returns zero.
class BitReader {
 public:
  BitReader(const std::uint8_t* data, std::size_t size)
      : data_(data), size_(size), bits_(8 * static_cast<std::uint64_t>(size)) {}

  // The next `count` bits, 0 <= count <= BitWriter::most_bits.
  std::uint64_t get(int count) {
    const std::uint64_t value = peek() & ((std::uint64_t{1} << count) - 1);
    skip(count);
    return ok_ ? value : 0;
  }

  // How many zeros come before the next one, and moves behind that one; at most `most` zeros (up to
  // 55), which no one has to follow.
  int get_unary(int most) {
    const int zeros = std::countr_zero(peek() | std::uint64_t{1} << most);
    skip(zeros < most ? zeros + 1 : most);
    return ok_ ? zeros : 0;
  }

  // For those who read many at a time: where the bits are, how many were read, and to read on from
  // there. `used` is between used() and those there are.
  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::uint64_t used() const { return used_; }
  void move_to(std::uint64_t used) { used_ = used; }

  bool ok() const { return ok_; }
  // Bytes of which some bit was read.
  std::size_t bytes_used() const { return static_cast<std::size_t>((used_ + 7) / 8); }
  // Whether what is left is less than a byte and zero.
  bool only_padding_left() const {
    return ok_ && bits_ - used_ < 8 && (used_ % 8 == 0 || data_[used_ / 8] >> (used_ % 8) == 0);
  }

 private:
  // At least 57 bits from here on; zeros behind the end.
  std::uint64_t peek() const {
    const auto at = static_cast<std::size_t>(used_ / 8);
    std::uint64_t bits = 0;
    if (size_ - at >= sizeof bits) {
      std::memcpy(&bits, data_ + at, sizeof bits);
    } else if (size_ > at) {
      std::memcpy(&bits, data_ + at, size_ - at);
    }
    return bits >> (used_ % 8);
  }
  void skip(int count) {
    if (bits_ - used_ < static_cast<unsigned>(count)) {
      ok_ = false;
      used_ = bits_;
    } else {
      used_ += static_cast<unsigned>(count);
    }
  }

  const std::uint8_t* data_;
  std::size_t size_;
  std::uint64_t bits_, used_ = 0;
  bool ok_ = true;
};

}  // namespace lmgc
