#include "ops/planes.h"
namespace lmgc::ops {
at::Tensor encode_planes_section(const at::Tensor& bytes, FloatFormat) { return bytes; }
void decode_planes_section(const at::Tensor&, std::int64_t, std::int64_t, FloatFormat,
                           const at::Tensor&, const std::string&) {}
}  // namespace lmgc::ops
