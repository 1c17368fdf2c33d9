// Asking the processor, once.
#include "kernels/core/cpu_features.h"

namespace moebench {

bool cpu_has_avx2() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c");
  return has;
#else
  return false;
#endif
}

std::string avx2_unsupported() {
  return cpu_has_avx2() ? "" : "this processor lacks AVX2, FMA or F16C";
}

}  // namespace moebench
