// Arrays that go to the device together: one allocation and one copy for all of them. Plain C++:
// includable without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "cuda/memory.h"

namespace lmgc::cuda {

class Uploads {
 public:
  // Takes a copy of array[0, count). upload() sets *there to where it is then: a place that stays
  // until then.
  template <class Element>
  void add(const Element* array, std::size_t count, const Element** there) {
    const std::size_t place = (bytes_.size() + alignment - 1) / alignment * alignment;
    bytes_.resize(place + count * sizeof(Element));
    if (count != 0) std::memcpy(bytes_.data() + place, array, count * sizeof(Element));
    arrived_.push_back([there, place](const std::uint8_t* all) {
      *there = reinterpret_cast<const Element*>(all + place);
    });
  }
  template <class Element>
  void add(const std::vector<Element>& array, const Element** there) {
    add(array.data(), array.size(), there);
  }

  int upload(const Allocate& allocate, void* stream) {
    std::uint8_t* all = nullptr;
    if (const int error = upload_array(bytes_, allocate, stream, &all)) return error;
    for (const auto& arrived : arrived_) arrived(all);
    return 0;
  }

 private:
  static constexpr std::size_t alignment = 16;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::function<void(const std::uint8_t* all)>> arrived_;
};

}  // namespace lmgc::cuda
