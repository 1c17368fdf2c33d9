// The functions behind the rule table of evals/extract.h. Each takes the whole text as code points;
// only mgsm looks at the language.
#pragma once

#include <string_view>

#include "evals/extract.h"

namespace moebench::rules {

// What searches give that find nothing.
inline constexpr std::size_t kNone = std::u32string_view::npos;
inline constexpr std::u32string_view kAnswer = U"answer";

Extraction abcd(std::u32string_view text, std::string_view language);
Extraction aime(std::u32string_view text, std::string_view language);
Extraction simple_gpqa(std::u32string_view text, std::string_view language);
Extraction simple_mmlu(std::u32string_view text, std::string_view language);
Extraction simple_math(std::u32string_view text, std::string_view language);
Extraction gsm8k_flexible(std::u32string_view text, std::string_view language);
Extraction mmlu_pro(std::u32string_view text, std::string_view language);

// Throws Error(kInvalidArgument) for an unknown language.
Extraction mgsm(std::u32string_view text, std::string_view language);

}  // namespace moebench::rules
