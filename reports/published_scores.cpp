// The table of the model card.
#include "reports/published_scores.h"

#include <cmath>
#include <limits>

namespace moebench {
namespace {

constexpr std::string_view kSmall = "gpt-oss-20b";
constexpr std::string_view kLarge = "gpt-oss-120b";

// Percent, as published.
constexpr PublishedScore share(std::string_view benchmark, std::string_view task,
                               std::string_view model, double low, double medium, double high) {
  return {benchmark, task, model, low / 100, medium / 100, high / 100, true};
}

constexpr PublishedScore kScores[] = {
    share("AIME 2024, no tools", "aime_2024", kSmall, 42.1, 80.0, 92.1),
    share("AIME 2024, no tools", "aime_2024", kLarge, 56.3, 80.4, 95.8),
    share("AIME 2025, no tools", "aime_2025", kSmall, 37.1, 72.1, 91.7),
    share("AIME 2025, no tools", "aime_2025", kLarge, 50.4, 80.0, 92.5),
    share("GPQA Diamond, no tools", "gpqa_diamond", kSmall, 56.8, 66.0, 71.5),
    share("GPQA Diamond, no tools", "gpqa_diamond", kLarge, 67.1, 73.1, 80.1),
    share("MMLU", "mmlu", kSmall, 80.4, 84.0, 85.3),
    share("MMLU", "mmlu", kLarge, 85.9, 88.0, 90.0),
    share("HLE, no tools", "", kSmall, 4.2, 7.0, 10.9),
    share("HLE, no tools", "", kLarge, 5.2, 8.6, 14.9),
    share("MMMLU (average of 14 languages)", "", kSmall, 67.0, 73.5, 75.7),
    share("MMMLU (average of 14 languages)", "", kLarge, 74.1, 79.3, 81.3),
    share("SWE-bench Verified", "", kSmall, 37.4, 53.2, 60.7),
    share("SWE-bench Verified", "", kLarge, 47.9, 52.6, 62.4),
    share("Tau-Bench Retail", "", kSmall, 35.0, 47.3, 54.8),
    share("Tau-Bench Retail", "", kLarge, 49.4, 62.0, 67.8),
    share("HealthBench", "", kSmall, 40.4, 41.8, 42.5),
    share("HealthBench", "", kLarge, 53.0, 55.9, 57.6),
    {"Codeforces Elo, no tools", "", kSmall, 1366, 1998, 2230, false},
    {"Codeforces Elo, no tools", "", kLarge, 1595, 2205, 2463, false},
};

}  // namespace

double PublishedScore::of_effort(std::string_view effort) const {
  if (effort == "low") return low;
  if (effort == "medium") return medium;
  if (effort == "high") return high;
  return std::numeric_limits<double>::quiet_NaN();
}

std::span<const PublishedScore> published_scores() { return kScores; }

std::string_view published_model(double parameters) {
  // 20.9 and 116.8 thousand million, by the model card; checkpoints count a little differently.
  constexpr double kTolerance = 0.03;
  if (std::abs(parameters / 20.9e9 - 1) < kTolerance) return kSmall;
  if (std::abs(parameters / 116.8e9 - 1) < kTolerance) return kLarge;
  return "";
}

const PublishedScore* published_score(std::string_view task, std::string_view model) {
  for (const PublishedScore& score : kScores) {
    if (!task.empty() && score.task == task && score.model == model) return &score;
  }
  return nullptr;
}

}  // namespace moebench
