// Answer extraction: what a model wrote -> the answer that is scored.
//
// Each rule repeats what one published evaluation does, quirks included: a score can be compared
// with published ones only if the same texts count as right. The rules are Python regular
// expressions at their origin; here they are hand-written scanners whose time is linear in the
// text, because a backtracking matcher is quadratic on some outputs of a looping model.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moebench {

struct Extraction {
  // Exactly the string the published code extracts; nullopt where that returns None.
  std::optional<std::string> answer;

  // The answer in the form that is compared, for equality, with the item's target; nullopt if the
  // rule recognised no answer, which scores 0 (verdict: unparsed). It differs from `answer` so:
  //   abcd   nullopt where only the fallback (the first character of the text) applied
  //   aime   the integer in canonical decimal ("042" -> "42", "-0" -> "0"), of any length;
  //          nullopt if `answer` is not an integer. Targets are canonical integers
  //   mgsm   without trailing zeros after a point ("18.00" -> "18"); nullopt if `answer` is empty.
  //          Targets are compared without their commas
  //   simple_math   the same text, but equality is not the published score: a language model
  //          judges whether the two expressions are equivalent
  std::optional<std::string> value;
};

struct ExtractionRule {
  std::string_view name;
  std::string_view summary;
  std::string_view source;
  Extraction (*function)(std::u32string_view text, std::string_view language);
};

// abcd, aime, simple_gpqa, simple_mmlu, simple_math, mgsm, gsm8k_flexible, mmlu_pro.
std::span<const ExtractionRule> extraction_rules();

// Applies the rule called `rule` to `text`: UTF-8, untrusted, of any length, NUL bytes allowed.
// Bytes that are not UTF-8 are read as U+FFFD, one per ill-formed sequence (Python's
// errors="replace"), so the result is always valid UTF-8.
// `language` (en, bn, de, es, fr, ja, ru, sw, te, th, zh) matters to mgsm only.
// Throws Error(kInvalidArgument) with the nearest name for an unknown rule or language.
Extraction extract(std::string_view rule, std::string_view text, std::string_view language = "en");

}  // namespace moebench
