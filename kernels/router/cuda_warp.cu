// cuda_warp: one warp a token, the logits in registers.
#include "kernels/fused/choose.cuh"
#include "kernels/router/router.h"

namespace moebench::router {
namespace {

constexpr int kWarps = 4;  // tokens of a block
constexpr int kMostExperts = 1024;

template <int kHeld>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp)
    route(const float* logits, std::int32_t* expert_ids, float* expert_weights, int num_tokens,
          int num_experts, int top_k) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + gpu::warp_id();
  if (token >= num_tokens) return;
  fused::choose_experts<kHeld>(logits + token * num_experts, num_experts, top_k,
                               expert_ids + token * top_k, expert_weights + token * top_k);
}

template <int kHeld>
void route_tokens(const Args& args, Context& context) {
  const auto num_tokens = static_cast<int>(args.logits.shape[0]);
  gpu::launch(route<kHeld>,
              {.grid = {static_cast<unsigned>((num_tokens + kWarps - 1) / kWarps)},
               .block = kWarps * gpu::kWarp,
               .stream = context.stream,
               .overlap_previous = true,
               .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
              "router/cuda_warp", args.logits.data, args.expert_ids.data, args.expert_weights.data,
              num_tokens, static_cast<int>(args.logits.shape[1]),
              static_cast<int>(args.expert_ids.shape[1]));
}

void run(const Args& args, Context& context) {
  const std::int64_t num_experts = args.logits.shape[1];
  if (num_experts <= 32) return route_tokens<1>(args, context);
  if (num_experts <= 128) return route_tokens<4>(args, context);
  if (num_experts <= 256) return route_tokens<8>(args, context);
  route_tokens<kMostExperts / gpu::kWarp>(args, context);
}

}  // namespace

const Variant cuda_warp = {
    .name = "cuda_warp",
    .backend = "cuda",
    .summary = "one warp a token, the logits in registers",
    .rounds = "softmax: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = [](const Problem& problem) -> std::string {
      if (problem.top_k < 1 || problem.top_k > problem.num_experts) {
        return fmt::format("top_k {} is not in [1, {}]", problem.top_k, problem.num_experts);
      }
      if (problem.num_experts > kMostExperts) {
        return fmt::format("{} experts are more than {}", problem.num_experts, kMostExperts);
      }
      return gpu::unavailable();
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_ROUTER_CUDA_VARIANTS)

}  // namespace moebench::router
