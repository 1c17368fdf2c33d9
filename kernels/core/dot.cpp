// One plain loop, compiled for three instruction sets; all three give the same bits, because the
// order of additions is spelled out and contraction to FMA is off.
#include "kernels/core/dot.h"

#include <array>

namespace moebench {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(MOEBENCH_SANITIZE)
// ifunc resolvers run before the sanitizers are ready, hence the condition.
#define MOEBENCH_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MOEBENCH_CLONES
#endif

MOEBENCH_CLONES float dot(const float* a, const float* b, std::int64_t count) {
  constexpr std::int64_t kLanes = 32;
  std::array<float, kLanes> sums{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      sums[static_cast<std::size_t>(lane)] += a[i + lane] * b[i + lane];
    }
  }
  for (std::int64_t lane = 0; i + lane < count; ++lane) {
    sums[static_cast<std::size_t>(lane)] += a[i + lane] * b[i + lane];
  }
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace moebench
