// cuda_one_launch_fp8: the experts' half of a layer for one token in one launch: norm, router's
// product and choice, gate and up, down. For what a boundary between launches costs, and because
// memory is kept busy across it. Hopper, MXFP4 experts, multiplied as cuda_digits_fp8 describes,
// with its bits, and those of rms_norm/cuda_block, linear/cuda_rows_f32 and router/cuda_warp.
//
// One block an SM; all run at once and wait for each other twice. What one leaves for the others,
// sums of the router and activations, shows by itself that it is there: no fence stands between who
// writes and who reads (grid_turn.cuh).
//
// A. Every block normalises the whole row, for that is sooner than being told, and keeps its
//    digits. The router's product is dealt out by quarters of a row to a warp each.
// B. One warp of each block reads all sums and chooses; then gate and up as in cuda_digits_fp8.
//    When the weights of a block's last tile have been asked for, it asks the second-level cache
//    for its rows of down: memory has something to do while blocks wait for each other.
// C. A block that has multiplied says so, a little ahead of what it activates, and asks for its
//    first weights of down. When all have said it, it reads what they have activated, again if some
//    is not there yet.
//
// Where nothing is to be routed, x and the choice are given, and only activations waited for. What
// the router's part does not take is refused; other experts run as cuda_digits_fp8.
#include <algorithm>
#include <string>

#include "kernels/moe_experts/digit_products.cuh"
#include "kernels/moe_experts/one_launch.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kWarps = kThreads / gpu::kWarp;
constexpr int kChooser = 0;            // the warp that chooses
constexpr int kWaiter = kThreads - 1;  // the thread that waits for the grid

using Work = OneLaunch;

// The row that gate and up multiply, where they have nothing and down will have its digits.
MOEBENCH_DEVICE float* shared_x() {
  static_assert(sizeof(Shared<1>) + kMostCols * sizeof(float) <=
                offsetof(Shared<kMostPairs>, exponents));
  return reinterpret_cast<float*>(gpu::dynamic_shared() + sizeof(Shared<1>));
}

struct GateUpBeforeDown : GateUpWalk {
  const Stack* down;
  Signals* signals;
  const unsigned* turn;  // shared memory

  MOEBENCH_DEVICE void enter(bool goes_on) const {
    if (goes_on || static_cast<int>(threadIdx.x) >= num_pairs) return;
    prefetch_down(*down, experts.of(static_cast<int>(threadIdx.x)));
  }
  MOEBENCH_DEVICE void multiplied() const {
    if (threadIdx.x == kWaiter) gpu::arrive_at_grid(&signals->turn);
  }
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& place, const Early& early, Total&& total) const {
    if (2 * gpu::lane_id() >= place.rows) return;
    float* const to = signals->at[*turn].activated + activated_by(place);
    gpu::store_relaxed(reinterpret_cast<std::uint32_t*>(to), gpu::shown(activation(early, total)));
  }
};

// Norm, product and choice: the digits of the row, and the token's experts and their weights. A
// barrier must follow.
MOEBENCH_DEVICE void route(const Work& work, unsigned (&turn)[1],
                           std::int32_t (&expert_ids)[kMostPairs],
                           float (&expert_weights)[kMostPairs]) {
  MOEBENCH_SHARED(float, logits, [kMostExperts]);
  float* const x = shared_x();
  const Router& router = work.router;
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.gate_up.first.cols;
  float bias[kHeldExperts] = {};  // does not depend on the kernel before
  if (gpu::warp_id() == kChooser && router.bias != nullptr) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeldExperts; ++h) {
      const int expert = gpu::lane_id() + h * gpu::kWarp;
      if (expert < router.num_experts) bias[h] = gpu::load_constant(router.bias + expert);
    }
  }
  normalise_and_show_sums<kWarps, Routed::kHere>(work, x, turn, [] { gpu::sync_threads(); });
  const Shown& shown = work.signals->at[turn[0]];
  if (thread < kUnits) store_digits<1>(0, thread, load_inputs(x, cols, thread).x);
  if (gpu::warp_id() == kChooser) {
    await_logits(router, shown, bias, logits);
    gpu::sync_warp();
    fused::choose_experts<kHeldExperts>(logits, router.num_experts, work.num_pairs, expert_ids,
                                        expert_weights);
  }
}

template <bool kRoutes>
__global__ void MOEBENCH_BOUNDS(kThreads, 1) one_launch(MOEBENCH_GRID_CONSTANT Work work) {
  MOEBENCH_SHARED(std::int32_t, expert_ids, [kMostPairs]);
  MOEBENCH_SHARED(float, expert_weights, [kMostPairs]);
  MOEBENCH_SHARED(unsigned, turn, [1]);
  const auto thread = static_cast<int>(threadIdx.x);
  if constexpr (kRoutes) {
    route(work, turn, expert_ids, expert_weights);
  } else {
    gpu::wait_for_previous_kernel();
    if (thread < work.num_pairs) {
      expert_ids[thread] = gpu::load_constant(work.expert_ids + thread);
      expert_weights[thread] = gpu::load_constant(work.expert_weights + thread);
    }
    // They come with the ids, without which no weights can be asked for.
    if (thread < kUnits) {
      store_digits<1>(0, thread, load_inputs(work.x, work.gate_up.first.cols, thread).x);
    }
    if (thread == kWaiter) turn[0] = gpu::grid_turn(&work.signals->turn);
  }
  gpu::sync_threads();
  {
    GateUpBeforeDown gate_up{{&work.gate_up, work.gate_up_bias, nullptr, work.alpha, work.limit,
                              work.num_pairs, 0, Experts(expert_ids, work.num_pairs)},
                             &work.down,
                             work.signals,
                             turn};
    multiply_digits<1, 6>(work.gate_up.first, gate_up, [] {});
  }
  DownWalk down{&work.down,
                work.down_bias,
                expert_weights,
                work.out,
                work.num_pairs,
                0,
                Experts(expert_ids, work.num_pairs)};
  multiply_digits<kMostPairs, 3>(work.down.first, down, [&] {
    if (thread == kWaiter) gpu::wait_for_grid(&work.signals->turn, turn[0]);
    gpu::sync_threads();
    gpu::let_next_kernel_start();
    const int cols = work.down.first.cols;
    const float* activated = work.signals->at[turn[0]].activated;
    store_activations(
        work.num_pairs,
        [&](int pair, int unit) { return load_shown(activated + pair * cols, cols, unit); },
        [&](int unit, const Inputs& inputs) {
          bool is_there = true;
          MOEBENCH_UNROLL
          for (const float x : inputs.x) is_there &= gpu::bits_of(x) != 0;
          is_there |= 8 * unit >= cols;
          if (!is_there) gpu::spin_on();
          return is_there;
        });
    clear<kThreads>(*work.signals, turn[0] ^ 1);
  });
}

void run(const Args& args, Context& context) {
  const bool routes = routed_of(args) != Routed::kBefore;
  require(!args.route.is_ahead, "run moe_experts: this variant's router is never ahead");
  if (!routes && !takes(args)) return cuda_digits_fp8.run(args, context);
  const Work work = one_launch_of(args, context, takes(args));
  const int num_sms = gpu::device_info().num_sms;
  const Tiles tiles(args.expert_ids.size(), args.gate_up.rows, args.down.rows, num_sms);
  // Gate and up lie where the digits of down will.
  const std::size_t bytes = shared_bytes<kMostPairs>(tiles.down);
  static_assert(sizeof(Shared<1>) <= offsetof(Shared<kMostPairs>, exponents));
  gpu::launch(routes ? one_launch<true> : one_launch<false>,
              one_launch_config(context, kThreads, bytes),
              routes ? "moe_experts/cuda_one_launch_fp8 (with the router)"
                     : "moe_experts/cuda_one_launch_fp8",
              work);
}

}  // namespace

constinit const Variant cuda_one_launch_fp8 = one_launch_variant<takes, cuda_digits_fp8>(
    "cuda_one_launch_fp8",
    "cuda_digits_fp8 as one launch whose blocks wait for each other, the router in it (Hopper)",
    "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits", run, false);

}  // namespace moebench::moe_experts
