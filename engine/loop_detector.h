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
    const std::size_t position = count_++ % kMaxPeriod;
    bool looping = false;
    for (std::size_t period = 1; period <= kMaxPeriod; ++period) {
      std::size_t& run = runs_[period - 1];
      const std::size_t earlier = (position + kMaxPeriod - period) % kMaxPeriod;
      const bool repeats = count_ > period && recent_[earlier] == token;
      run = repeats ? run + 1 : 0;
      looping = looping || run >= std::max(kMinRepeated, kMinRepetitions * period);
    }
    recent_[position] = token;
    return looping;
  }

 private:
  std::array<std::int32_t, kMaxPeriod> recent_{};
  std::array<std::size_t, kMaxPeriod> runs_{};
  std::size_t count_ = 0;
};

}  // namespace moebench
