// MT19937 (Matsumoto and Nishimura 1998) seeded as CPython seeds it, by init_by_array; std::mt19937
// cannot be seeded so.
#include "evals/python_random.h"

#include <bit>

#include "kernels/core/error.h"

namespace moebench {

PythonRandom::PythonRandom(std::uint32_t seed) {
  state_[0] = 19650218U;
  for (std::size_t i = 1; i < kWords; ++i) {
    state_[i] = 1812433253U * (state_[i - 1] ^ state_[i - 1] >> 30) + static_cast<std::uint32_t>(i);
  }
  // The key is the array of one word, the seed.
  std::size_t i = 1;
  const auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  const auto mixed = [&](std::uint32_t factor) {
    return state_[i] ^ (state_[i - 1] ^ state_[i - 1] >> 30) * factor;
  };
  for (std::size_t k = 0; k < kWords; ++k) {
    state_[i] = mixed(1664525U) + seed;
    step();
  }
  for (std::size_t k = 0; k + 1 < kWords; ++k) {
    state_[i] = mixed(1566083941U) - static_cast<std::uint32_t>(i);
    step();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::refill() {
  constexpr std::size_t kMiddle = 397;
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7fffffffU);
    state_[i] = state_[(i + kMiddle) % kWords] ^ y >> 1 ^ (y % 2 == 0 ? 0U : 0x9908b0dfU);
  }
  at_ = 0;
}

std::uint32_t PythonRandom::next() {
  if (at_ == kWords) refill();
  std::uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680U;
  y ^= y << 15 & 0xefc60000U;
  return y ^ y >> 18;
}

std::uint32_t PythonRandom::below(std::uint32_t bound) {
  require(bound > 0, "draw a number below 0: there is none");
  const auto bits = static_cast<int>(std::bit_width(bound));
  std::uint32_t value = 0;
  do {
    value = next() >> (32 - bits);
  } while (value >= bound);
  return value;
}

std::vector<int> PythonRandom::permutation(int count) {
  require(count >= 0 && count <= 21, "draw a permutation of {}: at most 21 are supported", count);
  std::vector<int> pool;
  for (int i = 0; i < count; ++i) pool.push_back(i);
  std::vector<int> result;
  for (int i = 0; i < count; ++i) {
    const std::uint32_t j = below(static_cast<std::uint32_t>(count - i));
    result.push_back(pool[j]);
    pool[j] = pool[static_cast<std::size_t>(count - i - 1)];
  }
  return result;
}

}  // namespace moebench
