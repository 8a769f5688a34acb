#include "ops/for_each.h"

#include <c10/util/Exception.h>
#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "ops/team.h"

// Of OpenMP 5; not in what torch brought before 2.7.
extern "C" int omp_pause_resource_all(omp_pause_resource_t kind) __attribute__((weak));

namespace lmgc::ops {
namespace {

// A forked process has none of its parent's threads, but GNU's OpenMP believes that it has those of
// the pool, and would wait for them for ever. So the pool of the thread that forks ends before, and
// both processes start another when they need one. Where it cannot be ended, the forked process
// computes with one thread.
void end_pool() {
  if (omp_pause_resource_all) omp_pause_resource_all(omp_pause_soft);
}
void use_one_thread() {
  if (omp_pause_resource_all) return;
  omp_set_num_threads(1);
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(1);
}
[[maybe_unused]] const int registered = pthread_atfork(end_pool, nullptr, use_one_thread);

}  // namespace

void check_device(const c10::Device& device, const char* what) {
  if (device.is_cpu()) return;
  TORCH_CHECK_VALUE(device.is_cuda(), what, " is on ", device.str(),
                    ": lmgc works on CPU and CUDA tensors; move it with .cpu()");
#ifndef LMGC_WITH_CUDA
  TORCH_CHECK(false, what, " is on ", device.str(),
              ", but lmgc_torch was built without CUDA (`python -m lmgc_torch` says why); move it "
              "with .cpu()");
#endif
}

void for_each_range(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  if (count <= 0) return;
  Team* const team = Team::current();
  if (team == nullptr) {
    at::parallel_for(0, count, grain, body);
    return;
  }
  constexpr std::int64_t pieces_of_a_thread = 4;
  const std::int64_t pieces =
      std::min<std::int64_t>(pieces_of_a_thread * at::get_num_threads(), (count - 1) / grain + 1);
  const std::int64_t length = (count - 1) / pieces + 1;
  team->share(pieces, [&](std::int64_t i) {
    const std::int64_t begin = i * length, end = std::min(begin + length, count);
    if (begin < end) body(begin, end);
  });
}

Parallel aten_parallel() {
  return [](std::int64_t count, const std::function<void(std::int64_t)>& body) {
    if (Team* const team = Team::current(); team != nullptr) return team->share(count, body);
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(i);
    });
  };
}

void for_each_tensor(const c10::Device& device, const std::vector<std::int64_t>& bytes,
                     const std::function<void(std::size_t)>& body) {
  constexpr std::int64_t most_bytes = std::int64_t{64} << 20;
  constexpr std::int64_t worth_a_thread = std::int64_t{1} << 16;  // bytes: it must be woken
  const PlainDispatch plain;
  const OneBlasThread one_thread;
  if (!device.is_cpu()) {
    for (std::size_t i = 0; i < bytes.size(); ++i) body(i);
    return;
  }
  std::vector<std::size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
  std::int64_t total = 0;
  std::vector<std::int64_t> sizes;
  for (const std::size_t i : order) {
    total += bytes[i];
    sizes.push_back(bytes[i]);
  }
  const std::int64_t workers =
      std::min<std::int64_t>(at::get_num_threads(), 1 + total / worth_a_thread);
  // One tensor, or too few bytes for a thread more: ATen's threads do.
  if (order.size() < 2 || workers < 2) {
    for (const std::size_t i : order) body(i);
    return;
  }
  Team team(std::move(sizes), most_bytes);
  at::parallel_for(0, workers, 1, [&](std::int64_t begin, std::int64_t end) {
    const PlainDispatch plain_here;
    const OneBlasThread one_thread_here;
    for (std::int64_t worker = begin; worker < end; ++worker)
      team.work([&](std::size_t k) { body(order[k]); });
  });
}

}  // namespace lmgc::ops
