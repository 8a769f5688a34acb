// Memory for the time of a call. What a thread used last it keeps for its next call, up to a bound:
// fresh pages cost more than many a kernel that works on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace lmgc {

class Scratch {
 public:
  static constexpr std::size_t most_kept = std::size_t{1} << 20;  // bytes a thread

  // `size` bytes without a value, aligned for any type.
  explicit Scratch(std::size_t size) : piece_(std::exchange(kept(), {})) {
    if (piece_.size >= size) return;
    piece_.bytes = std::make_unique_for_overwrite<std::uint8_t[]>(size);
    piece_.size = size;
  }
  ~Scratch() {
    if (piece_.size <= most_kept && piece_.size > kept().size) kept() = std::move(piece_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::uint8_t* data() const { return piece_.bytes.get(); }

 private:
  struct Piece {
    std::unique_ptr<std::uint8_t[]> bytes;
    std::size_t size = 0;
  };
  static Piece& kept() {
    thread_local Piece piece;
    return piece;
  }
  Piece piece_;
};

}  // namespace lmgc
