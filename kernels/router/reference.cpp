// reference: top_k rounds of "the largest not yet taken", softmax in float64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/thread_pool.h"
#include "kernels/router/router.h"

namespace moebench::router {
namespace {

void run(const Args& args, Context& context) {
  const std::int64_t num_experts = args.logits.shape[1];
  const std::int64_t top_k = args.expert_ids.shape[1];
  context.pool.parallel_for(
      args.logits.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t) {
          const float* logits = args.logits[t].data;
          std::int32_t* ids = args.expert_ids[t].data;
          for (std::int64_t k = 0; k < top_k; ++k) {
            std::int64_t best = -1;
            for (std::int64_t e = 0; e < num_experts; ++e) {
              if (std::find(ids, ids + k, static_cast<std::int32_t>(e)) != ids + k) continue;
              // A NaN counts as the largest, as in torch.topk: it must show in the output.
              if (best < 0 || logits[e] > logits[best] ||
                  (std::isnan(logits[e]) && !std::isnan(logits[best]))) {
                best = e;
              }
            }
            ids[k] = static_cast<std::int32_t>(best);
          }
          const auto largest = static_cast<double>(logits[ids[0]]);
          double sum = 0;
          for (std::int64_t k = 0; k < top_k; ++k) {
            sum += std::exp(static_cast<double>(logits[ids[k]]) - largest);
          }
          for (std::int64_t k = 0; k < top_k; ++k) {
            args.expert_weights[t][k] =
                static_cast<float>(std::exp(static_cast<double>(logits[ids[k]]) - largest) / sum);
          }
        }
      });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "repeated search for the largest logit left",
    .rounds = "softmax: f64",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem& problem) -> std::string {
      return problem.top_k >= 1 && problem.top_k <= problem.num_experts
                 ? ""
                 : fmt::format("top_k {} is not in [1, {}]", problem.top_k, problem.num_experts);
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::router
