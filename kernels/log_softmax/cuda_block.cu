// cuda_block: one block a row, which reads it three times: for the largest, for the sum, and to
// write. The row's sum is added in an order that depends on its size alone.
#include "kernels/core/gpu.cuh"
#include "kernels/log_softmax/log_softmax.h"

namespace moebench::log_softmax {
namespace {

constexpr int kThreads = 1024;
constexpr int kAtOnce = 8;  // loads of a thread in flight

// visit(i) for every i in [0, size) that falls to this thread, kAtOnce loads together.
template <class Visit>
MOEBENCH_DEVICE void each(const float* row, int size, Visit visit) {
  for (int begin = static_cast<int>(threadIdx.x); begin < size; begin += kAtOnce * kThreads) {
    float values[kAtOnce];
    MOEBENCH_UNROLL
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kThreads;
      if (i < size) values[k] = row[i];
    }
    MOEBENCH_UNROLL
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = begin + k * kThreads;
      if (i < size) visit(i, values[k]);
    }
  }
}

__global__ void MOEBENCH_BOUNDS(kThreads) normalise(const float* logits, float* out, int size) {
  MOEBENCH_SHARED(float, largest_of, [kThreads / gpu::kWarp]);
  logits += static_cast<std::int64_t>(blockIdx.x) * size;
  out += static_cast<std::int64_t>(blockIdx.x) * size;
  float largest = -INFINITY;  // a NaN is passed over here; the sum will hold it
  each(logits, size, [&](int, float value) { largest = fmaxf(largest, value); });
  largest = gpu::warp_max(largest);
  if (gpu::lane_id() == 0) largest_of[gpu::warp_id()] = largest;
  gpu::sync_threads();
  largest = gpu::warp_max(largest_of[gpu::lane_id()]);  // as many warps as lanes

  double sum = 0;
  each(logits, size, [&](int, float value) { sum += static_cast<double>(expf(value - largest)); });
  const double normaliser = static_cast<double>(largest) + log(gpu::block_sum<kThreads>(sum));
  each(logits, size, [&](int i, float value) {
    out[i] = static_cast<float>(static_cast<double>(value) - normaliser);
  });
}

void run(const Args& args, Context& context) {
  gpu::launch(normalise,
              {.grid = {static_cast<unsigned>(args.logits.shape[0])},
               .block = kThreads,
               .stream = context.stream},
              "log_softmax/cuda_block", args.logits.data, args.out.data,
              static_cast<int>(args.logits.shape[1]));
}

}  // namespace

const Variant cuda_block = {
    .name = "cuda_block",
    .backend = "cuda",
    .summary = "one block a row, which it reads three times",
    .rounds = "exp: f32, sums: f64",
    .max_nmse = [](const Problem&) { return 1e-13; },
    .unsupported = [](const Problem&) { return gpu::unavailable(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_LOG_SOFTMAX_CUDA_VARIANTS)

}  // namespace moebench::log_softmax
