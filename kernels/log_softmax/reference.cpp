// reference: float64, one row after the other.
#include <algorithm>
#include <cmath>

#include "kernels/core/thread_pool.h"
#include "kernels/log_softmax/log_softmax.h"

namespace moebench::log_softmax {
namespace {

void run(const Args& args, Context& context) {
  const std::int64_t size = args.logits.shape[1];
  context.pool.parallel_for(
      args.logits.shape[0], 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t r = begin; r < end; ++r) {
          const float* logits = args.logits[r].data;
          const auto largest = static_cast<double>(*std::max_element(logits, logits + size));
          double sum = 0;
          for (std::int64_t i = 0; i < size; ++i) {
            sum += std::exp(static_cast<double>(logits[i]) - largest);
          }
          const double normaliser = largest + std::log(sum);
          for (std::int64_t i = 0; i < size; ++i) {
            args.out[r][i] = static_cast<float>(static_cast<double>(logits[i]) - normaliser);
          }
        }
      });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "plain loops in float64, one row after the other",
    .rounds = "exp and sums: f64",
    .max_nmse = [](const Problem&) { return 1e-14; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::log_softmax
