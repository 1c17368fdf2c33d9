// The words for error codes.
#include "kernels/core/error.h"

namespace moebench {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kParse:
      return "parse";
    case ErrorCode::kUsage:
      return "usage";
    case ErrorCode::kInterrupted:
      return "interrupted";
    case ErrorCode::kDevice:
      return "device";
  }
  return "unknown";
}

}  // namespace moebench
