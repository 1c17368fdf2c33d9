// Two plans' answers to the same questions, side by side: what accuracy is compared on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "evals/ledger.h"
#include "evals/statistics.h"

namespace moebench {

struct AnswerPairs {
  // One entry per (item, repeat) that both sides answered.
  std::vector<double> base_correct;  // 1 or 0
  std::vector<double> candidate_correct;
  std::vector<double> base_tokens;  // output tokens
  std::vector<double> candidate_tokens;
  std::vector<std::int64_t> item_numbers;  // equal for repeats of one item
  std::vector<std::string> gained;         // items with an answer that became right
  std::vector<std::string> lost;           // items with one that became wrong
  std::int64_t num_gained = 0;             // answers that became right
  std::int64_t num_lost = 0;
  std::int64_t identical = 0;        // pairs of the same output tokens, one for one
  std::int64_t unpaired = 0;         // answers that only one side gave
  std::int64_t different_seeds = 0;  // pairs that were drawn with different seeds

  std::int64_t size() const { return static_cast<std::int64_t>(base_correct.size()); }
};

// Pairs by (item, repeat); of several lines with one key the last counts, as after a resume.
AnswerPairs pair_answers(std::span<const LedgerLine> base, std::span<const LedgerLine> candidate);

}  // namespace moebench
