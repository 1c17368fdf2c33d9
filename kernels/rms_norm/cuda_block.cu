// cuda_block: one block a token, which keeps its part of the row in registers between the two
// passes. Longer rows than that are read again.
#include "kernels/fused/norm_row.cuh"
#include "kernels/rms_norm/rms_norm.h"

namespace moebench::rms_norm {
namespace {

// Out: float, or the bits of bf16.
template <int kWidth, class Out>
__global__ void MOEBENCH_BOUNDS(fused::kRowThreads, 3)
    normalize(float* x, const float* addend, const float* weight, float epsilon, Out* out,
              int size) {
  using Row = fused::RowPart<kWidth>;
  gpu::let_next_kernel_start();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * size;
  x += begin;
  out += begin;
  if (addend != nullptr) addend += begin;
  Row row;
  row.load_weights(weight, size);
  gpu::wait_for_previous_kernel();
  row.load_row(x, addend, size);
  if (addend != nullptr) row.store_row(x, size);
  float squares = row.squares();
  for (int i = Row::at(Row::kLoads); i < size; i += Row::kStride) {
    fused::Values<kWidth> values = fused::load<kWidth>(x + i);
    if (addend != nullptr) {
      fused::add(values, fused::load<kWidth>(addend + i));
      fused::store(x + i, values);
    }
    fused::add_squares(squares, values);
  }
  const float scale = fused::row_scale(gpu::block_sum<fused::kRowThreads>(squares), size, epsilon);
  row.normalise(scale);
  row.store_row(out, size);
  for (int i = Row::at(Row::kLoads); i < size; i += Row::kStride) {
    fused::store(out + i, fused::normalised(fused::load<kWidth>(x + i), scale,
                                            fused::load<kWidth>(weight + i)));
  }
}

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

template <class Out>
void start(const Args& args, Out* out, Context& context) {
  const auto size = static_cast<int>(args.x.shape[1]);
  const bool by_four = size % 4 == 0 && is_aligned(args.x.data) && is_aligned(args.addend.data) &&
                       is_aligned(args.weight.data) && is_aligned(out);
  gpu::launch(by_four ? normalize<4, Out> : normalize<1, Out>,
              {.grid = {static_cast<unsigned>(args.x.shape[0])},
               .block = fused::kRowThreads,
               .stream = context.stream,
               .overlap_previous = true,
               .shared_percent = gpu::shared_percent_beside_streams(args.x.shape[0])},
              "rms_norm/cuda_block", args.x.data, args.addend.data, args.weight.data, args.epsilon,
              out, size);
}

void run(const Args& args, Context& context) {
  if (args.rounded.data == nullptr) return start(args, args.out.data, context);
  start(args, reinterpret_cast<std::uint16_t*>(args.rounded.data), context);
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
    .knows_bf16 = [](const Args&) { return true; },
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_RMS_NORM_CUDA_VARIANTS)

}  // namespace moebench::rms_norm
