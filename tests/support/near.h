// Comparing floats so that a NaN fails, and a failure shows the worst index.
#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <span>
#include <vector>

namespace moebench::test {

struct Worst {
  std::size_t index = 0;
  double got = 0;
  double want = 0;
  double error = 0;
};

// The largest |got - want|; infinite where either is not finite.
template <class Got, class Want>
Worst worst_difference(const Got& got, const Want& want) {
  Worst worst;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto g = static_cast<double>(got[i]);
    const auto w = static_cast<double>(want[i]);
    double error = std::fabs(g - w);
    if (!std::isfinite(error)) error = std::numeric_limits<double>::infinity();
    if (!(error <= worst.error)) worst = {i, g, w, error};
  }
  return worst;
}

// CHECKs that sizes agree and no element differs by more than `tolerance`.
template <class Got, class Want>
void check_near(const Got& got, const Want& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  const Worst worst = worst_difference(got, want);
  INFO("worst at index " << worst.index << ": got " << worst.got << ", want " << worst.want
                         << ", tolerance " << tolerance);
  CHECK(worst.error <= tolerance);
}

}  // namespace moebench::test
