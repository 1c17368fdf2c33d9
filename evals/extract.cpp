// The table of extraction rules, and the call by name.
#include "evals/extract.h"

#include <algorithm>
#include <array>
#include <vector>

#include "evals/extract_rules.h"
#include "evals/extract_unicode.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::array<ExtractionRule, 8> kRules = {{
    {.name = "abcd",
     .summary = "multiple choice: answer phrases, then boxes, brackets, bold, line starts",
     .source = "openai/gpt-oss v0.0.8, gpt_oss/evals/abcd_grader.py (GPQA)",
     .function = rules::abcd},
    {.name = "aime",
     .summary = "the integer in the last non-empty boxed{...}, else the last run of digits",
     .source = "openai/gpt-oss v0.0.8, gpt_oss/evals/aime_eval.py (AIME 2025)",
     .function = rules::aime},
    {.name = "simple_gpqa",
     .summary = "the letter after the first `Answer:`",
     .source = "openai/simple-evals, common.py, ANSWER_PATTERN_MULTICHOICE (GPQA)",
     .function = rules::simple_gpqa},
    {.name = "simple_mmlu",
     .summary =
         "the letter after `Answer:` in English or 14 other languages, LaTeX and bold removed",
     .source = "openai/simple-evals, common.py, MULTILINGUAL_ANSWER_REGEXES (MMLU)",
     .function = rules::simple_mmlu},
    {.name = "simple_math",
     .summary = "the rest of the line after the first `Answer:`",
     .source = "openai/simple-evals, common.py, ANSWER_PATTERN (MATH)",
     .function = rules::simple_math},
    {.name = "mgsm",
     .summary = "the last number after the last answer word of the language",
     .source = "openai/simple-evals, mgsm_eval.py (MGSM)",
     .function = rules::mgsm},
    {.name = "gsm8k_flexible",
     .summary = "the last number, without dollar signs and commas",
     .source = "EleutherAI/lm-evaluation-harness, gsm8k, filter flexible-extract",
     .function = rules::gsm8k_flexible},
    {.name = "mmlu_pro",
     .summary = "the letter A to J after the first `answer is`",
     .source = "EleutherAI/lm-evaluation-harness, mmlu_pro, filter custom-extract",
     .function = rules::mmlu_pro},
}};

}  // namespace

std::span<const ExtractionRule> extraction_rules() { return kRules; }

Extraction extract(std::string_view rule, std::string_view text, std::string_view language) {
  const auto found = std::ranges::find(kRules, rule, &ExtractionRule::name);
  if (found == kRules.end()) {
    std::vector<std::string> known;
    known.reserve(kRules.size());
    for (const ExtractionRule& each : kRules) known.emplace_back(each.name);
    fail(ErrorCode::kInvalidArgument, "unknown extraction rule '{}'; {}", rule,
         suggestion(rule, known));
  }
  return found->function(unicode::decode_utf8(text), language);
}

}  // namespace moebench
