// The ledger: one JSON line per scored answer, written as soon as it is known.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

enum class Verdict {
  kCorrect,
  kWrong,
  kUnparsed,      // a final answer from which no option could be read
  kTruncated,     // the token budget ended before a final answer
  kLooping,       // the model repeated itself until it was stopped
  kChannelError,  // it stopped without a final message, or broke the message format
  kRefused,       // it declined to answer
  kFailed,        // no answer was produced: an error of ours
};
inline constexpr int kNumVerdicts = 8;
std::string_view verdict_name(Verdict verdict);
// Throws Error(kInvalidArgument) naming `where` and the nearest name.
Verdict parse_verdict(std::string_view name, std::string_view where);

// Milliseconds from submission, unless said otherwise; 0 where there were too few tokens.
struct AnswerTiming {
  double ttft_ms = 0;  // to the first output token
  double tpot_ms = 0;  // (last - first token) / (output tokens - 1)
  double e2e_ms = 0;   // to the last token
};

// A choice of a log-likelihood task.
struct OptionScore {
  double log_probability = 0;  // of the continuation, in nats
  std::int64_t tokens = 0;     // of the continuation
  std::int64_t bytes = 0;      // of the choice, UTF-8
  std::int64_t characters = 0;
};

// The best of `options` by log-probability, divided per option by what `normalisation` names:
// "none", "tokens", "bytes", "characters". Ties go to the lower index. Requires that there are
// options.
std::size_t best_option(const std::vector<OptionScore>& options, std::string_view normalisation);

// One scored answer.
struct LedgerLine {
  std::string item;
  std::string item_hash;  // of what the model read
  std::string category;
  std::int64_t repeat = 0;  // from 0
  std::uint64_t seed = 0;   // of this answer's draws
  Verdict verdict = Verdict::kFailed;
  std::string expected;
  std::string answer;  // as extracted; "" if nothing was
  std::string finish;  // "stop", "length", "loop", ...
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, taken from the shared prefix
  std::int64_t output_tokens = 0;
  std::int64_t reasoning_tokens = 0;  // on channel analysis
  double log_probability = 0;         // sum over output tokens
  std::string token_digest;           // hash of the output tokens
  std::string analysis;
  std::string final_text;
  // The output tokens, and what each added in bytes to `analysis` followed by `final_text`: 0 for
  // markers and for the first bytes of a character. Both are empty in ledgers from before there
  // were any, where texts are left out, and of answers made elsewhere; `token_bytes` alone where
  // thinking went on after the final message.
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> token_bytes;
  // The dataset's authors ask that items stay off public pages: `analysis` and `final_text`, which
  // quote them, are left out, and this is their hash. "" where the texts are there.
  std::string hidden_text_hash;
  std::vector<OptionScore> options;  // of a log-likelihood task
  std::string error;
  AnswerTiming timing;  // the only part that differs between two runs of the same seed

  bool correct() const { return verdict == Verdict::kCorrect; }
};

// Where an answer leaves another to the same question.
struct TokenDivergence {
  std::int64_t token = 0;  // index of the first output token that is not the same
  bool in_final = false;   // in `final_text`, else in `analysis`
  std::int64_t byte = 0;   // of that text: where what differs begins to be seen
  std::int64_t bytes = 0;  // of the first token that is seen; 0 if the answer ends before
};

// Nothing if all tokens are the same, or one of the two has none, or `answer` has no token_bytes.
std::optional<TokenDivergence> first_divergence(const LedgerLine& reference,
                                                const LedgerLine& answer);

// Leaves out what the answer says: its texts, and the tokens that a tokenizer would read them from.
void drop_texts(LedgerLine& line);

OrderedJson to_json(const LedgerLine& line);
LedgerLine ledger_line_from_json(const Json& json, const std::string& where);

// The lines of a ledger; none if there is no such file. A last line without its newline was cut off
// by a crash and is left out.
std::vector<LedgerLine> read_ledger(const std::filesystem::path& path);

}  // namespace moebench
