// Named errors that Python turns into its own classes by the word before the colon.
#pragma once

#include <c10/util/Exception.h>

#include <string>

#include "core/status.h"

namespace lmgc::ops {

// Damaged or foreign bytes: RuntimeError "CorruptFrameError: WHERE: WHAT".
inline void check_frame(Status status, const std::string& where) {
  TORCH_CHECK(status == Status::ok, "CorruptFrameError: ", where, ": ", describe(status));
}
inline bool is_corrupt_frame(const c10::Error& error) {
  return error.msg().rfind("CorruptFrameError: ", 0) == 0;
}

}  // namespace lmgc::ops

// The frame announces more than the caller takes: RuntimeError "TooLargeError: ...".
#define LMGC_CHECK_SIZE(condition, ...) TORCH_CHECK(condition, "TooLargeError: ", __VA_ARGS__)
// The frame was made with another prior, or elsewhere: RuntimeError "PriorMismatchError: ...".
#define LMGC_CHECK_PRIOR(condition, ...) TORCH_CHECK(condition, "PriorMismatchError: ", __VA_ARGS__)
// The tensor was told relative to another: RuntimeError "ReferenceMismatchError: ...".
#define LMGC_CHECK_REFERENCE(condition, ...) \
  TORCH_CHECK(condition, "ReferenceMismatchError: ", __VA_ARGS__)
// The frame continues another than the one before it: RuntimeError "PastMismatchError: ...".
#define LMGC_CHECK_PAST(condition, ...) TORCH_CHECK(condition, "PastMismatchError: ", __VA_ARGS__)
