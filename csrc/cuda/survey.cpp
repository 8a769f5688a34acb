#include "cuda/survey.h"

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/survey_jobs.h"

namespace lmgc::cuda {

int survey(const std::vector<SurveyedTensor>& tensors, std::int64_t most_elements,
           const Allocate& allocate, void* stream, std::vector<Survey>& surveys) {
  TaskListBuilder<SurveyBits::Tensor> bits;
  std::vector<std::int64_t> at(1, 0);  // of each tensor's stretches
  for (const SurveyedTensor& tensor : tensors) {
    const std::int64_t elements = std::min(tensor.elements, most_elements);
    bits.add({tensor.words, tensor.format, elements},
             (elements + FindUsedBits::stretch - 1) / FindUsedBits::stretch);
    at.push_back(bits.tasks());
  }
  // One download: flags behind the bits.
  const auto stretches = static_cast<std::size_t>(bits.tasks());
  const std::size_t words = 2 * stretches + (tensors.size() + 1) / 2;
  std::int64_t* found = nullptr;
  static_assert(sizeof(UsedBits) == 2 * sizeof *found);
  if (int error = allocate_array(allocate, words, &found)) return error;
  auto* const dead = reinterpret_cast<std::int32_t*>(found + 2 * stretches);
  if (int error = clear(dead, tensors.size() * sizeof *dead, stream)) return error;
  SurveyBits bits_job{{}, reinterpret_cast<UsedBits*>(found)};
  if (int error = bits.upload(allocate, stream, &bits_job.tensors)) return error;
  if (int error = launch_warps(bits.tasks(), bits_job, stream)) return error;
  TaskListBuilder<SurveyLines::Matrix> lines;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const auto& [tensor, format, elements, rows, columns] = tensors[k];
    if (rows == 0) continue;
    lines.add({tensor, format.bytes, rows, columns, dead + k}, SurveyLines::tasks(rows, columns));
  }
  if (int error = lines.launch_warps<SurveyLines>(allocate, stream)) return error;
  std::vector<std::int64_t> host(words);
  if (int error = download(host.data(), found, words * sizeof *found, stream)) return error;

  const auto* const used = reinterpret_cast<const UsedBits*>(host.data());
  const auto* const host_dead = reinterpret_cast<const std::int32_t*>(host.data() + 2 * stretches);
  surveys.assign(tensors.size(), {});
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    for (std::int64_t i = at[k]; i < at[k + 1]; ++i) surveys[k].used.take(used[i]);
    surveys[k].all_live = tensors[k].rows > 0 && host_dead[k] == 0;
  }
  return 0;
}

}  // namespace lmgc::cuda
