#include "core/status.h"

namespace lmgc {

const char* describe(Status status) {
  switch (status) {
    case Status::ok:
      return "no error";
    case Status::truncated:
      return "the bytes end too early";
    case Status::bad_magic:
      return "these bytes are not an lmgc frame";
    case Status::bad_version:
      return "the frame has a format version that this library does not read";
    case Status::bad_header:
      return "a header field is out of range";
    case Status::header_checksum:
      return "the header was changed (checksum)";
    case Status::payload_checksum:
      return "the payload was changed (checksum)";
    case Status::data_checksum:
      return "the decoded data differ from what was encoded (checksum)";
    case Status::bad_section:
      return "a section contradicts its tensor";
    case Status::bad_table:
      return "a symbol table is invalid";
    case Status::bad_stream:
      return "a coded stream is invalid";
  }
  return "unknown status";
}

}  // namespace lmgc
