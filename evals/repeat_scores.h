// Scores of several answers per question: pass@k (is one of k right?) and maj@k (is the most
// frequent one?), with intervals that treat the question as the unit.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "evals/ledger.h"
#include "evals/statistics.h"
#include "evals/task.h"

namespace moebench {

// The chance that k of a question's n answers, drawn without replacement, hold a right one when c
// of the n are right: 1 - C(n-c, k) / C(n, k). Averaged over questions it is an unbiased estimate
// of pass@k. 0 <= c <= n, 1 <= k <= n; Error(kInvalidArgument) otherwise.
// Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374),
// section 2.1.
double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k);

// The chance that the most frequent of k answers, drawn without replacement from a question's, is
// the right one: `right` answers are right, wrong[j] give the j-th wrong value, `silent` give none
// and have no vote. Of values that lead together one is chosen by lot; without any vote it is
// wrong. All counts >= 0, at most 1000 answers, 1 <= k <= all of them; Error(kInvalidArgument)
// otherwise. Averaged over questions it is an unbiased estimate of maj@k, as pass_at_k is of
// pass@k. Source: Wang et al. 2022, "Self-Consistency" (arXiv 2203.11171); lm-evaluation-harness
// takes the first k answers instead of all choices of k, and the first of several leaders.
double majority_at_k(std::int64_t right, std::span<const std::int64_t> wrong, std::int64_t silent,
                     std::int64_t k);

struct RepeatScore {
  std::int64_t k = 0;
  MeanEstimate pass;      // one value per question
  MeanEstimate majority;  // likewise
};

// What an answer votes for: equal texts are one value, "" is no vote.
using VoteOf = std::function<std::string(const LedgerLine&)>;

// The option's text where the task shuffles its options anew for each repeat, so that letters name
// other options (GPQA), else the extracted answer. Loads the task's items.
VoteOf votes_of(const Task& task, const Protocol& protocol);

// For k = 2, 4, 8 ... and for the number of answers that every question has, in rising order; none
// where a question has a single answer, or more than 1000. Lines may come in any order; of two of
// one (item, repeat) the last counts. Right answers are one value however they are written.
std::vector<RepeatScore> repeat_scores(std::span<const LedgerLine> lines, const VoteOf& vote_of);

}  // namespace moebench
