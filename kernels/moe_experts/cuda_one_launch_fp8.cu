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

#include "kernels/core/grid_turn.cuh"
#include "kernels/fused/choose.cuh"
#include "kernels/fused/held_rows.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/moe_experts/digit_products.cuh"

namespace moebench::moe_experts {
namespace {

constexpr Format kRouterFormat = Format::kBf16;
constexpr int kMostExperts = 128;
constexpr int kHeldExperts = kMostExperts / gpu::kWarp;  // of a lane that chooses
constexpr int kHeldGroups = 3;  // of a row's quarter, of a lane: 3072 columns
constexpr int kMostCols = kSteps * kStepColumns;
constexpr int kWarps = kThreads / gpu::kWarp;
constexpr int kDigitWarps = kUnits / gpu::kWarp;  // those of the block that store digits
constexpr int kChooser = 0;                       // the warp that chooses
constexpr int kWaiter = kThreads - 1;             // the thread that waits for the grid

// What the blocks of a launch leave for each other: zeros where there is nothing yet.
struct Shown {
  std::uint32_t sums[kMostExperts][gpu::kMostSplits];
  alignas(16) float activated[kMostPairs * kMostCols];
};
struct Signals {
  Shown at[2];  // by the grid's turn
  int turn;
};
static_assert(sizeof(Signals) <= kExpertsSignalBytes);

struct Router {
  fused::DeviceNorm norm;
  const unsigned char* weight;
  const float* bias;  // null: none
  int num_experts;
  int splits;  // warps that share a row
};

// What the kernel is given, with a router or with x, ids and weights.
struct Work {
  Router router;
  const float* x;
  const std::int32_t* expert_ids;
  const float* expert_weights;
  Stack gate_up;
  Stack down;
  const float* gate_up_bias;
  const float* down_bias;
  int num_pairs;
  float alpha;
  float limit;
  float* out;
  Signals* signals;
};

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

// What the launch before has left, so that the next finds nothing. All blocks.
MOEBENCH_DEVICE void clear(Shown& shown) {
  auto* words = reinterpret_cast<uint4*>(&shown);
  const auto blocks = static_cast<int>(gridDim.x);
  for (int i = static_cast<int>(threadIdx.x) * blocks + static_cast<int>(blockIdx.x);
       i < static_cast<int>(sizeof(Shown) / sizeof(uint4)); i += kThreads * blocks) {
    words[i] = {0, 0, 0, 0};
  }
}

// Columns of the activations of an expert, as they are now; none where one is not there yet.
MOEBENCH_DEVICE Inputs load_shown(const float* row, int cols, int unit) {
  if (8 * unit >= cols) return {};
  const auto* from = reinterpret_cast<const uint4*>(row + 8 * unit);
  const uint4 a = gpu::load_relaxed(from);
  const uint4 b = gpu::load_relaxed(from + 1);
  return {{gpu::float_from_bits(a.x), gpu::float_from_bits(a.y), gpu::float_from_bits(a.z),
           gpu::float_from_bits(a.w), gpu::float_from_bits(b.x), gpu::float_from_bits(b.y),
           gpu::float_from_bits(b.z), gpu::float_from_bits(b.w)}};
}

// The part of a row of the router's weights that a warp multiplies.
struct RowSplit : fused::HeldRows<kRouterFormat, 1, kHeldGroups> {
  using Held = fused::HeldRows<kRouterFormat, 1, kHeldGroups>;
  static constexpr int kValues = gpu::DeviceFormat<kRouterFormat>::kValues;

  MOEBENCH_DEVICE static int begin(const Router& router, int task) {
    return task % router.splits * gpu::kWarp + gpu::lane_id();
  }
  MOEBENCH_DEVICE void load(const Router& router, int cols, int task) {
    const int expert = task / router.splits;
    rows[0] = {router.weight + static_cast<std::int64_t>(expert) * cols * (16 / kValues), nullptr,
               1.0F};
    Held::load(begin(router, task), router.splits * gpu::kWarp, cols / kValues);
  }
  // Its product, in every lane.
  MOEBENCH_DEVICE float multiply(const Router& router, int cols, int task, const float* x) const {
    float sums[1][1] = {};
    Held::multiply(x, begin(router, task), router.splits * gpu::kWarp, cols / kValues, sums);
    return gpu::warp_sum(sums[0][0]);
  }
};

// The sums of all experts, as soon as they are there, into `logits`. One warp, whose lanes have the
// biases of experts l, l + 32, ...
MOEBENCH_DEVICE void await_logits(const Router& router, const Shown& shown,
                                  const float (&bias)[kHeldExperts], float* logits) {
  std::uint32_t sums[kHeldExperts][gpu::kMostSplits];
  bool is_there = false;
  while (true) {
    is_there = true;
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeldExperts; ++h) {
      const int expert = gpu::lane_id() + h * gpu::kWarp;
      MOEBENCH_UNROLL
      for (int split = 0; split < gpu::kMostSplits; ++split) {
        sums[h][split] = 1;
        if (expert < router.num_experts && split < router.splits) {
          sums[h][split] = gpu::load_relaxed(&shown.sums[expert][split]);
        }
      }
    }
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeldExperts; ++h) {
      MOEBENCH_UNROLL
      for (const std::uint32_t sum : sums[h]) is_there &= sum != 0;
    }
    if (gpu::all(gpu::kAllLanes, is_there)) break;
    gpu::spin_on();
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeldExperts; ++h) {
    float logit = 0;  // in finish_row's order
    MOEBENCH_UNROLL
    for (int split = 0; split < gpu::kMostSplits; ++split) {
      if (split < router.splits) logit += gpu::float_from_bits(sums[h][split]);
    }
    if (router.bias != nullptr) logit += bias[h];
    const int expert = gpu::lane_id() + h * gpu::kWarp;
    if (expert < router.num_experts) logits[expert] = logit;
  }
}

// Norm, product and choice: the digits of the row, and the token's experts and their weights. A
// barrier must follow.
MOEBENCH_DEVICE void route(const Work& work, unsigned (&turn)[1],
                           std::int32_t (&expert_ids)[kMostPairs],
                           float (&expert_weights)[kMostPairs]) {
  MOEBENCH_SHARED(float, logits, [kMostExperts]);
  float* const x = shared_x();
  const Router& router = work.router;
  const fused::DeviceNorm& norm = router.norm;
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.gate_up.first.cols;

  // What does not depend on the kernel before.
  using Row = fused::RowPart<4>;
  const bool has_row = thread < fused::kRowThreads;
  Row row;
  if (has_row) row.load_weights(norm.weight, cols);
  // First the warps that store no digits.
  const int tasks = router.num_experts * router.splits;
  int task = static_cast<int>(blockIdx.x) +
             (gpu::warp_id() + kWarps - kDigitWarps) % kWarps * static_cast<int>(gridDim.x);
  RowSplit split;
  if (task < tasks) split.load(router, cols, task);
  float bias[kHeldExperts] = {};
  if (gpu::warp_id() == kChooser && router.bias != nullptr) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeldExperts; ++h) {
      const int expert = gpu::lane_id() + h * gpu::kWarp;
      if (expert < router.num_experts) bias[h] = gpu::load_constant(router.bias + expert);
    }
  }
  gpu::wait_for_previous_kernel();

  if (has_row) {
    row.load_row(norm.x, norm.addend, cols);
    if (blockIdx.x == gridDim.x - 1) row.store_row(norm.sum, cols);
    row.normalise(
        fused::row_scale(gpu::block_sum<fused::kRowThreads>(
                             row.squares(), [] { gpu::sync_named(1, fused::kRowThreads); }),
                         cols, norm.epsilon));
    row.store_row(x, cols);
  }
  if (thread == kWaiter) turn[0] = gpu::grid_turn(&work.signals->turn);
  gpu::sync_threads();
  Shown& shown = work.signals->at[turn[0]];
  for (; task < tasks; task += kWarps * static_cast<int>(gridDim.x)) {
    const float sum = split.multiply(router, cols, task, x);
    if (gpu::lane_id() == 0) {
      gpu::store_relaxed(&shown.sums[task / router.splits][task % router.splits], gpu::shown(sum));
    }
    const int next = task + kWarps * static_cast<int>(gridDim.x);
    if (next < tasks) split.load(router, cols, next);
  }
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
    clear(work.signals->at[turn[0] ^ 1]);
  });
}

// Empty, or why it cannot do the router's part of such a problem.
std::string route_unsupported(const Problem& problem) {
  if (!takes(problem)) {
    return fmt::format("one token of up to {} MXFP4 experts with rows of up to {} columns is taken",
                       kMostPairs, kMostCols);
  }
  if (problem.router_format != kRouterFormat) {
    return fmt::format("the router's weights must be {}; they are {}", format_name(kRouterFormat),
                       format_name(problem.router_format));
  }
  if (problem.num_experts > kMostExperts) {
    return fmt::format("at most {} experts; there are {}", kMostExperts, problem.num_experts);
  }
  if (problem.hidden_size <= 0 || problem.hidden_size % 32 != 0) {
    return fmt::format("hidden_size must be a multiple of 32; it is {}", problem.hidden_size);
  }
  return "";
}

void run(const Args& args, Context& context) {
  const fused::Norm& norm = args.route.norm;
  const bool routes = norm.weight.data != nullptr;
  if (!routes && !takes(args)) return cuda_digits_fp8.run(args, context);
  const std::int64_t num_pairs = args.expert_ids.size();
  Work work{};
  if (routes) {
    const MatrixView& weight = args.route.weight;
    const std::string reason = route_unsupported(
        {args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols, args.down.cols,
         args.gate_up.count, args.expert_ids.shape[1], weight.format});
    require(reason.empty() && takes(args), "run moe_experts with its router: {}",
            reason.empty() ? "gate, up and down have different formats" : reason);
    require(weight.layout == RowLayout::kRowMajor && weight.rows == args.gate_up.count &&
                weight.cols == args.gate_up.cols,
            "run moe_experts with its router: weights of {} x {} for {} experts and {} columns",
            weight.rows, weight.cols, args.gate_up.count, args.gate_up.cols);
    fused::check_aligned({norm.x.data, norm.addend.data, norm.weight.data, norm.sum.data});
    work.router = {fused::device_norm(norm), reinterpret_cast<const unsigned char*>(weight.data),
                   args.route.bias.data, static_cast<int>(weight.rows),
                   gpu::column_splits(static_cast<int>(weight.cols) /
                                      gpu::DeviceFormat<kRouterFormat>::kValues)};
  }
  require(context.signals.size() >= sizeof(Signals), "run moe_experts: {} bytes of signals, of {}",
          context.signals.size(), sizeof(Signals));
  work.x = args.x.data;
  work.expert_ids = args.expert_ids.data;
  work.expert_weights = args.expert_weights.data;
  work.gate_up = device_stack(args.gate_up);
  work.down = device_stack(args.down);
  work.gate_up_bias = args.gate_up_bias.data;
  work.down_bias = args.down_bias.data;
  work.num_pairs = static_cast<int>(num_pairs);
  work.alpha = args.swiglu_alpha;
  work.limit = args.swiglu_limit;
  work.out = args.out.data;
  work.signals = reinterpret_cast<Signals*>(context.signals.data());
  const int num_sms = gpu::device_info().num_sms;
  const Tiles tiles(num_pairs, args.gate_up.rows, args.down.rows, num_sms);
  // Gate and up lie where the digits of down will.
  const std::size_t bytes = shared_bytes<kMostPairs>(tiles.down);
  static_assert(sizeof(Shared<1>) <= offsetof(Shared<kMostPairs>, exponents));
  gpu::launch(routes ? one_launch<true> : one_launch<false>,
              {.grid = {static_cast<unsigned>(num_sms)},
               .block = kThreads,
               .shared_bytes = bytes,
               .stream = context.stream,
               .overlap_previous = true,
               .cooperative = true,
               .shared_percent = gpu::shared_percent_for(bytes, 1)},
              routes ? "moe_experts/cuda_one_launch_fp8 (with the router)"
                     : "moe_experts/cuda_one_launch_fp8",
              work);
}

}  // namespace

const Variant cuda_one_launch_fp8 = {
    .name = "cuda_one_launch_fp8",
    .backend = "cuda",
    .summary =
        "cuda_digits_fp8 as one launch whose blocks wait for each other, the router in it (Hopper)",
    .rounds = "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) { return cuda_digits_fp8.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_digits_fp8.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .normalises = [](const Problem& problem) { return route_unsupported(problem).empty(); },
};

}  // namespace moebench::moe_experts
