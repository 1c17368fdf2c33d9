// cuda_direct_bf16: decode steps, for formats of 4 bits. The bits of cuda_fused_bf16, with weights
// that go from memory to the registers of the lanes that multiply them (direct_rows.cuh).
//
// Rows of all selected experts, one expert after the other, are dealt out to two blocks an SM in
// units of 8 rows, so that each reads as much. The first kernel computes gate and up rows and their
// activation, the second down rows. Where a step is one token with up to four slots (as gpt-oss
// has), a tile of the second kernel takes the same four rows of every expert, with the pairs'
// activations as columns, and adds up the slots itself; else it writes each pair's products, and a
// third kernel adds up the slots in order.
//
// Columns of a tile are tokens, up to 8 of an expert; an expert with more counts as several. What
// this is not for runs as cuda_stream_bf16 (Hopper) or cuda_fused_bf16. So do steps of 2 to 8
// tokens: alone, the kernels take as long either way, but in the graph of a whole step on an H200
// these gave 1,304 tokens/s where the streaming ones gave 1,560 (20b, batch 8; the reason is not
// known), and 511 and 481 at batch 1, 3,859 and 3,434 at batch 32.
#include <algorithm>

#include "kernels/formats/direct_rows.cuh"
#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/selection.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kMostTokens = 64;
constexpr int kFewestTokens = kGroup + 1;  // but for one
constexpr int kUnitRows = 8;               // in which rows are dealt out
constexpr int kFewPairs = 4;               // of which one tile takes all
constexpr int kFewRows = 4;                // and of each of them so many rows

// Formats that this is for.
template <Format kFormat>
constexpr bool kTakes = gpu::DeviceFormat<kFormat>::kValues == 32;

// By every thread of the block.
MOEBENCH_DEVICE void select_by_block(const std::int32_t* expert_ids, const Sizes& sizes,
                                     Selection& s) {
  if (gpu::warp_id() == 0) {
    if (sizes.num_tokens == 1) {
      for (int p = gpu::lane_id(); p < sizes.num_pairs; p += gpu::kWarp) {
        s.group[p] = {expert_ids[p], p, 1};
        s.pair[p] = p;
      }
      if (gpu::lane_id() == 0) s.num_groups = sizes.num_pairs;
    } else {
      select(expert_ids, sizes, s);
    }
  }
  gpu::sync_threads();
}

// Some rows of a group's expert; none past the end.
struct Place {
  int group;
  int row;
  int rows;
};

// The block's tiles of the rows of all groups, one group after the other.
template <Format kFormat>
struct GroupWalk {
  using Direct = gpu::DirectRows<kFormat>;
  using Place = moe_experts::Place;

  const Stack* stack;
  const Selection* selection;
  int left;  // rows of the block, from its first tile on

  MOEBENCH_DEVICE Place place(int group, int row, int block_rows) const {
    const int of_group = stack->first.rows - row;
    const int most = block_rows < of_group ? block_rows : of_group;
    return {group, row, most < Direct::kRows ? most : Direct::kRows};
  }
  MOEBENCH_DEVICE Place first() {
    const int of_group = stack->first.rows / kUnitRows;
    const std::int64_t units = static_cast<std::int64_t>(selection->num_groups) * of_group;
    const auto begin = static_cast<int>(units * blockIdx.x / gridDim.x);
    const auto end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x);
    left = (end - begin) * kUnitRows;
    return place(begin / of_group, begin % of_group * kUnitRows, left);
  }
  MOEBENCH_DEVICE Place after(const Place& at) {
    left -= at.rows;
    const bool ends = at.row + at.rows == stack->first.rows;
    return place(at.group + static_cast<int>(ends), ends ? 0 : at.row + at.rows, left);
  }
  MOEBENCH_DEVICE gpu::LaneRows rows(const Place& at) const {
    const EncodedMatrix matrix = matrix_of(*stack, selection->group[at.group].expert);
    const int g = gpu::lane_id() / 4;
    return {row_of(matrix, at.row + g).data,
            row_of(matrix, at.row + (at.rows > kUnitRows ? g + kUnitRows : g)).data};
  }
  // Of the group's tokens, the one in the column lane / 4; past the last the last again.
  MOEBENCH_DEVICE int lane_column(const Place& at) const {
    const int size = selection->group[at.group].size;
    const int g = gpu::lane_id() / 4;
    return g < size ? g : size - 1;
  }
  MOEBENCH_DEVICE const unsigned char* scales(const Place& at, int word) const {
    const EncodedMatrix matrix = matrix_of(*stack, selection->group[at.group].expert);
    const int words = at.rows * static_cast<int>(matrix.row_scale_bytes) / 8;
    return row_of(matrix, at.row).scales + (word < words ? word : words - 1) * 8;
  }
};

template <Format kFormat>
struct GateUpWalk : GroupWalk<kFormat> {
  using Base = GroupWalk<kFormat>;
  using Direct = typename Base::Direct;
  using Place = moe_experts::Place;
  static constexpr int kGates = Direct::kRows / 2;
  static constexpr int kFinishThreads = kGates * kGroup;
  struct Early {
    float gate_bias;
    float up_bias;
  };

  const Direct* direct;
  const float* x;
  const float* bias;
  std::uint16_t* activated;
  int hidden_size;
  int row_values;  // of activations
  float alpha;
  float limit;
  bool one_token;  // whose inputs are there for all groups
  int staged;      // group

  MOEBENCH_DEVICE void stage(int group) {
    const Group& of = this->selection->group[group];
    direct->stage_inputs(of.size, [&](int i) {
      return x + static_cast<std::int64_t>(this->selection->token_at(of.first + i)) * hidden_size;
    });
    staged = group;
  }
  MOEBENCH_DEVICE const uint4* enter(const Place& at) {
    if (one_token) return direct->inputs_of(0);
    if (staged != at.group) {
      stage(at.group);
      gpu::sync_threads();
    }
    return direct->inputs_of(this->lane_column(at));
  }
  MOEBENCH_DEVICE Early ahead(const Place& at, int i) const {
    const int gate = i % kGates * 2;
    if (gate >= at.rows) return {0, 0};
    const float* from = bias +
                        static_cast<std::int64_t>(this->selection->group[at.group].expert) *
                            this->stack->first.rows +
                        at.row + gate;
    return {gpu::load_constant(from), gpu::load_constant(from + 1)};
  }
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& at, int i, const Early& early, Total&& total) const {
    using Weights = gpu::DeviceFormat<kFormat>;
    const Group& group = this->selection->group[at.group];
    const int gate = i % kGates * 2;
    const int column = i / kGates;
    if (gate >= at.rows || column >= group.size) return;
    const float factor = Weights::row_factor(row_of(matrix_of(*this->stack, group.expert), at.row));
    const int position = input_position<kFormat>((at.row + gate) / 2);
    activated[static_cast<std::int64_t>(this->selection->pair_at(group.first + column)) *
                  row_values +
              Direct::place_of(position / 8) * 8 + position % 8] =
        gpu::float_to_bf16(swiglu(gpu::multiply(total(gate, column), factor) + early.gate_bias,
                                  gpu::multiply(total(gate + 1, column), factor) + early.up_bias,
                                  alpha, limit));
  }
};

// A pair's activations, which are in the order of inputs already.
template <Format kFormat>
MOEBENCH_DEVICE void copy_activations(const gpu::DirectRows<kFormat>& direct, int to,
                                      const std::uint16_t* activated, int pair, int units) {
  const auto* from =
      reinterpret_cast<const uint4*>(activated) + static_cast<std::int64_t>(pair) * units;
  uint4* row = direct.inputs_of(to);
  for (int i = static_cast<int>(threadIdx.x); i < units; i += gpu::DirectRows<kFormat>::kThreads) {
    row[i] = from[i];
  }
}

template <Format kFormat>
struct DownWalk : GroupWalk<kFormat> {
  using Base = GroupWalk<kFormat>;
  using Direct = typename Base::Direct;
  using Place = moe_experts::Place;
  static constexpr int kFinishThreads = Direct::kRows * kGroup;
  using Early = float;  // bias

  const Direct* direct;
  const std::uint16_t* activated;
  const float* bias;
  float* products;  // [pairs, hidden_size]
  int units;        // of a row of activations
  int staged;       // group

  MOEBENCH_DEVICE void stage(int group) {
    const Group& of = this->selection->group[group];
    for (int i = 0; i < of.size; ++i) {
      copy_activations(*direct, i, activated, this->selection->pair_at(of.first + i), units);
    }
    staged = group;
  }
  MOEBENCH_DEVICE const uint4* enter(const Place& at) {
    if (staged != at.group) {
      stage(at.group);
      gpu::sync_threads();
    }
    return direct->inputs_of(this->lane_column(at));
  }
  MOEBENCH_DEVICE Early ahead(const Place& at, int i) const {
    const int row = i % Direct::kRows;
    if (row >= at.rows) return 0;
    return gpu::load_constant(bias +
                              static_cast<std::int64_t>(this->selection->group[at.group].expert) *
                                  this->stack->first.rows +
                              at.row + row);
  }
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& at, int i, const Early& early, Total&& total) const {
    using Weights = gpu::DeviceFormat<kFormat>;
    const Group& group = this->selection->group[at.group];
    const int row = i % Direct::kRows;
    const int column = i / Direct::kRows;
    if (row >= at.rows || column >= group.size) return;
    const float factor = Weights::row_factor(row_of(matrix_of(*this->stack, group.expert), at.row));
    products[static_cast<std::int64_t>(this->selection->pair_at(group.first + column)) *
                 this->stack->first.rows +
             at.row + row] = early + gpu::multiply(total(row, column), factor);
  }
};

// Of one token: tiles of kFewRows rows of each of up to kFewPairs pairs: row 4 p + r of a tile is
// row r of pair p's expert, and column p its activations.
template <Format kFormat>
struct FewDownWalk {
  using Direct = gpu::DirectRows<kFormat>;
  static_assert(kFewPairs * kFewRows == Direct::kRows);
  struct Place {
    int row;
    int rows;
  };
  static constexpr int kFinishThreads = gpu::kWarp;
  struct Early {
    float bias;
    float weight;
  };

  const Stack* stack;
  const Direct* direct;
  const float* expert_weights;
  const float* bias;
  float* out;
  int num_pairs;
  int end;                // row of the block's last tile
  int expert[kFewPairs];  // of each pair; past the last the last again

  MOEBENCH_DEVICE Place first() {
    const int tiles = stack->first.rows / kFewRows;
    const auto begin = static_cast<int>(static_cast<std::int64_t>(tiles) * blockIdx.x / gridDim.x);
    end = static_cast<int>(static_cast<std::int64_t>(tiles) * (blockIdx.x + 1) / gridDim.x) *
          kFewRows;
    return {begin * kFewRows, begin * kFewRows < end ? Direct::kRows : 0};
  }
  MOEBENCH_DEVICE Place after(const Place& at) const {
    return {at.row + kFewRows, at.row + kFewRows < end ? Direct::kRows : 0};
  }
  MOEBENCH_DEVICE int expert_of(int pair) const {
    return pair == 0 ? expert[0] : pair == 1 ? expert[1] : pair == 2 ? expert[2] : expert[3];
  }
  MOEBENCH_DEVICE gpu::LaneRows rows(const Place& at) const {
    const int g = gpu::lane_id() / 4;
    const int row = at.row + g % kFewRows;
    return {row_of(matrix_of(*stack, g < kFewRows ? expert[0] : expert[1]), row).data,
            row_of(matrix_of(*stack, g < kFewRows ? expert[2] : expert[3]), row).data};
  }
  MOEBENCH_DEVICE const unsigned char* scales(const Place& at, int word) const {
    const int words = kFewRows * static_cast<int>(stack->first.row_scale_bytes) / 8;
    const int pair = word / words;
    return row_of(matrix_of(*stack, expert_of(pair)), at.row).scales + (word - pair * words) * 8;
  }
  MOEBENCH_DEVICE const uint4* enter(const Place&) const {
    const int g = gpu::lane_id() / 4;
    return direct->inputs_of(g < num_pairs ? g : num_pairs - 1);
  }
  MOEBENCH_DEVICE Early ahead(const Place& at, int i) const {
    const int pair = i / kFewRows;
    if (pair >= num_pairs) return {0, 0};
    return {
        gpu::load_constant(bias + static_cast<std::int64_t>(expert_of(pair)) * stack->first.rows +
                           at.row + i % kFewRows),
        gpu::load_constant(expert_weights + pair)};
  }
  // Threads are a warp.
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& at, int i, const Early& early, Total&& total) const {
    using Weights = gpu::DeviceFormat<kFormat>;
    const int pair = i / kFewRows;
    float product = 0;
    if (pair < num_pairs) {
      const float factor = Weights::row_factor(row_of(matrix_of(*stack, expert_of(pair)), at.row));
      product = early.bias + gpu::multiply(total(i, pair), factor);
    }
    float sum = 0;
    for (int slot = 0; slot < num_pairs; ++slot) {
      const float weight = gpu::shuffle(gpu::kAllLanes, early.weight, slot * kFewRows);
      sum += weight * gpu::shuffle(gpu::kAllLanes, product, slot * kFewRows + i % kFewRows);
    }
    if (i < kFewRows) out[at.row + i] = sum;
  }
};

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(gpu::DirectRows<kFormat>::kThreads, 2)
    direct_gate_up(Sizes sizes, Stack gate_up, const float* bias, const float* x,
                   const std::int32_t* expert_ids, float alpha, float limit,
                   std::uint16_t* activated) {
  using Direct = gpu::DirectRows<kFormat>;
  MOEBENCH_SHARED(Selection, selection, [1]);
  const Direct direct(gate_up.first.cols, gate_up.first.row_scale_bytes);
  gpu::wait_for_previous_kernel();
  // After the wait: whoever starts now finds the ids complete.
  gpu::let_next_kernel_start();
  select_by_block(expert_ids, sizes, selection[0]);
  const int row_values = Direct::num_units(sizes.intermediate_size) * 8;
  GateUpWalk<kFormat> walk{{&gate_up, selection, 0},
                           &direct,
                           x,
                           bias,
                           activated,
                           sizes.hidden_size,
                           row_values,
                           alpha,
                           limit,
                           sizes.num_tokens == 1,
                           -1};
  // Asked for behind the weights, inputs would arrive behind them.
  if (walk.one_token) {
    direct.stage_inputs(1, [&](int) { return x; });
  }
  const Place first = walk.first();
  direct.multiply(walk, first, [&] {
    if (!walk.one_token && first.rows > 0) walk.stage(first.group);
    // Rows of activations end in zeros, up to whole pieces.
    if (blockIdx.x != 0) return;
    const int rest = row_values - sizes.intermediate_size;
    for (int i = static_cast<int>(threadIdx.x); i < sizes.num_pairs * rest; i += Direct::kThreads) {
      const int column = sizes.intermediate_size + i % rest;
      activated[static_cast<std::int64_t>(i / rest) * row_values +
                Direct::place_of(column / 8) * 8 + column % 8] = 0;
    }
  });
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(gpu::DirectRows<kFormat>::kThreads, 2)
    direct_down_few(Sizes sizes, Stack down, const float* bias, const std::uint16_t* activated,
                    const std::int32_t* expert_ids, const float* expert_weights, float* out) {
  using Direct = gpu::DirectRows<kFormat>;
  const Direct direct(down.first.cols, down.first.row_scale_bytes);
  gpu::let_next_kernel_start();
  FewDownWalk<kFormat> walk{&down, &direct, expert_weights, bias, out, sizes.num_pairs, 0, {}};
  MOEBENCH_UNROLL
  for (int p = 0; p < kFewPairs; ++p) {
    walk.expert[p] =
        gpu::load_constant(expert_ids + (p < sizes.num_pairs ? p : sizes.num_pairs - 1));
  }
  const auto first = walk.first();
  direct.multiply(walk, first, [&] {
    gpu::wait_for_previous_kernel();
    const int units = Direct::num_units(sizes.intermediate_size);
    for (int p = 0; p < sizes.num_pairs; ++p) copy_activations(direct, p, activated, p, units);
  });
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(gpu::DirectRows<kFormat>::kThreads, 2)
    direct_down(Sizes sizes, Stack down, const float* bias, const std::uint16_t* activated,
                const std::int32_t* expert_ids, float* products) {
  using Direct = gpu::DirectRows<kFormat>;
  MOEBENCH_SHARED(Selection, selection, [1]);
  const Direct direct(down.first.cols, down.first.row_scale_bytes);
  gpu::let_next_kernel_start();
  select_by_block(expert_ids, sizes, selection[0]);
  DownWalk<kFormat> walk{{&down, selection, 0},
                         &direct,
                         activated,
                         bias,
                         products,
                         Direct::num_units(sizes.intermediate_size),
                         -1};
  const Place first = walk.first();
  direct.multiply(walk, first, [&] {
    gpu::wait_for_previous_kernel();
    if (first.rows > 0) walk.stage(first.group);
  });
}

struct Scratch {
  std::uint16_t* activated;  // [num_pairs, 8 num_units(intermediate_size)] bf16
  float* products;           // [num_pairs, hidden_size]
};
template <Format kFormat>
Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t hidden_size,
                     std::int64_t intermediate_size) {
  return {
      workspace.take<std::uint16_t>(
          num_pairs * 8 * gpu::DirectRows<kFormat>::num_units(static_cast<int>(intermediate_size))),
      workspace.take<float>(num_pairs * hidden_size)};
}

// Shared memory of the two kernels, if the step is one that this is for.
struct Launch {
  bool fits = false;
  bool few = false;
  std::size_t gate_up_bytes = 0;
  std::size_t down_bytes = 0;
};
template <Format kFormat>
Launch choose_launch(const Sizes& sizes) {
  using Direct = gpu::DirectRows<kFormat>;
  const Codec& c = codec(kFormat);
  const auto gate_up_scales = static_cast<std::int64_t>(c.row_scale_bytes(sizes.hidden_size));
  const auto down_scales = static_cast<std::int64_t>(c.row_scale_bytes(sizes.intermediate_size));
  Launch launch;
  if (sizes.num_tokens > kMostTokens || sizes.num_pairs > kMostPairs ||
      (sizes.num_tokens > 1 && sizes.num_tokens < kFewestTokens) ||
      2 * sizes.intermediate_size % kUnitRows != 0 ||
      !Direct::takes_scales(gate_up_scales, kUnitRows) ||
      !Direct::takes_scales(down_scales, kUnitRows)) {
    return launch;
  }
  launch.few = sizes.num_pairs <= kFewPairs && Direct::takes_scales(down_scales, kFewRows);
  const int group = std::min(sizes.num_tokens, kGroup);
  launch.gate_up_bytes = Direct::shared_bytes(sizes.hidden_size, gate_up_scales, group);
  launch.down_bytes = Direct::shared_bytes(sizes.intermediate_size, down_scales,
                                           launch.few ? sizes.num_pairs : group);
  launch.fits = std::max(launch.gate_up_bytes, launch.down_bytes) + Direct::kStaticSharedBytes +
                    sizeof(Selection) + 1024 <=
                gpu::device_info().shared_bytes_per_block;
  return launch;
}

template <Format kFormat>
void launch_all(const Args& args, const Sizes& sizes, const Launch& chosen, Context& context) {
  using Direct = gpu::DirectRows<kFormat>;
  Workspace workspace(context.workspace);
  const Scratch scratch =
      take_scratch<kFormat>(workspace, sizes.num_pairs, sizes.hidden_size, sizes.intermediate_size);
  const auto config = [&](std::size_t shared_bytes) {
    return gpu::LaunchConfig{.grid = {static_cast<unsigned>(2 * gpu::device_info().num_sms)},
                             .block = Direct::kThreads,
                             .shared_bytes = shared_bytes,
                             .stream = context.stream,
                             .overlap_previous = true,
                             .shared_percent = gpu::shared_percent_for(
                                 shared_bytes + Direct::kStaticSharedBytes + sizeof(Selection), 2)};
  };
  gpu::launch(direct_gate_up<kFormat>, config(chosen.gate_up_bytes),
              "moe_experts/cuda_direct_bf16 (gate, up)", sizes, device_stack(args.gate_up),
              args.gate_up_bias.data, args.x.data, args.expert_ids.data, args.swiglu_alpha,
              args.swiglu_limit, scratch.activated);
  if (chosen.few) {
    gpu::launch(direct_down_few<kFormat>, config(chosen.down_bytes),
                "moe_experts/cuda_direct_bf16 (down)", sizes, device_stack(args.down),
                args.down_bias.data, scratch.activated, args.expert_ids.data,
                args.expert_weights.data, args.out.data);
    return;
  }
  gpu::launch(direct_down<kFormat>, config(chosen.down_bytes),
              "moe_experts/cuda_direct_bf16 (down)", sizes, device_stack(args.down),
              args.down_bias.data, scratch.activated, args.expert_ids.data, scratch.products);
  launch_combine(args, context, scratch.products, true);
}

void run(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  gpu::with_format(args.gate_up.format, [&](auto format) {
    if constexpr (kTakes<format()>) {
      const Launch chosen = choose_launch<format()>(sizes);
      if (chosen.fits) return launch_all<format()>(args, sizes, chosen, context);
    }
    if (gpu::needs_compute_capability(90).empty()) return cuda_stream_bf16.run(args, context);
    cuda_fused_bf16.run(args, context);
  });
}

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  gpu::with_format(problem.format, [&](auto format) {
    if constexpr (kTakes<format()>) {
      take_scratch<format()>(
          workspace,
          std::min<std::int64_t>(
              std::min<std::int64_t>(problem.num_tokens, kMostTokens) * problem.top_k, kMostPairs),
          problem.hidden_size, problem.intermediate_size);
    }
  });
  return std::max({workspace.used(), cuda_stream_bf16.workspace_bytes(problem, num_threads),
                   cuda_fused_bf16.workspace_bytes(problem, num_threads)});
}

}  // namespace

const Variant cuda_direct_bf16 = {
    .name = "cuda_direct_bf16",
    .backend = "cuda",
    .summary = "two blocks an SM, weights of 4 bits straight to registers, for up to 64 tokens",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) { return cuda_fused_bf16.unsupported(problem); },
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
