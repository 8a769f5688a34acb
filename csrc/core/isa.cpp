#include "core/isa.h"

#include <cstdlib>
#include <string_view>

namespace lmgc {
namespace {

std::uint32_t isa_of_processor() {
  std::uint32_t found = 0;
#if defined(__x86_64__)
  const auto add = [&](int there, Isa isa) { found |= there ? isa : 0U; };
  add(__builtin_cpu_supports("avx2"), isa_avx2);
  add(__builtin_cpu_supports("avx512f"), isa_avx512f);
  add(__builtin_cpu_supports("avx512bw"), isa_avx512bw);
  add(__builtin_cpu_supports("avx512cd"), isa_avx512cd);
  add(__builtin_cpu_supports("avx512dq"), isa_avx512dq);
  add(__builtin_cpu_supports("avx512vl"), isa_avx512vl);
  add(__builtin_cpu_supports("avx512vbmi"), isa_avx512vbmi);
  add(__builtin_cpu_supports("avx512vbmi2"), isa_avx512vbmi2);
  add(__builtin_cpu_supports("avx512vnni"), isa_avx512vnni);
#endif
  return found;
}

std::uint32_t allowed_isa() {
  const char* const text = std::getenv("LMGC_ISA");
  const std::string_view limit = text == nullptr ? "" : text;
  if (limit == "scalar") return 0;
  return isa_of_processor() & (limit == "avx2" ? isa_avx2 : ~0U);
}

}  // namespace

bool has_isa(std::uint32_t needed) {
  static const std::uint32_t allowed = allowed_isa();
  return (allowed & needed) == needed;
}

}  // namespace lmgc
