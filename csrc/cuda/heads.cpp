#include "cuda/heads.h"

#include <algorithm>

#include "cuda/entropy.h"

namespace lmgc::cuda {

int read_heads(const std::vector<DeviceSection>& sections, std::size_t first,
               const Allocate& allocate, void* stream, const ReadHead& read) {
  std::vector<std::size_t> which;
  for (std::size_t k = 0; k < sections.size(); ++k) which.push_back(k);
  for (std::size_t most = first; !which.empty(); most *= 16) {
    std::vector<std::size_t> at(1, 0);
    for (const std::size_t k : which) at.push_back(at.back() + std::min(sections[k].size, most));
    std::uint8_t* gathered = nullptr;
    if (int error = allocate_array(allocate, at.back(), &gathered)) return error;
    std::vector<CopyParts::Part> parts;
    for (std::size_t i = 0; i < which.size(); ++i)
      add_part(sections[which[i]].data, gathered + at[i], at[i + 1] - at[i], parts);
    if (int error = copy_parts(parts, allocate, stream)) return error;
    std::vector<std::uint8_t> bytes(at.back());
    if (int error = download(bytes.data(), gathered, bytes.size(), stream)) return error;
    std::vector<std::size_t> longer;
    for (std::size_t i = 0; i < which.size(); ++i) {
      const std::size_t k = which[i], part = at[i + 1] - at[i];
      if (!read(k, bytes.data() + at[i], part) && part < sections[k].size) longer.push_back(k);
    }
    which = std::move(longer);
  }
  return 0;
}

}  // namespace lmgc::cuda
