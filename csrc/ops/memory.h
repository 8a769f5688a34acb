// What objects that the codec keeps between calls have in common.
#pragma once

#include <torch/custom_class.h>
#include <torch/library.h>

#include <cstdint>
#include <string>
#include <tuple>

namespace lmgc::ops {

// Registers torch.classes.lmgc.NAME, a `Memory` with clear(). Copies and pickles of one begin
// empty; for torch.compile all are alike.
template <class Memory>
void register_memory(torch::Library& m, const std::string& name) {
  m.class_<Memory>(name)
      .def(torch::init<>())
      .def("clear", &Memory::clear)
      .def("__obj_flatten__",
           [](const c10::intrusive_ptr<Memory>&) {
             return std::tuple<std::tuple<std::string, bool>>(std::make_tuple("empty", true));
           })
      .def_pickle([](const c10::intrusive_ptr<Memory>&) { return std::int64_t{0}; },
                  [](std::int64_t) { return c10::make_intrusive<Memory>(); });
}

}  // namespace lmgc::ops
