// cuda_stream_bf16: decode steps on Hopper. The bits of cuda_rows_bf16 at the speed of memory: one
// block an SM, rows dealt out evenly one by one, weights copied ahead by the memory accelerator
// (row_stream.cuh), the first of them while the kernel before still runs.
//
// Up to three layers of the same x (query, key, value) are one launch, and the norm that makes
// their x is the beginning of it: every block normalises all rows, from what the second-level cache
// has, with the bits of rms_norm/cuda_block. More than kMostTokens tokens run as cuda_rows_bf16.
#include <algorithm>

#include "kernels/formats/row_stream.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kMostTokens = 16;
// Rows are normalised one after the other, each about a latency of the second-level cache: for more
// than these a launch is cheaper (an estimate).
constexpr int kMostNormalised = 4;
constexpr std::size_t kNormSharedBytes = 64;  // static, of block_sum

// Of the rows that become x. `weight` null: x is there.
struct Norm {
  const float* x;
  const float* addend;  // null: none
  const float* weight;
  float epsilon;
  float* sum;
};

// Over tiles of rows [begin, end) of all parts together.
template <int kRows>
struct RowWalk {
  const Parts* parts;
  int left;  // rows, from here on
  int part = 0;
  int row = 0;

  MOEBENCH_DEVICE RowWalk(const Parts& all, int begin, int end)
      : parts(&all), left(end - begin), row(begin) {
    while (part + 1 < all.count && row >= all.part[part].weight.rows) {
      row -= all.part[part++].weight.rows;
    }
  }
  MOEBENCH_DEVICE bool done() const { return left <= 0; }
  MOEBENCH_DEVICE int num_rows() const {
    const int of_part = parts->part[part].weight.rows - row;
    const int most = left < kRows ? left : kRows;
    return of_part < most ? of_part : most;
  }
  MOEBENCH_DEVICE void advance(int tiles) {
    for (; tiles > 0 && !done(); --tiles) {
      const int rows = num_rows();
      left -= rows;
      row += rows;
      if (row == parts->part[part].weight.rows && part + 1 < parts->count) {
        ++part;
        row = 0;
      }
    }
  }
  MOEBENCH_DEVICE gpu::RowTile tile() const {
    const gpu::EncodedRow first = encoded_row(parts->part[part].weight, row);
    return {first.data, first.scales, first.tensor_scale, num_rows()};
  }
};

// The consumers: as stage_inputs, of rows that are normalised first. A thread has 4 neighbouring
// columns, two threads a unit of inputs.
template <Format kFormat, class Stream>
MOEBENCH_DEVICE void stage_normalised(const Stream& stream, const Norm& norm, int num_tokens,
                                      int cols) {
  using Row = fused::RowPart<4>;
  static_assert(Stream::kConsumers == fused::kRowThreads);
  Row row;
  row.load_weights(norm.weight, cols);
  gpu::wait_for_previous_kernel();
  const int units = Stream::num_units(cols);
  MOEBENCH_NO_UNROLL
  for (int token = 0; token < num_tokens; ++token) {
    const std::int64_t begin = static_cast<std::int64_t>(token) * cols;
    row.load_row(norm.x + begin, norm.addend == nullptr ? nullptr : norm.addend + begin, cols);
    if (token % static_cast<int>(gridDim.x) == static_cast<int>(blockIdx.x)) {
      row.store_row(norm.sum + begin, cols);
    }
    const float squares =
        gpu::block_sum<Stream::kConsumers>(row.squares(), [] { Stream::sync_consumers(); });
    row.normalise(fused::row_scale(squares, cols, norm.epsilon));
    MOEBENCH_UNROLL
    for (int h = 0; h < Row::kLoads; ++h) {
      const auto& mine = row.held[h].v;
      float next[4];
      MOEBENCH_UNROLL
      for (int i = 0; i < 4; ++i) next[i] = gpu::shuffle_xor(gpu::kAllLanes, mine[i], 1);
      const int unit = Row::at(h) / 8;
      if (threadIdx.x % 2 == 0 && unit < units) {
        stream.inputs_of(token)[Stream::place_of(unit)] = gpu::pack_inputs<kFormat>(
            float4{mine[0], mine[1], mine[2], mine[3]}, float4{next[0], next[1], next[2], next[3]});
      }
    }
  }
}

template <Format kFormat, int kTokenTiles>
__global__ void MOEBENCH_BOUNDS(gpu::RowStream<kFormat, kTokenTiles>::kThreads,
                                kTokenTiles == 1 && gpu::DeviceFormat<kFormat>::kValues < 32 ? 2
                                                                                             : 1)
    multiply_streams(Parts parts, const float* x, Norm norm, int num_tokens, int stages) {
  using Stream = gpu::RowStream<kFormat, kTokenTiles>;
  using Weights = gpu::DeviceFormat<kFormat>;
  const Weight& shape = parts.part[0].weight;
  const Stream stream(shape.cols, {shape.row_bytes, shape.row_scale_bytes}, stages);
  gpu::let_next_kernel_start();
  const auto begin =
      static_cast<int>(static_cast<std::int64_t>(parts.rows) * blockIdx.x / gridDim.x);
  const auto end =
      static_cast<int>(static_cast<std::int64_t>(parts.rows) * (blockIdx.x + 1) / gridDim.x);
  const RowWalk<Stream::kRows> walk(parts, begin, end);
  if (!Stream::is_consumer()) {
    stream.produce(
        walk, [] { gpu::wait_for_previous_kernel(); }, [](const auto&) {});
    return;
  }
  if (norm.weight != nullptr) {
    stage_normalised<kFormat>(stream, norm, num_tokens, shape.cols);
  } else {
    gpu::wait_for_previous_kernel();
    stream.stage_inputs(
        num_tokens, [&](int token) { return x + static_cast<std::int64_t>(token) * shape.cols; },
        static_cast<int>(threadIdx.x), Stream::kConsumers);
  }
  Stream::sync_consumers();

  // Thread (row of the tile, token), kPasses times.
  constexpr int kAtOnce = Stream::kConsumers / Stream::kRows;
  constexpr int kPasses = (Stream::kTokens + kAtOnce - 1) / kAtOnce;
  const int r = static_cast<int>(threadIdx.x) % Stream::kRows;
  const int first_token = static_cast<int>(threadIdx.x) / Stream::kRows;
  struct Early {
    float bias;
    float factor;
  };
  stream.consume(
      walk,
      [&](const auto&, int token) {
        return stream.inputs_of(token < num_tokens ? token : num_tokens - 1);
      },
      [&](const auto& at) -> Early {
        const Part& part = parts.part[at.part];
        if (r >= at.num_rows()) return {0.0F, 1.0F};
        const int row = at.row + r;
        return {part.bias == nullptr ? 0.0F : gpu::load_constant(part.bias + row),
                Weights::row_factor(encoded_row(part.weight, row))};
      },
      [](const auto&) {},
      [&](const auto& at, const Early& early, auto&& total) {
        const Part& part = parts.part[at.part];
        MOEBENCH_UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
          const int token = first_token + pass * kAtOnce;
          if (r >= at.num_rows() || token >= num_tokens) continue;
          float sum = gpu::multiply(total(r, token), early.factor);
          if (part.bias != nullptr) sum += early.bias;
          part.out[static_cast<std::int64_t>(token) * part.weight.rows + at.row + r] = sum;
        }
      });
}

// Stages of the ring that fit beside the inputs. The more, the more of the weights is there when
// the kernel before is done: the small kernels of attention and normalisation leave it all that
// memory. 0: not even two fit.
template <Format kFormat, int kTokenTiles>
int choose_stages(int cols, int num_tokens, std::size_t most) {
  using Stream = gpu::RowStream<kFormat, kTokenTiles>;
  for (int stages = Stream::kMostStages; stages >= 2; --stages) {
    if (Stream::shared_bytes(cols, num_tokens, stages) + Stream::kStaticSharedBytes +
            kNormSharedBytes <=
        most) {
      return stages;
    }
  }
  return 0;
}

template <Format kFormat, int kTokenTiles>
void start(const Args& args, const Parts& parts, int num_tokens, gpu::Stream stream) {
  using Stream = gpu::RowStream<kFormat, kTokenTiles>;
  const int cols = parts.part[0].weight.cols;
  const int stages = choose_stages<kFormat, kTokenTiles>(cols, num_tokens,
                                                         gpu::device_info().shared_bytes_per_block);
  gpu::launch(multiply_streams<kFormat, kTokenTiles>,
              {.grid = {static_cast<unsigned>(std::min(gpu::device_info().num_sms, parts.rows))},
               .block = Stream::kThreads,
               .shared_bytes = Stream::shared_bytes(cols, num_tokens, stages),
               .stream = stream,
               .overlap_previous = true},
              "linear/cuda_stream_bf16", parts, args.x.data,
              Norm{args.norm.x.data, args.norm.addend.data, args.norm.weight.data,
                   args.norm.epsilon, args.norm.sum.data},
              num_tokens, stages);
}

// Whether this kernel takes them, rather than cuda_rows_bf16.
bool takes(Format format, std::int64_t num_tokens, std::int64_t cols) {
  if (num_tokens > kMostTokens) return false;
  int stages = 0;
  gpu::with_format(format, [&](auto f) {
    const std::size_t most = gpu::device_info().shared_bytes_per_block;
    const auto c = static_cast<int>(cols);
    const auto n = static_cast<int>(num_tokens);
    stages = n <= 8 ? choose_stages<f(), 1>(c, n, most) : choose_stages<f(), 2>(c, n, most);
  });
  return stages > 0;
}

void run(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.x.shape[0];
  if (args.norm.weight.data != nullptr) {
    require(takes(args.weight.format, num_tokens, args.weight.cols) &&
                args.weight.cols <= fused::kMostHeld,
            "run linear with its norm: at most {} tokens of {} columns; it is {} x {}", kMostTokens,
            fused::kMostHeld, num_tokens, args.weight.cols);
    fused::check_aligned(
        {args.norm.x.data, args.norm.addend.data, args.norm.weight.data, args.norm.sum.data});
  } else if (!takes(args.weight.format, num_tokens, args.weight.cols)) {
    return cuda_rows_bf16.run(args, context);
  }
  const Parts parts = device_parts(args, 1);
  gpu::with_format(args.weight.format, [&](auto format) {
    if (num_tokens <= 8) {
      start<format(), 1>(args, parts, static_cast<int>(num_tokens), context.stream);
    } else {
      start<format(), 2>(args, parts, static_cast<int>(num_tokens), context.stream);
    }
  });
}

}  // namespace

const Variant cuda_stream_bf16 = {
    .name = "cuda_stream_bf16",
    .backend = "cuda",
    .summary = "one block an SM, weights copied ahead by TMA, for up to 16 tokens (Hopper)",
    .rounds = "activations: bf16, weights: bf16 where they have more bits, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = gpu::needs_compute_capability(90);
          return reason.empty() ? groups_unsupported(problem) : reason;
        },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_rows_bf16.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .runs_several = true,
    .normalises =
        [](const Problem& problem) {
          return problem.num_tokens <= kMostNormalised && problem.cols <= fused::kMostHeld &&
                 takes(problem.format, problem.num_tokens, problem.cols);
        },
};

}  // namespace moebench::linear
