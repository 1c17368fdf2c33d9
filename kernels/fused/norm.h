// A norm as the beginning of another op, for variants that do both in one launch
// (Variant::normalises): rms_norm (kernels/rms_norm), but for where the sum goes, since many blocks
// read x and addend.
#pragma once

#include "kernels/core/view.h"

namespace moebench::fused {

struct Norm {
  View<const float, 2> x;       // [num_tokens, hidden_size]
  View<const float, 2> addend;  // likewise, or data == nullptr: none
  View<const float, 1> weight;  // [hidden_size], or data == nullptr: no norm is asked for
  float epsilon = 0;
  View<float, 2> sum;  // [num_tokens, hidden_size]: x + addend; overwritten; neither of them
};

}  // namespace moebench::fused
