// lmgc_torch._C: how the native code was built, what this processor can do, and low-level access
// to the core for tests. It does not link torch, so that it still answers where the operator
// library cannot be loaded.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "build_config.h"
#include "core/isa.h"
#include "core/version.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  const std::string cuda_version = LMGC_CONFIG_CUDA_VERSION;
  const bool cuda = !cuda_version.empty();
  py::dict info;
  info["version"] = lmgc::library_version();
  info["format_version"] = static_cast<int>(lmgc::format_version);
  info["torch_version"] = LMGC_CONFIG_TORCH_VERSION;
  info["cuda"] = cuda;
  info["cuda_why_not"] = LMGC_CONFIG_CUDA_WHY_NOT;
  info["cuda_version"] = cuda ? py::object(py::str(cuda_version)) : py::object(py::none());
  info["cuda_archs"] = cuda ? LMGC_CONFIG_CUDA_ARCHS : "";
  info["compiler"] = LMGC_CONFIG_COMPILER;
  info["target"] = LMGC_CONFIG_TARGET;
  info["build_type"] = LMGC_CONFIG_BUILD_TYPE;
  return info;
}

std::vector<std::string> cpu_features() {
  constexpr std::pair<const char*, lmgc::Isa> names[] = {
      {"avx2", lmgc::isa_avx2},
      {"avx512f", lmgc::isa_avx512f},
      {"avx512bw", lmgc::isa_avx512bw},
      {"avx512cd", lmgc::isa_avx512cd},
      {"avx512dq", lmgc::isa_avx512dq},
      {"avx512vl", lmgc::isa_avx512vl},
      {"avx512vbmi", lmgc::isa_avx512vbmi},
      {"avx512vbmi2", lmgc::isa_avx512vbmi2},
      {"avx512vnni", lmgc::isa_avx512vnni},
  };
  std::vector<std::string> found;
  for (const auto& [name, isa] : names) {
    if (lmgc::has_isa(isa)) found.emplace_back(name);
  }
  return found;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build facts, processor features and low-level access to the torch-free core.";
  m.def("build_info", &build_info,
        "How the native libraries were built.\n\n"
        "Keys: version, format_version, torch_version, cuda, cuda_why_not (empty if cuda),\n"
        "cuda_version (None if not cuda), cuda_archs, compiler, target, build_type.");
  m.def(
      "cpu_features", &cpu_features,
      "Instruction set extensions that the kernels may use: those of this processor that LMGC_ISA\n"
      "in the environment allows. Empty on other machines than x86-64.");
}
