// Rotary embedding, eight pairs at a time.
#pragma once

#include "kernels/core/thread_pool.h"
#include "kernels/rope/rope.h"

namespace moebench::rope {
namespace {

template <class S>
struct RotateTokens {
  const Args& args;

  void operator()(std::int64_t begin, std::int64_t end, int) const {
    const std::int64_t half = args.x.shape[2] / 2;
    for (std::int64_t t = begin; t < end; ++t) {
      const float* cos = args.cos[t].data;
      const float* sin = args.sin[t].data;
      for (std::int64_t h = 0; h < args.x.shape[1]; ++h) {
        float* x = args.x[t][h].data;
        std::int64_t i = 0;
        for (; i + 8 <= half; i += 8) {
          const auto a = S::load(x + i);
          const auto b = S::load(x + i + half);
          const auto c = S::load(cos + i);
          const auto s = S::load(sin + i);
          S::store(x + i, S::sub(S::mul(a, c), S::mul(b, s)));
          S::store(x + i + half, S::add(S::mul(b, c), S::mul(a, s)));
        }
        for (; i < half; ++i) {
          const float a = x[i];
          const float b = x[i + half];
          x[i] = a * cos[i] - b * sin[i];
          x[i + half] = b * cos[i] + a * sin[i];
        }
      }
    }
  }
};

template <class S>
void run_vectors(const Args& args, Context& context) {
  context.pool.parallel_for(args.x.shape[0], 8, RotateTokens<S>{args});
}

[[maybe_unused]] std::string vectors_unsupported(const Problem& problem) {
  return problem.head_dim % 2 == 0 ? "" : "head_dim must be even";
}
[[maybe_unused]] std::size_t no_workspace(const Problem&, int) { return 0; }

}  // namespace
}  // namespace moebench::rope
