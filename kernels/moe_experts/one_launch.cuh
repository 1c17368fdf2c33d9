// What the variants share that do one token's router and experts in one launch: how the blocks tell
// each other of sums and activations, the router's product, which the launch in front may have
// done, and which routers are taken.
#pragma once

#include <string>
#include <type_traits>

#include "kernels/core/grid_turn.cuh"
#include "kernels/fused/choose.cuh"
#include "kernels/fused/held_rows.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/fused/router_sums.cuh"
#include "kernels/moe_experts/one_token.cuh"

namespace moebench::moe_experts {

constexpr Format kRouterFormat = Format::kBf16;
constexpr int kMostExperts = fused::kMostRouted;
constexpr int kHeldExperts = kMostExperts / gpu::kWarp;  // of a lane that chooses
constexpr int kHeldGroups = 3;  // of a row's quarter, of a lane: 3072 columns

// What the blocks of a launch leave for each other: zeros where there is nothing yet. In lines of
// its own, which warps read whole.
struct alignas(128) Shown {
  alignas(16) std::uint32_t sums[kMostExperts][gpu::kMostSplits];
  alignas(16) float activated[kMostPairs * kMostCols];
};
struct Signals : fused::RouterSignals {
  Shown at[2];  // by the grid's turn
};
static_assert(sizeof(Signals) <= kExpertsSignalBytes);

struct Router {
  fused::DeviceNorm norm;
  const unsigned char* weight;
  const float* bias;  // null: none
  int num_experts;
  int splits;  // warps that share a row
};
// Who does the router's part: ops before; the launch; the launch but for the product, whose sums
// the one in front of it has left in the signals.
enum class Routed { kBefore, kHere, kAhead };

// What the launch before has left, so that the next finds nothing, and nor do those of the launch
// in front of it that route ahead. The first kThreads of all blocks.
template <int kThreads>
MOEBENCH_DEVICE void clear(Signals& signals, unsigned turn) {
  const auto blocks = static_cast<int>(gridDim.x);
  const int first = static_cast<int>(threadIdx.x) * blocks + static_cast<int>(blockIdx.x);
  const auto clear_words = [&](auto& what) {
    auto* words = reinterpret_cast<uint4*>(&what);
    for (int i = first; i < static_cast<int>(sizeof(what) / sizeof(uint4));
         i += kThreads * blocks) {
      words[i] = {0, 0, 0, 0};
    }
  };
  clear_words(signals.at[turn]);
  clear_words(signals.sums[turn]);
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
  static_assert(sizeof(shown.sums[0]) == sizeof(uint4));
  uint4 sums[kHeldExperts];
  while (true) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeldExperts; ++h) {
      const int expert = gpu::lane_id() + h * gpu::kWarp;
      sums[h] = {1, 1, 1, 1};
      if (expert < router.num_experts) {
        sums[h] = gpu::load_relaxed(reinterpret_cast<const uint4*>(shown.sums[expert]));
      }
    }
    bool is_there = true;
    MOEBENCH_UNROLL
    for (const uint4& some : sums) {
      MOEBENCH_UNROLL
      for (int split = 0; split < gpu::kMostSplits; ++split) {
        is_there &= gpu::word_of(some, split) != 0 || split >= router.splits;
      }
    }
    if (gpu::all(gpu::kAllLanes, is_there)) break;
    gpu::spin_on();
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeldExperts; ++h) {
    float logit = 0;  // in finish_row's order
    MOEBENCH_UNROLL
    for (int split = 0; split < gpu::kMostSplits; ++split) {
      if (split < router.splits) logit += gpu::float_from_bits(gpu::word_of(sums[h], split));
    }
    if (router.bias != nullptr) logit += bias[h];
    const int expert = gpu::lane_id() + h * gpu::kWarp;
    if (expert < router.num_experts) logits[expert] = logit;
  }
}

// The logits of all experts from what the launch before has added up, into `logits`. One warp,
// behind that launch.
MOEBENCH_DEVICE void take_logits(const Router& router, int cols, const fused::RouterSums& sums,
                                 const float (&bias)[kHeldExperts], float* logits) {
  const int lane = gpu::lane_id();
  // All are asked for before the first is used.
  std::uint64_t products[kHeldExperts] = {};
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeldExperts; ++h) {
    const int expert = lane + h * gpu::kWarp;
    if (expert < router.num_experts) products[h] = gpu::load_relaxed(&sums.products[expert]);
  }
  constexpr int kHeldSquares = fused::kMostRoutingBlocks / 4 / gpu::kWarp;
  uint4 squares[kHeldSquares];
  MOEBENCH_UNROLL
  for (int i = 0; i < kHeldSquares; ++i) {
    squares[i] =
        gpu::load_relaxed(reinterpret_cast<const uint4*>(sums.squares) + i * gpu::kWarp + lane);
  }
  float sum = 0;
  MOEBENCH_UNROLL
  for (const uint4& four : squares) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) sum += gpu::float_from_bits(gpu::word_of(four, i));
  }
  const float scale = fused::row_scale(gpu::warp_sum(sum), cols, router.norm.epsilon);
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeldExperts; ++h) {
    const int expert = lane + h * gpu::kWarp;
    if (expert < router.num_experts) {
      logits[expert] = fused::of_router_steps(products[h]) * scale + bias[h];
    }
  }
}

// What such a kernel is given, with a router or with x, ids and weights.
struct OneLaunch {
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

// The row that gate and up multiply, normalised, to `x` (shared memory), and the block's sums of
// the router's product for all blocks, unless that is ahead; leaves the grid's turn in `turn`,
// which its last thread reads. By the first kWarps warps of a block, whose barrier sync() is; it
// must follow.
template <int kWarps, Routed kRouted, class Sync>
MOEBENCH_DEVICE void normalise_and_show_sums(const OneLaunch& work, float* x, unsigned (&turn)[1],
                                             const Sync& sync) {
  constexpr int kRowWarps = fused::kRowThreads / gpu::kWarp;
  static_assert(kRowWarps <= kWarps);
  const Router& router = work.router;
  const fused::DeviceNorm& norm = router.norm;
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.gate_up.first.cols;
  // What does not depend on the kernel before.
  using Row = fused::RowPart<4>;
  const bool has_row = thread < fused::kRowThreads;
  Row row;
  if (has_row) row.load_weights(norm.weight, cols);
  // First the warps that do not normalise.
  const int tasks = kRouted == Routed::kAhead ? 0 : router.num_experts * router.splits;
  int task = static_cast<int>(blockIdx.x) +
             (gpu::warp_id() + kWarps - kRowWarps) % kWarps * static_cast<int>(gridDim.x);
  RowSplit split;
  if (task < tasks) split.load(router, cols, task);
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
  if (thread == kWarps * gpu::kWarp - 1) turn[0] = gpu::grid_turn(&work.signals->turn);
  sync();
  Shown& shown = work.signals->at[turn[0]];
  for (; task < tasks; task += kWarps * static_cast<int>(gridDim.x)) {
    const float sum = split.multiply(router, cols, task, x);
    if (gpu::lane_id() == 0) {
      gpu::store_relaxed(&shown.sums[task / router.splits][task % router.splits], gpu::shown(sum));
    }
    const int next = task + kWarps * static_cast<int>(gridDim.x);
    if (next < tasks) split.load(router, cols, next);
  }
}

// The token's experts and their weights, by one warp: chosen from the sums of all blocks, or as
// they are given. Calls turn_is_seen() when it has looked at the grid's turn.
template <Routed kRouted, class Seen>
MOEBENCH_DEVICE void choose(const OneLaunch& work, std::int32_t (&expert_ids)[kMostPairs],
                            float (&expert_weights)[kMostPairs], const Seen& turn_is_seen) {
  MOEBENCH_SHARED(float, logits, [kMostExperts]);
  const int lane = gpu::lane_id();
  if constexpr (kRouted != Routed::kBefore) {
    const Router& router = work.router;
    float bias[kHeldExperts] = {};
    if (router.bias != nullptr) {
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeldExperts; ++h) {
        const int expert = lane + h * gpu::kWarp;
        if (expert < router.num_experts) bias[h] = gpu::load_constant(router.bias + expert);
      }
    }
    if constexpr (kRouted == Routed::kAhead) {
      // The launch in front is attention's, and has waited for that of the experts before.
      const unsigned turn = gpu::grid_turn(&work.signals->turn);
      gpu::wait_for_previous_kernel();
      take_logits(router, work.gate_up.first.cols, work.signals->sums[turn], bias, logits);
    } else {
      gpu::wait_for_previous_kernel();
      const unsigned turn = gpu::grid_turn(&work.signals->turn);
      await_logits(router, work.signals->at[turn], bias, logits);
    }
    turn_is_seen();
    gpu::sync_warp();
    fused::choose_experts<kHeldExperts>(logits, router.num_experts, work.num_pairs, expert_ids,
                                        expert_weights);
  } else {
    gpu::wait_for_previous_kernel();
    if (lane < work.num_pairs) {
      expert_ids[lane] = gpu::load_constant(work.expert_ids + lane);
      expert_weights[lane] = gpu::load_constant(work.expert_weights + lane);
    }
    turn_is_seen();
  }
  gpu::sync_warp();
}

// Where blocks show each other an expert's activations in pairs of 16 bits, since all read all of
// it; a zero is negative.
MOEBENCH_DEVICE std::uint32_t* shown_pairs(const OneLaunch& work, unsigned turn, int pair) {
  return reinterpret_cast<std::uint32_t*>(work.signals->at[turn].activated) +
         pair * work.down.first.cols / 2;
}
MOEBENCH_DEVICE std::uint32_t shown_short(std::uint32_t bits) { return bits == 0 ? 0x8000U : bits; }

// Empty, or why it cannot do the router's part of such a problem;
// `taken`: whether its experts are taken.
inline std::string route_unsupported(const Problem& problem, bool taken) {
  if (!taken) {
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

// The router of the arguments, which must be one that is taken.
inline Router device_router(const Args& args, bool taken) {
  const fused::Norm& norm = args.route.norm;
  const MatrixView& weight = args.route.weight;
  const std::string reason = route_unsupported(
      {args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols, args.down.cols,
       args.gate_up.count, args.expert_ids.shape[1], weight.format},
      taken);
  require(reason.empty(), "run moe_experts with its router: {}", reason);
  require(weight.layout == RowLayout::kRowMajor && weight.rows == args.gate_up.count &&
              weight.cols == args.gate_up.cols,
          "run moe_experts with its router: weights of {} x {} for {} experts and {} columns",
          weight.rows, weight.cols, args.gate_up.count, args.gate_up.cols);
  fused::check_aligned({norm.x.data, norm.addend.data, norm.weight.data, norm.sum.data});
  return {fused::device_norm(norm), reinterpret_cast<const unsigned char*>(weight.data),
          args.route.bias.data, static_cast<int>(weight.rows),
          gpu::column_splits(static_cast<int>(weight.cols) /
                             gpu::DeviceFormat<kRouterFormat>::kValues)};
}

inline Routed routed_of(const Args& args) {
  if (args.route.norm.weight.data == nullptr) return Routed::kBefore;
  return args.route.is_ahead ? Routed::kAhead : Routed::kHere;
}

// Calls pick(std::integral_constant<Routed, r>) for what is routed; kAhead: whether that may be.
template <bool kAhead = true, class Pick>
auto with_routed(Routed routed, Pick&& pick) {
  if (routed == Routed::kBefore) return pick(std::integral_constant<Routed, Routed::kBefore>());
  if constexpr (kAhead) {
    if (routed == Routed::kAhead) return pick(std::integral_constant<Routed, Routed::kAhead>());
  }
  require(routed == Routed::kHere, "run moe_experts: this variant's router is never ahead");
  return pick(std::integral_constant<Routed, Routed::kHere>());
}
// Of a launch, by what is routed.
using LaunchNames = const char* const[3];
inline const char* launch_name(const LaunchNames& names, Routed routed) {
  return names[static_cast<int>(routed)];
}

// `taken`: whether the experts are.
inline OneLaunch one_launch_of(const Args& args, Context& context, bool taken) {
  const Router router = routed_of(args) != Routed::kBefore ? device_router(args, taken) : Router{};
  require(context.signals.size() >= sizeof(Signals), "run moe_experts: {} bytes of signals, of {}",
          context.signals.size(), sizeof(Signals));
  return {router,
          args.x.data,
          args.expert_ids.data,
          args.expert_weights.data,
          device_stack(args.gate_up),
          device_stack(args.down),
          args.gate_up_bias.data,
          args.down_bias.data,
          static_cast<int>(args.expert_ids.size()),
          args.swiglu_alpha,
          args.swiglu_limit,
          args.out.data,
          reinterpret_cast<Signals*>(context.signals.data())};
}

// A block for each multiprocessor, all at once.
inline gpu::LaunchConfig one_launch_config(const Context& context, unsigned threads,
                                           std::size_t shared_bytes) {
  return {.grid = {static_cast<unsigned>(gpu::device_info().num_sms)},
          .block = threads,
          .shared_bytes = shared_bytes,
          .stream = context.stream,
          .overlap_previous = true,
          .cooperative = true,
          .shared_percent = gpu::shared_percent_for(shared_bytes, 1)};
}

// A variant that is such a launch where it can, and kElsewhere elsewhere. kTakes: whether it takes
// a problem's experts; `routes_ahead`: whether it may find the router's product done.
template <bool (*kTakes)(const Problem& problem), const Variant& kElsewhere>
constexpr Variant one_launch_variant(std::string_view name, std::string_view summary,
                                     std::string_view rounds,
                                     void (*run)(const Args& args, Context& context),
                                     bool routes_ahead) {
  return {
      .name = name,
      .backend = "cuda",
      .summary = summary,
      .rounds = rounds,
      .max_nmse = bf16_max_nmse,
      .weight_layout = RowLayout::kRowMajor,
      .unsupported = [](const Problem& problem) { return kElsewhere.unsupported(problem); },
      .workspace_bytes =
          [](const Problem& problem, int num_threads) {
            return kElsewhere.workspace_bytes(problem, num_threads);
          },
      .run = run,
      .normalises =
          [](const Problem& problem) {
            return route_unsupported(problem, kTakes(problem)).empty();
          },
      .ends_with_norm =
          [](const Problem& problem) {
            return !kTakes(problem) && kElsewhere.ends_with_norm(problem);
          },
      .routes_ahead = routes_ahead,
  };
}

}  // namespace moebench::moe_experts
