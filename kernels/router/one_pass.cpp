// one_pass: the top_k so far are kept sorted while the logits are read once.
#include <cmath>

#include "kernels/core/thread_pool.h"
#include "kernels/router/router.h"

namespace moebench::router {
namespace {

// NaN counts as the largest, as in the reference.
bool beats(float candidate, float kept) {
  return candidate > kept || (std::isnan(candidate) && !std::isnan(kept));
}

void route(const float* logits, std::int64_t num_experts, std::int64_t top_k, std::int32_t* ids,
           float* weights) {
  std::int64_t kept = 0;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    if (kept == top_k && !beats(logits[e], logits[ids[kept - 1]])) continue;
    std::int64_t place = kept < top_k ? kept++ : kept - 1;
    for (; place > 0 && beats(logits[e], logits[ids[place - 1]]); --place) {
      ids[place] = ids[place - 1];
    }
    ids[place] = static_cast<std::int32_t>(e);
  }
  const auto largest = static_cast<double>(logits[ids[0]]);
  double sum = 0;
  for (std::int64_t k = 0; k < top_k; ++k) {
    sum += std::exp(static_cast<double>(logits[ids[k]]) - largest);
  }
  for (std::int64_t k = 0; k < top_k; ++k) {
    weights[k] = static_cast<float>(std::exp(static_cast<double>(logits[ids[k]]) - largest) / sum);
  }
}

void run(const Args& args, Context& context) {
  context.pool.parallel_for(
      args.logits.shape[0], 32, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t) {
          route(args.logits[t].data, args.logits.shape[1], args.expert_ids.shape[1],
                args.expert_ids[t].data, args.expert_weights[t].data);
        }
      });
}

}  // namespace

const Variant one_pass = {
    .name = "one_pass",
    .backend = "cpu",
    .summary = "one pass over the logits, the best so far kept sorted",
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
