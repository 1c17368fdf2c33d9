// cuda_stream_bf16: decode steps on Hopper. The bits of cuda_rows_bf16 at the speed of memory: one
// block an SM, rows dealt out evenly one by one, weights copied ahead by the memory accelerator
// (row_stream.cuh), the first of them while the kernel before still runs.
//
// Every block reads all of x from the second-level cache: half as much if who made it has rounded
// it to bf16. Up to three layers of the same x (query, key, value) are one launch, and the norm
// that makes their x is the beginning of it: every block normalises all rows, from what that cache
// has, with the bits of rms_norm/cuda_block. Up to 8 tokens, query and key are rotated at the end
// of it, and key and value put into the cache, with the bits of rope and kv_write. More than
// kMostTokens tokens run as cuda_rows_bf16. Weights of float8 are multiplied as f16.
#include <algorithm>

#include "kernels/attention/kv_device.cuh"
#include "kernels/formats/row_stream.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/fused/rotation.cuh"
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kMostTokens = 16;
// Rows are normalised one after the other, each about a latency of the second-level cache: for more
// than these a launch is cheaper (an estimate).
constexpr int kMostNormalised = 4;
constexpr std::size_t kNormSharedBytes = 64;  // static, of block_sum

template <Format kFormat>
constexpr Format kInputs = kFormat == Format::kFp8E4m3 ? Format::kF16 : Format::kBf16;
template <Format kFormat, int kTokenTiles>
using RowStream = gpu::RowStream<kFormat, kTokenTiles, 1, kInputs<kFormat>>;

// Where query, key and value go, in this order. Pairs of rows that are half a head apart stay
// together, so that they can be rotated.
struct Caching {
  DeviceKv kv;
  const float* cos;
  const float* sin;
  int half;         // rows
  int value_bytes;  // of the cache
  bool is_bf16;     // else f32, or f16
};

// Over tiles of pairs [begin, end) of rows of all parts together.
template <int kRows>
struct PairWalk {
  const Parts* parts;
  int half;
  int left;  // pairs, from here on
  int part = 0;
  int pair = 0;

  MOEBENCH_DEVICE PairWalk(const Parts& all, int half_head, int begin, int end)
      : parts(&all), half(half_head), left(end - begin), pair(begin) {
    while (part + 1 < all.count && pair >= pairs_of_part())
      pair -= all.part[part++].weight.rows / 2;
  }
  MOEBENCH_DEVICE int pairs_of_part() const { return parts->part[part].weight.rows / 2; }
  MOEBENCH_DEVICE bool done() const { return left <= 0; }
  MOEBENCH_DEVICE int num_pairs() const {
    const int of_head = half - pair % half;
    const int most = left < kRows / 2 ? left : kRows / 2;
    return of_head < most ? of_head : most;
  }
  MOEBENCH_DEVICE int num_rows() const { return 2 * num_pairs(); }
  // In the part: of a tile's r-th row, the first ones being the lower of each pair.
  MOEBENCH_DEVICE int head() const { return pair / half; }
  MOEBENCH_DEVICE int column_of(int r) const {
    const int pairs = num_pairs();
    return pair % half + (r < pairs ? r : half + r - pairs);
  }
  MOEBENCH_DEVICE int row_of(int r) const { return head() * 2 * half + column_of(r); }
  MOEBENCH_DEVICE void advance(int tiles) {
    for (; tiles > 0 && !done(); --tiles) {
      const int pairs = num_pairs();
      left -= pairs;
      pair += pairs;
      if (pair == pairs_of_part() && part + 1 < parts->count) {
        ++part;
        pair = 0;
      }
    }
  }
  MOEBENCH_DEVICE gpu::SplitRowTile tile() const {
    const gpu::EncodedRow first = encoded_row(parts->part[part].weight, row_of(0));
    const int pairs = num_pairs();
    return {{first.data, first.scales, first.tensor_scale, 2 * pairs}, pairs, half - pairs};
  }
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

// The consumers: as stage_inputs, of rows that are normalised first.
template <Format kFormat, class Stream>
MOEBENCH_DEVICE void stage_normalised(const Stream& stream, const fused::DeviceNorm& norm,
                                      int num_tokens, int cols) {
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
    fused::for_each_unit(row, units, [&](int unit, const float4& first, const float4& second) {
      stream.inputs_of(token)[Stream::place_of(unit)] = gpu::pack_inputs<kFormat>(first, second);
    });
  }
}

// x, or `rounded`, which is of bf16 (for weights of bf16).
struct Rows {
  const float* floats;
  const std::uint16_t* rounded;  // null: not
};

// The producers' and the consumers' beginning: false for the producers, which have done their work.
template <Format kFormat, int kTokenTiles, class Walk>
MOEBENCH_DEVICE bool begin_stream(const RowStream<kFormat, kTokenTiles>& stream, const Walk& walk,
                                  const Rows& x, const fused::DeviceNorm& norm, int num_tokens,
                                  int cols) {
  using Stream = RowStream<kFormat, kTokenTiles>;
  if (!Stream::is_consumer()) {
    stream.produce(
        walk, [] { gpu::wait_for_previous_kernel(); }, [](const auto&) {});
    return false;
  }
  if (norm.weight != nullptr) {
    stage_normalised<kFormat>(stream, norm, num_tokens, cols);
  } else {
    gpu::wait_for_previous_kernel();
    const auto stage = [&](const auto* rows) {
      stream.stage_inputs(
          num_tokens, [&](int token) { return rows + static_cast<std::int64_t>(token) * cols; },
          static_cast<int>(threadIdx.x), Stream::kConsumers);
    };
    if (kFormat == Format::kBf16 && x.rounded != nullptr) {
      stage(x.rounded);
    } else {
      stage(x.floats);
    }
  }
  Stream::sync_consumers();
  if constexpr (kInputs<kFormat> == Format::kF16) {
    stream.make_f16(num_tokens);
    Stream::sync_consumers();
  }
  return true;
}

// The block's share of `count`.
struct Share {
  int begin, end;
};
MOEBENCH_DEVICE Share share_of_block(int count) {
  return {static_cast<int>(static_cast<std::int64_t>(count) * blockIdx.x / gridDim.x),
          static_cast<int>(static_cast<std::int64_t>(count) * (blockIdx.x + 1) / gridDim.x)};
}

template <Format kFormat, int kTokenTiles>
__global__ void MOEBENCH_BOUNDS(RowStream<kFormat, kTokenTiles>::kThreads,
                                kTokenTiles == 1 && gpu::DeviceFormat<kFormat>::kValues < 32 ? 2
                                                                                             : 1)
    multiply_streams(Parts parts, Rows x, fused::DeviceNorm norm, int num_tokens, int stages) {
  using Stream = RowStream<kFormat, kTokenTiles>;
  using Weights = gpu::DeviceFormat<kFormat>;
  const Weight& shape = parts.part[0].weight;
  const Stream stream(shape.cols, {shape.row_bytes, shape.row_scale_bytes}, stages);
  gpu::let_next_kernel_start();
  const Share share = share_of_block(parts.rows);
  const RowWalk<Stream::kRows> walk(parts, share.begin, share.end);
  if (!begin_stream(stream, walk, x, norm, num_tokens, shape.cols)) return;

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

// Query, key and value of up to 8 tokens, rotated, and into the cache.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(RowStream<kFormat, 1>::kThreads,
                                gpu::DeviceFormat<kFormat>::kValues < 16 ? 2 : 1)
    cache_streams(Parts parts, Rows x, fused::DeviceNorm norm, Caching caching, int num_tokens,
                  int stages) {
  using Stream = RowStream<kFormat, 1>;
  using Weights = gpu::DeviceFormat<kFormat>;
  const Weight& shape = parts.part[0].weight;
  const Stream stream(shape.cols, {shape.row_bytes, shape.row_scale_bytes}, stages);
  gpu::let_next_kernel_start();
  const Share share = share_of_block(parts.rows / 2);
  const PairWalk<Stream::kRows> walk(parts, caching.half, share.begin, share.end);
  if (!begin_stream(stream, walk, x, norm, num_tokens, shape.cols)) return;

  // Thread (row of the tile, token).
  const int r = static_cast<int>(threadIdx.x) % Stream::kRows;
  const int token = static_cast<int>(threadIdx.x) / Stream::kRows;
  const bool has_token = token < num_tokens;
  // Of the token, before any head; as far from the first key as from the first value.
  const std::int64_t place =
      has_token ? kv_offset(caching.kv, caching.kv.sequence[token], caching.kv.position[token], 0)
                : 0;
  struct Early {
    float bias[2];  // of the lower row of the pair, and of the higher
    float factor[2];
    float cos;
    float sin;
  };
  stream.consume(
      walk,
      [&](const auto&, int t) { return stream.inputs_of(t < num_tokens ? t : num_tokens - 1); },
      [&](const auto& at) -> Early {
        const int pairs = at.num_pairs();
        Early early{{0.0F, 0.0F}, {1.0F, 1.0F}, 1.0F, 0.0F};
        if (!has_token || r >= 2 * pairs) return early;
        const Part& part = parts.part[at.part];
        const int i = r < pairs ? r : r - pairs;
        MOEBENCH_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int row = at.row_of(i + h * pairs);
          if (part.bias != nullptr) early.bias[h] = gpu::load_constant(part.bias + row);
          early.factor[h] = Weights::row_factor(encoded_row(part.weight, row));
        }
        if (at.part < 2) {
          const int column = token * caching.half + at.column_of(i);
          early.cos = gpu::load_constant(caching.cos + column);
          early.sin = gpu::load_constant(caching.sin + column);
        }
        return early;
      },
      [](const auto&) {},
      [&](const auto& at, const Early& early, auto&& total) {
        const int pairs = at.num_pairs();
        if (!has_token || r >= 2 * pairs) return;
        const Part& part = parts.part[at.part];
        const bool is_low = r < pairs;
        const int i = is_low ? r : r - pairs;
        float pair[2];
        MOEBENCH_UNROLL
        for (int h = 0; h < 2; ++h) {
          pair[h] = gpu::multiply(total(i + h * pairs, token), early.factor[h]);
          if (part.bias != nullptr) pair[h] += early.bias[h];
        }
        float value = is_low ? pair[0] : pair[1];
        if (at.part < 2) {
          value = is_low ? fused::rotated_low(pair[0], pair[1], early.cos, early.sin)
                         : fused::rotated_high(pair[0], pair[1], early.cos, early.sin);
        }
        if (at.part == 0) {
          part.out[static_cast<std::int64_t>(token) * part.weight.rows + at.row_of(r)] = value;
          return;
        }
        unsigned char* to = (at.part == 1 ? caching.kv.keys : caching.kv.values) + place +
                            at.head() * caching.kv.row_bytes +
                            at.column_of(r) * caching.value_bytes;
        if (caching.value_bytes == 4) {
          *reinterpret_cast<float*>(to) = value;
        } else {
          *reinterpret_cast<std::uint16_t*>(to) =
              caching.is_bf16 ? gpu::float_to_bf16(value) : gpu::float_to_f16(value);
        }
      });
}

// Stages of the ring that fit beside the inputs. The more, the more of the weights is there when
// the kernel before is done: the small kernels of attention and normalisation leave it all that
// memory. 0: not even two fit.
template <Format kFormat, int kTokenTiles>
int choose_stages(int cols, int num_tokens, std::size_t most) {
  using Stream = RowStream<kFormat, kTokenTiles>;
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
  using Stream = RowStream<kFormat, kTokenTiles>;
  const int cols = parts.part[0].weight.cols;
  const int stages = choose_stages<kFormat, kTokenTiles>(cols, num_tokens,
                                                         gpu::device_info().shared_bytes_per_block);
  const gpu::LaunchConfig config{
      .grid = {static_cast<unsigned>(std::min(gpu::device_info().num_sms, parts.rows))},
      .block = Stream::kThreads,
      .shared_bytes = Stream::shared_bytes(cols, num_tokens, stages),
      .stream = stream,
      .overlap_previous = true,
      .shared_percent = gpu::shared_percent_beside_streams(num_tokens)};
  const fused::DeviceNorm norm = fused::device_norm(args.norm);
  const Rows x{args.x.data, reinterpret_cast<const std::uint16_t*>(args.rounded.data)};
  require(x.rounded == nullptr || kFormat == Format::kBf16,
          "run linear: inputs of bf16 are for weights of bf16");
  if constexpr (kTokenTiles == 1) {
    if (args.cached.cos.data != nullptr) {
      const Format format = args.cached.kv.format;
      const Caching caching{device_kv(args.cached.kv, args.cached.places),
                            args.cached.cos.data,
                            args.cached.sin.data,
                            static_cast<int>(args.cached.kv.head_dim / 2),
                            format == Format::kF32 ? 4 : 2,
                            format == Format::kBf16};
      return gpu::launch(cache_streams<kFormat>, config, "linear/cuda_stream_bf16 (into the cache)",
                         parts, x, norm, caching, num_tokens, stages);
    }
  }
  gpu::launch(multiply_streams<kFormat, kTokenTiles>, config, "linear/cuda_stream_bf16", parts, x,
              norm, num_tokens, stages);
}

// Empty, or why it cannot rotate and cache such a query, key and value.
std::string caching_unsupported(std::int64_t num_tokens, std::int64_t head_dim, Format format) {
  constexpr std::int64_t kMostCached = 8;  // tokens: a thread has one of each tile
  if (num_tokens > kMostCached) {
    return fmt::format("at most {} tokens; there are {}", kMostCached, num_tokens);
  }
  if (head_dim % 2 != 0) return fmt::format("head_dim must be even; it is {}", head_dim);
  if (format != Format::kF32 && format != Format::kBf16 && format != Format::kF16) {
    return fmt::format("the cache must be f32, bf16 or f16; it is {}", format_name(format));
  }
  return "";
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
  if (args.cached.cos.data != nullptr) {
    const KvLayerView& kv = args.cached.kv;
    const std::string reason = caching_unsupported(num_tokens, kv.head_dim, kv.format);
    require(reason.empty(), "run linear into the cache: {}", reason);
    for (const MatrixView& weight : {args.weight, args.also[0].weight, args.also[1].weight}) {
      require(weight.rows % kv.head_dim == 0,
              "run linear into the cache: {} rows are not whole heads of {}", weight.rows,
              kv.head_dim);
    }
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
    .knows_bf16 =
        [](const Args& args) {
          return has_bf16_weights(args) && takes(Format::kBf16, args.x.shape[0], args.weight.cols);
        },
    .normalises =
        [](const Problem& problem) {
          return problem.num_tokens <= kMostNormalised && problem.cols <= fused::kMostHeld &&
                 takes(problem.format, problem.num_tokens, problem.cols) &&
                 (problem.head_dim == 0 ||
                  caching_unsupported(problem.num_tokens, problem.head_dim, problem.kv_format)
                      .empty());
        },
};

}  // namespace moebench::linear
