// The operator library: the classes of torch.classes.lmgc and the schemas of torch.ops.lmgc. The
// serializer's operators, which stand alone, are registered in serialize.cpp and features.cpp.

#include <torch/library.h>

#include <string>

#include "core/version.h"
#include "ops/compress.h"
#include "ops/past_frame.h"
#include "ops/prior.h"
#include "ops/warm_start.h"

#define PRIOR "__torch__.torch.classes.lmgc.Prior"
#define WARM_START "__torch__.torch.classes.lmgc.WarmStart"
#define PAST_FRAME "__torch__.torch.classes.lmgc.PastFrame"
#define COMPRESS_OPTIONS                                                                         \
  ", str separator=\"none\", int bytes_per_group=0, str byte_order=\"big\","                     \
  " str window=\"disjoint\", int lane_elements=0, bool bypass=True, int memory_limit=268435456," \
  " int effort=5, str metadata=\"\") -> Tensor"

TORCH_LIBRARY(lmgc, m) {
  using namespace lmgc::ops;
  register_prior(m);  // before the schemas that name the class
  register_warm_start(m);
  register_past_frame(m);
  m.def("version() -> str", [] { return std::string(lmgc::library_version()); });
  m.def("compress(Tensor[] tensors, " PRIOR "? prior=None, *, str method=\"auto\"" COMPRESS_OPTIONS,
        {at::Tag::pt2_compliant_tag});
  // torch.compile cannot see the stand-in of a custom class behind an optional argument: with this
  // overload a call with a prior stays in one graph.
  m.def("compress.prior(Tensor[] tensors, " PRIOR " prior, *, str method=\"lmgc\"" COMPRESS_OPTIONS,
        {at::Tag::pt2_compliant_tag});
  m.def("compress.warm(Tensor[] tensors, " WARM_START
        " warm_start, *, str method=\"auto\", int effort=5, str metadata=\"\") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("compress.past(Tensor[] tensors, " PAST_FRAME " past, " WARM_START
        "? warm_start=None, *, str method=\"auto\", int effort=5, str metadata=\"\") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def(
      "compress.reference(Tensor[] tensors, Tensor[] reference, *, str method=\"auto\","
      " int effort=5, str metadata=\"\") -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def("decompress(Tensor data, " PRIOR "? prior=None, *, int? max_bytes=None) -> Tensor[]",
        {at::Tag::pt2_compliant_tag});
  m.def("decompress.past(Tensor data, " PAST_FRAME " past, *, int? max_bytes=None) -> Tensor[]",
        {at::Tag::pt2_compliant_tag});
  m.def("decompress.reference(Tensor data, Tensor[] reference, *, int? max_bytes=None) -> Tensor[]",
        {at::Tag::pt2_compliant_tag});
  m.def("contents(Tensor data) -> (str metadata, str[] methods)");
  m.def("info(Tensor data) -> str");
}

// Not CPU and CUDA apart: the functions dispatch themselves, and an empty list of tensors has no
// device.
TORCH_LIBRARY_IMPL(lmgc, CompositeExplicitAutograd, m) {
  m.impl("compress", lmgc::ops::compress);
  m.impl("compress.prior", lmgc::ops::compress_with_prior);
  m.impl("compress.warm", lmgc::ops::compress_warm);
  m.impl("compress.past", lmgc::ops::compress_past);
  m.impl("compress.reference", lmgc::ops::compress_reference);
  m.impl("decompress.reference", lmgc::ops::decompress_reference);
  m.impl("decompress", lmgc::ops::decompress);
  m.impl("decompress.past", lmgc::ops::decompress_past);
  m.impl("contents", lmgc::ops::contents);
  m.impl("info", lmgc::ops::info);
}
