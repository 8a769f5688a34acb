// torch.ops.lmgc.compress, decompress, contents and info.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/frame.h"
#include "ops/past_frame.h"
#include "ops/prior.h"
#include "ops/warm_start.h"

namespace lmgc::ops {

using OptionalPrior = std::optional<c10::intrusive_ptr<Prior>>;
using OptionalWarmStart = std::optional<c10::intrusive_ptr<WarmStart>>;
// The most bytes that the tensors of a frame may have together; nothing: as many as they like.
using MaxBytes = std::optional<std::int64_t>;

// One frame of all tensors: 1-D uint8 on their device (the CPU for none). Raises a ValueError for
// anything but dense CPU or CUDA tensors of known types on one device. Inputs are not modified.
at::Tensor compress(const std::vector<at::Tensor>& tensors, const OptionalPrior& prior,
                    const std::string& method, const std::string& separator,
                    std::int64_t bytes_per_group, const std::string& byte_order,
                    const std::string& window, std::int64_t lane_elements, bool bypass,
                    std::int64_t memory_limit, std::int64_t effort, const std::string& metadata);

// The same for the overload `compress.prior`.
at::Tensor compress_with_prior(const std::vector<at::Tensor>& tensors,
                               const c10::intrusive_ptr<Prior>& prior, const std::string& method,
                               const std::string& separator, std::int64_t bytes_per_group,
                               const std::string& byte_order, const std::string& window,
                               std::int64_t lane_elements, bool bypass, std::int64_t memory_limit,
                               std::int64_t effort, const std::string& metadata);

// The same, methods auto and lowrank only, for the overload `compress.warm`: starts from what
// `warm_start` knows of the last list, and leaves there what it finds. Takes turns with other calls
// that share it.
at::Tensor compress_warm(const std::vector<at::Tensor>& tensors,
                         const c10::intrusive_ptr<WarmStart>& warm_start, const std::string& method,
                         std::int64_t effort, const std::string& metadata);

// The same for the overload `compress.past`: the frame may refer to the one that `past` holds, and
// takes its place there.
at::Tensor compress_past(const std::vector<at::Tensor>& tensors,
                         const c10::intrusive_ptr<PastFrame>& past,
                         const OptionalWarmStart& warm_start, const std::string& method,
                         std::int64_t effort, const std::string& metadata);

// The same, methods auto, lowrank and scale only, for the overload `compress.reference`: tensors
// may be told relative to those of `reference` at the same place, where these are of the same type
// and sizes. Works on the CPU.
at::Tensor compress_reference(const std::vector<at::Tensor>& tensors,
                              const std::vector<at::Tensor>& reference, const std::string& method,
                              std::int64_t effort, const std::string& metadata);
// References' bytes on the CPU; undefined where they do not suit a tensor of this type and sizes.
std::vector<at::Tensor> reference_bytes(const std::vector<at::Tensor>& references,
                                        const std::vector<at::ScalarType>& types,
                                        const std::vector<std::vector<std::int64_t>>& sizes);

// The tensors of a frame, on its device. `data` is untrusted: raises CorruptFrameError,
// PriorMismatchError or, for a frame that names another, PastMismatchError. A frame that announces
// more than `max_bytes` is a TooLargeError before anything is allocated for it.
std::vector<at::Tensor> decompress(const at::Tensor& data, const OptionalPrior& prior,
                                   MaxBytes max_bytes = std::nullopt);

// The same for the overload `decompress.past`: reads frames that refer to the one that `past`
// holds, and others; each takes its place there. After an error it holds what it held.
std::vector<at::Tensor> decompress_past(const at::Tensor& data,
                                        const c10::intrusive_ptr<PastFrame>& past,
                                        MaxBytes max_bytes = std::nullopt);

// The same for the overload `decompress.reference`: raises ReferenceMismatchError where a tensor
// was told relative to another. Works on the CPU.
std::vector<at::Tensor> decompress_reference(const at::Tensor& data,
                                             const std::vector<at::Tensor>& reference,
                                             MaxBytes max_bytes = std::nullopt);

// What a decoder must know beforehand: the metadata, and the method of each tensor.
std::tuple<std::string, std::vector<std::string>> contents(const at::Tensor& data);

// What a frame's header and sections say, as JSON (docs/api.md); the payload is not decoded.
std::string info(const at::Tensor& data);

// The checked header of a frame: 1-D contiguous uint8, on any device.
FrameHeader read_header(const at::Tensor& frame);

// `tensor`, checked to be a 1-D uint8 tensor, contiguous.
at::Tensor frame_bytes(const at::Tensor& data);

// "tensor 3 (float32, raw)", for error messages.
std::string describe_tensor(std::size_t index, const TensorRecord& record);

}  // namespace lmgc::ops
