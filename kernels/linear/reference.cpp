// reference: each weight row decoded to float32, then one dot product per token.
#include "kernels/core/dot.h"
#include "kernels/core/thread_pool.h"
#include "kernels/linear/linear.h"

namespace moebench::linear {
namespace {

// One decoded row per thread, each on cache lines of its own.
std::int64_t row_stride(std::int64_t cols) { return (cols + 15) / 16 * 16; }

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  workspace.take<float>(row_stride(problem.cols) * num_threads);
  return workspace.used();
}

void run(const Args& args, Context& context) {
  const std::int64_t cols = args.weight.cols;
  Workspace workspace(context.workspace);
  float* decoded = workspace.take<float>(row_stride(cols) * context.pool.num_threads());
  context.pool.parallel_for(args.weight.rows, 16,
                            [&](std::int64_t begin, std::int64_t end, int thread) {
                              float* row = decoded + row_stride(cols) * thread;
                              for (std::int64_t r = begin; r < end; ++r) {
                                args.weight.decode_row(r, row);
                                const float bias = args.bias.data != nullptr ? args.bias[r] : 0.0F;
                                for (std::int64_t t = 0; t < args.x.shape[0]; ++t) {
                                  args.out[t][r] = dot(row, args.x[t].data, cols) + bias;
                                }
                              }
                            });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "each weight row decoded to f32, then one dot product per token",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::linear
