// Many things of different sizes done by one launch: a list of items, each worth a number of tasks.
// For jobs that have a TaskList as their first member. Plain C++: includable without nvcc.
#pragma once

#include <cstdint>
#include <vector>

#include "core/host_device.h"
#include "cuda/launch.h"
#include "cuda/memory.h"

namespace lmgc::cuda {

// On the device. An item's first_task counts the tasks of those before it.
template <class Item>
struct TaskList {
  const Item* items = nullptr;
  std::int32_t count = 0;

  // The item that task `task` belongs to.
  LMGC_HD const Item& item_of(std::int64_t task) const {
    std::int32_t first = 0;
    for (std::int32_t left = count; left > 1;) {
      const std::int32_t half = left / 2;
      const bool behind = items[first + half].first_task <= task;
      first += behind ? half : 0;
      left = behind ? left - half : half;
    }
    return items[first];
  }
};

// The same while it is made.
template <class Item>
class TaskListBuilder {
 public:
  void add(Item item, std::int64_t own_tasks) {
    item.first_task = tasks_;
    tasks_ += own_tasks;
    items_.push_back(item);
  }
  std::int64_t tasks() const { return tasks_; }
  std::size_t count() const { return items_.size(); }

  int upload(const Allocate& allocate, void* stream, TaskList<Item>* list) const {
    Item* there = nullptr;
    const int error = upload_array(items_, allocate, stream, &there);
    *list = {there, static_cast<std::int32_t>(items_.size())};
    return error;
  }

  // A warp for each task of Job{list}.
  template <class Job>
  int launch_warps(const Allocate& allocate, void* stream) const {
    if (tasks_ == 0) return 0;
    TaskList<Item> list;
    if (const int error = upload(allocate, stream, &list)) return error;
    return cuda::launch_warps(tasks_, Job{list}, stream);
  }

 private:
  std::vector<Item> items_;
  std::int64_t tasks_ = 0;
};

}  // namespace lmgc::cuda
