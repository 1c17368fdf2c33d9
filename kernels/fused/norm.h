// A norm as the beginning of another op, or as its end, for variants that do both in one launch
// (Variant::normalises, Variant::ends_with_norm).
#pragma once

#include "kernels/core/float_types.h"
#include "kernels/core/view.h"

namespace moebench::fused {

// rms_norm (kernels/rms_norm), but for where the sum goes, since many blocks read x and addend.
struct Norm {
  View<const float, 2> x;       // [num_tokens, hidden_size]
  View<const float, 2> addend;  // likewise, or data == nullptr: none
  View<const float, 1> weight;  // [hidden_size], or data == nullptr: no norm is asked for
  float epsilon = 0;
  View<float, 2> sum;  // [num_tokens, hidden_size]: x + addend; overwritten; neither of them
};

// rms_norm of x and what the op gives, which is not written: x += that, and then as there.
struct NormBehind {
  View<float, 2> x;             // [num_tokens, hidden_size]
  View<const float, 1> weight;  // [hidden_size], or data == nullptr: no norm is asked for
  float epsilon = 0;
  View<float, 2> out;     // [num_tokens, hidden_size]; overwritten
  View<bf16, 2> rounded;  // likewise, instead of `out`; data == nullptr: not
};

}  // namespace moebench::fused
