// reference: the mean square in float64, the rest in float32.
#include <cmath>

#include "kernels/core/thread_pool.h"
#include "kernels/rms_norm/rms_norm.h"

namespace moebench::rms_norm {
namespace {

void run(const Args& args, Context& context) {
  const std::int64_t size = args.x.shape[1];
  context.pool.parallel_for(args.x.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* x = args.x[t].data;
      float* out = args.out[t].data;
      if (args.addend.data != nullptr) {
        for (std::int64_t i = 0; i < size; ++i) x[i] += args.addend[t][i];
      }
      double squares = 0;
      for (std::int64_t i = 0; i < size; ++i) {
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      }
      const auto scale = static_cast<float>(
          1.0 / std::sqrt(squares / static_cast<double>(size) + static_cast<double>(args.epsilon)));
      for (std::int64_t i = 0; i < size; ++i) out[i] = args.weight[i] * (x[i] * scale);
    }
  });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "plain loops, one token after the other",
    .rounds = "activations: f32, accumulate: f64",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::rms_norm
