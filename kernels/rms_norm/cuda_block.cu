// cuda_block: one block a token, which keeps its part of the row in registers between the two
// passes.
//
// All loads of the row are in flight before the first is used: at few tokens their latency is most
// of the time. Each row's sum is added in an order that depends on its size alone.
#include "kernels/core/gpu.cuh"
#include "kernels/rms_norm/rms_norm.h"

namespace moebench::rms_norm {
namespace {

constexpr int kThreads = 256;
constexpr int kHeld = 16;  // values of a thread in registers: rows up to 4096; others read x again

// kWidth neighbouring values: 4 where rows are multiples of 16 bytes, else 1.
template <int kWidth>
struct Values {
  float v[kWidth];
};
template <int kWidth>
MOEBENCH_DEVICE Values<kWidth> load(const float* from) {
  if constexpr (kWidth == 1) {
    return {{*from}};
  } else {
    const float4 four = *reinterpret_cast<const float4*>(from);
    return {{four.x, four.y, four.z, four.w}};
  }
}
template <int kWidth>
MOEBENCH_DEVICE void store(float* to, const Values<kWidth>& values) {
  if constexpr (kWidth == 1) {
    *to = values.v[0];
  } else {
    *reinterpret_cast<float4*>(to) = float4{values.v[0], values.v[1], values.v[2], values.v[3]};
  }
}
template <int kWidth>
MOEBENCH_DEVICE void add(Values<kWidth>& to, const Values<kWidth>& values) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) to.v[i] += values.v[i];
}
template <int kWidth>
MOEBENCH_DEVICE void add_squares(float& sum, const Values<kWidth>& values) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) sum += values.v[i] * values.v[i];
}
template <int kWidth>
MOEBENCH_DEVICE void store_normalised(float* to, Values<kWidth> values, float scale,
                                      const Values<kWidth>& weight) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) values.v[i] = weight.v[i] * (values.v[i] * scale);
  store<kWidth>(to, values);
}

template <int kWidth>
__global__ void MOEBENCH_BOUNDS(kThreads)
    normalize(float* x, const float* addend, const float* weight, float epsilon, float* out,
              int size) {
  constexpr int kLoads = kHeld / kWidth;
  constexpr int kStride = kThreads * kWidth;
  gpu::let_next_kernel_start();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * size;
  const int first = static_cast<int>(threadIdx.x) * kWidth;
  x += begin;
  out += begin;
  // Weights come from memory, further than what the kernel before leaves: they start before it ends.
  Values<kWidth> held[kLoads];
  Values<kWidth> weights[kLoads];
  MOEBENCH_UNROLL
  for (int h = 0; h < kLoads; ++h) {
    const int i = first + h * kStride;
    if (i < size) weights[h] = load<kWidth>(weight + i);
  }
  gpu::wait_for_previous_kernel();
  MOEBENCH_UNROLL
  for (int h = 0; h < kLoads; ++h) {
    const int i = first + h * kStride;
    held[h] = {};
    if (i < size) held[h] = load<kWidth>(x + i);
  }
  if (addend != nullptr) {
    addend += begin;
    Values<kWidth> added[kLoads];
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      const int i = first + h * kStride;
      if (i < size) added[h] = load<kWidth>(addend + i);
    }
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      const int i = first + h * kStride;
      if (i >= size) continue;
      add(held[h], added[h]);
      store(x + i, held[h]);
    }
  }
  float squares = 0;
  MOEBENCH_UNROLL
  for (int h = 0; h < kLoads; ++h) add_squares(squares, held[h]);
  for (int i = first + kLoads * kStride; i < size; i += kStride) {
    Values<kWidth> values = load<kWidth>(x + i);
    if (addend != nullptr) {
      add(values, load<kWidth>(addend + i));
      store(x + i, values);
    }
    add_squares(squares, values);
  }
  const float scale =
      1.0F / sqrtf(gpu::block_sum<kThreads>(squares) / static_cast<float>(size) + epsilon);
  MOEBENCH_UNROLL
  for (int h = 0; h < kLoads; ++h) {
    const int i = first + h * kStride;
    if (i < size) store_normalised(out + i, held[h], scale, weights[h]);
  }
  for (int i = first + kLoads * kStride; i < size; i += kStride) {
    store_normalised(out + i, load<kWidth>(x + i), scale, load<kWidth>(weight + i));
  }
}

bool is_aligned(const float* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

void run(const Args& args, Context& context) {
  const auto size = static_cast<int>(args.x.shape[1]);
  const bool by_four = size % 4 == 0 && is_aligned(args.x.data) && is_aligned(args.addend.data) &&
                       is_aligned(args.weight.data) && is_aligned(args.out.data);
  gpu::launch(by_four ? normalize<4> : normalize<1>,
              {.grid = {static_cast<unsigned>(args.x.shape[0])},
               .block = kThreads,
               .stream = context.stream,
               .overlap_previous = true},
              "rms_norm/cuda_block", args.x.data, args.addend.data, args.weight.data, args.epsilon,
              args.out.data, size);
}

}  // namespace

const Variant cuda_block = {
    .name = "cuda_block",
    .backend = "cuda",
    .summary = "one block a token, the row kept in registers",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem&) { return gpu::unavailable(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_RMS_NORM_CUDA_VARIANTS)

}  // namespace moebench::rms_norm
