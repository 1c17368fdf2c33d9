// The activation for processors with AVX2.
#include <cstdint>

#include "kernels/core/cpu_features.h"
#include "kernels/core/error.h"
#include "kernels/core/simd_avx2.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/moe_experts/swiglu.h"

namespace moebench::moe_experts {
void avx2_swiglu(const float* gate_up, std::int64_t features, float alpha, float limit,
                 float* out) {
  swiglu<Avx2>(gate_up, features, alpha, limit, out);
}
}  // namespace moebench::moe_experts
MOEBENCH_AVX2_END
#else
namespace moebench::moe_experts {
void avx2_swiglu(const float*, std::int64_t, float, float, float*) {
  fail(ErrorCode::kUnsupported, "activate experts: {}", avx2_unsupported());
}
}  // namespace moebench::moe_experts
#endif
