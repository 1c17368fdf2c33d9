// Steps in histories, planted and absent.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "evals/change_points.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench::test {
namespace {

// Normal values (Box and Muller) around the given levels.
std::vector<double> history(const std::vector<std::pair<int, double>>& levels, double sd,
                            std::uint64_t seed) {
  RandomStream random(seed);
  std::vector<double> values;
  for (const auto& [count, mean] : levels) {
    for (int i = 0; i < count; ++i) {
      const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
      values.push_back(mean + sd * radius * std::cos(2 * M_PI * random.uniform()));
    }
  }
  return values;
}

std::vector<std::size_t> places(const LevelHistory& found) {
  std::vector<std::size_t> list;
  for (const ChangePoint& change : found.changes) list.push_back(change.index);
  return list;
}

}  // namespace

TEST_CASE("change points: a step is found where it is, with its size") {
  // Hand-made: two levels, 10 and 12, each scattering by +-0.1.
  const std::vector<double> values = {10.1, 9.9,  10.1, 9.9,  10.1, 9.9, 10.1,
                                      9.9,  12.1, 11.9, 12.1, 11.9, 12};
  const LevelHistory found = find_changes(values);
  REQUIRE(places(found) == std::vector<std::size_t>{8});
  CHECK(found.segments[0].mean == Approx(10));
  CHECK(found.segments[1].mean == Approx(12));
  CHECK(found.changes[0].difference == Approx(2));
  // sd = sqrt(12 * 0.01 / 11); half-width = t(11, 0.975) * sd * sqrt(1/8 + 1/5), t = 2.200985.
  CHECK(*found.noise == Approx(std::sqrt(0.12 / 11)));
  CHECK(found.changes[0].interval->high - 2 ==
        Approx(2.200985 * std::sqrt(0.12 / 11) * std::sqrt(0.125 + 0.2)).epsilon(1e-6));
  CHECK(found.changes[0].p_value <= 0.01);
}

TEST_CASE("change points: several steps, up and down") {
  const auto values = history({{15, 100}, {12, 97}, {15, 103}}, 0.5, 7);
  CHECK(places(find_changes(values)) == std::vector<std::size_t>{15, 27});
}

TEST_CASE("change points: values that never scatter change when they change") {
  std::vector<double> values(8, 5.0);
  CHECK(find_changes(values).changes.empty());
  CHECK(*find_changes(values).noise == 0);
  values.insert(values.end(), 5, 6.0);
  const LevelHistory found = find_changes(values);
  CHECK(places(found) == std::vector<std::size_t>{8});
  CHECK(found.changes[0].difference == 1);
  CHECK_FALSE(found.changes[0].interval.has_value());
}

TEST_CASE("change points: too few values are one level") {
  for (const std::size_t n : {1U, 2U, 3U, 4U}) {
    const std::vector<double> values = {1, 1, 9, 9};
    CHECK(find_changes(std::span(values).first(n)).changes.empty());
  }
  CHECK_FALSE(find_changes(std::vector<double>{1}).noise.has_value());
  CHECK_THROWS_AS(find_changes({}), Error);
  CHECK_THROWS_AS(find_changes(std::vector<double>{1, std::nan("")}), Error);
  CHECK_THROWS_AS(
      find_changes(std::vector<double>{1, std::numeric_limits<double>::infinity(), 1, 1}), Error);
}

TEST_CASE("change points: one odd run is no level, and does not hide behind one") {
  auto values = history({{20, 100}}, 1, 3);
  values[10] = 130;
  CHECK(find_changes(values).changes.empty());
}

TEST_CASE("change points: flat histories seldom change, steps are seldom missed") {
  // 200 flat histories at alpha 1 %: more than 8 false alarms have chance 4e-4 (binomial).
  int alarms = 0;
  int caught = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    alarms += find_changes(history({{30, 100}}, 2, 1000 + seed)).changes.empty() ? 0 : 1;
    // A step of three standard deviations, five runs ago.
    const LevelHistory stepped = find_changes(history({{25, 100}, {5, 94}}, 2, 5000 + seed));
    caught += !stepped.changes.empty() && stepped.changes.back().index + 6 > 30 - 1 &&
                      stepped.changes.back().difference < 0
                  ? 1
                  : 0;
  }
  CHECK(alarms <= 8);
  CHECK(caught >= 180);
}

TEST_CASE("change points: large offsets do not swallow small steps") {
  auto values = history({{12, 0}, {12, 4}}, 1, 11);
  const auto plain = places(find_changes(values));
  REQUIRE(plain.size() == 1);
  for (double& v : values) v += 1e9;
  CHECK(places(find_changes(values)) == plain);
}

TEST_CASE("change points: the last value is held against the others of its level") {
  // Others: mean 10, sd 1 (n = 3); t = 4 / (1 * sqrt(4/3)) = 3.4641 with 2 degrees: p = 0.07418.
  CHECK(*last_value_p(std::vector<double>{9, 10, 11, 14}) == Approx(0.07418).epsilon(1e-3));
  CHECK(*last_value_p(std::vector<double>{5, 5, 5}) == 1);
  CHECK(*last_value_p(std::vector<double>{5, 5, 6}) == 0);
  CHECK_FALSE(last_value_p(std::vector<double>{5, 6}).has_value());
}

}  // namespace moebench::test
