// cuda_fused_bf16: decode steps. Two kernels stream the weights of each expert that was selected,
// once for up to kTokens of its tokens at a time, through tensor cores (tensor_rows.cuh): the
// first computes gate and up rows and their activation, the second down rows, whose last block adds
// up each token's slots in order.
//
// Which pairs of a token and a slot an expert has, every block finds out by itself from the ids:
// for the few tokens this is for, that costs less than a kernel that sorts them. There is a row of
// blocks for every expert that could have been selected, and those of the others leave.
//
// A token's output does not depend on the other tokens: the order of every sum is fixed, and the
// tensor cores' instruction is the same for any number of tokens.
#include <algorithm>

#include "kernels/moe_experts/tensor_rows.cuh"

namespace moebench::moe_experts {
namespace {

// Where a block works: on one expert, and some groups of rows of its matrix.
struct Share {
  int expert;
  int begin;  // groups of rows
  int end;
};

MOEBENCH_DEVICE Share share_of_block(const Sizes& sizes, const std::int32_t* expert_ids,
                                     int num_groups, int groups_per_block) {
  const int slot = static_cast<int>(blockIdx.x);
  const int begin = static_cast<int>(blockIdx.y) * groups_per_block;
  const int end = begin + groups_per_block;
  return {sizes.num_pairs < sizes.num_experts ? expert_ids[slot] : slot, begin,
          end < num_groups ? end : num_groups};
}

// Lists up to kMost pairs of the expert, in order, from `cursor` on, and moves it behind the last.
// A warp does this together.
template <int kMost>
MOEBENCH_DEVICE int list_pairs(const std::int32_t* expert_ids, int num_pairs, int expert,
                               int& cursor, int* pairs) {
  int count = 0;
  while (cursor < num_pairs && count < kMost) {
    const int pair = cursor + gpu::lane_id();
    const bool mine = pair < num_pairs && expert_ids[pair] == expert;
    const unsigned all = gpu::ballot(gpu::kAllLanes, mine);
    const int position = count + gpu::count_bits(all & ((1U << gpu::lane_id()) - 1));
    if (mine && position < kMost) pairs[position] = pair;
    const unsigned last = gpu::ballot(gpu::kAllLanes, mine && position == kMost - 1);
    count += gpu::count_bits(all);
    if (last != 0) {
      count = kMost;
      cursor += gpu::lowest_bit(last) + 1;
    } else {
      cursor += gpu::kWarp;
    }
  }
  return count;
}

// The pairs of a block's expert, a few at a time.
template <int kMost>
class PairList {
 public:
  // The next ones, for every thread of the block; false if there are none.
  MOEBENCH_DEVICE bool next(const std::int32_t* expert_ids, int num_pairs, int expert) {
    MOEBENCH_SHARED(int, listed, [kMost]);
    MOEBENCH_SHARED(int, num_listed, [1]);
    gpu::sync_threads();  // the ones before may still be in use
    if (gpu::warp_id() == 0) {
      const int count = list_pairs<kMost>(expert_ids, num_pairs, expert, cursor_, listed);
      if (gpu::lane_id() == 0) num_listed[0] = count;
    }
    gpu::sync_threads();
    pairs = listed;
    count = num_listed[0];
    return count > 0;
  }

  // Whether the block has to go on: of the blocks that began with a pair's expert, those of the
  // expert's first pair do all its work.
  MOEBENCH_DEVICE bool leads(const Sizes& sizes) const {
    return sizes.num_pairs >= sizes.num_experts || pairs[0] == static_cast<int>(blockIdx.x);
  }

  const int* pairs = nullptr;
  int count = 0;

 private:
  int cursor_ = 0;  // of the first warp's lanes
};

template <Format kFormat, Format kDownFormat, int kTokenTiles>
__global__ void MOEBENCH_BOUNDS(256, 2)
    activate_experts(Sizes sizes, Stack gate_up, const float* gate_up_bias, const float* x,
                     const std::int32_t* expert_ids, float alpha, float limit, int groups_per_block,
                     std::uint16_t* activated, int* arrivals, int num_arrivals) {
  using Rows = TensorRows<kFormat, kTokenTiles>;
  gpu::wait_for_previous_kernel();
  gpu::let_next_kernel_start();
  if (blockIdx.x == 0 && blockIdx.y == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < num_arrivals; i += Rows::kThreads) {
      arrivals[i] = 0;
    }
  }
  const Share share =
      share_of_block(sizes, expert_ids, gate_up.first.rows / Rows::kRows, groups_per_block);
  PairList<Rows::kTokens> list;
  if (!list.next(expert_ids, sizes.num_pairs, share.expert) || !list.leads(sizes)) return;

  Rows rows(matrix_of(gate_up, share.expert), share.begin, share.end);
  const float* bias = gate_up_bias + static_cast<std::int64_t>(share.expert) * gate_up.first.rows;
  do {
    rows.start();
    rows.stage_inputs(list.count, [&](int i) {
      return x + static_cast<std::int64_t>(list.pairs[i] / sizes.top_k) * sizes.hidden_size;
    });
    rows.multiply(list.count, [&](int group, auto&& total) {
      for (int item = static_cast<int>(threadIdx.x); item < Rows::kRows / 2 * Rows::kTokens;
           item += Rows::kThreads) {
        const int token = item % Rows::kTokens;
        const int gate = item / Rows::kTokens * 2;
        if (token >= list.count) continue;
        const int row = group * Rows::kRows + gate;
        activated[static_cast<std::int64_t>(list.pairs[token]) * sizes.intermediate_size +
                  input_position<kDownFormat>(row / 2)] =
            gpu::float_to_bf16(swiglu(total(gate, token) + bias[row],
                                      total(gate + 1, token) + bias[row + 1], alpha, limit));
      }
    });
  } while (list.next(expert_ids, sizes.num_pairs, share.expert));
}

// Whether this block is the last of its row range to get here, for every thread; then it sees what
// the others wrote before.
MOEBENCH_DEVICE bool last_to_arrive(int* arrivals) {
  MOEBENCH_SHARED(int, is_last, [1]);
  gpu::sync_threads();
  if (threadIdx.x == 0) {
    gpu::fence_device();
    const int before = gpu::atomic_add(&arrivals[blockIdx.y], 1);
    gpu::fence_device();
    is_last[0] = before == static_cast<int>(gridDim.x) - 1;
  }
  gpu::sync_threads();
  return is_last[0] != 0;
}

template <Format kFormat, int kTokenTiles>
__global__ void MOEBENCH_BOUNDS(256, 2)
    project_experts(Sizes sizes, Stack down, const float* down_bias, const std::uint16_t* activated,
                    const std::int32_t* expert_ids, const float* expert_weights,
                    int groups_per_block, float* projected, int* arrivals, float* out) {
  using Rows = TensorRows<kFormat, kTokenTiles>;
  gpu::let_next_kernel_start();
  const Share share =
      share_of_block(sizes, expert_ids, down.first.rows / Rows::kRows, groups_per_block);
  PairList<Rows::kTokens> list;
  // Weights and ids do not come from the kernel before: they are on their way while it finishes.
  bool some = list.next(expert_ids, sizes.num_pairs, share.expert) && list.leads(sizes);
  Rows rows(matrix_of(down, share.expert), share.begin, share.end);
  if (some) rows.start();
  gpu::wait_for_previous_kernel();
  while (some) {
    rows.stage_inputs(list.count, [&](int i) {
      return activated + static_cast<std::int64_t>(list.pairs[i]) * sizes.intermediate_size;
    });
    rows.multiply(list.count, [&](int group, auto&& total) {
      for (int item = static_cast<int>(threadIdx.x); item < Rows::kRows * Rows::kTokens;
           item += Rows::kThreads) {
        const int token = item / Rows::kRows;
        const int row = item % Rows::kRows;
        if (token >= list.count) continue;
        projected[static_cast<std::int64_t>(list.pairs[token]) * sizes.hidden_size +
                  group * Rows::kRows + row] = total(row, token);
      }
    });
    some = list.next(expert_ids, sizes.num_pairs, share.expert);
    if (some) rows.start();
  }

  if (!last_to_arrive(arrivals)) return;
  const int first_row = share.begin * Rows::kRows;
  const int num_rows = share.end * Rows::kRows - first_row;
  for (int item = static_cast<int>(threadIdx.x); item < sizes.num_tokens * num_rows;
       item += Rows::kThreads) {
    const int token = item / num_rows;
    const int row = first_row + item % num_rows;
    float sum = 0;
    for (int pair = token * sizes.top_k; pair < (token + 1) * sizes.top_k; ++pair) {
      const float product = projected[static_cast<std::int64_t>(pair) * sizes.hidden_size + row];
      const float bias =
          down_bias[static_cast<std::int64_t>(expert_ids[pair]) * sizes.hidden_size + row];
      sum += expert_weights[pair] * (product + bias);
    }
    out[static_cast<std::int64_t>(token) * sizes.hidden_size + row] = sum;
  }
}

// How rows are shared out: so many groups to a block that there are several blocks for every SM,
// but no more than needed, since each block fetches its tokens' inputs again.
struct Grid {
  int groups_per_block;
  gpu::Extent extent;
};
Grid choose_grid(const Sizes& sizes, int rows, int num_sms) {
  constexpr int kGroup = TensorRows<Format::kF32, 1>::kRows;
  constexpr int kBlocksPerSm = 4;
  constexpr int kMostGroups = 8;
  const int slots = std::min(sizes.num_pairs, sizes.num_experts);
  const int groups = rows / kGroup;
  const int per_block = std::clamp(groups * slots / (kBlocksPerSm * num_sms), 1, kMostGroups);
  return {
      per_block,
      {static_cast<unsigned>(slots), static_cast<unsigned>((groups + per_block - 1) / per_block)}};
}

struct Scratch {
  std::uint16_t* activated;  // [num_pairs, intermediate_size] bf16
  float* projected;          // [num_pairs, hidden_size]
  int* arrivals;             // blocks that are done, for each range of down rows
};
Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t hidden_size,
                     std::int64_t intermediate_size) {
  return {workspace.take<std::uint16_t>(num_pairs * intermediate_size),
          workspace.take<float>(num_pairs * hidden_size), workspace.take<int>(hidden_size)};
}

std::size_t workspace_bytes(const Problem& problem, int) {
  Workspace workspace;
  take_scratch(workspace, problem.num_tokens * problem.top_k, problem.hidden_size,
               problem.intermediate_size);
  return workspace.used();
}

template <Format kFormat, int kTokenTiles>
void launch_both(const Args& args, Context& context) {
  using Rows = TensorRows<kFormat, kTokenTiles>;
  const Sizes sizes = sizes_of(args);
  Workspace workspace(context.workspace);
  const Scratch scratch =
      take_scratch(workspace, sizes.num_pairs, sizes.hidden_size, sizes.intermediate_size);
  const int num_sms = gpu::device_info().num_sms;
  const Grid gate_up = choose_grid(sizes, static_cast<int>(args.gate_up.rows), num_sms);
  const Grid down = choose_grid(sizes, static_cast<int>(args.down.rows), num_sms);
  gpu::launch(activate_experts<kFormat, kFormat, kTokenTiles>,
              {.grid = gate_up.extent,
               .block = Rows::kThreads,
               .shared_bytes = Rows::shared_bytes(sizes.hidden_size, sizes.num_tokens),
               .stream = context.stream,
               .overlap_previous = true},
              "moe_experts/cuda_fused_bf16 (gate, up)", sizes, device_stack(args.gate_up),
              args.gate_up_bias.data, args.x.data, args.expert_ids.data, args.swiglu_alpha,
              args.swiglu_limit, gate_up.groups_per_block, scratch.activated, scratch.arrivals,
              static_cast<int>(down.extent.y));
  gpu::launch(project_experts<kFormat, kTokenTiles>,
              {.grid = down.extent,
               .block = Rows::kThreads,
               .shared_bytes = Rows::shared_bytes(sizes.intermediate_size, sizes.num_tokens),
               .stream = context.stream,
               .overlap_previous = true},
              "moe_experts/cuda_fused_bf16 (down)", sizes, device_stack(args.down),
              args.down_bias.data, scratch.activated, args.expert_ids.data,
              args.expert_weights.data, down.groups_per_block, scratch.projected, scratch.arrivals,
              args.out.data);
}

// Twice as many tokens at a time if experts can be expected to have more than a few: it costs
// shared memory, and with it blocks that run side by side.
int token_tiles(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > 4 * num_experts ? 2 : 1;
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.gate_up.format, [&](auto format) {
    if (token_tiles(args.expert_ids.size(), args.gate_up.count) == 1) {
      launch_both<format(), 1>(args, context);
    } else {
      launch_both<format(), 2>(args, context);
    }
  });
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::needs_compute_capability(80);
  if (reason.empty()) reason = unsupported_shape(problem);
  if (!reason.empty()) return reason;
  std::size_t needed = 0;
  gpu::with_format(problem.format, [&](auto format) {
    const auto bytes = [&]<int kTokenTiles>(std::integral_constant<int, kTokenTiles>) {
      return TensorRows<format(), kTokenTiles>::shared_bytes(
                 static_cast<int>(std::max(problem.hidden_size, problem.intermediate_size)),
                 static_cast<int>(problem.num_tokens)) +
             TensorRows<format(), kTokenTiles>::kStaticSharedBytes;
    };
    needed = token_tiles(problem.num_tokens * problem.top_k, problem.num_experts) == 1
                 ? bytes(std::integral_constant<int, 1>())
                 : bytes(std::integral_constant<int, 2>());
  });
  const std::size_t most = gpu::device_info().shared_bytes_per_block;
  if (needed > most) {
    return fmt::format("the inputs of a few tokens must fit shared memory: {} bytes of {}", needed,
                       most);
  }
  return "";
}

}  // namespace

const Variant cuda_fused_bf16 = {
    .name = "cuda_fused_bf16",
    .backend = "cuda",
    .summary = "two kernels that stream each selected expert through tensor cores",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
