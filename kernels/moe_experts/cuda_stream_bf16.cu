// cuda_stream_bf16: decode steps on Hopper, the bits of cuda_fused_bf16 at the speed of memory. One
// block an SM takes the same few rows of every expert that was selected, weights copied ahead row
// by row by the memory accelerator (row_stream.cuh).
//
// The first kernel computes gate and up rows and their activation; the second down rows. A block of
// the second has its rows of all of a token's experts, so it adds them up by itself, in the order
// of slots; and it begins to fetch weights while the first kernel still runs, since which experts
// those are was known before. An expert with more than kGroup tokens counts as several, whose
// weights come from memory once and then from the second-level cache.
//
// Inputs of a group lie in shared memory as bf16. Of up to kGroup tokens the first kernel makes
// them itself; of more, a small kernel before it does, and each group's are copied as its turn
// comes.
#include <algorithm>

#include "kernels/formats/row_stream.cuh"
#include "kernels/moe_experts/experts.cuh"
#include "kernels/moe_experts/selection.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kMostRows = 16;  // of inputs that lie in shared memory at a time

template <Format kFormat>
using Stream = gpu::RowStream<kFormat, kGroup / 8, 4>;

// A block's share of the rows of every expert, dealt out in units of `unit` rows.
struct Slice {
  int begin;
  int end;

  MOEBENCH_DEVICE Slice(int rows, int unit) {
    const std::int64_t units = rows / unit;
    begin = static_cast<int>(units * blockIdx.x / gridDim.x) * unit;
    end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x) * unit;
  }
};

// Over the tiles of the slice, of each group's expert in turn.
template <int kRows>
struct ExpertWalk {
  const Stack* stack;
  const Selection* selection;
  Slice slice;
  int group;
  int row;

  MOEBENCH_DEVICE ExpertWalk(const Stack& weights, const Selection& s, const Slice& rows)
      : stack(&weights), selection(&s), slice(rows), group(0), row(rows.begin) {}
  MOEBENCH_DEVICE bool done() const { return group >= selection->num_groups; }
  MOEBENCH_DEVICE void advance(int tiles) {
    for (; tiles > 0; --tiles) {
      row += kRows;
      if (row >= slice.end) {
        row = slice.begin;
        ++group;
      }
    }
  }
  MOEBENCH_DEVICE int num_rows() const {
    const int left = slice.end - row;
    return left < kRows ? left : kRows;
  }
  MOEBENCH_DEVICE gpu::RowTile tile() const {
    const gpu::EncodedRow first = row_of(matrix_of(*stack, selection->group[group].expert), row);
    return {first.data, first.scales, first.tensor_scale, num_rows()};
  }
};

// Inputs of groups, copied in turn by the producers to a ring of rows behind the stream's rings. In
// memory a row of inputs is as it will lie there: row_units() units of 16 bytes. Each group has its
// own barriers, which are used once: teams may be many groups apart.
template <Format kFormat>
class InputRing {
 public:
  MOEBENCH_HOST_DEVICE static int row_units(int cols) { return Stream<kFormat>::num_units(cols); }

  // Every thread of the block, before the stream's barrier. `tiles`: those of a slice.
  MOEBENCH_DEVICE InputRing(int rows, int tiles, int most_groups) : rows_(rows) {
    MOEBENCH_SHARED(gpu::Mbarrier, barriers, [2 * kMostPairs]);
    full_ = barriers;
    empty_ = barriers + kMostPairs;
    for (int g = static_cast<int>(threadIdx.x); g < most_groups;
         g += static_cast<int>(blockDim.x)) {
      gpu::mbarrier_init(&full_[g], 1);
      gpu::mbarrier_init(&empty_[g], tiles * (Stream<kFormat>::kTeamThreads / gpu::kWarp));
    }
    gpu::fence_mbarrier_init();
  }

  // Where the i-th input of a group lies.
  MOEBENCH_DEVICE int place(const Group& group, int i) const { return (group.first + i) % rows_; }

  // A producer warp, when it comes to weights of group `reached`: copies every kProducerWarps-th
  // group's inputs up to that one, which is deadlock-free since it has asked for all earlier
  // weights. source(i) is where the inputs of the i-th pair come from.
  template <class Source>
  MOEBENCH_DEVICE void copy_up_to(int reached, const Stream<kFormat>& stream, int cols,
                                  const Selection& s, Source&& source) {
    const int bytes = row_units(cols) * 16;
    const int end = reached < s.num_groups ? reached + 1 : s.num_groups;
    for (; next_ < end; next_ += Stream<kFormat>::kProducerWarps) {
      const Group g = s.group[next_];
      for (; g.first + g.size - s.group[oldest_].first > rows_; ++oldest_) {
        gpu::mbarrier_wait(&empty_[oldest_], 0);
      }
      if (gpu::lane_id() == 0) gpu::mbarrier_arrive_expect_bytes(&full_[next_], g.size * bytes);
      gpu::sync_warp();
      if (gpu::lane_id() < g.size) {
        gpu::copy_bulk_async(stream.inputs_of(place(g, gpu::lane_id())),
                             source(g.first + gpu::lane_id()), bytes, &full_[next_]);
      }
    }
  }
  // Consumers, for every tile: before and after they use its group's inputs.
  MOEBENCH_DEVICE void wait(int group) const { gpu::mbarrier_wait(&full_[group], 0); }
  MOEBENCH_DEVICE void release(int group) const {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty_[group]);
  }

 private:
  int rows_;
  int next_ = Stream<kFormat>::producer();  // group to copy
  int oldest_ = 0;                          // group whose inputs may be in use
  gpu::Mbarrier* full_;
  gpu::Mbarrier* empty_;
};

// By the producers: one lists, and everybody sees it behind the barrier.
constexpr int kListed = 2;
template <Format kFormat>
MOEBENCH_DEVICE void list_groups(const std::int32_t* expert_ids, const Sizes& sizes,
                                 Selection& selection) {
  if (Stream<kFormat>::producer() == 0) {
    select(expert_ids, sizes, selection);
  }
  gpu::sync_named(kListed, Stream<kFormat>::kThreads);
}

// Makes rows of inputs for InputRing, one thread a unit.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(256)
    make_inputs(const float* x, uint4* prepared, int cols, int count) {
  gpu::wait_for_previous_kernel();
  gpu::let_next_kernel_start();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  const int units = InputRing<kFormat>::row_units(cols);
  const int unit = i % units;
  const std::int64_t token = i / units;
  uint4 values = {0, 0, 0, 0};
  if (8 * unit < cols) values = load_inputs<kFormat>(x + token * cols, 8 * unit);
  prepared[token * units + Stream<kFormat>::place_of(unit)] = values;
}

// `prepared` is null if the kernel makes its inputs itself; the ring of inputs has `ring_rows`.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(Stream<kFormat>::kThreads, 1)
    stream_gate_up(Sizes sizes, Stack gate_up, const float* gate_up_bias, const float* x,
                   const uint4* prepared, const std::int32_t* expert_ids, float alpha, float limit,
                   std::uint16_t* activated, int ring_rows) {
  using Rows = Stream<kFormat>;
  using Weights = gpu::DeviceFormat<kFormat>;
  MOEBENCH_SHARED(Selection, selection, [1]);
  const Selection& s = selection[0];
  const EncodedMatrix& shape = gate_up.first;
  const Slice slice(shape.rows, 2);
  InputRing<kFormat> ring(ring_rows, (slice.end - slice.begin + Rows::kRows - 1) / Rows::kRows,
                          sizes.num_pairs);
  const Rows stream(shape.cols, {shape.row_bytes, shape.row_scale_bytes}, Rows::kMostStages);
  gpu::wait_for_previous_kernel();
  // After the wait: whoever starts now finds the ids complete.
  gpu::let_next_kernel_start();
  using Walk = ExpertWalk<Rows::kRows>;
  if (!Rows::is_consumer()) {
    list_groups<kFormat>(expert_ids, sizes, selection[0]);
    stream.produce(
        Walk(gate_up, s, slice), [] {},
        [&](const Walk& at) {
          if (prepared == nullptr) return;
          ring.copy_up_to(at.group, stream, shape.cols, s, [&](int i) {
            return prepared + static_cast<std::int64_t>(s.token_at(i)) *
                                  InputRing<kFormat>::row_units(shape.cols);
          });
        });
    return;
  }
  if (prepared == nullptr) {
    stream.stage_inputs(
        sizes.num_tokens,
        [&](int token) { return x + static_cast<std::int64_t>(token) * sizes.hidden_size; },
        static_cast<int>(threadIdx.x), Rows::kConsumers);
  }
  // Rows of activations end in zeros, up to whole steps.
  const int row_values = InputRing<kFormat>::row_units(sizes.intermediate_size) * 8;
  if (blockIdx.x == 0) {
    const int rest = row_values - sizes.intermediate_size;
    for (int i = static_cast<int>(threadIdx.x); i < sizes.num_pairs * rest; i += Rows::kConsumers) {
      const int column = sizes.intermediate_size + i % rest;
      activated[static_cast<std::int64_t>(i / rest) * row_values + Rows::place_of(column / 8) * 8 +
                column % 8] = 0;
    }
  }
  gpu::sync_named(kListed, Rows::kThreads);

  // Thread of a team (gate and up row of the tile, token).
  constexpr int kGates = Rows::kRows / 2;
  const int gate = Rows::team_thread() % kGates * 2;
  const int column = Rows::team_thread() / kGates;
  struct Early {
    float gate_bias;
    float up_bias;
    float gate_factor;
    float up_factor;
  };
  stream.consume(
      Walk(gate_up, s, slice),
      [&](const Walk& at, int token) {
        const Group& group = s.group[at.group];
        const int i = token < group.size ? token : group.size - 1;
        return stream.inputs_of(prepared == nullptr ? s.token_at(group.first + i)
                                                    : ring.place(group, i));
      },
      [&](const Walk& at) -> Early {
        if (gate >= at.num_rows() || column >= s.group[at.group].size) return {0, 0, 1, 1};
        const int expert = s.group[at.group].expert;
        const int row = at.row + gate;
        const float* bias = gate_up_bias + static_cast<std::int64_t>(expert) * shape.rows + row;
        const EncodedMatrix matrix = matrix_of(gate_up, expert);
        return {gpu::load_constant(bias), gpu::load_constant(bias + 1),
                Weights::row_factor(row_of(matrix, row)),
                Weights::row_factor(row_of(matrix, row + 1))};
      },
      [&](const Walk& at) {
        if (prepared != nullptr) ring.wait(at.group);
      },
      [&](const Walk& at, const Early& early, auto&& total) {
        if (prepared != nullptr) ring.release(at.group);
        const Group& group = s.group[at.group];
        if (gate >= at.num_rows() || column >= group.size) return;
        const int position = input_position<kFormat>((at.row + gate) / 2);
        activated[static_cast<std::int64_t>(s.pair_at(group.first + column)) * row_values +
                  Rows::place_of(position / 8) * 8 + position % 8] =
            gpu::float_to_bf16(
                swiglu(gpu::multiply(total(gate, column), early.gate_factor) + early.gate_bias,
                       gpu::multiply(total(gate + 1, column), early.up_factor) + early.up_bias,
                       alpha, limit));
      });
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(Stream<kFormat>::kThreads, 1)
    stream_down(Sizes sizes, Stack down, const float* down_bias, const std::uint16_t* activated,
                const std::int32_t* expert_ids, const float* expert_weights, float* out,
                int ring_rows) {
  using Rows = Stream<kFormat>;
  using Weights = gpu::DeviceFormat<kFormat>;
  MOEBENCH_SHARED(Selection, selection, [1]);
  MOEBENCH_SHARED(float, weights, [kMostPairs]);
  const Selection& s = selection[0];
  const EncodedMatrix& shape = down.first;
  const Slice slice(shape.rows, 1);
  const int rows = slice.end - slice.begin;
  InputRing<kFormat> ring(ring_rows, (rows + Rows::kRows - 1) / Rows::kRows, sizes.num_pairs);
  const Rows stream(shape.cols, {shape.row_bytes, shape.row_scale_bytes}, Rows::kMostStages);
  gpu::let_next_kernel_start();
  using Walk = ExpertWalk<Rows::kRows>;
  if (!Rows::is_consumer()) {
    list_groups<kFormat>(expert_ids, sizes, selection[0]);
    stream.produce(
        Walk(down, s, slice), [] { gpu::wait_for_previous_kernel(); },
        [&](const Walk& at) {
          ring.copy_up_to(at.group, stream, shape.cols, s, [&](int i) {
            return activated + static_cast<std::int64_t>(s.pair_at(i)) * 8 *
                                   InputRing<kFormat>::row_units(shape.cols);
          });
        });
    return;
  }
  // [pair][row of the slice] behind the inputs: a pair's bias, then with its product.
  auto* products = reinterpret_cast<float*>(stream.inputs_of(ring_rows));
  for (int i = static_cast<int>(threadIdx.x); i < sizes.num_pairs * rows; i += Rows::kConsumers) {
    products[i] = down_bias[static_cast<std::int64_t>(expert_ids[i / rows]) * sizes.hidden_size +
                            slice.begin + i % rows];
  }
  for (int i = static_cast<int>(threadIdx.x); i < sizes.num_pairs; i += Rows::kConsumers) {
    weights[i] = expert_weights[i];
  }
  gpu::sync_named(kListed, Rows::kThreads);

  const int r = Rows::team_thread() % Rows::kRows;
  const int column = Rows::team_thread() / Rows::kRows;
  stream.consume(
      Walk(down, s, slice),
      [&](const Walk& at, int token) {
        const Group& group = s.group[at.group];
        return stream.inputs_of(ring.place(group, token < group.size ? token : group.size - 1));
      },
      [&](const Walk& at) -> float {
        if (r >= at.num_rows()) return 1.0F;
        return Weights::row_factor(row_of(matrix_of(down, s.group[at.group].expert), at.row + r));
      },
      [&](const Walk& at) { ring.wait(at.group); },
      [&](const Walk& at, float factor, auto&& total) {
        ring.release(at.group);
        const Group& group = s.group[at.group];
        if (r >= at.num_rows() || column >= group.size) return;
        products[s.pair_at(group.first + column) * rows + at.row - slice.begin + r] +=
            gpu::multiply(total(r, column), factor);
      });
  // An earlier kernel may still be reading what `out` held until then.
  gpu::wait_for_previous_kernel();
  Rows::sync_consumers();
  for (int i = static_cast<int>(threadIdx.x); i < sizes.num_tokens * rows; i += Rows::kConsumers) {
    const int token = i / rows;
    float sum = 0;
    for (int pair = token * sizes.top_k; pair < (token + 1) * sizes.top_k; ++pair) {
      sum += weights[pair] * products[pair * rows + i % rows];
    }
    out[static_cast<std::int64_t>(token) * sizes.hidden_size + slice.begin + i % rows] = sum;
  }
}

// How a step is run; no rows: by cuda_fused_bf16.
struct Launch {
  bool prepares = false;  // inputs by a kernel of their own
  int ring_rows = 0;      // of inputs
  std::size_t gate_up_bytes = 0;
  std::size_t down_bytes = 0;
};
template <Format kFormat>
Launch choose_launch(const Sizes& sizes) {
  using Rows = Stream<kFormat>;
  // Static shared memory, rounded up to the alignment of what follows it.
  constexpr std::size_t kStatic =
      (Rows::kStaticSharedBytes + sizeof(Selection) +
       (sizeof(int) + sizeof(float) + 2 * sizeof(gpu::Mbarrier)) * kMostPairs + 1023) /
      1024 * 1024;
  const gpu::DeviceInfo& device = gpu::device_info();
  Launch launch;
  if (sizes.num_pairs > kMostPairs) return launch;
  launch.prepares = sizes.num_tokens > kGroup;
  const int slice = (sizes.hidden_size + device.num_sms - 1) / device.num_sms;
  const int largest_group = std::min(sizes.num_tokens, kGroup);
  for (int rows = std::min(sizes.num_pairs, kMostRows); rows >= largest_group; --rows) {
    launch.gate_up_bytes = Rows::shared_bytes(
        sizes.hidden_size, launch.prepares ? rows : sizes.num_tokens, Rows::kMostStages);
    launch.down_bytes = Rows::shared_bytes(sizes.intermediate_size, rows, Rows::kMostStages) +
                        sizeof(float) * static_cast<std::size_t>(sizes.num_pairs * slice);
    if (std::max(launch.gate_up_bytes, launch.down_bytes) + kStatic <=
        device.shared_bytes_per_block) {
      launch.ring_rows = rows;
      return launch;
    }
  }
  return launch;
}

struct Scratch {
  uint4* prepared;           // [num_tokens, row_units(hidden_size)]
  std::uint16_t* activated;  // [num_pairs, 8 row_units(intermediate_size)] bf16
};
template <Format kFormat>
Scratch take_scratch(Workspace& workspace, std::int64_t num_tokens, std::int64_t num_pairs,
                     std::int64_t hidden_size, std::int64_t intermediate_size) {
  using Ring = InputRing<kFormat>;
  return {workspace.take<uint4>(num_tokens * Ring::row_units(static_cast<int>(hidden_size))),
          workspace.take<std::uint16_t>(num_pairs * 8 *
                                        Ring::row_units(static_cast<int>(intermediate_size)))};
}

template <Format kFormat>
void launch_all(const Args& args, const Sizes& sizes, const Launch& chosen, Context& context) {
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch<kFormat>(workspace, sizes.num_tokens, sizes.num_pairs,
                                                sizes.hidden_size, sizes.intermediate_size);
  const int num_sms = gpu::device_info().num_sms;
  if (chosen.prepares) {
    const int count = sizes.num_tokens * InputRing<kFormat>::row_units(sizes.hidden_size);
    gpu::launch(make_inputs<kFormat>,
                {.grid = {static_cast<unsigned>((count + 255) / 256)},
                 .block = 256,
                 .stream = context.stream,
                 .overlap_previous = true},
                "moe_experts/cuda_stream_bf16 (inputs)", args.x.data, scratch.prepared,
                sizes.hidden_size, count);
  }
  gpu::launch(stream_gate_up<kFormat>,
              {.grid = {static_cast<unsigned>(std::min(num_sms, sizes.intermediate_size))},
               .block = Stream<kFormat>::kThreads,
               .shared_bytes = chosen.gate_up_bytes,
               .stream = context.stream,
               .overlap_previous = true},
              "moe_experts/cuda_stream_bf16 (gate, up)", sizes, device_stack(args.gate_up),
              args.gate_up_bias.data, args.x.data, chosen.prepares ? scratch.prepared : nullptr,
              args.expert_ids.data, args.swiglu_alpha, args.swiglu_limit, scratch.activated,
              chosen.ring_rows);
  gpu::launch(stream_down<kFormat>,
              {.grid = {static_cast<unsigned>(std::min(num_sms, sizes.hidden_size))},
               .block = Stream<kFormat>::kThreads,
               .shared_bytes = chosen.down_bytes,
               .stream = context.stream,
               .overlap_previous = true},
              "moe_experts/cuda_stream_bf16 (down)", sizes, device_stack(args.down),
              args.down_bias.data, scratch.activated, args.expert_ids.data,
              args.expert_weights.data, args.out.data, chosen.ring_rows);
}

void run(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  gpu::with_format(args.gate_up.format, [&](auto format) {
    const Launch chosen = choose_launch<format()>(sizes);
    if (chosen.ring_rows == 0) return cuda_fused_bf16.run(args, context);
    launch_all<format()>(args, sizes, chosen, context);
  });
}

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  gpu::with_format(problem.format, [&](auto format) {
    const std::int64_t tokens = std::min<std::int64_t>(problem.num_tokens, kMostPairs);
    take_scratch<format()>(workspace, tokens,
                           std::min<std::int64_t>(tokens * problem.top_k, kMostPairs),
                           problem.hidden_size, problem.intermediate_size);
  });
  return std::max(workspace.used(), cuda_fused_bf16.workspace_bytes(problem, num_threads));
}

std::string unsupported(const Problem& problem) {
  const std::string reason = gpu::needs_compute_capability(90);
  return reason.empty() ? cuda_fused_bf16.unsupported(problem) : reason;
}

}  // namespace

const Variant cuda_stream_bf16 = {
    .name = "cuda_stream_bf16",
    .backend = "cuda",
    .summary = "one block an SM, weights copied ahead row by row, for up to 64 tokens (Hopper)",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
