// One plain loop, compiled for three instruction sets; all three give the same bits, because the
// order of additions is spelled out and contraction to FMA is off.
#include "kernels/core/dot.h"

#include <cstddef>

#if defined(MOEBENCH_SANITIZE)
#include <sanitizer/asan_interface.h>
#endif

namespace moebench {
namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(MOEBENCH_SANITIZE)
// ifunc resolvers run before the sanitizers are ready, hence the condition.
#define MOEBENCH_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MOEBENCH_CLONES
#endif

#if defined(MOEBENCH_SANITIZE)
// Both rows are looked at once, not at each element: that was three quarters of the longest tests.
#define MOEBENCH_LOOKED_AT __attribute__((no_sanitize("address", "undefined")))
void look_at(const float* row, std::int64_t count) {
  void* begin = const_cast<float*>(row);
  void* bad = __asan_region_is_poisoned(begin, static_cast<std::size_t>(count) * sizeof(float));
  if (bad != nullptr) *static_cast<volatile char*>(bad);  // AddressSanitizer tells of it
}
#else
#define MOEBENCH_LOOKED_AT
void look_at(const float*, std::int64_t) {}
#endif

MOEBENCH_CLONES MOEBENCH_LOOKED_AT float sum_of_products(const float* a, const float* b,
                                                         std::int64_t count) {
  constexpr std::int64_t kLanes = 32;
  float sums[kLanes] = {};  // no std::array: what is not looked at inlines nothing that is
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (std::int64_t lane = 0; i + lane < count; ++lane) {
    sums[lane] += a[i + lane] * b[i + lane];
  }
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace

float dot(const float* a, const float* b, std::int64_t count) {
  look_at(a, count);
  look_at(b, count);
  return sum_of_products(a, b, count);
}

}  // namespace moebench
