// Counter-based random numbers: a pure function of (key, counter), so a draw does not depend on
// what was drawn before, by whom, or in which order requests were scheduled.
//
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011: Philox4x32-10.
#pragma once

#include <array>
#include <cstdint>

namespace moebench {

inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                               std::array<std::uint32_t, 2> key) {
  // As plain words: without optimisation std::array's brackets are calls.
  std::uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
  std::uint32_t low = key[0], high = key[1];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * a;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c;
    a = static_cast<std::uint32_t>(p1 >> 32) ^ b ^ low;
    b = static_cast<std::uint32_t>(p1);
    c = static_cast<std::uint32_t>(p0 >> 32) ^ d ^ high;
    d = static_cast<std::uint32_t>(p0);
    low += 0x9E3779B9U;
    high += 0xBB67AE85U;
  }
  return {a, b, c, d};
}

// Uniform in [0, 1) with 53 random bits: draw number `index` of stream `stream` under `seed`.
inline double random_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const auto words =
      philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                  static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

// A stateful generator over one stream, for shuffles, bootstraps and synthetic data.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed, std::uint64_t stream = 0)
      : seed_(seed), stream_(stream) {}

  double uniform() { return random_uniform(seed_, stream_, next_++); }

  // Uniform in [0, bound). bound > 0. The bias of scaling 53 bits is below 2^-40 for our bounds.
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(uniform() * static_cast<double>(bound));
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t next_ = 0;
};

}  // namespace moebench
