// reference: the two lines of the contract.
#include "kernels/core/thread_pool.h"
#include "kernels/rope/rope.h"

namespace moebench::rope {
namespace {

void run(const Args& args, Context& context) {
  const std::int64_t half = args.x.shape[2] / 2;
  context.pool.parallel_for(args.x.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t h = 0; h < args.x.shape[1]; ++h) {
        float* x = args.x[t][h].data;
        for (std::int64_t i = 0; i < half; ++i) {
          const float a = x[i];
          const float b = x[i + half];
          x[i] = a * args.cos[t][i] - b * args.sin[t][i];
          x[i + half] = b * args.cos[t][i] + a * args.sin[t][i];
        }
      }
    }
  });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "plain loops",
    .rounds = "activations: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem& problem) -> std::string {
      return problem.head_dim % 2 == 0 ? "" : "head_dim must be even";
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::rope
