// The loop detector: which tails count as one passage over and over, and exactly when.
#include <catch2/catch.hpp>
#include <optional>
#include <vector>

#include "engine/loop_detector.h"
#include "kernels/core/random.h"

namespace moebench::test {
namespace {

// The number of tokens after which the detector fires, if it does.
std::optional<std::size_t> fires_after(const std::vector<std::int32_t>& tokens) {
  LoopDetector detector;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (detector.push(tokens[i])) return i + 1;
  }
  return std::nullopt;
}

// `lead` distinct tokens, then 0, 1, ..., period - 1 again and again.
std::vector<std::int32_t> repeating(std::size_t lead, std::size_t period, std::size_t length) {
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < lead; ++i) tokens.push_back(static_cast<std::int32_t>(1000 + i));
  for (std::size_t i = 0; i < length; ++i) tokens.push_back(static_cast<std::int32_t>(i % period));
  return tokens;
}

}  // namespace

TEST_CASE("loop detector: fires once a passage of any length up to 64 has come back often enough") {
  for (std::size_t period = 1; period <= LoopDetector::kMaxPeriod; ++period) {
    for (const std::size_t lead : {0, 1, 63, 64, 65, 500}) {
      INFO("period " << period << " after " << lead << " tokens");
      // The passage once, then at least 96 tokens and six more times.
      const std::size_t want = lead + period + std::max<std::size_t>(96, 6 * period);
      CHECK(fires_after(repeating(lead, period, 1000)) == want);
    }
  }
}

TEST_CASE("loop detector: a longer passage is not its business") {
  CHECK_FALSE(fires_after(repeating(0, 65, 5000)).has_value());
  CHECK_FALSE(fires_after(repeating(0, 1000, 5000)).has_value());
}

TEST_CASE("loop detector: one token that differs starts the count again") {
  std::vector<std::int32_t> tokens = repeating(0, 1, 96);
  tokens.push_back(7);
  const auto more = repeating(0, 1, 96);
  tokens.insert(tokens.end(), more.begin(), more.end());
  CHECK_FALSE(fires_after(tokens).has_value());
  tokens.push_back(0);
  CHECK(fires_after(tokens) == tokens.size());
}

TEST_CASE("loop detector: random tokens, and zeros at the very start, are no loop") {
  RandomStream random(5);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 20000; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(4)));
  CHECK_FALSE(fires_after(tokens).has_value());
  // The empty history holds zeros; they are not tokens that were said.
  CHECK_FALSE(fires_after(std::vector<std::int32_t>(96, 0)).has_value());
  CHECK(fires_after(std::vector<std::int32_t>(97, 0)) == 97);
}

TEST_CASE("loop detector: counting and lists, which vary as they go, are no loop") {
  std::vector<std::int32_t> tokens;
  for (std::int32_t n = 0; n < 2000; ++n) {
    tokens.insert(tokens.end(), {50, n, 51, 52});  // "- n :\n"
  }
  CHECK_FALSE(fires_after(tokens).has_value());
}

}  // namespace moebench::test
