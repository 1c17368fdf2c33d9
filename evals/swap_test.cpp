// Random swaps of the sides of each item.
#include "evals/swap_test.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "evals/timing_statistics.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {

double paired_swap_test(std::span<const double> base, std::span<const double> candidate,
                        std::span<const std::int64_t> item_ids, std::int64_t swaps,
                        std::uint64_t seed) {
  require(base.size() == candidate.size() && base.size() == item_ids.size() && swaps >= 1,
          "test pairs: {} and {} values of {} items, {} swaps", base.size(), candidate.size(),
          item_ids.size(), swaps);
  std::map<std::int64_t, std::pair<double, double>> items;  // sums of both sides
  double base_sum = 0;
  double candidate_sum = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    for (const double v : {base[i], candidate[i]}) {
      require(std::isfinite(v) && v >= 0, "test pairs: a value is {}", v);
    }
    auto& [b, c] = items[item_ids[i]];
    b += base[i];
    c += candidate[i];
    base_sum += base[i];
    candidate_sum += candidate[i];
  }
  require(base_sum > 0 && candidate_sum > 0, "test pairs: a side's sum is zero");
  // Swapping moves an item's difference from one sum to the other.
  const double total = base_sum + candidate_sum;
  const auto distance = [&](double first) {
    const double second = total - first;
    return first > 0 && second > 0 ? std::abs(std::log(second / first))
                                   : std::numeric_limits<double>::infinity();
  };
  const double seen = distance(base_sum) * (1 - 1e-9);  // sums in another order differ a little
  std::vector<double> differences;
  for (const auto& [id, sums] : items) differences.push_back(sums.second - sums.first);
  const RandomHalves halves(differences);
  RandomStream random(seed);
  std::int64_t as_far = 0;
  for (std::int64_t draw = 0; draw < swaps; ++draw) {
    as_far += distance(base_sum + halves.sum(random)) >= seen ? 1 : 0;
  }
  return static_cast<double>(1 + as_far) / static_cast<double>(1 + swaps);
}

}  // namespace moebench
