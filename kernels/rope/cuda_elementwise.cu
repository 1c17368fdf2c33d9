// cuda_elementwise: a thread takes four neighbouring pairs of a head (one, where half a head is no
// multiple of four), so that reads and writes are 16 bytes a thread.
#include "kernels/core/gpu.cuh"
#include "kernels/fused/rotation.cuh"
#include "kernels/rope/rope.h"

namespace moebench::rope {
namespace {

constexpr int kThreads = 256;

template <int kPairs>
struct alignas(4 * kPairs) Floats {
  float at[kPairs];
};

// Block (token, part of its heads).
template <int kPairs>
__global__ void MOEBENCH_BOUNDS(kThreads)
    rotate(float* x, const float* cos, const float* sin, int num_heads, int half) {
  using Vector = Floats<kPairs>;
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const int per_head = half / kPairs;
  const int item = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (item >= num_heads * per_head) return;
  const int head = item / per_head;
  const int i = item % per_head * kPairs;
  float* first = x + (token * num_heads + head) * 2 * half + i;
  Vector a = *reinterpret_cast<const Vector*>(first);
  Vector b = *reinterpret_cast<const Vector*>(first + half);
  const Vector c = *reinterpret_cast<const Vector*>(cos + token * half + i);
  const Vector s = *reinterpret_cast<const Vector*>(sin + token * half + i);
  MOEBENCH_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    const float low = a.at[p];
    a.at[p] = fused::rotated_low(low, b.at[p], c.at[p], s.at[p]);
    b.at[p] = fused::rotated_high(low, b.at[p], c.at[p], s.at[p]);
  }
  *reinterpret_cast<Vector*>(first) = a;
  *reinterpret_cast<Vector*>(first + half) = b;
}

template <int kPairs>
void start(const Args& args, Context& context) {
  const auto num_heads = static_cast<int>(args.x.shape[1]);
  const auto half = static_cast<int>(args.x.shape[2] / 2);
  const int items = num_heads * (half / kPairs);
  gpu::launch(rotate<kPairs>,
              {.grid = {static_cast<unsigned>(args.x.shape[0]),
                        static_cast<unsigned>((items + kThreads - 1) / kThreads)},
               .block = kThreads,
               .stream = context.stream,
               .overlap_previous = true},
              "rope/cuda_elementwise", args.x.data, args.cos.data, args.sin.data, num_heads, half);
}

void run(const Args& args, Context& context) {
  if (args.x.shape[2] % 8 == 0) {
    start<4>(args, context);
  } else {
    start<1>(args, context);
  }
}

}  // namespace

const Variant cuda_elementwise = {
    .name = "cuda_elementwise",
    .backend = "cuda",
    .summary = "one thread for four pairs",
    .rounds = "activations: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem& problem) -> std::string {
      if (problem.head_dim % 2 != 0) return "head_dim must be even";
      return gpu::unavailable();
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_ROPE_CUDA_VARIANTS)

}  // namespace moebench::rope
