#include "core/version.h"

namespace lmgc {

const char* library_version() noexcept { return LMGC_VERSION; }

}  // namespace lmgc
