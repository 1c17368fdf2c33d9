// The swap test against enumerated values, and on skewed pairs.
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "evals/swap_test.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench::test {

TEST_CASE("swap test: five items that all went one way are as far as 2 of 32 swaps") {
  const std::vector<double> base = {1, 2, 3, 4, 5};
  const std::vector<double> candidate = {2, 4, 6, 8, 10};
  const std::vector<std::int64_t> items = {0, 1, 2, 3, 4};
  CHECK(paired_swap_test(base, candidate, items, 20000, 1) == Approx(2.0 / 32).margin(0.005));
  // As repeats of one item they are one coin: nothing is ever less far.
  CHECK(paired_swap_test(base, candidate, std::vector<std::int64_t>(5, 7), 1000, 1) == 1);
  CHECK(paired_swap_test(base, base, items, 1000, 1) == 1);
}

TEST_CASE("swap test: false alarms on few skewed pairs are as many as promised") {
  int alarms = 0;
  for (std::uint64_t run = 0; run < 400; ++run) {
    RandomStream random(run);
    std::vector<double> base;
    std::vector<double> candidate;
    std::vector<std::int64_t> items;
    for (std::int64_t i = 0; i < 12; ++i) {
      for (std::vector<double>* side : {&base, &candidate}) {
        side->push_back(std::exp(3 * random.uniform()) / (1 - random.uniform()));
      }
      items.push_back(i);
    }
    alarms += paired_swap_test(base, candidate, items, 199, run) <= 0.05 ? 1 : 0;
  }
  CHECK(alarms <= 40);  // 20 expected; more than 40 has chance 2e-5
  CHECK(alarms >= 4);
}

TEST_CASE("swap test: what is no pair is refused") {
  const std::vector<double> two = {1, 2};
  const std::vector<std::int64_t> ids = {0, 1};
  CHECK_THROWS_AS(paired_swap_test(two, std::vector<double>{1}, ids, 9, 1), Error);
  CHECK_THROWS_AS(paired_swap_test(two, std::vector<double>{1, std::nan("")}, ids, 9, 1), Error);
  CHECK_THROWS_AS(paired_swap_test(two, std::vector<double>{1, -1}, ids, 9, 1), Error);
  CHECK_THROWS_AS(paired_swap_test(std::vector<double>{0, 0}, two, ids, 9, 1), Error);
}

}  // namespace moebench::test
