// cuda_digits_fp8: the decode step of one sequence on Hopper, MXFP4 weights. The fewest
// instructions a weight: seven for eight of them, where cuda_direct_bf16 takes seventeen and is
// held back by them.
//
// An E2M1 code, its bits moved to where E4M3 has them, is its value over 2^6: no table, no
// multiplication. wgmma takes such bytes as A from the registers of the lanes that loaded them. Its
// B has two columns for each of the four lanes of a quad, zero but for the columns of weights
// that lane t loaded (32, a block of MXFP4), with the inputs there as two E4M3 digits: the input
// over a power of two for each 32 of them, and 16 times what the first digit leaves. Together they
// have the 8 bits of a bf16. So the accumulators that lane t gets are the sums of its own block,
// and it applies that block's scale to them, once for 32 weights.
//
// One block an SM, of four teams of four warps. A tile is 64 rows; team k takes steps k, k + 4, ...
// of each row, a step being the 16 bytes of a row that each lane of a quad takes, and loads those
// of the next tile into the registers that it has just decoded. Teams wait for each other only when
// all tiles are done. In the first kernel a tile is rows of one expert; in the second, up to 16
// rows of each of the token's experts, a warp each, whose activations are B's columns in groups of
// eight. The first also asks the second-level cache for what the second will read.
//
// What is needed first is asked for first: inputs that are asked for behind the weights arrive
// behind them, four microseconds later.
//
// More tokens, other formats and other shapes run as cuda_folded_fp8, and from kSortedFrom tokens
// on as cuda_grouped_fp8.
#include <algorithm>

#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/digit_products.cuh"

namespace moebench::moe_experts {
namespace {

// A step of 20b at context 128 on an H200, tokens/s sorted and not: 4 tokens 1,210 and 1,250, 8
// 1,998 and 1,879, 32 5,379 and 4,761, 64 9,422 and 6,811.
constexpr std::int64_t kSortedFrom = 6;

__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    digits_gate_up(Stack gate_up, Stack down, const float* bias, const float* x, int num_pairs,
                   const std::int32_t* expert_ids, float alpha, float limit, float* activated) {
  gpu::wait_for_previous_kernel();
  // After the wait: whoever starts now finds the ids complete.
  gpu::let_next_kernel_start();
  static_assert(kUnits <= kThreads && kUnits % gpu::kWarp == 0);
  const auto unit = static_cast<int>(threadIdx.x);
  const Experts experts(expert_ids, num_pairs);
  Inputs inputs{};
  if (unit < kUnits) inputs = load_inputs(x, gate_up.first.cols, unit);
  GateUpWalk walk{&gate_up, bias, activated, alpha, limit, num_pairs, 0, experts};
  multiply_digits<1, 6>(gate_up.first, walk, [&] {
    if (unit < kUnits) store_digits<1>(0, unit, inputs.x);
    if (static_cast<int>(threadIdx.x) < num_pairs) {
      prefetch_down(down, walk.experts.of(static_cast<int>(threadIdx.x)));
    }
  });
}

__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    digits_down(Stack down, const float* bias, const float* activated, int num_pairs,
                const std::int32_t* expert_ids, const float* expert_weights, float* out) {
  gpu::let_next_kernel_start();
  const Experts experts(expert_ids, num_pairs);
  DownWalk walk{&down, bias, expert_weights, out, num_pairs, 0, experts};
  multiply_digits<kMostPairs, 3>(down.first, walk, [&] {
    gpu::wait_for_previous_kernel();
    store_activations(
        num_pairs,
        [&](int pair, int unit) {
          return load_inputs(activated + pair * down.first.cols, down.first.cols, unit);
        },
        [](int, const Inputs&) { return true; });
  });
}

void run(const Args& args, Context& context) {
  if (!takes(args)) {
    const bool sorted = args.x.shape[0] >= kSortedFrom;
    return (sorted ? cuda_grouped_fp8 : cuda_folded_fp8).run(args, context);
  }
  Workspace workspace(context.workspace);
  const std::int64_t num_pairs = args.expert_ids.size();
  auto* activated = workspace.take<float>(num_pairs * args.down.cols);
  const auto config = [&](std::size_t shared_bytes) {
    return gpu::LaunchConfig{.grid = {static_cast<unsigned>(gpu::device_info().num_sms)},
                             .block = kThreads,
                             .shared_bytes = shared_bytes,
                             .stream = context.stream,
                             .overlap_previous = true,
                             .shared_percent = gpu::shared_percent_for(shared_bytes, 1)};
  };
  gpu::launch(digits_gate_up, config(sizeof(Shared<1>)), "moe_experts/cuda_digits_fp8 (gate, up)",
              device_stack(args.gate_up), device_stack(args.down), args.gate_up_bias.data,
              args.x.data, static_cast<int>(num_pairs), args.expert_ids.data, args.swiglu_alpha,
              args.swiglu_limit, activated);
  gpu::launch(digits_down, config(sizeof(Shared<kMostPairs>)), "moe_experts/cuda_digits_fp8 (down)",
              device_stack(args.down), args.down_bias.data, activated, static_cast<int>(num_pairs),
              args.expert_ids.data, args.expert_weights.data, args.out.data);
}

}  // namespace

const Variant cuda_digits_fp8 = {
    .name = "cuda_digits_fp8",
    .backend = "cuda",
    .summary = "one token: MXFP4 codes as float8 on wgmma, inputs as two float8 digits (Hopper)",
    .rounds = "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = cuda_grouped_wgmma_bf16.unsupported(problem);
          return reason.empty() ? cuda_folded_fp8.unsupported(problem) : reason;
        },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          Workspace workspace;
          workspace.take<float>(kMostPairs * problem.intermediate_size);
          return std::max({workspace.used(), cuda_folded_fp8.workspace_bytes(problem, num_threads),
                           cuda_grouped_fp8.workspace_bytes(problem, num_threads)});
        },
    .run = run,
    .ends_with_norm =
        [](const Problem& problem) {
          return problem.num_tokens >= kSortedFrom && combines_with_norm(problem);
        },
};

}  // namespace moebench::moe_experts
