// cuda_grouped_wgmma_bf16: many tokens, on Hopper's tensor cores. As cuda_grouped_mma_bf16, pairs
// are sorted by expert and cut into tiles, which are multiplied with tiles of 128 weight rows; but
// by wgmma, with the weights on its M side and the tokens on its N side, so that a tile may have
// few tokens.
//
// As many blocks as there are SMs walk over all products of tiles. Half of a block's warps produce:
// they copy encoded weights ahead through a ring of their own, decode them into swizzled shared
// memory, and have the tokens' tile loaded beside them. The other half multiplies: four warps take
// 64 rows each. Between them lies a ring of stages, each with a barrier that says it is full and
// one that says it is empty; it runs on from one product to the next, so that the multipliers find
// the next product's first stages ready when they have written the last one's results.
//
// Rows lie in the tile so that a thread's two accumulators of a column are rows 2i and 2i + 1: a
// gate row and its up row.
//
// Each output is one sum over columns in order. It does not depend on the batch as long as tiles
// have the same size, for which there are two choices (tile_tokens): that sums are the same with
// either is likely, but not promised by the PTX manual.
#include <algorithm>

#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kMultiplyingWarps = 8;
constexpr int kProducingWarps = 8;
constexpr int kThreads = (kMultiplyingWarps + kProducingWarps) * gpu::kWarp;
constexpr int kRows = 128;          // of weights, in a tile
constexpr int kCols = 64;           // of a stage
constexpr int kChunks = kCols / 8;  // of 16 bytes, in a row of a tile
constexpr int kStages = 4;

// What a block does next: one stage of a product of tiles.
struct Place {
  int index = 0;  // of the product
  int step = 0;   // of its columns
  Tile tile{};
  int first_row = 0;
};

template <Format kFormat, int kTokens>
class TileProducts {
  using Weights = gpu::DeviceFormat<kFormat>;
  static constexpr int kRowPieces = kCols / Weights::kValues;  // of 16 encoded bytes
  // Formats of 4 bits: two groups of producers take stages in turns, so that each thread has two
  // pieces to decode and a stage twice the time. With all of them at one stage, what a thread does
  // beside decoding its one piece was most of its instructions.
  static constexpr int kGroups = Weights::kValues == 32 ? 2 : 1;
  static constexpr int kProducers = kProducingWarps / kGroups * gpu::kWarp;  // of a stage
  static constexpr int kPieces = kRows * kRowPieces / kProducers;
  static_assert(kStages % kGroups == 0);

  // In units of 16 bytes.
  static constexpr int kWeightTile = kRows * kChunks;
  static constexpr int kTokenTile = kTokens * kChunks;
  static constexpr int kStage = kWeightTile + kTokenTile;
  static constexpr int kEncodedTile = kRows * kRowPieces;
  static constexpr int kEncodedStages =  // of a group
      std::clamp((96 << 10) / 16 / kEncodedTile, 3, 8) / kGroups;

 public:
  static constexpr std::size_t kBytes =
      sizeof(uint4) * (kStages * kStage + kGroups * kEncodedStages * kEncodedTile);

  MOEBENCH_DEVICE TileProducts(const Stack& stack, const Groups& groups)
      : stack_(stack),
        groups_(groups),
        row_tiles_((stack.first.rows + kRows - 1) / kRows),
        num_steps_((stack.first.cols + kCols - 1) / kCols),
        stages_(reinterpret_cast<uint4*>(gpu::dynamic_shared())),
        encoded_(stages_ + kStages * kStage) {}

  // Computes the block's products. `tokens`: the rows of all tiles, in order. Calls
  // visit(tile, i, row, product of row, product of row + 1) for its tokens i and even rows.
  template <class Visit>
  MOEBENCH_DEVICE void run(const gpu::TensorMap& tokens, Visit&& visit) {
    MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
    MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
    if (threadIdx.x == 0) {
      constexpr int kToFill = kProducingWarps / kGroups + 1;  // and the tokens' bytes
      gpu::init_ring(full, empty, kStages, kToFill, kMultiplyingWarps);
    }
    gpu::sync_threads();
    if (gpu::warp_id() < kMultiplyingWarps) {
      multiply(full, empty, visit);
    } else {
      produce(tokens, full, empty);
    }
  }

 private:
  // The block's first place; false if it has none.
  MOEBENCH_DEVICE bool begin(Place& place) const {
    place.index = static_cast<int>(blockIdx.x);
    place.step = 0;
    return find(place);
  }
  // The place after it; false if that was the last.
  MOEBENCH_DEVICE bool advance(Place& place) const {
    if (++place.step < num_steps_) return true;
    place.index += static_cast<int>(gridDim.x);
    place.step = 0;
    return find(place);
  }
  MOEBENCH_DEVICE bool find(Place& place) const {
    int row_tile = 0;
    const bool found = find_tile(groups_, place.index, row_tiles_, place.tile, row_tile);
    place.first_row = row_tile * kRows;
    return found;
  }

  // ---- Producers
  // --------------------------------------------------------------------------------- A thread's
  // i-th piece of encoded weights, by the row of the tile where it goes. Rows and columns past the
  // end repeat the last ones: such rows' sums are not used, and such columns of tokens are zeros.
  MOEBENCH_DEVICE static int tile_piece(int i) { return i * kProducers + producer() % kProducers; }
  MOEBENCH_DEVICE static int producer() {
    return static_cast<int>(threadIdx.x) - kMultiplyingWarps * gpu::kWarp;
  }
  // The group's first place, and the one after; false if there is none.
  MOEBENCH_DEVICE bool begin_of_group(Place& place) const {
    bool some = begin(place);
    for (int g = producer() / kProducers; g > 0 && some; --g) some = advance(place);
    return some;
  }
  MOEBENCH_DEVICE bool advance_group(Place& place) const {
    bool some = true;
    MOEBENCH_UNROLL
    for (int g = 0; g < kGroups; ++g) some = some && advance(place);
    return some;
  }
  // The rows of the thread's pieces: worked out once for a product of tiles, since 64-bit
  // arithmetic in every stage costs the producers as much as decoding does.
  struct Source {
    const unsigned char* data[kPieces];
    const unsigned char* scales[kPieces];
    float tensor_scale;
  };
  MOEBENCH_DEVICE void find_source(const Place& place, Source& source) const {
    const EncodedMatrix matrix = matrix_of(stack_, place.tile.expert);
    source.tensor_scale = matrix.tensor_scale;
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int in_tile = tile_piece(i) / kRowPieces;
      const int row = place.first_row + in_tile / 16 * 16 + in_tile % 8 * 2 + in_tile % 16 / 8;
      const gpu::EncodedRow from = row_of(matrix, row < matrix.rows ? row : matrix.rows - 1);
      source.data[i] = from.data;
      source.scales[i] = from.scales;
    }
  }
  MOEBENCH_DEVICE int column_of(int step, int i) const {
    const int column = step * kCols + tile_piece(i) % kRowPieces * Weights::kValues;
    return column < stack_.first.cols ? column : stack_.first.cols - Weights::kValues;
  }

  MOEBENCH_DEVICE void copy_encoded(const Source& source, int step, int stage) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      gpu::copy_async(encoded_ + stage * kEncodedTile + tile_piece(i),
                      source.data[i] + column_of(step, i) / Weights::kValues * 16);
    }
  }
  MOEBENCH_DEVICE void load_scales(const Source& source, int step,
                                   std::uint32_t (&scales)[kPieces]) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      scales[i] = Weights::load_scale({source.data[i], source.scales[i], source.tensor_scale},
                                      column_of(step, i));
    }
  }
  MOEBENCH_DEVICE void decode(int encoded_stage, const std::uint32_t (&scales)[kPieces],
                              uint4* tile) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int row = tile_piece(i) / kRowPieces;
      const int in_row = tile_piece(i) % kRowPieces;
      uint4* chunks = tile + row * kChunks;
      std::uint32_t pairs[Weights::kValues / 2];
      Weights::decode_bf16(encoded_[encoded_stage * kEncodedTile + tile_piece(i)], scales[i],
                           pairs);
      if constexpr (Weights::kValues == 4) {  // half a chunk
        reinterpret_cast<uint2*>(chunks + (in_row / 2 ^ row % 8))[in_row % 2] = {pairs[0],
                                                                                 pairs[1]};
      } else {
        constexpr int kPieceChunks = Weights::kValues / 8;
        MOEBENCH_UNROLL
        for (int c = 0; c < kPieceChunks; ++c) {
          chunks[(in_row * kPieceChunks + c) ^ row % 8] = {pairs[4 * c], pairs[4 * c + 1],
                                                           pairs[4 * c + 2], pairs[4 * c + 3]};
        }
      }
    }
  }

  MOEBENCH_DEVICE void produce(const gpu::TensorMap& tokens, gpu::Mbarrier* full,
                               gpu::Mbarrier* empty) {
    const int group = producer() / kProducers;
    const int first_encoded = group * kEncodedStages;
    Place to_copy;
    Source copy_source{};
    bool some_to_copy = begin_of_group(to_copy);
    int copy_product = -1;
    int copy_stage = 0;
    const auto copy_next = [&] {
      if (some_to_copy) {
        if (to_copy.index != copy_product) find_source(to_copy, copy_source);
        copy_product = to_copy.index;
        copy_encoded(copy_source, to_copy.step, first_encoded + copy_stage);
        copy_stage = copy_stage + 1 == kEncodedStages ? 0 : copy_stage + 1;
        some_to_copy = advance_group(to_copy);
      }
      gpu::commit_copies();
    };
    MOEBENCH_NO_UNROLL
    for (int s = 0; s < kEncodedStages - 1; ++s) copy_next();

    Place place;
    std::uint32_t scales[kPieces];
    if (!begin_of_group(place)) return;
    Source source{};
    find_source(place, source);
    load_scales(source, place.step, scales);
    int product = place.index;
    int encoded_stage = 0;
    int stage = group;
    unsigned parity = 1;  // of the phase in which the stage became empty: new ones are
    bool some = true;
    MOEBENCH_NO_UNROLL
    while (some) {
      gpu::wait_copies<kEncodedStages - 2>();
      copy_next();
      gpu::mbarrier_wait(&empty[stage], parity);
      uint4* weights = stages_ + stage * kStage;
      if (producer() % kProducers == 0) {
        gpu::mbarrier_arrive_expect_bytes(&full[stage], kTokenTile * 16);
        gpu::load_tile_async(weights + kWeightTile, tokens, place.step * kCols, place.tile.first,
                             &full[stage]);
      }
      std::uint32_t current[kPieces];
      MOEBENCH_UNROLL
      for (int i = 0; i < kPieces; ++i) current[i] = scales[i];
      some = advance_group(place);
      if (some && place.index != product) find_source(place, source);
      product = place.index;
      if (some) load_scales(source, place.step, scales);
      decode(first_encoded + encoded_stage, current, weights);
      gpu::fence_async_proxy();
      gpu::sync_warp();
      if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&full[stage]);
      encoded_stage = encoded_stage + 1 == kEncodedStages ? 0 : encoded_stage + 1;
      stage += kGroups;
      if (stage >= kStages) {
        stage -= kStages;
        parity ^= 1;
      }
    }
  }

  // ---- Multipliers
  // -------------------------------------------------------------------------------
  template <class Visit>
  MOEBENCH_DEVICE void multiply(gpu::Mbarrier* full, gpu::Mbarrier* empty, Visit&& visit) {
    constexpr int kGroupRows = 64;
    // Of the first stage: others lie further on by a number of 16 bytes, which is what descriptors
    // count in. From one lane, so that all that follows is known to be the warp's.
    const auto of_warp = [](const uint4* tile) {
      return gpu::shuffle(gpu::kAllLanes, gpu::wgmma_descriptor(tile), 0);
    };
    const std::uint64_t weights = of_warp(stages_ + gpu::warp_id() / 4 * kGroupRows * kChunks);
    const std::uint64_t tokens = of_warp(stages_ + kWeightTile);
    const auto release = [&](int stage) {
      gpu::sync_warp();
      if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[stage]);
    };
    Place place;
    int stage = 0;
    unsigned parity = 0;
    for (bool some = begin(place); some; some = advance(place)) {
      float sums[kTokens / 2];
      MOEBENCH_UNROLL
      for (int i = 0; i < kTokens / 2; ++i) sums[i] = 0;
      int last = 0;  // the stage before, whose products may be under way
      MOEBENCH_NO_UNROLL
      for (place.step = 0; place.step < num_steps_; ++place.step) {
        gpu::mbarrier_wait(&full[stage], parity);
        const std::uint64_t at = static_cast<std::uint64_t>(stage) * kStage;
        gpu::wgmma_fence(sums);
        MOEBENCH_UNROLL
        for (int k = 0; k < kCols / 16; ++k) {  // two chunks each
          gpu::wgmma_bf16(sums, weights + at + 2 * k, tokens + at + 2 * k);
        }
        gpu::wgmma_commit();
        if (place.step > 0) {
          gpu::wgmma_wait<1>(sums);
          release(last);
        }
        last = stage;
        if (++stage == kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
      gpu::wgmma_wait<0>(sums);
      release(last);
      report(place, sums, visit);
    }
  }

  template <class Visit>
  MOEBENCH_DEVICE void report(const Place& place, const float (&sums)[kTokens / 2],
                              Visit&& visit) const {
    const EncodedMatrix matrix = matrix_of(stack_, place.tile.expert);
    const int row = place.first_row + 16 * gpu::warp_id() + gpu::lane_id() / 4 * 2;
    if (row >= matrix.rows) return;
    const float factor = Weights::row_factor(row_of(matrix, row));
    const float next_factor = Weights::row_factor(row_of(matrix, row + 1));
    MOEBENCH_UNROLL
    for (int j = 0; j < kTokens / 8; ++j) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int i = 8 * j + gpu::lane_id() % 4 * 2 + c;
        if (i >= place.tile.count) continue;
        visit(place.tile, i, row, sums[4 * j + c] * factor, sums[4 * j + 2 + c] * next_factor);
      }
    }
  }

  Stack stack_;
  Groups groups_;
  int row_tiles_;
  int num_steps_;
  uint4* stages_;
  uint4* encoded_;
};

template <Format kFormat, Format kDownFormat, int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    activate_tiles(Sizes sizes, Groups groups, Stack gate_up, const float* gate_up_bias,
                   MOEBENCH_GRID_CONSTANT gpu::TensorMap x, float alpha, float limit,
                   std::uint16_t* activated) {
  TileProducts<kFormat, kTokens> products(gate_up, groups);
  products.run(x, [&](const Tile& tile, int i, int row, float gate, float up) {
    const float* bias = gate_up_bias + static_cast<std::int64_t>(tile.expert) * gate_up.first.rows;
    activated[static_cast<std::int64_t>(tile.first + i) * sizes.intermediate_size +
              input_position<kDownFormat>(row / 2)] =
        gpu::float_to_bf16(swiglu(gate + bias[row], up + bias[row + 1], alpha, limit));
  });
}

template <Format kFormat, int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    project_tiles(Sizes sizes, Groups groups, Stack down, const float* down_bias,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap activated, float* projected) {
  TileProducts<kFormat, kTokens> products(down, groups);
  products.run(activated, [&](const Tile& tile, int i, int row, float first, float second) {
    const float* bias = down_bias + static_cast<std::int64_t>(tile.expert) * sizes.hidden_size;
    const std::int64_t pair = groups.pairs[tile.first + i];
    *reinterpret_cast<float2*>(projected + pair * sizes.hidden_size + row) = {
        first + bias[row], second + bias[row + 1]};
  });
}

// Tokens of a tile: few if experts can be expected to have few.
int tile_tokens(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > 32 * num_experts ? 128 : 32;
}

template <Format kFormat, int kTokens>
void launch_all(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  const GroupedScratch scratch = take_grouped_scratch(context, sizes, kTokens);
  constexpr std::size_t kBytes = TileProducts<kFormat, kTokens>::kBytes;
  const auto blocks = [&](std::int64_t rows) {
    return static_cast<unsigned>(std::min<std::int64_t>(
        most_tiles(sizes.num_pairs, sizes.num_experts, kTokens) * ((rows + kRows - 1) / kRows),
        gpu::device_info().num_sms));
  };
  const auto tiles_of = [&](const std::uint16_t* tokens, int cols) {
    return gpu::device().make_tensor_map({.data = tokens,
                                          .rows = sizes.num_pairs,
                                          .columns = cols,
                                          .row_bytes = 2 * std::int64_t{cols},
                                          .tile_rows = kTokens,
                                          .tile_columns = kCols});
  };
  launch_sort(args, context, {kTokens}, scratch.groups);
  launch_gather<kFormat>(args, context, scratch.groups, scratch.x);
  gpu::launch(activate_tiles<kFormat, kFormat, kTokens>,
              {.grid = {blocks(args.gate_up.rows)},
               .block = kThreads,
               .shared_bytes = kBytes,
               .stream = context.stream},
              "moe_experts/cuda_grouped_wgmma_bf16 (gate, up)", sizes, scratch.groups,
              device_stack(args.gate_up), args.gate_up_bias.data,
              tiles_of(scratch.x, sizes.hidden_size), args.swiglu_alpha, args.swiglu_limit,
              scratch.activated);
  gpu::launch(project_tiles<kFormat, kTokens>,
              {.grid = {blocks(args.down.rows)},
               .block = kThreads,
               .shared_bytes = kBytes,
               .stream = context.stream},
              "moe_experts/cuda_grouped_wgmma_bf16 (down)", sizes, scratch.groups,
              device_stack(args.down), args.down_bias.data,
              tiles_of(scratch.activated, sizes.intermediate_size), scratch.projected);
  launch_combine(args, context, scratch.projected);
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.gate_up.format, [&](auto format) {
    if (tile_tokens(args.expert_ids.size(), args.gate_up.count) == 128) {
      launch_all<format(), 128>(args, context);
    } else {
      launch_all<format(), 32>(args, context);
    }
  });
}

std::size_t workspace_bytes(const Problem& problem, int) {
  return grouped_scratch_bytes(
      problem, tile_tokens(problem.num_tokens * problem.top_k, problem.num_experts));
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::needs_wgmma();
  return reason.empty() ? unsupported_shape(problem) : reason;
}

}  // namespace

const Variant cuda_grouped_wgmma_bf16 = {
    .name = "cuda_grouped_wgmma_bf16",
    .backend = "cuda",
    .summary = "pairs sorted by expert, weights decoded beside Hopper's tensor cores (wgmma)",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
