// Pairing by (item, repeat).
#include "evals/answer_pairs.h"

#include <algorithm>
#include <map>
#include <utility>

namespace moebench {
namespace {

using Key = std::pair<std::string, std::int64_t>;

void add_once(std::vector<std::string>& items, const std::string& item) {
  if (std::find(items.begin(), items.end(), item) == items.end()) items.push_back(item);
}

}  // namespace

AnswerPairs pair_answers(std::span<const LedgerLine> base, std::span<const LedgerLine> candidate) {
  std::map<Key, const LedgerLine*> base_lines;
  std::map<Key, const LedgerLine*> candidate_lines;
  for (const LedgerLine& line : base) base_lines[{line.item, line.repeat}] = &line;
  for (const LedgerLine& line : candidate) candidate_lines[{line.item, line.repeat}] = &line;
  AnswerPairs pairs;
  std::map<std::string, std::int64_t> numbers;
  for (const auto& [key, after] : candidate_lines) {
    const auto it = base_lines.find(key);
    if (it == base_lines.end()) continue;
    const LedgerLine& before = *it->second;
    pairs.base_correct.push_back(before.correct() ? 1 : 0);
    pairs.candidate_correct.push_back(after->correct() ? 1 : 0);
    pairs.base_tokens.push_back(static_cast<double>(before.output_tokens));
    pairs.candidate_tokens.push_back(static_cast<double>(after->output_tokens));
    const auto number = static_cast<std::int64_t>(numbers.size());
    pairs.item_numbers.push_back(numbers.try_emplace(key.first, number).first->second);
    const bool same_tokens = before.output_tokens == after->output_tokens &&
                             !before.token_digest.empty() &&
                             before.token_digest == after->token_digest;
    pairs.identical += same_tokens ? 1 : 0;
    pairs.different_seeds += before.seed != after->seed ? 1 : 0;
    if (!before.correct() && after->correct()) {
      ++pairs.num_gained;
      add_once(pairs.gained, key.first);
    } else if (before.correct() && !after->correct()) {
      ++pairs.num_lost;
      add_once(pairs.lost, key.first);
    }
  }
  pairs.unpaired =
      static_cast<std::int64_t>(base_lines.size() + candidate_lines.size()) - 2 * pairs.size();
  return pairs;
}

}  // namespace moebench
