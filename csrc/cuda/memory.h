// Device memory and copies for the launchers, which own no memory: the caller brings an allocator.
// Plain C++: includable without nvcc. Every int returned is a cudaError_t; 0 is success.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace lmgc::cuda {

// Returns device memory of the current device, aligned to 256 bytes, or null when there is none. It
// stays valid until everything that the launcher has enqueued on its stream is done, and, where a
// launcher's class says so, as long as its object is used. A caching allocator bound to the stream
// may hand it out again afterwards.
using Allocate = std::function<void*(std::size_t bytes)>;

// A null pointer, and cudaErrorMemoryAllocation, when `allocate` fails; for zero bytes a valid
// pointer.
template <class Element>
int allocate_array(const Allocate& allocate, std::size_t count, Element** array);

// Copies through the stream; on return `host` may be changed.
int upload(void* device, const void* host, std::size_t bytes, void* stream);

// Copies through the stream and waits for it.
int download(void* host, const void* device, std::size_t bytes, void* stream);

int clear(void* device, std::size_t bytes, void* stream);

// allocate_array and upload of a whole vector.
template <class Element>
int upload_array(const std::vector<Element>& host, const Allocate& allocate, void* stream,
                 Element** device);

// ---- implementation -----------------------------------------------------------------------------

int out_of_memory();

template <class Element>
int allocate_array(const Allocate& allocate, std::size_t count, Element** array) {
  *array = static_cast<Element*>(allocate(count == 0 ? sizeof(Element) : count * sizeof(Element)));
  return *array == nullptr ? out_of_memory() : 0;
}

template <class Element>
int upload_array(const std::vector<Element>& host, const Allocate& allocate, void* stream,
                 Element** device) {
  if (const int error = allocate_array(allocate, host.size(), device)) return error;
  return upload(*device, host.data(), host.size() * sizeof(Element), stream);
}

}  // namespace lmgc::cuda
