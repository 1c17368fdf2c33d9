// cuda_cublaslt: NVIDIA's cuBLASLt, to compare the others with. x is rounded first: to bf16 for
// bf16 weights; for fp8_e4m3 weights to E4M3 with one scale per token, in whose case the bias is
// rounded to bf16, too, which is what cuBLASLt takes. (The biases of published models are bf16.)
//
// Not batch-invariant: cuBLASLt chooses its algorithm by the number of tokens.
#include "kernels/core/cublaslt.h"
#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr int kThreads = 256;
constexpr float kLargestE4m3 = 448.0F;

// A block rounds a token's x: scale = its largest magnitude / 448.
__global__ void MOEBENCH_BOUNDS(kThreads)
    quantize_inputs(const float* x, int cols, std::uint8_t* codes, float* scales) {
  MOEBENCH_SHARED(float, largest_of_warp, [kThreads / gpu::kWarp]);
  x += static_cast<std::int64_t>(blockIdx.x) * cols;
  codes += static_cast<std::int64_t>(blockIdx.x) * cols;
  float largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < cols; i += kThreads) {
    largest = fmaxf(largest, fabsf(x[i]));
  }
  largest = gpu::warp_max(largest);
  if (gpu::lane_id() == 0) largest_of_warp[gpu::warp_id()] = largest;
  gpu::sync_threads();
  MOEBENCH_UNROLL
  for (int w = 0; w < kThreads / gpu::kWarp; ++w) largest = fmaxf(largest, largest_of_warp[w]);
  const float scale = largest > 0 ? largest / kLargestE4m3 : 1.0F;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int i = static_cast<int>(threadIdx.x); i < cols; i += kThreads) {
    codes[i] = gpu::float_to_e4m3(x[i] / scale);
  }
}

__global__ void MOEBENCH_BOUNDS(kThreads)
    round_bias(const float* bias, std::uint16_t* rounded, int rows) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < rows) rounded[i] = gpu::float_to_bf16(bias[i]);
}

struct Scratch {
  std::byte* library;
  uint4* x;             // [num_tokens, cols] of bf16 or E4M3
  float* x_scales;      // [num_tokens]
  std::uint16_t* bias;  // [rows]
};

Scratch take_scratch(Workspace& workspace, std::int64_t num_tokens, std::int64_t rows,
                     std::int64_t cols) {
  return {workspace.take<std::byte>(static_cast<std::int64_t>(gpu::kCublasLtWorkspaceBytes)),
          workspace.take<uint4>(num_tokens * cols / 8), workspace.take<float>(num_tokens),
          workspace.take<std::uint16_t>(rows)};
}

gpu::MatrixProduct product_of(Format format, std::int64_t num_tokens, std::int64_t rows,
                              std::int64_t cols, bool has_bias) {
  using Type = gpu::MatrixProduct::Type;
  return {format == Format::kBf16 ? Type::kBf16 : Type::kE4m3, num_tokens, rows, cols, has_bias};
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::cublaslt_unavailable();
  if (!reason.empty()) return reason;
  if (problem.format == Format::kFp8E4m3) {
    reason = gpu::needs_compute_capability(89);
    if (!reason.empty()) return reason;
  } else if (problem.format != Format::kBf16) {
    return fmt::format("weights must be bf16 or fp8_e4m3; they are {}",
                       format_name(problem.format));
  }
  reason = groups_unsupported(problem);
  if (!reason.empty()) return reason;
  return gpu::cublaslt_unsupported(
      product_of(problem.format, problem.num_tokens, problem.rows, problem.cols, true));
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const std::int64_t num_tokens = args.x.shape[0];
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, num_tokens, weight.rows, weight.cols);
  gpu::MatrixProductOperands operands;
  operands.left = scratch.x;  // of E4M3
  operands.right = weight.data;
  operands.bias = args.bias.data;
  operands.out = args.out.data;
  operands.workspace = scratch.library;
  if (args.weight.format == Format::kBf16) {
    operands.left =
        rounded_x<Format::kBf16>(args, scratch.x, context.stream, "linear/cuda_cublaslt, inputs");
  } else {
    require(args.rounded.data == nullptr, "run linear: inputs of bf16 are for weights of bf16");
    gpu::launch(
        quantize_inputs,
        {.grid = {static_cast<unsigned>(num_tokens)}, .block = kThreads, .stream = context.stream},
        "linear/cuda_cublaslt, inputs", args.x.data, weight.cols,
        reinterpret_cast<std::uint8_t*>(scratch.x), scratch.x_scales);
    operands.left_scales = scratch.x_scales;
    operands.right_scales = reinterpret_cast<const float*>(weight.scales);
    if (args.bias.data != nullptr) {
      gpu::launch(round_bias,
                  {.grid = {static_cast<unsigned>((weight.rows + kThreads - 1) / kThreads)},
                   .block = kThreads,
                   .stream = context.stream},
                  "linear/cuda_cublaslt, bias", args.bias.data, scratch.bias, weight.rows);
      operands.bias = scratch.bias;
    }
  }
  const gpu::MatrixProduct product = product_of(args.weight.format, num_tokens, weight.rows,
                                                weight.cols, args.bias.data != nullptr);
  if (context.tunes) gpu::cublaslt_tune(product, operands, context.stream);
  gpu::cublaslt_multiply(product, operands, context.stream);
}

}  // namespace

const Variant cuda_cublaslt = {
    .name = "cuda_cublaslt",
    .backend = "cuda",
    .summary = "NVIDIA's cuBLASLt",
    .rounds = "activations: bf16 (fp8_e4m3 weights: e4m3 per token, bias bf16), accumulate: f32",
    .max_nmse =
        [](const Problem& problem) { return problem.format == Format::kFp8E4m3 ? 2e-3 : 2e-5; },
    .unsupported = unsupported,
    .workspace_bytes =
        [](const Problem& problem, int) {
          Workspace workspace;
          take_scratch(workspace, problem.num_tokens, problem.rows, problem.cols);
          return workspace.used();
        },
    .run = run,
    .knows_bf16 = has_bf16_weights,
};

}  // namespace moebench::linear
