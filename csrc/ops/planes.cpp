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
  check_cuda(job->encoder.prepare(bytes.data_ptr(), bytes.numel() / format.bytes, format,
                                  job->memory.allocate(), stream_of(bytes)));
  return {static_cast<std::int64_t>(job->encoder.size()), [job, bytes](const at::Tensor& out) {
            check_cuda(job->encoder.write(out.data_ptr<std::uint8_t>(), job->memory.allocate(),
                                          stream_of(bytes)));
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
                           FloatFormat format, std::int64_t elements, const Room& room,
                           const std::string& where) {
  const std::uint8_t* section = frame.data_ptr<std::uint8_t>() + offset;
  const auto section_size = static_cast<std::size_t>(size);
#ifdef LMGC_WITH_CUDA
  if (frame.is_cuda()) {
    Status status = Status::ok;
    cuda::PlanesDecoder decoder;
    check_cuda(decoder.open(section, section_size, elements, format, stream_of(frame), status));
    check_frame(status, where);
    const at::Tensor bytes = room();
    DeviceMemory memory(bytes.device());
    check_cuda(decoder.decode(bytes.data_ptr(), memory.allocate(), stream_of(bytes), status));
    check_frame(status, where);
    return;
  }
#endif
  PlanesDecoder decoder;
  check_frame(decoder.open(section, section_size, elements, format), where);
  check_frame(decoder.decode(room().data_ptr(), aten_parallel()), where);
}

}  // namespace lmgc::ops
