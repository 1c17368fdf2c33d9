// Asking the processor, once.
#include "kernels/core/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace moebench {

bool cpu_has_avx2() {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    // F16C by cpuid: clang 14 does not know it by name. That the system saves AVX's registers is in
    // the answer for AVX2.
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  }();
  return has;
#else
  return false;
#endif
}

std::string avx2_unsupported() {
  return cpu_has_avx2() ? "" : "this processor lacks AVX2, FMA or F16C";
}

}  // namespace moebench
