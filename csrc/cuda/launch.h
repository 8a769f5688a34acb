// One way to run a shared function object over an index range on the device: the same object that
// the CPU runs in a loop. Includable from plain C++; a .cu file that holds
// LMGC_INSTANTIATE_LAUNCH(Body) gives the code.
#pragma once

#include <cstdint>

namespace lmgc::cuda {

// Enqueues body(i) for every i in [0, count) on `stream` (a cudaStream_t) of the current device;
// asynchronous. `Body` is trivially copyable, holds device pointers only, and its
// operator()(std::int64_t) const is LMGC_HD. Returns a cudaError_t as int; 0 is success.
template <class Body>
int launch(std::int64_t count, const Body& body, void* stream);

// The same with a warp for each i: body(warp, i), a template over the warp as core/warp.h has it;
// LMGC_INSTANTIATE_LAUNCH_WARPS(Body) gives the code.
template <class Body>
int launch_warps(std::int64_t count, const Body& body, void* stream);

// The same with a block for each i: body(block, shared, i), a template over the block, where
// `shared` is a Body::Shared of that block's own, not initialised;
// LMGC_INSTANTIATE_LAUNCH_BLOCKS(Body) gives the code.
template <class Body>
int launch_blocks(std::int64_t count, const Body& body, void* stream);

}  // namespace lmgc::cuda
