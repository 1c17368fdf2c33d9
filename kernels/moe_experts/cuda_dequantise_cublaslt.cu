// cuda_dequantise_cublaslt: the yardstick for kernels of our own: each expert's weights are written
// out as bf16, and multiplied by NVIDIA's cuBLASLt.
//
// cuBLASLt takes its shapes from the host, which does not know how many tokens an expert has. So
// every expert multiplies all tokens, and only the products of those that selected it are kept: the
// arithmetic of num_experts / top_k times the tokens, which hurts long prompts, and two launches of
// cuBLASLt per expert, which hurt everything else. Weights of experts without tokens are not
// dequantised; what the library then multiplies is left over from others, and dropped.
//
// Not batch-invariant: cuBLASLt chooses its algorithm by the number of tokens.
#include <algorithm>

#include "kernels/core/cublaslt.h"
#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}
MOEBENCH_DEVICE std::int64_t item_of_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + static_cast<std::int64_t>(threadIdx.x);
}

// Eight numbers a thread.
__global__ void MOEBENCH_BOUNDS(kThreads)
    round_inputs(const float* x, std::int64_t count, std::uint16_t* rounded) {
  const std::int64_t unit = item_of_thread();
  if (8 * unit >= count) return;
  // In the order of columns, as bf16 weights have it.
  reinterpret_cast<uint4*>(rounded)[unit] = load_inputs<Format::kBf16>(x + 8 * unit, 0);
}

// 16 encoded bytes a thread.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads)
    dequantise(Stack stack, int expert, const int* begin, std::uint16_t* weights) {
  constexpr int kValues = gpu::DeviceFormat<kFormat>::kValues;
  if (begin[expert] == begin[expert + 1]) return;
  const EncodedMatrix matrix = matrix_of(stack, expert);
  const int row_pieces = matrix.cols / kValues;
  const std::int64_t item = item_of_thread();
  if (item >= static_cast<std::int64_t>(matrix.rows) * row_pieces) return;
  const gpu::EncodedRow row = row_of(matrix, static_cast<int>(item / row_pieces));
  const int piece = static_cast<int>(item % row_pieces);
  float values[kValues];
  gpu::DeviceFormat<kFormat>::decode(gpu::load_streaming(row.data + std::int64_t{16} * piece),
                                     piece * kValues, row, values);
  auto* to = reinterpret_cast<uint2*>(weights) + item * (kValues / 4);
  MOEBENCH_UNROLL
  for (int i = 0; i < kValues; i += 4) {
    to[i / 4] = {gpu::pack_bf16(values[i], values[i + 1]),
                 gpu::pack_bf16(values[i + 2], values[i + 3])};
  }
}

// A pair of a gate and an up product a thread.
__global__ void MOEBENCH_BOUNDS(kThreads)
    activate(const float* products, std::int64_t count, float alpha, float limit,
             std::uint16_t* activated) {
  const std::int64_t i = item_of_thread();
  if (i >= count) return;
  const float2 gate_up = reinterpret_cast<const float2*>(products)[i];
  activated[i] = gpu::float_to_bf16(swiglu(gate_up.x, gate_up.y, alpha, limit));
}

// Keeps the outputs of the tokens that selected the expert: four numbers of a pair a thread.
__global__ void MOEBENCH_BOUNDS(kThreads)
    keep_selected(Sizes sizes, const std::int32_t* expert_ids, int expert, const float* outputs,
                  float* projected) {
  const int quads = sizes.hidden_size / 4;
  const std::int64_t item = item_of_thread();
  if (item >= static_cast<std::int64_t>(sizes.num_pairs) * quads) return;
  const auto pair = static_cast<int>(item / quads);
  if (expert_ids[pair] != expert) return;
  reinterpret_cast<float4*>(projected)[item] = reinterpret_cast<const float4*>(
      outputs)[static_cast<std::int64_t>(pair / sizes.top_k) * quads + item % quads];
}

struct Scratch {
  GroupedScratch grouped;  // of which begin, x, activated and projected
  std::byte* library;
  std::uint16_t* weights;  // of one expert, as bf16
  float* products;         // of one expert, with all tokens
};
Scratch take_scratch(Workspace& workspace, const Problem& problem) {
  const std::int64_t num_pairs = problem.num_tokens * problem.top_k;
  return {take_grouped_scratch(workspace, num_pairs, problem.num_experts, problem.hidden_size,
                               problem.intermediate_size, static_cast<int>(num_pairs)),
          workspace.take<std::byte>(static_cast<std::int64_t>(gpu::kCublasLtWorkspaceBytes)),
          workspace.take<std::uint16_t>(2 * problem.intermediate_size * problem.hidden_size),
          workspace.take<float>(problem.num_tokens *
                                std::max(2 * problem.intermediate_size, problem.hidden_size))};
}

gpu::MatrixProduct gate_up_product(const Problem& problem) {
  return {gpu::MatrixProduct::Type::kBf16, problem.num_tokens, 2 * problem.intermediate_size,
          problem.hidden_size, true};
}
gpu::MatrixProduct down_product(const Problem& problem) {
  return {gpu::MatrixProduct::Type::kBf16, problem.num_tokens, problem.hidden_size,
          problem.intermediate_size, true};
}

// One expert's matrix as bf16, times all rows of `left`.
void multiply_expert(const MatrixStackView& stack, int expert, const Scratch& scratch,
                     const gpu::MatrixProduct& product, const std::uint16_t* left,
                     const float* bias, Context& context) {
  gpu::with_format(stack.format, [&](auto format) {
    gpu::launch(
        dequantise<format()>,
        {.grid = {blocks_for(stack.rows * stack.cols / gpu::DeviceFormat<format()>::kValues)},
         .block = kThreads,
         .stream = context.stream},
        "moe_experts/cuda_dequantise_cublaslt (dequantise)", device_stack(stack), expert,
        scratch.grouped.groups.begin, scratch.weights);
  });
  const gpu::MatrixProductOperands operands = {.left = left,
                                               .right = scratch.weights,
                                               .bias = bias + expert * stack.rows,
                                               .out = scratch.products,
                                               .workspace = scratch.library};
  if (context.tunes) gpu::cublaslt_tune(product, operands, context.stream);
  gpu::cublaslt_multiply(product, operands, context.stream);
}

void run(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  const Problem problem = {args.gate_up.format, args.x.shape[0],    args.x.shape[1],
                           args.down.cols,      args.gate_up.count, args.expert_ids.shape[1]};
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, problem);
  const GroupedScratch& grouped = scratch.grouped;
  const std::int64_t num_activated = problem.num_tokens * problem.intermediate_size;
  launch_sort(args, context, {sizes.num_pairs}, grouped.groups);
  gpu::launch(
      round_inputs,
      {.grid = {blocks_for(args.x.size() / 8)}, .block = kThreads, .stream = context.stream},
      "moe_experts/cuda_dequantise_cublaslt (inputs)", args.x.data, args.x.size(), grouped.x);
  for (int expert = 0; expert < sizes.num_experts; ++expert) {
    multiply_expert(args.gate_up, expert, scratch, gate_up_product(problem), grouped.x,
                    args.gate_up_bias.data, context);
    gpu::launch(activate,
                {.grid = {blocks_for(num_activated)}, .block = kThreads, .stream = context.stream},
                "moe_experts/cuda_dequantise_cublaslt (activate)", scratch.products, num_activated,
                args.swiglu_alpha, args.swiglu_limit, grouped.activated);
    multiply_expert(args.down, expert, scratch, down_product(problem), grouped.activated,
                    args.down_bias.data, context);
    gpu::launch(keep_selected,
                {.grid = {blocks_for(std::int64_t{sizes.num_pairs} * (sizes.hidden_size / 4))},
                 .block = kThreads,
                 .stream = context.stream},
                "moe_experts/cuda_dequantise_cublaslt (keep)", sizes, args.expert_ids.data, expert,
                scratch.products, grouped.projected);
  }
  launch_combine(args, context, grouped.projected);
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::cublaslt_unavailable();
  if (reason.empty()) reason = gpu::needs_compute_capability(80);
  if (reason.empty()) reason = unsupported_shape(problem);
  if (reason.empty()) reason = gpu::cublaslt_unsupported(gate_up_product(problem));
  if (reason.empty()) reason = gpu::cublaslt_unsupported(down_product(problem));
  return reason;
}

}  // namespace

const Variant cuda_dequantise_cublaslt = {
    .name = "cuda_dequantise_cublaslt",
    .backend = "cuda",
    .summary = "each expert dequantised to bf16 and multiplied with all tokens by cuBLASLt",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes =
        [](const Problem& problem, int) {
          Workspace workspace;
          take_scratch(workspace, problem);
          return workspace.used();
        },
    .run = run,
};

}  // namespace moebench::moe_experts
