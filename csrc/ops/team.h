// Threads that share tensors, and the work on one tensor: a thread that finds no tensor left to
// begin helps those that are at one.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

namespace lmgc::ops {

class Team {
 public:
  // `sizes`: bytes of each tensor. They are begun in order; those at work at the same time have
  // `most_bytes` together, unless it is one alone.
  Team(std::vector<std::int64_t> sizes, std::int64_t most_bytes);

  // Calls body(k) for tensors and pieces of others' work until nothing is left of either. All
  // threads of the team call it with the same body; tensors are done however few do. What a body
  // throws is thrown here, and no tensor is begun after it.
  void work(const std::function<void(std::size_t)>& body);

  // The team that this thread works in; null outside of work().
  static Team* current();

  // From within a body, or a piece: piece(i) for every i in [0, count), by this thread and those
  // that have nothing better to do; returns when all are done. Throws what a piece threw.
  void share(std::int64_t count, const std::function<void(std::int64_t)>& piece);

 private:
  struct Job {
    const std::function<void(std::int64_t)>* piece;
    std::int64_t count, next = 0, running = 0;
    std::exception_ptr error;
  };
  using Lock = std::unique_lock<std::mutex>;

  bool may_begin() const;
  void run_tensor(const std::function<void(std::size_t)>& body, Lock& lock);
  void run_piece(Job& job, Lock& lock);
  Job* open_job();

  const std::vector<std::int64_t> sizes_;
  const std::int64_t most_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by the mutex:
  std::size_t begun_ = 0, at_work_ = 0;
  std::int64_t bytes_at_work_ = 0;
  std::list<Job*> jobs_;  // some of whose pieces nobody has taken
};

}  // namespace lmgc::ops
