// The dot product that defines every matrix op of the reference plan.
#pragma once

#include <cstdint>

namespace moebench {

// Sum of a[i] * b[i] over [0, count), float32, in one fixed order: element i goes to partial sum
// i % 32, and the partial sums are added pairwise (16 + 16, 8 + 8, ...). No fused multiply-add. The
// order does not depend on the machine, so results are the same bits everywhere, and 32 independent
// sums let any compiler use vectors.
float dot(const float* a, const float* b, std::int64_t count);

}  // namespace moebench
