// cuda_one_launch_bf16: the attention half of a layer for one token in one launch: norm, query, key
// and value with rotation and cache, attention, and its product with what follows it. For what a
// boundary between launches costs, and because memory is kept busy across it. Hopper; weights of
// bf16 or float8, and a cache of either.
//
// One block an SM; all run at once and wait for each other by words that show by themselves that
// they are there: no fence stands between who writes and who reads (grid_turn.cuh). Four warps of a
// block do nothing but ask for weights, those of query, key and value through a ring, and behind
// them its rows of the last product, which all stay: they come while the other warps attend.
//
// A. Every block normalises the whole row, multiplies its pairs of rows, and shows what came out.
// B. Blocks (key/value head, split of the positions) load the keys and values of the positions
//    before this token, wait for their queries and this token's, and attend. What a split found is
//    shown, unless it is the only one. A key or value of float8 has one scale, which wants all of
//    it: the block of its last split encodes it.
// C. The blocks of a key/value head share out its columns and join the splits, each some columns.
// D. Every block reads what all heads found, and multiplies its rows, which have arrived.
//
// cuda_one_launch_routed_bf16 goes on with the router's product: a block's rows are columns of the
// router's weights, which it has loaded while it waited, and what they give is added to sums that
// the experts' launch takes (kernels/fused/router_sums.h). It is to be what `fast` runs, should
// experts that are known sooner be worth it.
//
// With bf16 weights, norm, query, key, value and cache have the bits of rms_norm/cuda_block,
// linear/cuda_stream_bf16, rope and kv_write; the last product adds in another order. Float8 is
// multiplied by f16 inputs, which are rounded less (one_launch_products.cuh says how little).
// Attention is done by tensor cores with queries and weights as two bf16 each, which hold 16 bits;
// keys, values, sums and exponentials lose nothing (NMSE of the layer's half beside that of
// cuda_split_kv: up to 1.1e-8, what a bf16 of the heads differs by now and then). Its splits depend
// on the position and the GPU alone. Where nothing is around it, it runs as cuda_decode_stream_mma.
#include <algorithm>
#include <string>
#include <type_traits>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/one_launch_attend.cuh"
#include "kernels/attention/one_launch_products.cuh"
#include "kernels/attention/one_launch_router.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/grid_turn.cuh"
#include "kernels/fused/norm_row.cuh"

namespace moebench::attention {
namespace {

// What all heads found, as soon as it is there, into `to`.
template <Format kWeights, int kHeadDim>
MOEBENCH_DEVICE void await_found(const Work& work, int words, bool has_attended, const Shown& shown,
                                 uint4* to) {
  // All threads ask for theirs until they have them: to wait for a first word and then to ask for
  // the rest would be one way to the second-level cache and back more. But not for long, as that is
  // as much as the weights: where a block has nothing to attend to, one warp waits for queries
  // first.
  if (!has_attended) {
    if (gpu::warp_id() == 0) {
      const int of_head = work.group * kHeadDim;
      while (true) {
        const bool is_there = gpu::lane_id() >= work.kv.num_kv_heads ||
                              gpu::load_relaxed(&shown.query[gpu::lane_id() * of_head]) != 0;
        if (gpu::all(gpu::kAllLanes, is_there)) break;
        gpu::spin_on();
      }
    }
    sync_consumers();
  }
  constexpr int kLoads = kMostQuery / 2 / 4 / kConsumers;
  uint4 mine[kLoads] = {};
  const auto is_missing = [&](int i) {
    return 4 * (static_cast<int>(threadIdx.x) + i * kConsumers) < words && !gpu::are_there(mine[i]);
  };
  bool are_missing = true;
  while (are_missing) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kConsumers;
      if (!is_missing(i)) continue;
      mine[i] = gpu::load_relaxed(reinterpret_cast<const uint4*>(shown.found) + at);
    }
    are_missing = false;
    MOEBENCH_UNROLL
    for (int i = 0; i < kLoads; ++i) are_missing |= is_missing(i);
    if (are_missing) gpu::spin_on();
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kConsumers;
    if (4 * at >= words) continue;
    to[place_of<kWeights>(at)] = mine[i];
  }
  sync_consumers();
}

// By two producer warps, a thread each: a barrier's address is the same for a whole warp, so lanes
// would take turns.
MOEBENCH_DEVICE void init_barriers(gpu::Mbarrier* full, gpu::Mbarrier* empty,
                                   gpu::Mbarrier* out_full) {
  const auto producer = static_cast<int>(threadIdx.x) - kConsumers;
  if (producer == 0) gpu::init_ring(full, empty, kStages, kProducers, kWarps);
  if (producer != gpu::kWarp) return;
  MOEBENCH_UNROLL
  for (int i = 0; i < kMostOutPieces; ++i) gpu::mbarrier_init(&out_full[i], kProducers);
  gpu::fence_mbarrier_init();
}

// What the launch before has left, so that the next finds nothing. The consumers of all blocks.
MOEBENCH_DEVICE void clear(Shown& shown) {
  auto* words = reinterpret_cast<uint4*>(&shown);
  const auto blocks = static_cast<int>(gridDim.x);
  for (int i = static_cast<int>(threadIdx.x) * blocks + static_cast<int>(blockIdx.x);
       i < static_cast<int>(sizeof(Shown) / sizeof(uint4)); i += kConsumers * blocks) {
    words[i] = {0, 0, 0, 0};
  }
}

// kRoutes: whether the product of the router behind it is to be done.
template <Format kWeights, Format kCache, int kHeadDim, bool kRoutes>
__global__ void MOEBENCH_BOUNDS(kThreads, 1) one_launch(MOEBENCH_GRID_CONSTANT Work work) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, out_full, [kMostOutPieces]);
  MOEBENCH_SHARED(Attending<kHeadDim>, attending, [1]);
  MOEBENCH_SHARED(Partial, partial, [1]);
  MOEBENCH_SHARED(unsigned, turn, [2]);  // this grid's, and that of the experts
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.hidden_size;
  using Row = fused::RowPart<4>;
  Row row;
  float sink = kLowest / 2;  // still to be multiplied with log2 e
  if (thread < kConsumers) {
    // Of memory: the first thing to do.
    row.load_weights(work.norm.weight, cols);
    if (work.sinks != nullptr && thread < work.num_heads) {
      sink = gpu::load_constant(work.sinks + thread);
    }
  } else {
    init_barriers(full, empty, out_full);
  }
  const int query_size = work.num_heads * kHeadDim;
  const int row_bytes = bytes_of(cols, kRun<kWeights>);
  const int out_row_bytes = bytes_of(query_size, kRun<kWeights>);
  const int most_out_rows = work.out_rows_of_block.each + (work.out_rows_of_block.more > 0 ? 1 : 0);
  const Streams<kHeadDim> streams{gpu::dynamic_shared(),
                                  full,
                                  empty,
                                  out_full,
                                  share_of_block(work.pairs_of_block),
                                  share_of_block(work.out_rows_of_block),
                                  row_bytes,
                                  out_row_bytes,
                                  (row_bytes + kPieceBytes - 1) / kPieceBytes,
                                  out_piece_rows(out_row_bytes)};
  if (thread >= kConsumers) {
    // They wait for their barriers, and not for the consumers, who see them behind theirs.
    gpu::sync_named(kProducersBarrier, kThreads - kConsumers);
    gpu::arrive_named(kStartBarrier, kThreads);
    gpu::lower_max_registers<kProducerRegisters>();
    ask_for_pairs(work, streams);
    ask_for_out_rows(work, streams);
    return;
  }

  gpu::raise_max_registers<kConsumerRegisters>();

  const Places places = places_of(cols, query_size, out_row_bytes, most_out_rows, work.num_experts);
  auto* x = reinterpret_cast<uint4*>(streams.memory + places.x);
  auto* found = reinterpret_cast<uint4*>(streams.memory + places.found);
  float out_factor[kOutPasses] = {};
  float out_bias[kOutPasses] = {};
  gpu::wait_for_previous_kernel();
  // All that is asked for here is on its way together.
  const int position = work.kv.position[0];
  const int sequence = work.kv.sequence[0];
  const bool takes_turn = thread == kConsumers - 1;
  unsigned turn_of_grid = 0;
  unsigned turn_of_experts = 0;
  if (takes_turn) {
    turn_of_grid = gpu::grid_turn(&work.signals->turn);
    if (kRoutes) turn_of_experts = gpu::grid_turn(&work.router_signals->turn);
  }
  row.load_row(work.norm.x, work.norm.addend, cols);
  if (blockIdx.x == gridDim.x - 1) row.store_row(work.norm.sum, cols);
  const float squares = gpu::warp_sum(row.squares());
  if (gpu::lane_id() == 0) partial[0].of[0][0][gpu::warp_id()] = squares;
  if constexpr (kWeights == Format::kFp8E4m3) RowPower::show(row, partial[0].largest);
  if (takes_turn) {
    turn[0] = turn_of_grid;
    turn[1] = turn_of_experts;
    gpu::arrive_at_grid(&work.signals->turn);
  }
  if (thread < work.num_heads) {
    attending[0].sinks[thread] = sink;
  }
  const Token token(work, position, sequence);
  const int num_items = work.kv.num_kv_heads * token.splits;
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
  Chunk<kCache, kHeadDim> chunk = {};
  std::int64_t place = -1;
  if (block < num_items) {
    const Item item(work, token, block);
    place = chunk.place(work.kv, token, item);
  }
  sync_consumers();
  // In the order of gpu::block_sum.
  float sum_of_squares = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) sum_of_squares += partial[0].of[0][0][w];
  row.normalise(fused::row_scale(sum_of_squares, cols, work.norm.epsilon));
  RowPower power;
  if constexpr (kWeights == Format::kFp8E4m3) power = RowPower(partial[0].largest);
  fused::for_each_unit(row, cols / 8, [&](int unit, const float4& first, const float4& second) {
    x[place_of<kWeights>(unit)] = packed<kWeights>(first, second, power);
  });
  // What is there of the block's first item comes while the weights do.
  chunk.load_first(work.kv, place);
  gpu::sync_named(kStartBarrier, kThreads);
  Shown& shown = work.signals->at[turn[0]];
  multiply_pairs<kWeights, kCache>(work, streams, token, x, power, partial[0], shown);

  // While queries come.
  MOEBENCH_UNROLL
  for (int pass = 0; pass < kOutPasses; ++pass) {
    const int r = (pass * kOutTiles + gpu::warp_id()) * kTileRows + gpu::lane_id();
    if (gpu::warp_id() >= kOutTiles || gpu::lane_id() >= kTileRows || r >= streams.out_rows.count) {
      continue;
    }
    out_factor[pass] = load_factor<kWeights>(work.output, streams.out_rows.begin + r);
    if (work.output.bias == nullptr) continue;
    out_bias[pass] = gpu::load_constant(work.output.bias + streams.out_rows.begin + r);
  }
  const RouterPart router(streams.memory + places.router, most_out_rows);
  if (kRoutes) router.load(work, streams.out_rows);
  clear(work.signals->at[turn[0] ^ 1]);

  for (int i = block; i < num_items; i += blocks) {
    const Item item(work, token, i);
    if (i > block) chunk.load_first(work.kv, chunk.place(work.kv, token, item));
    attend(work, token, item, chunk, attending[0], shown);
  }
  if (token.splits > 1) {
    for (int i = block; i < num_items; i += blocks) {
      join_splits<kHeadDim>(work, token, Item(work, token, i), attending[0].sinks, shown);
    }
  }
  Ahead<kWeights> ahead;
  ahead.take(streams);
  await_found<kWeights, kHeadDim>(work, query_size / 2, block < num_items, shown, found);
  gpu::let_next_kernel_start();
  multiply_out_rows<kWeights>(work, streams, out_factor, out_bias, ahead, found, partial[0],
                              [&](int r, float sum) {
                                work.out[streams.out_rows.begin + r] = sum;
                                if (kRoutes) router.add(r, sum);
                              });
  if (kRoutes) router.show(work, streams.out_rows, turn[1]);
}

// With barriers and what adds up a row, and up to where dynamic shared memory begins.
constexpr std::size_t kStaticSharedBytes =
    (sizeof(Attending<kMostHeadDim>) + sizeof(Partial) + 512 + 1023) / 1024 * 1024;

// Empty, or why it cannot do what is around attention in such a problem.
std::string around_unsupported(const Problem& problem) {
  const std::string reason = gpu::needs_compute_capability(90);
  if (!reason.empty()) return reason;
  if (problem.num_tokens != 1) return "one token is taken";
  for (const Format format : {problem.weight_format, problem.kv_format}) {
    if (format == Format::kBf16 || format == Format::kFp8E4m3) continue;
    return fmt::format("weights and cache must be bf16 or fp8_e4m3; they are {} and {}",
                       format_name(problem.weight_format), format_name(problem.kv_format));
  }
  const int run = run_of(problem.weight_format);
  if (problem.head_dim != 32 && problem.head_dim != 64) {
    return fmt::format("head_dim {} is not 32 or 64", problem.head_dim);
  }
  const std::string shared = shared_heads_unsupported(problem, kHeads);
  if (!shared.empty()) return shared;
  const std::int64_t query_size = problem.num_heads * problem.head_dim;
  if (query_size > kMostQuery || problem.num_kv_heads > kMostKvHeads ||
      problem.num_kv_heads * problem.head_dim > kMostKeys) {
    return fmt::format("{} and {} heads of {} are too many", problem.num_heads,
                       problem.num_kv_heads, problem.head_dim);
  }
  if (problem.hidden_size <= 0 || problem.hidden_size > fused::kMostHeld ||
      problem.hidden_size % (4 * run) != 0 || query_size % (4 * run) != 0) {
    return fmt::format(
        "hidden_size, up to {}, and the columns of all heads must be multiples of {}; they are {} "
        "and {}",
        fused::kMostHeld, 4 * run, problem.hidden_size, query_size);
  }
  const gpu::DeviceInfo& device = gpu::device_info();
  if (problem.num_experts > 0 &&
      (problem.num_experts > fused::kMostRouted || device.num_sms > fused::kMostRoutingBlocks ||
       problem.weight_format != problem.kv_format)) {
    return fmt::format(
        "the product of the router for {} experts on {} multiprocessors, with weights of {} and a "
        "cache of {}; up to {} and {} are taken, and one format",
        problem.num_experts, device.num_sms, format_name(problem.weight_format),
        format_name(problem.kv_format), fused::kMostRouted, fused::kMostRoutingBlocks);
  }
  const std::int64_t out_rows = (problem.hidden_size + device.num_sms - 1) / device.num_sms;
  const auto bytes = static_cast<std::size_t>(
      places_of(static_cast<int>(problem.hidden_size), static_cast<int>(query_size),
                bytes_of(static_cast<int>(query_size), run),
                static_cast<int>(std::min<std::int64_t>(out_rows, kMostOutRows)),
                static_cast<int>(problem.num_experts))
          .bytes);
  if (out_rows > kMostOutRows || bytes + kStaticSharedBytes > device.shared_bytes_per_block) {
    return fmt::format("{} rows of the product behind it are too many for an SM", out_rows);
  }
  return "";
}

template <Format kWeights, Format kCache, int kHeadDim>
void start(const Work& work, gpu::Stream stream) {
  const int num_sms = gpu::device_info().num_sms;
  const int query_size = work.num_heads * kHeadDim;
  const auto bytes = static_cast<std::size_t>(
      places_of(work.hidden_size, query_size, bytes_of(query_size, kRun<kWeights>),
                (work.hidden_size + num_sms - 1) / num_sms, work.num_experts)
          .bytes);
  auto* kernel = one_launch<kWeights, kCache, kHeadDim, false>;
  if constexpr (kWeights == kCache) {  // around_unsupported refuses the others
    if (work.num_experts > 0) kernel = one_launch<kWeights, kCache, kHeadDim, true>;
  }
  gpu::launch(kernel,
              {.grid = {static_cast<unsigned>(num_sms)},
               .block = kThreads,
               .shared_bytes = bytes,
               .stream = stream,
               .overlap_previous = true,
               .cooperative = true,
               .shared_percent = gpu::shared_percent_for(bytes + kStaticSharedBytes, 1)},
              work.num_experts > 0 ? "attention/cuda_one_launch_bf16 (with the router)"
                                   : "attention/cuda_one_launch_bf16",
              work);
}

// Calls visit(std::integral_constant<Format, f>) for one of those that it takes.
template <class Visitor>
void with_taken(Format format, Visitor&& visit) {
  if (format == Format::kBf16) return visit(std::integral_constant<Format, Format::kBf16>());
  visit(std::integral_constant<Format, Format::kFp8E4m3>());
}

void run(const Args& args, Context& context) {
  const Args::Around& around = args.around;
  if (around.norm.weight.data == nullptr) return cuda_decode_stream_mma.run(args, context);
  const std::int64_t num_heads = args.queries.shape[1];
  const std::int64_t head_dim = args.kv.head_dim;
  const std::int64_t hidden_size = around.output.weight.rows;
  const MatrixView& router = around.router.weight;
  const Problem problem{args.kv.format,
                        args.queries.shape[0],
                        num_heads,
                        args.kv.num_kv_heads,
                        head_dim,
                        args.window,
                        args.max_context,
                        hidden_size,
                        around.output.weight.format,
                        router.data != nullptr ? router.rows : 0};
  const std::string reason = around_unsupported(problem);
  require(reason.empty(), "run attention with what is around it: {}", reason);
  Work work{};
  const auto take = [&](const Product& product, std::int64_t rows, std::int64_t cols) {
    const MatrixView& w = product.weight;
    require(w.format == problem.weight_format && w.layout == RowLayout::kRowMajor &&
                w.rows == rows && w.cols == cols &&
                reinterpret_cast<std::uintptr_t>(w.data) % 16 == 0 &&
                reinterpret_cast<std::uintptr_t>(w.scales) % sizeof(float) == 0,
            "run attention with what is around it: weights of {} x {} {}, not {} x {} {} in rows "
            "that are aligned to 16 bytes",
            w.rows, w.cols, format_name(w.format), rows, cols, format_name(problem.weight_format));
    return DeviceProduct{reinterpret_cast<const unsigned char*>(w.data),
                         reinterpret_cast<const float*>(w.scales), product.bias.data};
  };
  const std::int64_t sizes[] = {num_heads * head_dim, args.kv.num_kv_heads * head_dim,
                                args.kv.num_kv_heads * head_dim};
  const Product* products[] = {&around.query, &around.key, &around.value};
  for (int part = 0; part < 3; ++part) {
    work.parts[part] = take(*products[part], sizes[part], hidden_size);
    work.pairs[part] = static_cast<int>(sizes[part] / 2);
  }
  work.output = take(around.output, hidden_size, sizes[0]);
  fused::check_aligned(
      {around.norm.x.data, around.norm.addend.data, around.norm.weight.data, around.norm.sum.data});
  require(context.signals.size() >= kExpertsSignalBytes + sizeof(Signals),
          "run attention with what is around it: {} bytes of signals, of {}",
          context.signals.size(), kExpertsSignalBytes + sizeof(Signals));
  work.norm = fused::device_norm(around.norm);
  work.hidden_size = static_cast<int>(hidden_size);
  work.num_heads = static_cast<int>(num_heads);
  work.group = static_cast<int>(num_heads / args.kv.num_kv_heads);
  work.kv = device_kv(args.kv, args.places);
  work.cos = around.cos.data;
  work.sin = around.sin.data;
  work.sinks = args.sinks.data;
  work.scale = args.scale * kLog2E;
  work.window = static_cast<int>(args.window);
  const auto blocks = static_cast<std::int64_t>(gpu::device_info().num_sms);
  work.pairs_of_block =
      shared_by(static_cast<int>(blocks), work.pairs[0] + work.pairs[1] + work.pairs[2]);
  work.out_rows_of_block = shared_by(static_cast<int>(blocks), work.hidden_size);
  work.most_splits = static_cast<int>(std::clamp<std::int64_t>(
      std::min<std::int64_t>(blocks, kMostItems) / args.kv.num_kv_heads, 1, kMostSplits));
  work.out = around.out.data;
  work.signals = reinterpret_cast<Signals*>(context.signals.data() + kExpertsSignalBytes);
  if (router.data != nullptr) {
    require(
        router.format == Format::kBf16 && router.layout == RowLayout::kRowMajor &&
            router.cols == hidden_size &&
            reinterpret_cast<std::uintptr_t>(router.data) % sizeof(std::uint32_t) == 0,
        "run attention with the router behind it: weights of {} x {} {}, not bf16 in rows of {} "
        "that are aligned to 4 bytes",
        router.rows, router.cols, format_name(router.format), hidden_size);
    work.num_experts = static_cast<int>(router.rows);
    work.router_weight = reinterpret_cast<const unsigned char*>(router.data);
    work.router_norm = around.router.norm_weight.data;
    work.router_signals = reinterpret_cast<fused::RouterSignals*>(context.signals.data());
  }
  with_taken(problem.weight_format, [&](auto weights) {
    with_taken(problem.kv_format, [&](auto cache) {
      if (head_dim == 32) {
        start<weights(), cache(), 32>(work, context.stream);
      } else {
        start<weights(), cache(), 64>(work, context.stream);
      }
    });
  });
}

// `routes`: whether it is asked for the router's product, too.
constexpr Variant one_launch_variant(std::string_view name, std::string_view summary, bool routes) {
  return {
      .name = name,
      .backend = "cuda",
      .summary = summary,
      .rounds =
          "inputs of products: bf16, of float8 weights' first: f16; of attention, alone: "
          "queries, keys, values, weights: bf16",
      .max_nmse = [](const Problem&) { return 2e-5; },
      .unsupported =
          [](const Problem& problem) { return cuda_decode_stream_mma.unsupported(problem); },
      .workspace_bytes =
          [](const Problem& problem, int num_threads) {
            return cuda_decode_stream_mma.workspace_bytes(problem, num_threads);
          },
      .run = run,
      .normalises = [](const Problem& problem) { return around_unsupported(problem).empty(); },
      .routes_ahead = routes,
  };
}

}  // namespace

constinit const Variant cuda_one_launch_bf16 = one_launch_variant(
    "cuda_one_launch_bf16",
    "one token's norm, query, key, value, cache, attention and product behind it in one launch "
    "(Hopper); else cuda_decode_stream_mma",
    false);
constinit const Variant cuda_one_launch_routed_bf16 = one_launch_variant(
    "cuda_one_launch_routed_bf16",
    "cuda_one_launch_bf16 with the product of the router behind it, if the experts take that",
    true);

}  // namespace moebench::attention
