#include "ops/team.h"

#include <utility>

namespace lmgc::ops {
namespace {

thread_local Team* team_of_this_thread = nullptr;

class Membership {
 public:
  explicit Membership(Team* team) : before_(std::exchange(team_of_this_thread, team)) {}
  ~Membership() { team_of_this_thread = before_; }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

 private:
  Team* before_;
};

}  // namespace

Team* Team::current() { return team_of_this_thread; }

Team::Team(std::vector<std::int64_t> sizes, std::int64_t most_bytes)
    : sizes_(std::move(sizes)), most_bytes_(most_bytes) {}

bool Team::may_begin() const {
  return begun_ < sizes_.size() &&
         (at_work_ == 0 || bytes_at_work_ + sizes_[begun_] <= most_bytes_);
}

Team::Job* Team::open_job() { return jobs_.empty() ? nullptr : jobs_.front(); }

void Team::work(const std::function<void(std::size_t)>& body) {
  const Membership membership(this);
  Lock lock(mutex_);
  while (begun_ < sizes_.size() || at_work_ > 0) {
    if (may_begin()) {
      run_tensor(body, lock);
    } else if (Job* const job = open_job(); job != nullptr) {
      run_piece(*job, lock);
    } else {
      changed_.wait(lock);
    }
  }
}

void Team::run_tensor(const std::function<void(std::size_t)>& body, Lock& lock) {
  const std::size_t tensor = begun_++;
  ++at_work_;
  bytes_at_work_ += sizes_[tensor];
  std::exception_ptr error;
  lock.unlock();
  try {
    body(tensor);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  --at_work_;
  bytes_at_work_ -= sizes_[tensor];
  if (error) begun_ = sizes_.size();
  // Others wait for room, or for the end.
  changed_.notify_all();
  if (error) std::rethrow_exception(error);
}

void Team::run_piece(Job& job, Lock& lock) {
  const std::int64_t i = job.next++;
  if (job.next == job.count) jobs_.remove(&job);
  ++job.running;
  lock.unlock();
  std::exception_ptr error;
  try {
    (*job.piece)(i);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (error && !job.error) job.error = error;
  if (--job.running == 0 && job.next == job.count) changed_.notify_all();
}

void Team::share(std::int64_t count, const std::function<void(std::int64_t)>& piece) {
  if (count <= 1) {
    if (count == 1) piece(0);
    return;
  }
  Job job{&piece, count, 0, 0, nullptr};
  Lock lock(mutex_);
  jobs_.push_back(&job);
  changed_.notify_all();
  while (job.next < job.count) run_piece(job, lock);
  changed_.wait(lock, [&] { return job.running == 0; });
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace lmgc::ops
