// cuda_grouped_mma_bf16: many tokens, on any GPU with bf16 tensor cores. Pairs are sorted by expert
// and cut into tiles (grouping.cuh); a block multiplies a tile of one expert's tokens with 128 rows
// of its weights, 64 columns at a time, and drops what lies past the expert's last token. Gate and
// up rows end in the activation, which is kept in sorted order; down rows in an output per pair,
// and a last kernel adds up each token's slots in order.
//
// Copies run several steps ahead through a ring in shared memory: tokens as bf16, and weights as
// they are encoded. In each step a block multiplies one tile of decoded weights
// while it decodes the next one from the ring, so that a step has one barrier. A thread decodes the
// bytes that it copied itself. Weights that are bf16 already need none of this.
//
// A row of a tile is 128 bytes, whose 16-byte chunk c lies at chunk c ^ (row % 8): so that the
// eight rows that ldmatrix reads at once lie in different banks.
//
// Each output is one sum over columns in order, by the same instruction whatever the number of
// tokens: it does not depend on the batch.
#include <algorithm>

#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / gpu::kWarp;
constexpr int kRows = 128;               // of weights, in a tile
constexpr int kCols = 64;                // of a step
constexpr int kChunks = kCols / 8;       // of 16 bytes, in a row of bf16
constexpr int kSharedBytes = 112 << 10;  // half of what an SM of sm_90 has

// Where a chunk of a row lies in a tile, in units of 16 bytes.
MOEBENCH_DEVICE int place(int row, int chunk) { return row * kChunks + (chunk ^ (row % 8)); }

template <Format kFormat, int kTokens>
class TileProduct {
  using Weights = gpu::DeviceFormat<kFormat>;
  static constexpr bool kDecodes = kFormat != Format::kBf16;
  static constexpr int kRowPieces = kCols / Weights::kValues;  // of 16 encoded bytes
  static constexpr int kPieces = kRows * kRowPieces / kThreads;
  static constexpr int kTokenCopies = kTokens * kChunks / kThreads;

  // In units of 16 bytes.
  static constexpr int kTokenTile = kTokens * kChunks;
  static constexpr int kEncodedTile = kRows * kRowPieces;
  static constexpr int kStage = kTokenTile + kEncodedTile;
  static constexpr int kDecodedTile = kRows * kChunks;
  static constexpr int kDecoded = kDecodes ? 2 * kDecodedTile : 0;
  static constexpr int kStages = std::clamp((kSharedBytes / 16 - kDecoded) / kStage, 3, 8);

  // A warp's part of the tile.
  static constexpr int kWarpTokens = kTokens < 64 ? kTokens : 64;
  static constexpr int kWarpsByTokens = kTokens / kWarpTokens;
  static constexpr int kWarpRows = kRows / (kWarps / kWarpsByTokens);
  static constexpr int kTokenTiles = kWarpTokens / 16;
  static constexpr int kRowTiles = kWarpRows / 8;

 public:
  static constexpr std::size_t kBytes = sizeof(uint4) * (kDecoded + kStages * kStage);
  static constexpr int kBlocksPerSm = kBytes > kSharedBytes ? 1 : 2;

  // Rows [first_row, first_row + kRows) of the matrix, with `count` tokens.
  MOEBENCH_DEVICE TileProduct(const EncodedMatrix& matrix, int first_row, int count)
      : matrix_(matrix),
        first_row_(first_row),
        count_(count),
        num_steps_((matrix.cols + kCols - 1) / kCols),
        decoded_(reinterpret_cast<uint4*>(gpu::dynamic_shared())),
        ring_(decoded_ + kDecoded) {}

  // Multiplies with rows of bf16 in the order of input_position, one after the other, and calls
  // visit(i, row, product of row, product of row + 1) for tokens i < count and even rows.
  template <class Visit>
  MOEBENCH_DEVICE void run(const std::uint16_t* tokens, Visit&& visit) {
    MOEBENCH_UNROLL
    for (int s = 0; s < kStages - 1; ++s) copy(s, tokens);
    std::uint32_t scales[kPieces];
    load_scales(0, scales);
    gpu::wait_copies<kStages - 2>();
    decode(0, scales);

    float sums[kTokenTiles][kRowTiles][4] = {};
    MOEBENCH_NO_UNROLL
    for (int step = 0; step < num_steps_; ++step) {
      load_scales(step + 1, scales);
      gpu::wait_copies<kStages - 3>();
      // This step's tiles are complete, and all are done with those of the step before.
      gpu::sync_threads();
      copy(step + kStages - 1, tokens);
      multiply(step, sums);
      decode(step + 1, scales);
    }
    report(sums, visit);
  }

 private:
  MOEBENCH_DEVICE int token_of_warp() const {
    return gpu::warp_id() % kWarpsByTokens * kWarpTokens;
  }
  MOEBENCH_DEVICE int row_of_warp() const { return gpu::warp_id() / kWarpsByTokens * kWarpRows; }

  // A thread's i-th piece of encoded weights. Rows and columns past the end repeat the last ones:
  // such rows' sums are not used, and such columns of tokens are zeros.
  struct Piece {
    int row;     // of the tile
    int in_row;  // which piece of it
    int column;  // of the matrix
    gpu::EncodedRow encoded;
  };
  MOEBENCH_DEVICE Piece piece(int step, int i) const {
    const int index = i * kThreads + static_cast<int>(threadIdx.x);
    Piece p;
    p.row = index / kRowPieces;
    p.in_row = index % kRowPieces;
    p.column = step * kCols + p.in_row * Weights::kValues;
    if (p.column >= matrix_.cols) p.column = matrix_.cols - Weights::kValues;
    const int row = first_row_ + p.row;
    p.encoded = row_of(matrix_, row < matrix_.rows ? row : matrix_.rows - 1);
    return p;
  }

  MOEBENCH_DEVICE void copy(int step, const std::uint16_t* tokens) {
    uint4* stage = ring_ + step % kStages * kStage;
    if (step < num_steps_) {
      const int chunk = static_cast<int>(threadIdx.x) % kChunks;
      const int column = step * kCols + 8 * chunk;
      const bool inside = column < matrix_.cols;
      MOEBENCH_UNROLL
      for (int i = 0; i < kTokenCopies; ++i) {
        const int token = (i * kThreads + static_cast<int>(threadIdx.x)) / kChunks;
        if (token >= count_) continue;
        gpu::copy_async(
            stage + place(token, chunk),
            tokens + token * static_cast<std::int64_t>(matrix_.cols) + (inside ? column : 0),
            inside);
      }
      MOEBENCH_UNROLL
      for (int i = 0; i < kPieces; ++i) {
        const Piece p = piece(step, i);
        const int at =
            kDecodes ? i * kThreads + static_cast<int>(threadIdx.x) : place(p.row, p.in_row);
        gpu::copy_async(stage + kTokenTile + at,
                        p.encoded.data + p.column / Weights::kValues * std::int64_t{16});
      }
    }
    gpu::commit_copies();
  }

  MOEBENCH_DEVICE void load_scales(int step, std::uint32_t (&scales)[kPieces]) const {
    if (step >= num_steps_) return;
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const Piece p = piece(step, i);
      scales[i] = Weights::load_scale(p.encoded, p.column);
    }
  }

  MOEBENCH_DEVICE void decode(int step, const std::uint32_t (&scales)[kPieces]) {
    if (!kDecodes || step >= num_steps_) return;
    const uint4* encoded = ring_ + step % kStages * kStage + kTokenTile + threadIdx.x;
    uint4* tile = decoded_ + step % 2 * kDecodedTile;
    MOEBENCH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x);
      const int row = index / kRowPieces;
      const int in_row = index % kRowPieces;
      std::uint32_t pairs[Weights::kValues / 2];
      Weights::decode_bf16(encoded[i * kThreads], scales[i], pairs);
      if constexpr (Weights::kValues == 4) {  // half a chunk
        reinterpret_cast<uint2*>(tile + place(row, in_row / 2))[in_row % 2] = {pairs[0], pairs[1]};
      } else {
        constexpr int kPieceChunks = Weights::kValues / 8;
        MOEBENCH_UNROLL
        for (int c = 0; c < kPieceChunks; ++c) {
          tile[place(row, in_row * kPieceChunks + c)] = {pairs[4 * c], pairs[4 * c + 1],
                                                         pairs[4 * c + 2], pairs[4 * c + 3]};
        }
      }
    }
  }

  MOEBENCH_DEVICE void multiply(int step, float (&sums)[kTokenTiles][kRowTiles][4]) const {
    const uint4* tokens = ring_ + step % kStages * kStage;
    const uint4* weights = kDecodes ? decoded_ + step % 2 * kDecodedTile : tokens + kTokenTile;
    const int lane = gpu::lane_id();
    if (token_of_warp() >= count_) return;
    MOEBENCH_UNROLL
    for (int k = 0; k < kCols / 16; ++k) {
      std::uint32_t b[kRowTiles][2];
      MOEBENCH_UNROLL
      for (int r = 0; r < kRowTiles; r += 2) {  // 16 rows at once
        std::uint32_t both[4];
        gpu::load_matrices(both, weights + place(row_of_warp() + 8 * r + lane % 8 + lane / 16 * 8,
                                                 2 * k + lane / 8 % 2));
        b[r][0] = both[0];
        b[r][1] = both[1];
        b[r + 1][0] = both[2];
        b[r + 1][1] = both[3];
      }
      MOEBENCH_UNROLL
      for (int t = 0; t < kTokenTiles; ++t) {
        if (token_of_warp() + 16 * t >= count_) continue;
        std::uint32_t a[4];
        gpu::load_matrices(a,
                           tokens + place(token_of_warp() + 16 * t + lane % 16, 2 * k + lane / 16));
        MOEBENCH_UNROLL
        for (int r = 0; r < kRowTiles; ++r) gpu::multiply_bf16(sums[t][r], a, b[r]);
      }
    }
  }

  template <class Visit>
  MOEBENCH_DEVICE void report(const float (&sums)[kTokenTiles][kRowTiles][4], Visit&& visit) const {
    MOEBENCH_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      const int row = first_row_ + row_of_warp() + 8 * r + gpu::lane_id() % 4 * 2;
      if (row >= matrix_.rows) continue;
      const float factor = Weights::row_factor(row_of(matrix_, row));
      const float next_factor = Weights::row_factor(row_of(matrix_, row + 1));
      MOEBENCH_UNROLL
      for (int t = 0; t < kTokenTiles; ++t) {
        MOEBENCH_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int token = token_of_warp() + 16 * t + 8 * half + gpu::lane_id() / 4;
          if (token >= count_) continue;
          visit(token, row, sums[t][r][2 * half] * factor, sums[t][r][2 * half + 1] * next_factor);
        }
      }
    }
  }

  EncodedMatrix matrix_;
  int first_row_;
  int count_;
  int num_steps_;
  uint4* decoded_;
  uint4* ring_;
};

// The tiles of a block.
MOEBENCH_DEVICE bool find_tiles(const Groups& groups, int rows, Tile& tile, int& first_row) {
  int row_tile = 0;
  const bool found =
      find_tile(groups, static_cast<int>(blockIdx.x), (rows + kRows - 1) / kRows, tile, row_tile);
  first_row = row_tile * kRows;
  return found;
}

template <Format kFormat, Format kDownFormat, int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, TileProduct<kFormat, kTokens>::kBlocksPerSm)
    activate_tiles(Sizes sizes, Groups groups, Stack gate_up, const float* gate_up_bias,
                   const std::uint16_t* x, float alpha, float limit, std::uint16_t* activated) {
  Tile tile;
  int first_row;
  if (!find_tiles(groups, gate_up.first.rows, tile, first_row)) return;
  const float* bias = gate_up_bias + static_cast<std::int64_t>(tile.expert) * gate_up.first.rows;
  TileProduct<kFormat, kTokens> product(matrix_of(gate_up, tile.expert), first_row, tile.count);
  product.run(x + static_cast<std::int64_t>(tile.first) * sizes.hidden_size,
              [&](int i, int row, float gate, float up) {
                activated[static_cast<std::int64_t>(tile.first + i) * sizes.intermediate_size +
                          input_position<kDownFormat>(row / 2)] =
                    gpu::float_to_bf16(swiglu(gate + bias[row], up + bias[row + 1], alpha, limit));
              });
}

template <Format kFormat, int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, TileProduct<kFormat, kTokens>::kBlocksPerSm)
    project_tiles(Sizes sizes, Groups groups, Stack down, const float* down_bias,
                  const std::uint16_t* activated, float* projected) {
  Tile tile;
  int first_row;
  if (!find_tiles(groups, down.first.rows, tile, first_row)) return;
  const float* bias = down_bias + static_cast<std::int64_t>(tile.expert) * sizes.hidden_size;
  TileProduct<kFormat, kTokens> product(matrix_of(down, tile.expert), first_row, tile.count);
  product.run(activated + static_cast<std::int64_t>(tile.first) * sizes.intermediate_size,
              [&](int i, int row, float first, float second) {
                const std::int64_t pair = groups.pairs[tile.first + i];
                *reinterpret_cast<float2*>(projected + pair * sizes.hidden_size + row) = {
                    first + bias[row], second + bias[row + 1]};
              });
}

// Tokens of a tile: few if experts can be expected to have few, so that the ring is deep enough for
// weights to stream.
int tile_tokens(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > 32 * num_experts ? 128 : 32;
}

std::size_t workspace_bytes(const Problem& problem, int) {
  return grouped_scratch_bytes(
      problem, tile_tokens(problem.num_tokens * problem.top_k, problem.num_experts));
}

template <Format kFormat, int kTokens>
void launch_all(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  const GroupedScratch scratch = take_grouped_scratch(context, sizes, kTokens);
  const auto blocks = [&](std::int64_t rows) {
    return static_cast<unsigned>(most_tiles(sizes.num_pairs, sizes.num_experts, kTokens) *
                                 ((rows + kRows - 1) / kRows));
  };
  constexpr std::size_t kBytes = TileProduct<kFormat, kTokens>::kBytes;
  launch_sort(args, context, {kTokens}, scratch.groups);
  launch_gather<kFormat>(args, context, scratch.groups, scratch.x);
  gpu::launch(activate_tiles<kFormat, kFormat, kTokens>,
              {.grid = {blocks(args.gate_up.rows)},
               .block = kThreads,
               .shared_bytes = kBytes,
               .stream = context.stream},
              "moe_experts/cuda_grouped_mma_bf16 (gate, up)", sizes, scratch.groups,
              device_stack(args.gate_up), args.gate_up_bias.data, scratch.x, args.swiglu_alpha,
              args.swiglu_limit, scratch.activated);
  gpu::launch(project_tiles<kFormat, kTokens>,
              {.grid = {blocks(args.down.rows)},
               .block = kThreads,
               .shared_bytes = kBytes,
               .stream = context.stream},
              "moe_experts/cuda_grouped_mma_bf16 (down)", sizes, scratch.groups,
              device_stack(args.down), args.down_bias.data, scratch.activated, scratch.projected);
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

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::needs_compute_capability(80);
  if (reason.empty()) reason = unsupported_shape(problem);
  if (!reason.empty()) return reason;
  std::size_t needed = 0;
  gpu::with_format(problem.format, [&](auto format) {
    needed = std::max(TileProduct<format(), 128>::kBytes, TileProduct<format(), 32>::kBytes);
  });
  const std::size_t most = gpu::device_info().shared_bytes_per_block;
  if (needed > most) {
    return fmt::format("its tiles take {} bytes of shared memory; a block has {}", needed, most);
  }
  return "";
}

}  // namespace

const Variant cuda_grouped_mma_bf16 = {
    .name = "cuda_grouped_mma_bf16",
    .backend = "cuda",
    .summary = "pairs sorted by expert, tiles of tokens and rows through tensor cores (mma)",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = unsupported,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
