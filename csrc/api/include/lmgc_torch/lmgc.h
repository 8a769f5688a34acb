// lmgc_torch for C++ programs with LibTorch: tensors to bytes and back, bit for bit.
//
//     #include <lmgc_torch/lmgc.h>
//
//     const at::Tensor frame = lmgc::compress(gradients);               // uint8 of shape [bytes]
//     const std::vector<at::Tensor> restored = lmgc::decompress(frame);
//
// A *frame* is self-contained: what these functions write, lmgc_torch in Python reads, and the
// other way round. The same input and options give the same bytes (docs/api.md says where they may
// differ). docs/cpp.md says how to build against this header, docs/format.md what is in a frame.
//
// All functions may be called from several threads at once, and use torch's own threads inside.
//
// Errors are exceptions, all of them c10::Error, so that code which catches those needs no change:
//
//   lmgc::CorruptFrameError    the bytes are no frame, were changed or cut, or are too new
//   lmgc::TooLargeError        the frame announces more bytes of tensors than you take
//   lmgc::PriorMismatchError   the frame needs a prior, another one, or decodes elsewhere only
//   lmgc::PastMismatchError    the frame refers to the one before it, and that is not at hand
//   lmgc::ReferenceMismatchError  a tensor was told relative to a reference that is not at hand
//   c10::ValueError            an argument is wrong; the message names it and what is legal
//   c10::OutOfMemoryError      of a device, as torch raises it
//
// Bytes from anywhere are safe to pass to decompress() and info(): damage is an error, never a
// crash and never wrong data. A frame of a few bytes may however announce a large tensor, of zeros
// for example: give decompress() a max_bytes where memory matters.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// Visible in the shared library; the rest of it is hidden.
#define LMGC_API __attribute__((visibility("default")))

namespace lmgc {

// What this library raises where torch has no better word; the base of those below.
class LMGC_API Error : public c10::Error {
 public:
  using c10::Error::Error;
};

class LMGC_API CorruptFrameError : public Error {
 public:
  using Error::Error;
};

class LMGC_API TooLargeError : public Error {
 public:
  using Error::Error;
};

class LMGC_API PriorMismatchError : public Error {
 public:
  using Error::Error;
};

class LMGC_API PastMismatchError : public Error {
 public:
  using Error::Error;
};

class LMGC_API ReferenceMismatchError : public Error {
 public:
  using Error::Error;
};

// A causal language model, for the methods "lm" and "lmgc" (docs/prior.md): a TorchScript file,
// which is a program: load only what you trust. Copies share the model.
class LMGC_API Prior {
 public:
  // Loads a file written by torch.jit.save, to `device`. The priors that come with the library are
  // in the folder that find_package(lmgc_torch) names lmgc_torch_PRIORS_DIR: residual.pt for
  // method "lm", default.pt for "lmgc". Raises c10::ValueError with what breaks the contract, and
  // with the path if there is no such file.
  static Prior load(const std::string& path, at::Device device = at::kCPU);

  // 32 hexadecimal digits: a hash of the model, wherever it lies.
  std::string fingerprint() const;
  // Whether frames decode everywhere. Those of other priors decode only where they were made.
  bool portable() const;
  at::Device device() const;

 private:
  friend struct Access;
  struct Handle;
  explicit Prior(std::shared_ptr<Handle> handle);
  std::shared_ptr<Handle> handle_;
};

// What compressing a list of tensors found out, for the next list like it: in training the same
// gradients come again every step, and "lowrank" and "auto" need not search anew. Use one for each
// list. It holds no numbers of the tensors, and frames do not depend on it to be decoded. Copies
// share it, and calls that share it wait for each other.
class LMGC_API WarmStart {
 public:
  WarmStart();
  void clear();

 private:
  friend struct Access;
  struct Handle;
  std::shared_ptr<Handle> handle_;
};

// What one side of a sequence of frames keeps of the last one, so that the next need not tell it
// again: gradients of consecutive steps are alike (docs/past.md). Frames are smaller, and must be
// decompressed in the order in which they were compressed, none left out. Use one for each list and
// each side. Copies share it, and calls that share it wait for each other.
class LMGC_API PastFrame {
 public:
  PastFrame();
  // Forgets the frame: the next one that is compressed needs no other.
  void clear();

 private:
  friend struct Access;
  struct Handle;
  std::shared_ptr<Handle> handle_;
};

struct CompressOptions {
  // How each tensor is coded: "auto", "raw", "planes", "scale", "lowrank", "lm" or "lmgc". README
  // and docs/api.md say which one to choose. A tensor that a method would make larger is stored
  // raw.
  std::string method = "auto";
  // For "lowrank", "auto" and "lm": how long to look for predictions, from 1, the quickest, to 9,
  // the smallest result. Others ignore it.
  std::int64_t effort = 5;
  // For "lm" and "lmgc", which need one, on the device of the tensors; others ignore it.
  std::optional<Prior> prior = std::nullopt;
  // For "auto" and "lowrank"; others ignore it.
  std::optional<WarmStart> warm_start = std::nullopt;
  // The frame before of a sequence, whose place this one takes: for "auto" and "lowrank"; others
  // ignore it.
  std::optional<PastFrame> past = std::nullopt;
  // Tensors that the receiver holds as well, one for each: those of the same type and sizes may
  // predict it. For "auto", "lowrank" and "scale", without a warm start or a past frame; others
  // ignore it.
  std::optional<std::vector<at::Tensor>> reference = std::nullopt;
  // Any text of yours; info() gives it back. lmgc_torch.decompress in Python returns a list, or
  // what docs/api.md says of metadata that begin with {"lmgc":1.
  std::string metadata;
  // For "lm" and "lmgc": elements that are coded one after the other, 1 to 65536; 0 chooses. Fewer
  // are faster and a little larger.
  std::int64_t lane_elements = 0;
  // For "lm" and "lmgc": about how many bytes the model's inputs and outputs may take at a time.
  std::int64_t memory_limit = std::int64_t{256} << 20;
};

// Compresses tensors without loss into one frame: uint8 of shape [bytes], on their device (the CPU
// if there are none). It is never larger than all tensors + 64 bytes + 0.1 % for each, and the
// metadata.
//
// The tensors are dense, of any float (8 to 64 bits), integer, bool or complex type and any shape,
// all on one CPU or CUDA device. They are only read, and need not be contiguous. Shapes, types and
// bits come back (NaN payloads and -0.0 too); strides, requires_grad and autograd history do not.
//
// Raises c10::ValueError if a tensor is undefined, sparse, quantized or on another device, an
// option is not legal, or the prior is missing, on another device, made for another method or not
// what it says.
LMGC_API at::Tensor compress(const std::vector<at::Tensor>& tensors,
                             const CompressOptions& options = {});

// The tensors of a frame, bit for bit, in order: new ones on the device of the frame. `frame` is
// 1-D uint8 and may be anything: its checksums, and those of the decoded tensors, are verified.
// `prior` is the one that the frame was compressed with; frames that need none ignore it.
// `max_bytes` is the most that all tensors together may have: a frame that announces more is
// refused before memory is taken for them.
//
// Raises CorruptFrameError, TooLargeError, PriorMismatchError, and c10::ValueError if `frame` is no
// 1-D uint8 tensor, the prior is on another device or max_bytes negative.
LMGC_API std::vector<at::Tensor> decompress(const at::Tensor& frame,
                                            const std::optional<Prior>& prior = std::nullopt,
                                            std::optional<std::int64_t> max_bytes = std::nullopt);

// The same for the next frame of a sequence, which takes its place in `past`. Raises
// PastMismatchError, too, if the frame refers to another one than `past` holds; `past` is then as
// it was.
LMGC_API std::vector<at::Tensor> decompress(const at::Tensor& frame, const PastFrame& past,
                                            std::optional<std::int64_t> max_bytes = std::nullopt);

// The same for a frame that was compressed relative to `reference`. Raises ReferenceMismatchError,
// too, where a tensor needs another one, and c10::ValueError where their number is another.
LMGC_API std::vector<at::Tensor> decompress(const at::Tensor& frame,
                                            const std::vector<at::Tensor>& reference,
                                            std::optional<std::int64_t> max_bytes = std::nullopt);

struct TensorInfo {
  at::ScalarType dtype;
  std::vector<std::int64_t> sizes;
  std::string method;      // how it is coded: a method's name but "auto"
  std::int64_t raw_bytes;  // before
  // In the frame, without its part of the header. Of small tensors that are coded as one: its part
  // of their section, by its bytes.
  std::int64_t section_bytes;
};

struct LMGC_API FrameInfo {
  int version;  // of the frame format
  std::string metadata;
  std::vector<TensorInfo> tensors;
  std::int64_t bytes;         // of the frame
  std::int64_t header_bytes;  // of it
  bool needs_prior;
  bool needs_past;

  // Of all tensors, before; the largest number where they have more together.
  std::int64_t raw_bytes() const;
};

// What a frame holds. Only its header is read, and verified: decompress() tells whether the rest is
// whole. Raises CorruptFrameError, and c10::ValueError as decompress() does.
LMGC_API FrameInfo info(const at::Tensor& frame);

// "1.2.3": of the library that is loaded.
LMGC_API std::string version();

}  // namespace lmgc
