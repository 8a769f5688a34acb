#include "core/float_format.h"

namespace lmgc {

const char* name(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::uint8:
      return "uint8";
    case DType::int8:
      return "int8";
    case DType::int16:
      return "int16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::bool8:
      return "bool";
    case DType::complex32:
      return "complex32";
    case DType::complex64:
      return "complex64";
    case DType::complex128:
      return "complex128";
    case DType::uint16:
      return "uint16";
    case DType::uint32:
      return "uint32";
    case DType::uint64:
      return "uint64";
    case DType::float8_e4m3fn:
      return "float8_e4m3fn";
    case DType::float8_e5m2:
      return "float8_e5m2";
    case DType::float8_e4m3fnuz:
      return "float8_e4m3fnuz";
    case DType::float8_e5m2fnuz:
      return "float8_e5m2fnuz";
    case DType::float8_e8m0fnu:
      return "float8_e8m0fnu";
  }
  return "unknown";
}

}  // namespace lmgc
