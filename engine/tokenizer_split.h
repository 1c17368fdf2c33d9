// Splitting text into the pieces that are merged each by itself: one regular expression, by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;  // PCRE2's compiled pattern

namespace moebench {

// Text pieces that point into the caller's text.
using Pieces = std::vector<std::string_view>;

class PieceSplitter {
 public:
  // What becomes of text between the matches.
  enum class Gaps { kKeep, kDrop };

  // `pattern` is written for Oniguruma or Rust's regex and must mean the same in PCRE2: \s is the
  // Unicode White_Space property, and escapes or set operations that differ are refused.
  // Throws Error(kUnsupported) for those and Error(kParse) for an invalid pattern, naming `where`.
  PieceSplitter(std::string_view pattern, Gaps gaps, std::string_view where);

  // Splits each piece at the matches inside it. The text must be valid UTF-8.
  // Throws Error(kUnsupported) if the pattern takes too many steps.
  Pieces split(const Pieces& pieces) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };

  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
  Gaps gaps_;
  std::string where_;
};

}  // namespace moebench
