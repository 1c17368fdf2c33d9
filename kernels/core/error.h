// The one exception type of moebench, and `require`, which throws it with a formatted message.
//
// A message says what was being done, with which value, and what would work instead:
//   require(top_k <= num_experts, "top_k {} exceeds num_experts {}", top_k, num_experts);
// It is caught in main(), in the case runner and in tests, nowhere else.
#pragma once

#if defined(__CUDACC__)
// nvcc 13.0 refuses fmt 9's checks of format strings at compile time; there they happen at run
// time.
#define FMT_CONSTEVAL
#define FMT_USE_CONSTEXPR 1
#define MOEBENCH_CONSTEVAL
#else
#define MOEBENCH_CONSTEVAL consteval
#endif
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace moebench {

enum class ErrorCode {
  kInvalidArgument,  // a value that cannot be: caller's mistake or a bad field in a file
  kUnsupported,      // valid, but not something this build, plan or variant can do
  kOutOfMemory,      // more memory than there is
  kIo,               // the operating system refused: missing file, full disk, closed pipe
  kParse,            // bytes that are not what they claim to be
  kUsage,            // the command line itself is wrong
  kInterrupted,      // the user asked to stop
  kDevice,           // the GPU refused or failed
};

// Where an error was thrown. Not std::source_location, which clang 14 (our fuzzer and linter)
// lacks.
class SourceLocation {
 public:
  static constexpr SourceLocation current(const char* file = __builtin_FILE(),
                                          unsigned line = __builtin_LINE()) {
    SourceLocation here;
    here.file_ = file;
    here.line_ = line;
    return here;
  }
  constexpr const char* file_name() const { return file_; }
  constexpr unsigned line() const { return line_; }

 private:
  const char* file_ = "";
  unsigned line_ = 0;
};

// "invalid_argument", "io", ...: the word that goes into records.
std::string_view error_code_name(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message,
        SourceLocation where = SourceLocation::current())
      : std::runtime_error(message), code_(code), where_(where) {}

  ErrorCode code() const { return code_; }
  const SourceLocation& where() const { return where_; }

 private:
  ErrorCode code_;
  SourceLocation where_;
};

// A format string that remembers the line it was written on.
template <class... Args>
struct LocatedFormat {
  fmt::format_string<Args...> text;
  SourceLocation where;

  template <class String>
  MOEBENCH_CONSTEVAL LocatedFormat(  // NOLINT: implicit on purpose, so that a literal can be passed
      const String& literal, SourceLocation location = SourceLocation::current())
      : text(literal), where(location) {}
};

template <class... Args>
[[noreturn]] void fail(ErrorCode code, LocatedFormat<std::type_identity_t<Args>...> format,
                       Args&&... args) {
  throw Error(code, fmt::format(format.text, std::forward<Args>(args)...), format.where);
}

// Throws Error(kInvalidArgument) unless `ok`.
template <class... Args>
void require(bool ok, LocatedFormat<std::type_identity_t<Args>...> format, Args&&... args) {
  if (!ok) [[unlikely]] {
    throw Error(ErrorCode::kInvalidArgument, fmt::format(format.text, std::forward<Args>(args)...),
                format.where);
  }
}

// Throws Error(code) unless `ok`.
template <class... Args>
void require_or(ErrorCode code, bool ok, LocatedFormat<std::type_identity_t<Args>...> format,
                Args&&... args) {
  if (!ok) [[unlikely]] {
    throw Error(code, fmt::format(format.text, std::forward<Args>(args)...), format.where);
  }
}

}  // namespace moebench
