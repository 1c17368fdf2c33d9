// Edit distance (Levenshtein, with a swap of neighbours counted as one edit).
#include "kernels/core/suggest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>

#include "kernels/core/error.h"

namespace moebench {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, substitute});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string nearest_name(std::string_view given, std::span<const std::string> known) {
  constexpr std::size_t kLongestName = 256;  // untrusted text: bounds the quadratic table
  if (given.size() > kLongestName) return {};
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, given.size() / 3) + 1;
  for (const std::string& name : known) {
    // Lengths alone differ by too much: the common case, and it bounds what a name of megabytes,
    // which a checkpoint may hold, can cost.
    const auto [shorter, longer] = std::minmax({given.size(), name.size()});
    if (longer - shorter >= best_distance) continue;
    const std::size_t distance = edit_distance(given, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  return best;
}

std::string suggestion(std::string_view given, std::span<const std::string> known) {
  const std::string nearest = nearest_name(given, known);
  const std::string all = fmt::format("known: {}", fmt::join(known, ", "));
  return nearest.empty() ? all : fmt::format("did you mean '{}'? {}", nearest, all);
}

std::size_t index_of_name(std::span<const std::string_view> names, std::string_view given,
                          std::string_view where, std::string_view what) {
  const auto found = std::find(names.begin(), names.end(), given);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  const std::vector<std::string> known(names.begin(), names.end());
  fail(ErrorCode::kInvalidArgument, "{}: no {} '{}'; {}", where, what, given.substr(0, 60),
       suggestion(given, known));
}

}  // namespace moebench
