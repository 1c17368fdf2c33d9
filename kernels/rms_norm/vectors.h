// Residual addition and RMS normalisation, eight elements at a time.
#pragma once

#include <cmath>

#include "kernels/core/thread_pool.h"
#include "kernels/rms_norm/rms_norm.h"

namespace moebench::rms_norm {
namespace {

template <class S>
void normalize(const float* x, const float* weight, std::int64_t size, float epsilon, float* out) {
  auto squares = S::zero();
  std::int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const auto v = S::load(x + i);
    squares = S::multiply_add(v, v, squares);
  }
  float sum = S::sum(squares);
  for (std::int64_t j = i; j < size; ++j) sum += x[j] * x[j];
  float scale = 1.0F / std::sqrt(sum / static_cast<float>(size) + epsilon);
  if (!(sum > 1e-20F && sum < 1e30F)) {  // squares may have left float32
    double squares_sum = 0;
    for (std::int64_t j = 0; j < size; ++j) {
      squares_sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
    }
    scale = static_cast<float>(
        1.0 / std::sqrt(squares_sum / static_cast<double>(size) + static_cast<double>(epsilon)));
  }
  for (i = 0; i + 8 <= size; i += 8) {
    S::store(out + i, S::mul(S::load(weight + i), S::mul(S::load(x + i), S::set(scale))));
  }
  for (; i < size; ++i) out[i] = weight[i] * (x[i] * scale);
}

template <class S>
void add(float* x, const float* addend, std::int64_t size) {
  std::int64_t i = 0;
  for (; i + 8 <= size; i += 8) S::store(x + i, S::add(S::load(x + i), S::load(addend + i)));
  for (; i < size; ++i) x[i] += addend[i];
}

template <class S>
struct NormalizeTokens {
  const Args& args;

  void operator()(std::int64_t begin, std::int64_t end, int) const {
    for (std::int64_t t = begin; t < end; ++t) {
      if (args.addend.data != nullptr) {
        add<S>(args.x[t].data, args.addend[t].data, args.x.shape[1]);
      }
      normalize<S>(args.x[t].data, args.weight.data, args.x.shape[1], args.epsilon,
                   args.out[t].data);
    }
  }
};

template <class S>
void run_vectors(const Args& args, Context& context) {
  context.pool.parallel_for(args.x.shape[0], 8, NormalizeTokens<S>{args});
}

[[maybe_unused]] std::string always_supported(const Problem&) { return ""; }
[[maybe_unused]] std::size_t no_workspace(const Problem&, int) { return 0; }

}  // namespace
}  // namespace moebench::rms_norm
