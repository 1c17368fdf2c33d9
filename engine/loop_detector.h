// Notices a model that repeats itself, so that a babbling answer ends early and is called "looping"
// instead of eating its whole token budget.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace moebench {

class LoopDetector {
 public:
  static constexpr std::size_t kMaxPeriod = 64;      // tokens in the repeated passage
  static constexpr std::size_t kMinRepeated = 96;    // tokens that repeat, at least
  static constexpr std::size_t kMinRepetitions = 6;  // times the passage stands again, at least

  // Takes the next token; true once the tail is one passage over and over: the last token equals
  // the one `period` before it for max(kMinRepeated, kMinRepetitions * period) tokens in a row.
  bool push(std::int32_t token) {
    // The tokens before, the last one first: each stands twice, so that any 64 in a row lie so.
    const std::int32_t* before = recent_.data() + begin_;
    std::int32_t looping = 0;
    for (std::size_t i = 0; i < kMaxPeriod; ++i) {
      runs_[i] = before[i] == token ? runs_[i] + 1 : 0;
      looping |= static_cast<std::int32_t>(runs_[i] >= kEnough[i]);
    }
    begin_ = (begin_ + kMaxPeriod - 1) % kMaxPeriod;
    recent_[begin_] = token;
    recent_[begin_ + kMaxPeriod] = token;
    return looping != 0;
  }

 private:
  static constexpr std::int32_t kNone = -1;  // no token: nothing equals it

  // By period - 1: how long a run is a loop.
  static constexpr std::array<std::int32_t, kMaxPeriod> kEnough = [] {
    std::array<std::int32_t, kMaxPeriod> enough{};
    for (std::size_t i = 0; i < kMaxPeriod; ++i) {
      enough[i] = static_cast<std::int32_t>(std::max(kMinRepeated, kMinRepetitions * (i + 1)));
    }
    return enough;
  }();

  static constexpr std::array<std::int32_t, 2 * kMaxPeriod> nothing() {
    std::array<std::int32_t, 2 * kMaxPeriod> tokens{};
    tokens.fill(kNone);
    return tokens;
  }

  std::array<std::int32_t, 2 * kMaxPeriod> recent_ = nothing();
  std::array<std::int32_t, kMaxPeriod> runs_{};  // by period - 1: tokens in a row that repeat
  std::size_t begin_ = 0;
};

}  // namespace moebench
