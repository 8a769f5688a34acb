#include "ops/planes.h"

#include <ATen/ATen.h>

#include <memory>

#include "core/planes.h"
#include "ops/error.h"
#include "ops/for_each.h"

#ifdef LMGC_WITH_CUDA
#include "cuda/planes.h"
#include "ops/device_memory.h"
#endif

namespace lmgc::ops {
namespace {

#ifdef LMGC_WITH_CUDA
Section encode_on_device(const at::Tensor& bytes, FloatFormat format) {
  struct Job {
    explicit Job(const at::Device& device) : memory(device) {}
    DeviceMemory memory;
    cuda::PlanesEncoder encoder;
  };
  const auto job = std::make_shared<Job>(bytes.device());
  check_cuda(job->encoder.prepare({{bytes.data_ptr(), bytes.numel() / format.bytes, format}},
                                  aten_parallel(), job->memory.allocate(), stream_of(bytes)));
  return {static_cast<std::int64_t>(job->encoder.size(0)), [job, bytes](const at::Tensor& out) {
            check_cuda(job->encoder.write({{0, out.data_ptr<std::uint8_t>()}},
                                          job->memory.allocate(), stream_of(bytes)));
          }};
}
#endif

}  // namespace

Section encode_planes_section(const at::Tensor& bytes, FloatFormat format) {
#ifdef LMGC_WITH_CUDA
  if (bytes.is_cuda()) return encode_on_device(bytes, format);
#endif
  const auto encoder = std::make_shared<PlanesEncoder>(
      bytes.data_ptr(), bytes.numel() / format.bytes, format, aten_parallel());
  return {static_cast<std::int64_t>(encoder->size()), [encoder, bytes](const at::Tensor& out) {
            encoder->write(out.data_ptr<std::uint8_t>(), aten_parallel());
          }};
}

void decode_planes_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                           FloatFormat format, const at::Tensor& bytes, const std::string& where) {
  const std::uint8_t* section = frame.data_ptr<std::uint8_t>() + offset;
  const std::int64_t elements = bytes.numel() / format.bytes;
  Status status = Status::ok;
#ifdef LMGC_WITH_CUDA
  if (bytes.is_cuda()) {
    DeviceMemory memory(bytes.device());
    std::vector<Status> statuses;
    check_cuda(cuda::decode_planes(
        {{section, static_cast<std::size_t>(size), elements, format, bytes.data_ptr()}},
        memory.allocate(), stream_of(bytes), statuses));
    check_frame(statuses[0], where);
    return;
  }
#endif
  status = decode_planes(section, static_cast<std::size_t>(size), elements, format,
                         bytes.data_ptr(), aten_parallel());
  check_frame(status, where);
}

}  // namespace lmgc::ops
