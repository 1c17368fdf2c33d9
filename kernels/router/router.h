// router: the top_k experts of each token, and their weights.
//
//   expert_ids[t]     = the top_k largest of logits[t], descending; ties go to the lower expert
//   expert_weights[t] = softmax over those top_k logits only
//
// Source: openai/gpt-oss, gpt_oss/torch/model.py, MLPBlock (topk, then softmax of the selected).
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::router {

struct Problem {
  std::int64_t num_tokens = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;  // in [1, num_experts]
};

struct Args {
  View<const float, 2> logits;       // [num_tokens, num_experts]
  View<std::int32_t, 2> expert_ids;  // [num_tokens, top_k]; overwritten
  View<float, 2> expert_weights;     // [num_tokens, top_k]; overwritten, rows sum to 1
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_ROUTER_VARIANTS(X) X(reference) X(one_pass)
#define MOEBENCH_ROUTER_CUDA_VARIANTS(X) X(cuda_warp)
MOEBENCH_VARIANTS(MOEBENCH_ROUTER_VARIANTS, MOEBENCH_ROUTER_CUDA_VARIANTS)

}  // namespace moebench::router
