#include "ops/planes.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "core/planes.h"
#include "ops/error.h"
#include "ops/for_each.h"

#ifdef LMGC_WITH_CUDA
#include "cuda/planes.h"
#include "ops/device_memory.h"
#endif

namespace lmgc::ops {
namespace {

std::int64_t elements_of(const PlanesTensor& tensor) {
  return tensor.bytes.numel() / tensor.format.bytes;
}

}  // namespace

// ---- the CPU ------------------------------------------------------------------------------------

Section encode_planes_section(const PlanesTensor& tensor) {
  const auto encoder = std::make_shared<PlanesEncoder>(tensor.bytes.data_ptr(), elements_of(tensor),
                                                       tensor.format, aten_parallel());
  return {static_cast<std::int64_t>(encoder->size()),
          [encoder, bytes = tensor.bytes](const at::Tensor& out) {
            encoder->write(out.data_ptr<std::uint8_t>(), aten_parallel());
          }};
}

void decode_planes_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                           FloatFormat format, std::int64_t elements, const Room& room,
                           const std::string& where) {
  const std::uint8_t* section = frame.data_ptr<std::uint8_t>() + offset;
  const auto section_size = static_cast<std::size_t>(size);
  PlanesDecoder decoder;
  check_frame(decoder.open(section, section_size, elements, format), where);
  check_frame(decoder.decode(room().data_ptr(), aten_parallel()), where);
}

// ---- CUDA ---------------------------------------------------------------------------------------

#ifdef LMGC_WITH_CUDA

std::vector<Section> encode_planes_sections(const std::vector<PlanesTensor>& tensors) {
  if (tensors.empty()) return {};
  struct Job {
    explicit Job(const std::vector<PlanesTensor>& tensors)
        : tensors(tensors), memory(tensors[0].bytes.device()) {}
    void* stream() const { return stream_of(tensors[0].bytes); }

    std::vector<PlanesTensor> tensors;
    DeviceMemory memory;
    cuda::PlanesEncoder encoder;
    std::vector<cuda::PlanesTarget> targets;
  };
  const auto job = std::make_shared<Job>(tensors);
  std::vector<cuda::PlanesInput> inputs;
  for (const PlanesTensor& tensor : tensors)
    inputs.push_back({tensor.bytes.data_ptr(), elements_of(tensor), tensor.format});
  check_cuda(job->encoder.prepare(inputs, aten_parallel(), job->memory.allocate(), job->stream()));
  std::vector<Section> sections;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    sections.push_back({static_cast<std::int64_t>(job->encoder.size(k)),
                        [job, k](const at::Tensor& out) {
                          job->targets.push_back({k, out.data_ptr<std::uint8_t>()});
                        },
                        [job] {
                          if (job->targets.empty()) return;
                          check_cuda(job->encoder.write(std::exchange(job->targets, {}),
                                                        job->memory.allocate(), job->stream()));
                        }});
  }
  return sections;
}

void decode_planes_sections(const at::Tensor& frame, const std::vector<PlanesSection>& sections) {
  std::vector<cuda::PlanesSource> sources;
  for (const PlanesSection& section : sections) {
    sources.push_back({frame.data_ptr<std::uint8_t>() + section.offset,
                       static_cast<std::size_t>(section.size), section.elements, section.format,
                       [&room = section.room] { return room().data_ptr(); }});
  }
  DeviceMemory memory(frame.device());
  std::vector<Status> statuses;
  check_cuda(cuda::decode_planes(sources, memory.allocate(), stream_of(frame), statuses));
  for (std::size_t k = 0; k < sections.size(); ++k) check_frame(statuses[k], sections[k].where);
}

#else

// check_device() has refused tensors on CUDA.
std::vector<Section> encode_planes_sections(const std::vector<PlanesTensor>&) { return {}; }
void decode_planes_sections(const at::Tensor&, const std::vector<PlanesSection>&) {}

#endif

}  // namespace lmgc::ops
