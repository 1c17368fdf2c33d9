// cuda_per_token_f32: every (token, slot) pair alone, in f32: a warp for a gate row and its up row,
// then a warp for a row of the token's output, which adds up the slots in order. An expert's
// weights are read once per pair; nothing depends on the other tokens of the batch.
#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * gpu::kWarp;

// The product of a row and x, in every lane: lanes take 16 bytes of the row in turns.
template <Format kFormat>
MOEBENCH_DEVICE float multiply_row(const gpu::EncodedRow& row, const float* x, int cols) {
  constexpr int kValues = gpu::DeviceFormat<kFormat>::kValues;
  float sum = 0;
  for (int column = gpu::lane_id() * kValues; column < cols; column += gpu::kWarp * kValues) {
    constexpr int kBytes = 16;
    const uint4 bytes = gpu::load_streaming(row.data + column / kValues * kBytes);
    float values[kValues];
    gpu::DeviceFormat<kFormat>::decode(bytes, column, row, values);
    MOEBENCH_UNROLL
    for (int i = 0; i < kValues; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(x + column + i);
      sum += values[i] * v.x;
      sum += values[i + 1] * v.y;
      sum += values[i + 2] * v.z;
      sum += values[i + 3] * v.w;
    }
  }
  return gpu::warp_sum(sum);
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads, 4)
    activate_pairs(Sizes sizes, Stack gate_up, const float* gate_up_bias, const float* x,
                   const std::int32_t* expert_ids, float alpha, float limit, float* activated) {
  const int pair = static_cast<int>(blockIdx.x);
  const int i = static_cast<int>(blockIdx.y) * kWarps + gpu::warp_id();
  if (i >= sizes.intermediate_size) return;
  const int expert = expert_ids[pair];
  x += static_cast<std::int64_t>(pair / sizes.top_k) * sizes.hidden_size;
  const float* bias =
      gate_up_bias + static_cast<std::int64_t>(expert) * 2 * sizes.intermediate_size;
  const EncodedMatrix matrix = matrix_of(gate_up, expert);
  const float gate = multiply_row<kFormat>(row_of(matrix, 2 * i), x, sizes.hidden_size);
  const float up = multiply_row<kFormat>(row_of(matrix, 2 * i + 1), x, sizes.hidden_size);
  if (gpu::lane_id() == 0) {
    activated[static_cast<std::int64_t>(pair) * sizes.intermediate_size + i] =
        swiglu(gate + bias[2 * i], up + bias[2 * i + 1], alpha, limit);
  }
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads, 4)
    combine_slots(Sizes sizes, Stack down, const float* down_bias, const float* activated,
                  const std::int32_t* expert_ids, const float* expert_weights, float* out) {
  const int token = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.y) * kWarps + gpu::warp_id();
  if (row >= sizes.hidden_size) return;
  float sum = 0;
  for (int pair = token * sizes.top_k; pair < (token + 1) * sizes.top_k; ++pair) {
    const int expert = expert_ids[pair];
    const float product =
        multiply_row<kFormat>(row_of(matrix_of(down, expert), row),
                              activated + static_cast<std::int64_t>(pair) * sizes.intermediate_size,
                              sizes.intermediate_size);
    sum += expert_weights[pair] *
           (product + down_bias[static_cast<std::int64_t>(expert) * sizes.hidden_size + row]);
  }
  if (gpu::lane_id() == 0) out[static_cast<std::int64_t>(token) * sizes.hidden_size + row] = sum;
}

float* take_activated(Workspace& workspace, std::int64_t num_pairs,
                      std::int64_t intermediate_size) {
  return workspace.take<float>(num_pairs * intermediate_size);
}

std::size_t workspace_bytes(const Problem& problem, int) {
  Workspace workspace;
  take_activated(workspace, problem.num_tokens * problem.top_k, problem.intermediate_size);
  return workspace.used();
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::unavailable();
  return reason.empty() ? unsupported_shape(problem) : reason;
}

void run(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  Workspace workspace(context.workspace);
  float* activated = take_activated(workspace, sizes.num_pairs, sizes.intermediate_size);
  const auto blocks = [](int rows) { return static_cast<unsigned>((rows + kWarps - 1) / kWarps); };
  gpu::with_format(args.gate_up.format, [&](auto format) {
    gpu::launch(activate_pairs<format()>,
                {.grid = {static_cast<unsigned>(sizes.num_pairs), blocks(sizes.intermediate_size)},
                 .block = kThreads,
                 .stream = context.stream},
                "moe_experts/cuda_per_token_f32 (gate, up)", sizes, device_stack(args.gate_up),
                args.gate_up_bias.data, args.x.data, args.expert_ids.data, args.swiglu_alpha,
                args.swiglu_limit, activated);
  });
  gpu::with_format(args.down.format, [&](auto format) {
    gpu::launch(combine_slots<format()>,
                {.grid = {static_cast<unsigned>(sizes.num_tokens), blocks(sizes.hidden_size)},
                 .block = kThreads,
                 .stream = context.stream},
                "moe_experts/cuda_per_token_f32 (down)", sizes, device_stack(args.down),
                args.down_bias.data, activated, args.expert_ids.data, args.expert_weights.data,
                args.out.data);
  });
}

}  // namespace

const Variant cuda_per_token_f32 = {
    .name = "cuda_per_token_f32",
    .backend = "cuda",
    .summary = "a warp a row, every (token, slot) pair alone",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_MOE_EXPERTS_CUDA_VARIANTS)

}  // namespace moebench::moe_experts
