// The activation for any processor.
#include <cstdint>

#include "kernels/core/simd_portable.h"
#include "kernels/moe_experts/swiglu.h"

namespace moebench::moe_experts {
void portable_swiglu(const float* gate_up, std::int64_t features, float alpha, float limit,
                     float* out) {
  swiglu<Portable>(gate_up, features, alpha, limit, out);
}
}  // namespace moebench::moe_experts
