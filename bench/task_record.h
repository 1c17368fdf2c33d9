// What a task's record says about its answers: scores and latencies, from ledger lines alone, so
// that answers given on several machines can be put together afterwards.
#pragma once

#include <span>
#include <vector>

#include "bench/record.h"
#include "evals/ledger.h"
#include "evals/repeat_scores.h"

namespace moebench {

// A mean with its interval, or the reason why it has none.
Metric estimate_metric(const MeanEstimate& estimate, std::string unit, std::string better);

// Metrics accuracy, accuracy_per_*, output_tokens_mean and reasoning_tokens_mean; details verdicts
// and categories. With repeats also pass_at_* and maj_at_*, unless nobody can say what an answer
// votes for: `vote_of` may be empty. Throws Error for no lines.
void add_scores(const std::vector<LedgerLine>& lines, const VoteOf& vote_of, Record& record);

// Metrics ttft_*, tpot_* and e2e_* of the lines that hold tokens.
void add_answer_latencies(std::span<const LedgerLine> lines, Record& record);

}  // namespace moebench
