// router: the top_k experts of each token, and their weights.
//
//   expert_ids[t]     = the top_k largest of logits[t], descending; ties go to the lower expert
//   expert_weights[t] = softmax over those top_k logits only
//
// Variants that normalise also do what makes the logits, if the arguments ask for that:
//
//   normed = rms_norm(x + addend),   logits = weight normed + bias
//
// Source: openai/gpt-oss, gpt_oss/torch/model.py, MLPBlock (norm, gate, topk, then softmax of the
// selected).
// Lower bound: the bytes of the weight, once.
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"
#include "kernels/formats/format.h"
#include "kernels/fused/norm.h"

namespace moebench::router {

struct Problem {
  std::int64_t num_tokens = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;  // in [1, num_experts]
  // Of the product before it, for those who can do it, too.
  Format format = Format::kF32;
  std::int64_t hidden_size = 0;
};

struct Args {
  View<const float, 2> logits;       // [num_tokens, num_experts]
  View<std::int32_t, 2> expert_ids;  // [num_tokens, top_k]; overwritten
  View<float, 2> expert_weights;     // [num_tokens, top_k]; overwritten, rows sum to 1

  // What is to be done first; logits.data is not looked at then. norm.weight.data == nullptr:
  // nothing.
  struct Product {
    fused::Norm norm;
    View<float, 2> normed;      // [num_tokens, hidden_size]; overwritten
    MatrixView weight;          // [num_experts, hidden_size]
    View<const float, 1> bias;  // [num_experts], or data == nullptr: none
  };
  Product product{};
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_ROUTER_VARIANTS(X) X(reference) X(one_pass)
#define MOEBENCH_ROUTER_CUDA_VARIANTS(X) X(cuda_warp) X(cuda_cluster)
MOEBENCH_VARIANTS(MOEBENCH_ROUTER_VARIANTS, MOEBENCH_ROUTER_CUDA_VARIANTS)

}  // namespace moebench::router
