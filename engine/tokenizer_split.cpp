// PCRE2 with its JIT where there is one; its interpreter gives the same matches.
#include "engine/tokenizer_split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <new>

#include "engine/utf8.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::size_t kMaxPatternBytes = 1 << 16;
constexpr std::size_t kJitStackBytes = std::size_t{8} << 20;  // grows on demand; PCRE2's own: 32 KB
constexpr std::uint32_t kHeapLimitKb = 256 << 10;             // of the interpreter
// Steps allowed per match: enough for patterns that scan a piece a few times, which is what
// published ones do on a line without spaces; a pattern that backtracks without end is stopped.
constexpr std::size_t kBaseSteps = 10'000'000;
constexpr std::size_t kStepsPerByte = 16;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// The pattern with \s and \S as the White_Space property, both inside and outside of brackets;
// PCRE2's own \s has U+180E too.
std::string translate(std::string_view pattern, std::string_view where) {
  // Escapes of letters and digits that mean the same everywhere. Others do not: \w has other
  // characters in PCRE2, \h is a hexadecimal digit in Oniguruma.
  constexpr std::string_view kSameEverywhere = "pPdDrnt";
  require_or(ErrorCode::kUnsupported, pattern.find("&&") == std::string_view::npos,
             "{}: intersections of character classes (&&) are not supported", where);
  std::string translated;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    translated += pattern[i];
    if (pattern[i] != '\\' || i + 1 == pattern.size()) continue;
    const char escaped = pattern[++i];
    const bool is_letter = (escaped >= '0' && escaped <= '9') ||
                           (escaped >= 'a' && escaped <= 'z') || (escaped >= 'A' && escaped <= 'Z');
    if (escaped == 's') {
      translated += "p{White_Space}";
    } else if (escaped == 'S') {
      translated += "P{White_Space}";
    } else {
      require_or(
          ErrorCode::kUnsupported,
          !is_letter || kSameEverywhere.find(escaped) != std::string_view::npos,
          "{}: the escape \\{} is not supported (known: \\s \\S \\p \\P \\d \\D \\r \\n \\t)",
          where, escaped);
      translated += escaped;
    }
  }
  return translated;
}

template <auto free_function>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};

// What one thread needs to match: never shared, so that a splitter can be.
class Matcher {
 public:
  explicit Matcher(const pcre2_code* code)
      : code_(code),
        stack_(pcre2_jit_stack_create(std::size_t{32} << 10, kJitStackBytes, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        data_(pcre2_match_data_create_from_pattern(code, nullptr)) {
    if (context_ == nullptr || data_ == nullptr) throw std::bad_alloc();
    pcre2_set_heap_limit(context_.get(), kHeapLimitKb);
    // Without a stack of its own (no memory, or no JIT in this build) the default one serves.
    if (stack_ != nullptr) pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
  }

  struct Span {
    std::size_t begin, end;
  };

  // Looks for the first match at or after `from`: 1 if it is now in `match`, 0 if there is none,
  // below 0 a PCRE2 error.
  int next(std::string_view text, std::size_t from, Span& match) {
    const std::size_t steps = kBaseSteps + kStepsPerByte * text.size();
    pcre2_set_match_limit(context_.get(), static_cast<std::uint32_t>(std::min<std::size_t>(
                                              steps, std::numeric_limits<std::uint32_t>::max())));
    int result = run(text, from, 0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(text, from, PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return 0;
    if (result < 0) return result;
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data_.get());
    match = {bounds[0], bounds[1]};
    return 1;
  }

 private:
  int run(std::string_view text, std::size_t from, std::uint32_t options) {
    // Without NO_UTF_CHECK each call would check the rest of the text again: quadratic.
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       options | PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>> stack_;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context_;
  std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> data_;
};

}  // namespace

void PieceSplitter::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

PieceSplitter::PieceSplitter(std::string_view pattern, Gaps gaps, std::string_view where)
    : gaps_(gaps), where_(where) {
  require_or(ErrorCode::kUnsupported, pattern.size() <= kMaxPatternBytes,
             "{}: the pattern has {} bytes, more than {}", where, pattern.size(), kMaxPatternBytes);
  const std::string translated = translate(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                            PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  require_or(ErrorCode::kParse, code_ != nullptr, "{}: invalid regular expression '{}': {}", where,
             pattern.substr(0, 200), error_text(error));
  // Failure is fine (no JIT on this processor, no executable memory): the interpreter serves.
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
}

Pieces PieceSplitter::split(const Pieces& pieces) const {
  Matcher matcher(code_.get());
  Pieces result;
  const auto add = [&](std::string_view piece) {
    if (!piece.empty()) result.push_back(piece);
  };
  for (const std::string_view piece : pieces) {
    std::size_t done = 0;  // all before is in `result`
    std::size_t from = 0;  // where to look for the next match
    while (from < piece.size()) {
      Matcher::Span match{};
      const int found = matcher.next(piece, from, match);
      require_or(ErrorCode::kUnsupported, found >= 0, "{}: cannot split a text of {} bytes: {}",
                 where_, piece.size(), found < 0 ? error_text(found) : "");
      if (found == 0) break;
      if (gaps_ == Gaps::kKeep) add(piece.substr(done, match.begin - done));
      add(piece.substr(match.begin, match.end - match.begin));
      done = from = match.end;
      // An empty match only cuts (as in Hugging Face's splitter); step over a character to go on.
      const bool is_empty = match.begin == match.end && match.end < piece.size();
      if (is_empty) from += utf8_prefix(piece.substr(from)).length;
    }
    if (gaps_ == Gaps::kKeep) add(piece.substr(done));
  }
  return result;
}

}  // namespace moebench
