// cuda_grouped_registers_bf16: many tokens, on Hopper's tensor cores, encoded weights decoded in
// the registers that multiply them. As cuda_grouped_wgmma_bf16, pairs are sorted by expert and cut
// into tiles, and weights are wgmma's M side and tokens its N side; but the four warps that
// multiply some rows decode these rows' codes themselves, to the A fragments that wgmma takes from
// registers. Decoded weights never pass through shared memory, and no warps only decode.
//
// 192 rows, 128 tokens and 64 columns keep the tensor cores busy for 768 cycles, in which the
// second-level cache is asked for 16 KB of tokens and 6.4 KB of MXFP4 weights. On an H200 the
// products take about twice that: by ncu's samples the warps wait for their own instructions, of
// which a product of 64 rows, 128 tokens and 16 columns takes about 26, and 90 a window of 128
// columns before its first.
//
// As many blocks as there are SMs walk over all products of tiles. One thread has tokens and codes
// copied through a ring of stages; three times four warps multiply 64 rows each, and of tiles of
// few tokens, whose products are short, four times four. A tile with few tokens takes a narrow
// product. The order of columns is lane_columns.cuh's. Rows lie in a tile so that a thread's two
// accumulators of a token are rows 2i and the next: a gate row and its up row.
//
// Each output is one sum over columns in order, whatever the tile: it does not depend on the batch
// if wgmma's sums do not depend on its number of columns, which the PTX manual does not promise.
#include <algorithm>

#include "kernels/moe_experts/grouping.cuh"
#include "kernels/moe_experts/lane_columns.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kGroupThreads = 4 * gpu::kWarp;  // that issue a wgmma together
// Of kMultipliers groups that multiply, each with its part of a tile's rows, and one that loads
// tokens and gives them registers.
template <int kMultipliers>
constexpr int kThreads = (kMultipliers + 1) * kGroupThreads;
template <int kMultipliers>
constexpr int kMultiplierRegisters = kMultipliers == 3 ? 160 : 112;

// Formats with 16 or 32 values in 16 bytes: a window of wider ones is less than a tile's columns.
template <Format kFormat>
constexpr bool kTakes = gpu::DeviceFormat<kFormat>::kValues >= 16;

// ---- Products of tiles --------------------------------------------------------------------------

// kMostTokens: of a tile. 64 rows for each group.
template <Format kFormat, int kMostTokens, int kMultipliers>
class RegisterProducts {
  using Weights = gpu::DeviceFormat<kFormat>;
  static constexpr int kHalves = Columns<kFormat>::kHalves;
  static constexpr int kLaneRows = 2;
  static constexpr int kGroupRows = 64;
  static constexpr int kRows = kMultipliers * kGroupRows;
  // A stage is a window: the tokens' tile of each of its halves, and 64 bytes of each row. In units
  // of 16 bytes.
  static constexpr int kTokenTile = kMostTokens * kTileChunks;
  static constexpr int kRowChunks = 4;
  static constexpr int kStage = kHalves * kTokenTile + kRows * kRowChunks;
  static constexpr int kStages = std::min(12, (192 << 10) / 16 / kStage);
  // Windows whose scales are under way: those of few tokens take less time than memory does.
  static constexpr int kAhead = kMostTokens > 32 ? 1 : 2;
  // Products of 16 columns that are started together. Instructions bound the products of few
  // tokens, and two together take fewer; with more accumulators there are no registers for their
  // fragments, and with formats of 8 bits ptxas serializes them.
  static constexpr int kTogether = kHalves == 1 ? 1 : 2;

 public:
  static constexpr int kBoxTokens = kMostTokens > 32 ? 32 : 8;  // of one copy of tokens
  static constexpr int kBoxRows = 64;                           // of weights
  static constexpr int kBoxBytes = kRowChunks * 16;
  static constexpr std::size_t kBytes = sizeof(uint4) * kStages * kStage;

  MOEBENCH_DEVICE RegisterProducts(const Stack& stack, const Groups& groups)
      : stack_(stack),
        groups_(groups),
        columns_{stack.first.cols},
        row_tiles_(num_row_tiles(stack.first.rows)),
        stages_(reinterpret_cast<uint4*>(gpu::dynamic_shared())) {}

  MOEBENCH_HOST_DEVICE static int num_row_tiles(int rows) { return (rows + kRows - 1) / kRows; }

  // Computes the block's products. `tokens`: the rows of all tiles, in order; `codes`: the bytes of
  // all experts' rows. For each even row of a thread calls visit.begin(tile, row), and with what
  // that gives, for its tokens i, visit.end(tile, i, begun, product of row, of row + 1).
  template <class Visit>
  MOEBENCH_DEVICE void run(const gpu::TensorMap& tokens, const gpu::TensorMap& codes,
                           const Visit& visit) {
    MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
    MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
    if (threadIdx.x == 0) {
      gpu::init_ring(full, empty, kStages, 1, kMultipliers * kGroupThreads / gpu::kWarp);
    }
    gpu::sync_threads();
    if (gpu::warp_id() < kMultipliers * 4) {
      gpu::raise_max_registers<kMultiplierRegisters<kMultipliers>>();
      multiply_all(full, empty, visit);
    } else {
      gpu::lower_max_registers<24>();
      if (threadIdx.x == kMultipliers * kGroupThreads) load_all(tokens, codes, full, empty);
    }
  }

 private:
  using Product = TileProduct;
  MOEBENCH_DEVICE bool find(Product& product) const {
    return find_product<kRows>(groups_, row_tiles_, product);
  }
  MOEBENCH_DEVICE bool advance(Product& product) const {
    product.index += static_cast<int>(gridDim.x);
    return find(product);
  }
  // The number of columns of the wgmma that so many tokens take.
  MOEBENCH_DEVICE static int product_tokens(int count) {
    if constexpr (kMostTokens > 32) {
      return count > 64 ? kMostTokens : count > 32 ? 64 : 32;
    } else {
      return count > 16 ? 32 : count > 8 ? 16 : 8;
    }
  }

  // ---- Copies, by one thread
  MOEBENCH_DEVICE void load_all(const gpu::TensorMap& tokens, const gpu::TensorMap& codes,
                                gpu::Mbarrier* full, gpu::Mbarrier* empty) const {
    Product product{};
    product.index = static_cast<int>(blockIdx.x);
    RingTurn<kStages> turn;
    for (bool some = find(product); some; some = advance(product)) {
      const int boxes = (product_tokens(product.tile.count) + kBoxTokens - 1) / kBoxTokens;
      const int row = product.tile.expert * stack_.first.rows + product.first_row;
      const int rows_left = stack_.first.rows - product.first_row;
      const int row_boxes = (min(rows_left, kRows) + kBoxRows - 1) / kBoxRows;
      for (int window = 0; window < columns_.num_windows(); ++window) {
        const int halves = columns_.is_half(window) ? 1 : kHalves;
        const int stage = turn.stage;
        uint4* to = stages_ + stage * kStage;
        gpu::mbarrier_wait(&empty[stage], turn.parity ^ 1);  // new ones are
        gpu::mbarrier_arrive_expect_bytes(
            &full[stage],
            (halves * boxes * kBoxTokens * kTileChunks + row_boxes * kBoxRows * kRowChunks) * 16);
        for (int box = 0; box < row_boxes; ++box) {
          gpu::load_tile_async(to + kHalves * kTokenTile + box * kBoxRows * kRowChunks, codes,
                               window * kBoxBytes, row + box * kBoxRows, &full[stage]);
        }
        for (int half = 0; half < halves; ++half) {
          for (int box = 0; box < boxes; ++box) {
            gpu::load_tile_async(to + half * kTokenTile + box * kBoxTokens * kTileChunks, tokens,
                                 (window * kHalves + half) * kTileCols,
                                 product.tile.first + box * kBoxTokens, &full[stage]);
          }
        }
        turn.advance();
      }
    }
  }

  // ---- Weights
  MOEBENCH_DEVICE static int group_row(const Product& product) {
    return product.first_row + gpu::warp_id() / 4 * kGroupRows;
  }
  // Rows g and g + 8 of a warp's 16 follow each other in memory.
  MOEBENCH_DEVICE static int row_in_tile() {
    return gpu::warp_id() % 4 * 16 + gpu::lane_id() / 4 * 2;
  }

  // A product in which the group has rows, as a lane sees it. Rows past the end repeat the last
  // ones. Kept small, since the accumulators leave few registers.
  struct Lane {
    int product;                  // its index; -1: there is none
    int count;                    // of tokens
    int skipped;                  // products before it in which the group has no rows
    const unsigned char* scales;  // of the lane's first row
  };
  // The first from product `index` on.
  MOEBENCH_DEVICE Lane settle(int index) const {
    Product product{.index = index, .tile = {}, .first_row = 0};
    Lane lane{};
    bool some = find(product);
    for (; some && group_row(product) >= stack_.first.rows; some = advance(product)) ++lane.skipped;
    lane.product = some ? product.index : -1;
    if (!some) return lane;
    lane.count = product.tile.count;
    const EncodedMatrix matrix = matrix_of(stack_, product.tile.expert);
    const int row = group_row(product) + row_in_tile();
    lane.scales = row_of(matrix, row < matrix.rows ? row : matrix.rows - 2).scales;
    return lane;
  }

  // Of the lane's run in each of its rows.
  struct Scales {
    std::uint32_t of_row[kLaneRows];
  };
  MOEBENCH_DEVICE void fetch(const Lane& lane, int window, Scales& scales) const {
    const int length = columns_.run_length(window);
    const int column = window * Columns<kFormat>::kWindow + gpu::lane_id() % 4 * length;
    // Past the end any that may be read: weights and tokens are zeros there.
    const int from = column < columns_.cols ? column : columns_.cols - length;
    MOEBENCH_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      scales.of_row[i] = Weights::load_scale(
          {nullptr, lane.scales + i * stack_.first.row_scale_bytes, 1.0F}, from);
      // Two scales for a run: of half of one, the one that is meant.
      if (Weights::kWordsPerScale == 2 && length != Columns<kFormat>::kRun) {
        scales.of_row[i] >>= from / 16 % 2 * 8;
      }
    }
  }
  // The first windows of a product.
  MOEBENCH_DEVICE void fetch_first(const Lane& lane, Scales (&ahead)[kAhead]) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (lane.product >= 0 && i < columns_.num_windows()) fetch(lane, i, ahead[i]);
    }
  }

  // What a lane holds of a window: its run of each of its rows.
  struct Codes {
    std::uint32_t words[kLaneRows][4];
  };
  MOEBENCH_DEVICE static uint4 half_run(const uint4* row, int t) {
    const uint2 half = reinterpret_cast<const uint2*>(row)[t];
    return {half.x, half.y, 0, 0};
  }
  MOEBENCH_DEVICE void read_codes(int window, int stage, Codes& codes) const {
    const uint4* rows = stages_ + stage * kStage + kHalves * kTokenTile +
                        (gpu::warp_id() / 4 * kGroupRows + row_in_tile()) * kRowChunks;
    const int t = gpu::lane_id() % 4;
    const bool half = columns_.is_half(window);
    MOEBENCH_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      const uint4* row = rows + i * kRowChunks;
      const uint4 run = half ? half_run(row, t) : row[t];
      MOEBENCH_UNROLL
      for (int w = 0; w < 4; ++w) codes.words[i][w] = gpu::word_of(run, w);
    }
  }

  // ---- Products
  struct Ring : RingTurn<kStages> {
    gpu::Mbarrier* full;
    gpu::Mbarrier* empty;
    std::uint64_t tokens;  // descriptor of the first stage's; others lie further on

    MOEBENCH_DEVICE void release(int which) const {
      gpu::sync_warp();
      if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[which]);
    }
  };

  template <class Visit>
  MOEBENCH_DEVICE void multiply_all(gpu::Mbarrier* full, gpu::Mbarrier* empty, const Visit& visit) {
    // From one lane, so that all that follows is known to be the warp's.
    Ring ring{{}, full, empty, gpu::shuffle(gpu::kAllLanes, gpu::wgmma_descriptor(stages_), 0)};
    const auto skip = [&](int products) {
      for (int s = products * columns_.num_windows(); s > 0; --s) {
        gpu::mbarrier_wait(&full[ring.stage], ring.parity);
        ring.release(ring.stage);
        ring.advance();
      }
    };
    Lane lane = settle(static_cast<int>(blockIdx.x));
    skip(lane.skipped);
    Scales ahead[kAhead];
    fetch_first(lane, ahead);
    while (lane.product >= 0) {
      const Lane next = settle(lane.product + static_cast<int>(gridDim.x));
      const int tokens = product_tokens(lane.count);
      // Not more sizes: each is code of its own, and with four the registers do not suffice.
      if constexpr (kMostTokens > 32) {
        if (tokens == kMostTokens) multiply<kMostTokens>(lane, next, ahead, ring, visit);
        if (tokens == 64) multiply<64>(lane, next, ahead, ring, visit);
      } else {
        if (tokens == 16) multiply<16>(lane, next, ahead, ring, visit);
        if (tokens == 8) multiply<8>(lane, next, ahead, ring, visit);
      }
      if (tokens == 32) multiply<32>(lane, next, ahead, ring, visit);
      skip(next.skipped);
      lane = next;
    }
  }

  // The A fragments of the products from the step-th of a window on.
  template <bool kAnyScale>
  MOEBENCH_DEVICE static void decode_steps(const Codes& codes, const Scales& scales, int step,
                                           std::uint32_t (&a)[kTogether][4]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      // What is not used of this is not computed.
      std::uint32_t pairs[Weights::kValues / 2];
      const auto& words = codes.words[i];
      Weights::template decode_bf16<kAnyScale>({words[0], words[1], words[2], words[3]},
                                               scales.of_row[i], pairs);
      MOEBENCH_UNROLL
      for (int k = 0; k < kTogether; ++k) {
        a[k][i] = pairs[2 * (step + k)];
        a[k][i + 2] = pairs[2 * (step + k) + 1];
      }
    }
  }

  template <int kTokens, class Visit>
  MOEBENCH_DEVICE void multiply(const Lane& lane, const Lane& next, Scales (&ahead)[kAhead],
                                Ring& ring, const Visit& visit) const {
    const int num_windows = columns_.num_windows();
    float sums[kTokens / 2] = {};
    std::uint32_t a[2][kTogether][4];
    int last = -1;  // the stage before, whose products may be under way
    MOEBENCH_NO_UNROLL
    for (int window = 0; window < num_windows; ++window) {
      const Scales scales = ahead[0];
      MOEBENCH_UNROLL
      for (int i = 0; i + 1 < kAhead; ++i) ahead[i] = ahead[i + 1];
      if (window + kAhead < num_windows) {
        fetch(lane, window + kAhead, ahead[kAhead - 1]);
      } else if (next.product >= 0) {
        fetch(next, window + kAhead - num_windows, ahead[kAhead - 1]);
      }
      bool simple = true;
      MOEBENCH_UNROLL
      for (int i = 0; i < kLaneRows; ++i) simple &= scales.of_row[i] <= Weights::kMostSimple;
      const bool all_simple = gpu::all(gpu::kAllLanes, simple);
      gpu::mbarrier_wait(&ring.full[ring.stage], ring.parity);
      Codes codes;
      read_codes(window, ring.stage, codes);
      MOEBENCH_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        if (half > 0 && columns_.is_half(window)) break;
        const std::uint64_t tokens =
            ring.tokens + static_cast<std::uint64_t>(ring.stage) * kStage + half * kTokenTile;
        MOEBENCH_UNROLL
        for (int k = 0; k < 4; k += kTogether) {
          // Never taken: without a branch ptxas serializes the products of formats of 8 bits.
          if (kHalves == 1 && k == 2 && columns_.cols < 0) break;
          auto& weights = a[(4 * half + k) / kTogether % 2];
          if (all_simple) {
            decode_steps<false>(codes, scales, 4 * half + k, weights);
          } else {
            decode_steps<true>(codes, scales, 4 * half + k, weights);
          }
          gpu::wgmma_fence(sums, weights);
          MOEBENCH_UNROLL
          for (int together = 0; together < kTogether; ++together) {
            gpu::wgmma_bf16(sums, weights[together], tokens + 2 * (k + together));
          }
          gpu::wgmma_commit();
          // The products before these: their fragments, and in time their stage, are free. The
          // codes are named so that nothing is decoded to there earlier.
          gpu::wgmma_wait<1>(sums, codes.words);
          if (half == 0 && k == 0 && last >= 0) ring.release(last);
        }
      }
      last = ring.stage;
      ring.advance();
    }
    gpu::wgmma_wait<0>(sums);
    ring.release(last);
    if (num_windows < kAhead) fetch_first(next, ahead);

    Product product{.index = lane.product, .tile = {}, .first_row = 0};
    find(product);
    const EncodedMatrix matrix = matrix_of(stack_, product.tile.expert);
    const int row = group_row(product) + row_in_tile();
    if (row >= matrix.rows) return;
    const float factor = Weights::row_factor(row_of(matrix, row));
    const float next_factor = Weights::row_factor(row_of(matrix, row + 1));
    const auto begun = visit.begin(product.tile, row);
    MOEBENCH_UNROLL
    for (int j = 0; j < kTokens / 8; ++j) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int i = 8 * j + gpu::lane_id() % 4 * 2 + c;
        if (i >= product.tile.count) continue;
        visit.end(product.tile, i, begun, sums[4 * j + c] * factor,
                  sums[4 * j + 2 + c] * next_factor);
      }
    }
  }

  Stack stack_;
  Groups groups_;
  Columns<kFormat> columns_;
  int row_tiles_;
  uint4* stages_;
};

// ---- Kernels ------------------------------------------------------------------------------------

// Of a row and the next.
MOEBENCH_DEVICE float2 load_biases(const float* of_all, const Tile& tile, int rows, int row) {
  const float* of_row = of_all + static_cast<std::int64_t>(tile.expert) * rows + row;
  return {gpu::load_constant(of_row), gpu::load_constant(of_row + 1)};
}

// Where a row's outputs go is found once, and not for each token: that costs a division.
template <Format kFormat>
struct Activate {
  const float* bias;  // of all experts
  int rows;           // of gate_up
  float alpha;
  float limit;
  std::uint16_t* activated;

  struct Begun {
    float2 biases;
    std::uint16_t* to;  // of the tile's first token
  };
  MOEBENCH_DEVICE Begun begin(const Tile& tile, int row) const {
    const Columns<kFormat> columns{rows / 2};
    return {load_biases(bias, tile, rows, row),
            activated + static_cast<std::int64_t>(tile.first) * columns.width() +
                columns.position_of(row / 2)};
  }
  MOEBENCH_DEVICE void end(const Tile&, int i, const Begun& begun, float gate, float up) const {
    begun.to[i * padded_columns(rows / 2)] =
        gpu::float_to_bf16(swiglu(gate + begun.biases.x, up + begun.biases.y, alpha, limit));
  }
};

struct Project {
  const float* bias;
  int rows;
  const int* pairs;
  float* projected;

  struct Begun {
    float2 biases;
    float* to;  // of pair 0
  };
  MOEBENCH_DEVICE Begun begin(const Tile& tile, int row) const {
    return {load_biases(bias, tile, rows, row), projected + row};
  }
  MOEBENCH_DEVICE void end(const Tile& tile, int i, const Begun& begun, float first,
                           float second) const {
    const int pair = pairs[tile.first + i];
    *reinterpret_cast<float2*>(begun.to + static_cast<std::int64_t>(pair) * rows) = {
        first + begun.biases.x, second + begun.biases.y};
  }
};

template <Format kFormat, int kMostTokens, int kMultipliers>
__global__ void MOEBENCH_BOUNDS(kThreads<kMultipliers>, 1)
    activate_tiles(Groups groups, Stack gate_up, MOEBENCH_GRID_CONSTANT gpu::TensorMap x,
                   MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Activate<kFormat> activate) {
  RegisterProducts<kFormat, kMostTokens, kMultipliers>(gate_up, groups).run(x, codes, activate);
}

template <Format kFormat, int kMostTokens, int kMultipliers>
__global__ void MOEBENCH_BOUNDS(kThreads<kMultipliers>, 1)
    project_tiles(Groups groups, Stack down, MOEBENCH_GRID_CONSTANT gpu::TensorMap activated,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Project project) {
  RegisterProducts<kFormat, kMostTokens, kMultipliers>(down, groups).run(activated, codes, project);
}

// Tokens of a tile: few if experts can be expected to have few. With 32 of them on average, many
// have more, and would be two tiles (256 tokens of gpt-oss-20b on an H200: 11.7 ms a step instead
// of 13.2). With 64 of them many have a few more, for which 96 are enough.
int tile_tokens(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > 90 * num_experts ? 128 : num_pairs > 24 * num_experts ? 96 : 32;
}

// Rows as wide as whole stages.
GroupedScratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t num_experts,
                            std::int64_t hidden_size, std::int64_t intermediate_size) {
  const auto width = [](std::int64_t cols) { return padded_columns(static_cast<int>(cols)); };
  return take_grouped_scratch(workspace, num_pairs, num_experts, width(hidden_size),
                              width(intermediate_size), tile_tokens(num_pairs, num_experts));
}

template <Format kFormat, int kMostTokens, int kMultipliers>
void launch_all(const Args& args, Context& context) {
  using Products = RegisterProducts<kFormat, kMostTokens, kMultipliers>;
  const Sizes sizes = sizes_of(args);
  Workspace workspace(context.workspace);
  const GroupedScratch scratch = take_scratch(workspace, sizes.num_pairs, sizes.num_experts,
                                              sizes.hidden_size, sizes.intermediate_size);
  const auto config = [&](std::int64_t rows) {
    const std::int64_t products = most_tiles(sizes.num_pairs, sizes.num_experts, kMostTokens) *
                                  Products::num_row_tiles(static_cast<int>(rows));
    return gpu::LaunchConfig{.grid = {static_cast<unsigned>(
                                 std::min<std::int64_t>(products, gpu::device_info().num_sms))},
                             .block = kThreads<kMultipliers>,
                             .shared_bytes = Products::kBytes,
                             .stream = context.stream};
  };
  const auto tiles_of = [&](const std::uint16_t* tokens, int cols) {
    const int width = padded_columns(cols);
    return gpu::device().make_tensor_map({.data = tokens,
                                          .rows = sizes.num_pairs,
                                          .columns = width,
                                          .row_bytes = 2 * std::int64_t{width},
                                          .tile_rows = Products::kBoxTokens,
                                          .tile_columns = kTileCols});
  };
  const auto codes_of = [&](const MatrixStackView& stack) {
    const std::int64_t row_bytes = stack.cols * 16 / gpu::DeviceFormat<kFormat>::kValues;
    return gpu::device().make_tensor_map({.data = stack.data,
                                          .element_bytes = 1,
                                          .rows = stack.count * stack.rows,
                                          .columns = row_bytes,
                                          .row_bytes = row_bytes,
                                          .tile_rows = Products::kBoxRows,
                                          .tile_columns = Products::kBoxBytes,
                                          .swizzle = 0});
  };
  launch_sort(args, context, {kMostTokens}, scratch.groups);
  launch_gather_columns<kFormat>(args, context, scratch);
  gpu::launch(activate_tiles<kFormat, kMostTokens, kMultipliers>, config(args.gate_up.rows),
              "moe_experts/cuda_grouped_registers_bf16 (gate, up)", scratch.groups,
              device_stack(args.gate_up), tiles_of(scratch.x, sizes.hidden_size),
              codes_of(args.gate_up),
              Activate<kFormat>{args.gate_up_bias.data, static_cast<int>(args.gate_up.rows),
                                args.swiglu_alpha, args.swiglu_limit, scratch.activated});
  gpu::launch(
      project_tiles<kFormat, kMostTokens, kMultipliers>, config(args.down.rows),
      "moe_experts/cuda_grouped_registers_bf16 (down)", scratch.groups, device_stack(args.down),
      tiles_of(scratch.activated, sizes.intermediate_size), codes_of(args.down),
      Project{args.down_bias.data, sizes.hidden_size, scratch.groups.pairs, scratch.projected});
  launch_combine(args, context, scratch.projected);
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.gate_up.format, [&](auto format) {
    if constexpr (kTakes<format()>) {
      switch (tile_tokens(args.expert_ids.size(), args.gate_up.count)) {
        case 128:
          return launch_all<format(), 128, 3>(args, context);
        case 96:
          return launch_all<format(), 96, 3>(args, context);
        default:
          return launch_all<format(), 32, 4>(args, context);
      }
    } else {
      cuda_grouped_wgmma_bf16.run(args, context);
    }
  });
}

}  // namespace

const Variant cuda_grouped_registers_bf16 = {
    .name = "cuda_grouped_registers_bf16",
    .backend = "cuda",
    .summary = "pairs sorted by expert, weights of 4 and 8 bits decoded in wgmma's registers",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported =
        [](const Problem& problem) { return cuda_grouped_wgmma_bf16.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          Workspace workspace;
          take_scratch(workspace, problem.num_tokens * problem.top_k, problem.num_experts,
                       problem.hidden_size, problem.intermediate_size);
          return std::max(workspace.used(),
                          cuda_grouped_wgmma_bf16.workspace_bytes(problem, num_threads));
        },
    .run = run,
};

}  // namespace moebench::moe_experts
