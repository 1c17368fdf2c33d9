// Python's random.Random, as far as published evaluations draw from it: the order of GPQA's options
// comes from one such generator, and only the same order gives the same questions.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace moebench {

class PythonRandom {
 public:
  // As random.Random(seed) for 0 <= seed < 2^32.
  explicit PythonRandom(std::uint32_t seed);

  // As Random._randbelow(bound): uniform in [0, bound). bound > 0.
  std::uint32_t below(std::uint32_t bound);

  // As random.sample(range(count), count): a permutation of 0 ... count - 1. count <= 21, beyond
  // which Python takes another way.
  std::vector<int> permutation(int count);

 private:
  static constexpr std::size_t kWords = 624;

  std::uint32_t next();  // MT19937
  void refill();

  std::array<std::uint32_t, kWords> state_{};
  std::size_t at_ = kWords;
};

}  // namespace moebench
