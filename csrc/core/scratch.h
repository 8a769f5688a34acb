// Memory for the time of a call. What a thread used last it keeps for its next call, up to a bound:
// fresh pages cost more than many a kernel that works on them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace lmgc {

class Scratch {
 public:
  static constexpr std::size_t most_kept = std::size_t{1} << 20;  // bytes a piece; two a thread

  // `size` bytes without a value, aligned for any type.
  explicit Scratch(std::size_t size) {
    Piece* fitting = nullptr;  // the smallest that is large enough
    for (Piece& piece : kept()) {
      if (piece.size >= size && (fitting == nullptr || piece.size < fitting->size))
        fitting = &piece;
    }
    if (fitting != nullptr) {
      piece_ = std::exchange(*fitting, {});
    } else {
      piece_ = {std::make_unique_for_overwrite<std::uint8_t[]>(size), size};
    }
  }
  ~Scratch() {
    Piece& smaller = kept()[0].size <= kept()[1].size ? kept()[0] : kept()[1];
    if (piece_.size <= most_kept && piece_.size > smaller.size) smaller = std::move(piece_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::uint8_t* data() const { return piece_.bytes.get(); }

 private:
  struct Piece {
    std::unique_ptr<std::uint8_t[]> bytes;
    std::size_t size = 0;
  };
  // What is nested in another has a piece of its own.
  static std::array<Piece, 2>& kept() {
    thread_local std::array<Piece, 2> pieces;
    return pieces;
  }
  Piece piece_;
};

}  // namespace lmgc
