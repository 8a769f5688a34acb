// The outcome of an operation on untrusted bytes. Inner loops return a Status; nothing in csrc/core
// throws.
#pragma once

#include <cstdint>

namespace lmgc {

enum class Status : std::uint8_t {
  ok = 0,
  truncated,         // the bytes end before what they announce
  bad_magic,         // not a frame
  bad_version,       // a frame of another format version
  bad_header,        // a header field is out of its range
  header_checksum,   // the header's bytes were changed
  payload_checksum,  // the payload's bytes were changed
  data_checksum,     // decoding gave other bytes than were encoded
  bad_section,       // a section contradicts its tensor or itself
  bad_table,         // a symbol table is not a valid distribution
  bad_stream,        // a coder's stream does not decode
};

// One clause in plain English, for error messages; never null.
const char* describe(Status status);

}  // namespace lmgc
