// Counting draws without replacement.
#include "evals/repeat_scores.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// C(1000, 500) is 2.7e299: more answers would leave the doubles.
constexpr std::int64_t kMostAnswers = 1000;

// C(n, 0) ... C(n, most).
std::vector<double> choose(std::int64_t n, std::int64_t most) {
  std::vector<double> row(static_cast<std::size_t>(most) + 1, 0.0);
  row[0] = 1;
  for (std::int64_t i = 1; i <= std::min(n, most); ++i) {
    row[static_cast<std::size_t>(i)] = row[static_cast<std::size_t>(i - 1)] *
                                       static_cast<double>(n - i + 1) / static_cast<double>(i);
  }
  return row;
}

// Ways to draw by the number drawn (rows) and the number of values that lead together with the
// right one (columns).
using Ways = std::vector<std::vector<double>>;

// Adds one wrong value with `count` answers, of which at most `lead` may be drawn.
Ways with_value(const Ways& before, std::int64_t count, std::int64_t lead) {
  Ways after(before.size(), std::vector<double>(before.front().size(), 0.0));
  const std::vector<double> ways = choose(count, lead);
  for (std::size_t drawn = 0; drawn < before.size(); ++drawn) {
    for (std::size_t ties = 0; ties < before[drawn].size(); ++ties) {
      if (before[drawn][ties] == 0) continue;
      for (std::size_t x = 0; x < ways.size() && drawn + x < before.size(); ++x) {
        const std::size_t now = ties + (static_cast<std::int64_t>(x) == lead ? 1 : 0);
        if (ways[x] == 0 || now >= after[drawn + x].size()) continue;
        after[drawn + x][now] += before[drawn][ties] * ways[x];
      }
    }
  }
  return after;
}

struct Question {
  std::int64_t right = 0;
  std::int64_t silent = 0;
  std::map<std::string, std::int64_t> wrong;

  std::vector<std::int64_t> wrong_counts() const {
    std::vector<std::int64_t> counts;
    for (const auto& [value, count] : wrong) counts.push_back(count);
    return counts;
  }
  std::int64_t size() const {
    const auto counts = wrong_counts();
    return std::accumulate(counts.begin(), counts.end(), right + silent);
  }
};

}  // namespace

double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k) {
  require(n >= 1 && c >= 0 && c <= n && k >= 1 && k <= n,
          "pass@k: {} right of {} answers, k is {}; expected 0 <= right <= answers, 1 <= k <= "
          "answers",
          c, n, k);
  // C(n-c, k) / C(n, k) as a product, which neither overflows nor cancels.
  double none = 1;
  for (std::int64_t i = 0; i < k; ++i) {
    if (n - c - i <= 0) return 1;
    none *= static_cast<double>(n - c - i) / static_cast<double>(n - i);
  }
  return 1 - none;
}

double majority_at_k(std::int64_t right, std::span<const std::int64_t> wrong, std::int64_t silent,
                     std::int64_t k) {
  require(right >= 0 && silent >= 0, "maj@k: {} right answers, {} without a vote", right, silent);
  std::int64_t n = right + silent;
  for (const std::int64_t count : wrong) {
    require(count >= 0 && count <= kMostAnswers, "maj@k: {} answers of one value", count);
    n += count;
  }
  require(n >= 1 && n <= kMostAnswers && k >= 1 && k <= n,
          "maj@k: {} answers, k is {}; expected 1 <= k <= answers <= {}", n, k, kMostAnswers);
  const std::vector<double> ways_right = choose(right, k);
  double won = 0;
  for (std::int64_t lead = 1; lead <= std::min(right, k); ++lead) {
    const auto others = static_cast<std::size_t>(k - lead);
    const auto most_ties = static_cast<std::size_t>((k - lead) / lead);
    Ways ways(others + 1, std::vector<double>(most_ties + 1, 0.0));
    ways[0][0] = 1;
    for (const std::int64_t count : wrong) ways = with_value(ways, count, lead);
    const std::vector<double> ways_silent = choose(silent, k);
    for (std::size_t drawn = 0; drawn <= others; ++drawn) {
      for (std::size_t ties = 0; ties <= most_ties; ++ties) {
        won += ways_right[static_cast<std::size_t>(lead)] * ways[drawn][ties] *
               ways_silent[others - drawn] / static_cast<double>(1 + ties);
      }
    }
  }
  return std::min(1.0, won / choose(n, k)[static_cast<std::size_t>(k)]);
}

VoteOf votes_of(const Task& task, const Protocol& protocol) {
  auto data = std::make_shared<const TaskData>(task.load_items(protocol));
  if (!data->asked) return [](const LedgerLine& line) { return line.answer; };
  auto index = std::make_shared<std::map<std::string, std::size_t>>();
  for (std::size_t i = 0; i < data->items.size(); ++i) (*index)[data->items[i].id] = i;
  return [data, index](const LedgerLine& line) {
    const auto it = index->find(line.item);
    if (it == index->end()) return line.answer;
    const TaskItem item = data->item(it->second, line.repeat);
    for (std::size_t i = 0; i < item.choices.size(); ++i) {
      if (line.answer == choice_letter(i)) return "option " + item.choices[i];
    }
    return line.answer;
  };
}

std::vector<RepeatScore> repeat_scores(std::span<const LedgerLine> lines, const VoteOf& vote_of) {
  std::map<std::string, std::map<std::int64_t, const LedgerLine*>> answers;
  for (const LedgerLine& line : lines) answers[line.item][line.repeat] = &line;
  std::vector<Question> questions;
  std::int64_t fewest = lines.empty() ? 0 : kMostAnswers;
  std::int64_t most = 0;
  for (const auto& [item, repeats] : answers) {
    Question question;
    for (const auto& [repeat, line] : repeats) {
      const std::string vote = line->correct() ? "" : vote_of(*line);
      if (line->correct()) {
        ++question.right;
      } else if (vote.empty()) {
        ++question.silent;
      } else {
        ++question.wrong[vote];
      }
    }
    fewest = std::min(fewest, question.size());
    most = std::max(most, question.size());
    questions.push_back(std::move(question));
  }
  std::vector<RepeatScore> scores;
  if (most > kMostAnswers) return scores;
  std::vector<std::int64_t> sizes;
  for (std::int64_t k = 2; k < fewest; k *= 2) sizes.push_back(k);
  if (fewest >= 2) sizes.push_back(fewest);
  std::vector<std::int64_t> ids(questions.size());
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  for (const std::int64_t k : sizes) {
    std::vector<double> pass;
    std::vector<double> majority;
    for (const Question& question : questions) {
      pass.push_back(pass_at_k(question.size(), question.right, k));
      majority.push_back(
          majority_at_k(question.right, question.wrong_counts(), question.silent, k));
    }
    scores.push_back(
        {k, mean_with_clustered_interval(pass, ids), mean_with_clustered_interval(majority, ids)});
  }
  return scores;
}

}  // namespace moebench
