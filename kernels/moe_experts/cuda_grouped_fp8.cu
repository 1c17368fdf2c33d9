// cuda_grouped_fp8: MXFP4 weights and more than a few tokens, on Hopper, with both in
// float8: from steps of 6 tokens to whole prompts.
//
// Pairs are sorted by expert and cut into tiles of up to 16, 32, 64 or 96 tokens. As many blocks as
// there are SMs walk over all products of a tile of tokens and one of rows. One thread has codes
// and inputs copied through a ring of stages, each a chunk of 128 columns or two: 64 bytes of each
// row by TMA, or 128, and of the inputs one run of memory, since the kernel before has laid them
// out as wgmma wants its B. Groups of four warps decode 64 rows each in the registers of wgmma.
//
// Weights, in tiles of up to 32 tokens: a code's bits are E4M3's of its value over 2^6, so decoding
// moves bits (0.8 instructions a weight). A product of 32 columns is a block that shares a scale:
// its sums, which the tensor cores keep short, are scaled and added up as floats. In larger tiles
// that would take as many instructions as there is time for: there the scales of a chunk's blocks
// are folded in, by PRMT from a table of eight bytes (1.1 instructions a weight), and its sums are
// added up once. Lane t of a quad decodes block t of such a chunk. Of eight codes of a block, the
// even columns come first.
//
// Inputs: two digits of E4M3, x times a power of two that a token has for its row, and what the
// first digit leaves. They have the 8 bits of a bf16 down to 2^-8 of the row's largest number;
// below, at most 2^-16 of that is lost. Both digits are multiplied by the same registers of weights
// and into the same sums.
//
// An H200's wgmma with A in registers runs beside other instructions without loss. A loop of what
// is decoded and multiplied, without memory: 192 rows and 96 tokens 1,249 cycles a chunk, of which
// the tensor cores need 1,152 (cuda_grouped_registers_bf16 takes about 2,700).
//
// Rows g and g + 8 of a warp's 16 are two that follow each other in memory, a gate row and its up
// row; half of the quads take the second first, and the copies exchange 16 bytes of rows (swizzle),
// so that a warp's lanes meet all banks of shared memory.
//
// Of tiles of more than 32 tokens, an expert's outputs go to memory as bf16, half the bytes that
// are written and read again to be added up: an error of some 2e-6 of their energy.
//
// A sum is one over columns in order, the same in all tiles of up to 32 tokens and in all larger
// ones. In two variants that do not round outputs and differ in how they sum a token has the same
// bits in any batch: cuda_grouped_chunks_fp8 folds scales in tiles of all sizes,
// cuda_grouped_blocks_fp8 in none, which takes more instructions in large ones.
// cuda_grouped_short_fp8 has cuda_grouped_fp8's bits, and copies 64 bytes of a row in tiles of up
// to 32 tokens, too, where the others have stages of two chunks: the second-level cache looks up
// each piece, and on an H200 was busiest of all (128 tokens of 120b: 558 us instead of 520).
// cuda_grouped_folded_32_fp8 folds scales in tiles of 32 tokens, too. cuda_grouped_ahead_fp8 has
// cuda_grouped_fp8's bits, and decodes beside products in tiles of up to 32, where ptxas otherwise
// decodes behind each wait for one.
// Other formats and other shapes run as cuda_grouped_registers_bf16.
#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>

#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/float8_chunks.cuh"
#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kMostScaleBytes = kMostColumns / 32;  // of a row
constexpr int kMostStageChunks = 2;

// ---- Inputs -------------------------------------------------------------------------------------

// Digits of all sorted pairs, [chunk][slot] of kPartBytes; a tile's slots follow each other.
struct Inputs {
  struct Token {
    float factor;  // what its products are to be multiplied by
    int pair;
  };
  unsigned char* digits;
  Token* tokens;  // [slot][8]
  int num_slots;

  // Tiles begin in different slots: of a tile of n pairs, the next one begins n pairs and a tile
  // on.
  MOEBENCH_DEVICE static int first_slot(const Tile& tile, int index) {
    return tile.first / 8 + index;
  }
  MOEBENCH_DEVICE unsigned char* at(int chunk, int slot) const {
    return digits + (static_cast<std::int64_t>(chunk) * num_slots + slot) * kPartBytes;
  }
};

// Warps of a block. Few tokens are few blocks, which wait more than they compute: a warp a chunk.
template <int kMostTokens>
constexpr int kDigitWarps = kMostTokens > 32 ? 8 : kMostChunks;

// Four columns that follow each other, as they lie in memory.
template <class Value>
using Four = std::conditional_t<std::is_same_v<Value, float>, float4, uint2>;

MOEBENCH_DEVICE float number(const float4& four, int j) {  // j: known to the compiler
  return j == 0 ? four.x : j == 1 ? four.y : j == 2 ? four.z : four.w;
}
MOEBENCH_DEVICE float number(const uint2& four, int j) {
  const std::uint32_t word = j < 2 ? four.x : four.y;
  return j % 2 == 0 ? gpu::low_bf16(word) : gpu::high_bf16(word);
}

// A block writes the digits of a part: of eight sorted pairs. A pair's row: of its token if there
// are top_k pairs a token, or the one in its place of the sorted list (top_k: 0). Past the end,
// zeros up to whole chunks, and for tokens that a tile does not have.
//
// A warp takes every kWarps-th chunk of all eight tokens. It loads whole lines: 32 columns of four
// tokens, and those of the other four. In a unit of 8 columns a lane has the first or the last
// four, of tokens i and i + 4; it exchanges two words of one token with the lane that has the
// others, and then has all of one token's unit, of each 32 columns of the chunk. Of a product, four
// lanes multiply a token's 16 bytes: each with a block of the chunk, which all are in one lane, or
// where scales are not folded each with a unit. A warp writes whole lines.
template <bool kFolds, int kWarps, class Value>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp, kWarps > 8 ? 1 : 2)
    write_digits(Groups groups, int most_tokens, int top_k, int cols, const Value* x,
                 Inputs inputs) {
  constexpr int kChunks = kMostChunks / kWarps;  // of a warp
  MOEBENCH_SHARED(float4, largest, [8][kWarps / 4]);
  gpu::wait_for_previous_kernel();
  gpu::let_next_kernel_start();
  const int parts = most_tokens / 8;
  const int index = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  const int num_tiles = groups.num_tiles[0];
  const Tile tile = groups.tiles[index];  // there is room for it, if there is no tile
  if (index >= num_tiles || 8 * part >= tile.count) return;
  const int own = gpu::lane_id() % 2;  // which of its two tokens the lane will have
  const int unit = gpu::lane_id() / 2 % 4;
  int pairs[2];
  Four<Value> values[kChunks][2][4] = {};  // [][token][32 columns]
  MOEBENCH_UNROLL
  for (int k = 0; k < 2; ++k) {
    const int i = 8 * part + gpu::lane_id() / 8 + 4 * k;
    const bool is_there = i < tile.count;
    pairs[k] = is_there ? groups.pairs[tile.first + i] : 0;
    const int row = top_k == 0 ? tile.first + i : pairs[k] / top_k;
    const int first_column = gpu::warp_id() * kChunk;
    const Value* from =
        x + static_cast<std::int64_t>(row) * cols + first_column + unit * 8 + own * 4;
    const int left = (is_there ? cols : 0) - first_column;
    MOEBENCH_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      MOEBENCH_UNROLL
      for (int r = 0; r < 4; ++r) {
        const int further = c * kWarps * kChunk + r * 32;
        if (further < left) {
          values[c][k][r] = *reinterpret_cast<const Four<Value>*>(from + further);
        }
      }
    }
  }
  MOEBENCH_UNROLL
  for (int k = 0; k < 2; ++k) {
    float most = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      MOEBENCH_UNROLL
      for (int r = 0; r < 4; ++r) {
        MOEBENCH_UNROLL
        for (int j = 0; j < 4; ++j) most = fmaxf(most, fabsf(number(values[c][k][r], j)));
      }
    }
    MOEBENCH_UNROLL
    for (int lanes = 1; lanes < 8; lanes *= 2) {
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, lanes));
    }
    if (gpu::lane_id() % 8 == 0) {
      reinterpret_cast<float*>(largest[gpu::lane_id() / 8 + 4 * k])[gpu::warp_id()] = most;
    }
  }
  gpu::sync_threads();
  int exponents[2];
  float factors[2];
  MOEBENCH_UNROLL
  for (int k = 0; k < 2; ++k) {
    float most = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps / 4; ++w) {
      const float4 four = largest[gpu::lane_id() / 8 + 4 * k][w];
      most = fmaxf(fmaxf(fmaxf(most, four.x), four.y), fmaxf(four.z, four.w));
    }
    exponents[k] = exponent_of(most);
    factors[k] = digits_factor(exponents[k]);
  }
  const int slot = Inputs::first_slot(tile, index) + part;
  const int token = gpu::lane_id() / 8 + 4 * own;
  if (gpu::warp_id() == 0 && unit == 0) {
    inputs.tokens[8 * slot + token] = {
        products_factor<kFolds>(own == 0 ? exponents[0] : exponents[1]),
        own == 0 ? pairs[0] : pairs[1]};
  }
  MOEBENCH_UNROLL
  for (int c = 0; c < kChunks; ++c) {
    const int chunk = c * kWarps + gpu::warp_id();
    if (chunk >= num_chunks(cols)) break;
    std::uint32_t words[2][2][4];  // [digit][even columns, odd][32 columns]
    MOEBENCH_UNROLL
    for (int r = 0; r < 4; ++r) {
      MOEBENCH_UNROLL
      for (int half = 0; half < 2; ++half) {
        std::uint32_t digits[2];
        MOEBENCH_UNROLL
        for (int k = 0; k < 2; ++k) {
          const Four<Value>& four = values[c][k][r];
          digits[k] = both_digits(number(four, half), number(four, half + 2), factors[k]);
        }
        const std::uint32_t mine = own == 0 ? digits[0] : digits[1];
        const std::uint32_t others =
            gpu::shuffle_xor(gpu::kAllLanes, own == 0 ? digits[1] : digits[0], 1);
        words[0][half][r] = gpu::byte_permute(mine, others, own == 0 ? 0x5410U : 0x1054U);
        words[1][half][r] = gpu::byte_permute(mine, others, own == 0 ? 0x7632U : 0x3276U);
      }
    }
    unsigned char* to = inputs.at(chunk, slot) + token * 16;
    MOEBENCH_UNROLL
    for (int digit = 0; digit < 2; ++digit) {
      MOEBENCH_UNROLL
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t(&w)[4] = words[digit][half];
        unsigned char* at = to + digit * kDigitBytes + half * kHalfBytes;
        if constexpr (kFolds) {
          *reinterpret_cast<uint4*>(at + unit * kProductBytes) = {w[0], w[1], w[2], w[3]};
        } else {
          MOEBENCH_UNROLL
          for (int r = 0; r < 4; ++r) {
            *reinterpret_cast<std::uint32_t*>(at + r * kProductBytes + unit * 4) = w[r];
          }
        }
      }
    }
  }
}

// ---- Products of tiles --------------------------------------------------------------------------

// Few tokens: four. Five have more warps to hide what each waits for, and gpt-oss's rows are
// multiples of 320, but on an H200 32 and 128 tokens of 20b take 177 and 208 us instead of 158 and
// 196 (128 of 120b 555 instead of 562).
template <int kMostTokens>
constexpr int kUsualGroups = kMostTokens > 32 ? 3 : 4;

// kMostTokens: of a tile. kFolds: scales into weights. kStageChunks: of a stage of the ring.
// kGroups: of four warps that multiply, each with 64 rows; one more has things copied, and gives
// them registers. kAhead, where scales are not folded: whether ptxas must decode a product's codes
// before it waits for the last product.
template <int kMostTokens, bool kFolds, int kStageChunks = 1,
          int kGroups = kUsualGroups<kMostTokens>, bool kAhead = false>
class Float8Products {
 public:
  static constexpr int kThreads = (kGroups + 1) * kGroupThreads;
  static constexpr int kRows = kGroups * kGroupRows;

 private:
  // The thread that has things copied would not keep all in 32 with fewer groups.
  static constexpr int kMoreToLoad = kGroups < 4 && (kStageChunks == 2 || !kFolds) ? 8 : 0;
  static constexpr int kMultiplierRegisters = (kGroups == 2   ? 208
                                               : kGroups == 3 ? 160
                                                              : 112) -
                                              kMoreToLoad;
  static constexpr int kLoaderRegisters = 32 + kMoreToLoad;
  // What a block has at its start, whose threads have as many as the compiler can give them.
  static_assert(kGroupThreads * (kGroups * kMultiplierRegisters + kLoaderRegisters) <=
                65536 / kThreads / 8 * 8 * kThreads);
  static constexpr int kMostParts = kMostTokens / 8;
  static constexpr int kInputBytes = kMostParts * kPartBytes;  // of a chunk
  // Of a stage. Its rows are as long as the swizzle with which they are copied: 64 or 128 bytes.
  static constexpr int kRowBytes = kStageChunks * kChunkBytes;
  static_assert(kStageChunks == 1 || kStageChunks == kMostStageChunks);
  static constexpr int kCodeBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kCodeBytes + kStageChunks * kInputBytes;
  static constexpr int kScaleBytes = kRows * kMostScaleBytes;  // of a tile
  static constexpr int kStages = std::min(12, ((222 << 10) - 2 * kScaleBytes) / kStageBytes);

  using Product = TileProduct;  // of no tokens after the last one

  struct Shared {
    alignas(1024) unsigned char stages[kStages][kStageBytes];  // codes, inputs
    // Of this product and the next.
    alignas(16) unsigned char scales[2][kScaleBytes];
    alignas(16) float biases[2][kRows];
    alignas(16) Inputs::Token tokens[2][kMostTokens];
    Product products[2];
    uint2 tables[kFolds ? kTables : 1];
    gpu::Mbarrier full[kStages];
    gpu::Mbarrier empty[kStages];
    gpu::Mbarrier scales_full[2];
    gpu::Mbarrier scales_empty[2];
  };

 public:
  static constexpr std::size_t kBytes = sizeof(Shared);

  // `biases`: of all experts' rows.
  MOEBENCH_DEVICE Float8Products(const Stack& stack, const float* biases, const Groups& groups,
                                 const Inputs& inputs)
      : stack_(stack),
        biases_(biases),
        groups_(groups),
        inputs_(inputs),
        row_tiles_(num_row_tiles(stack.first.rows)),
        num_chunks_(num_chunks(stack.first.cols)),
        num_steps_((num_chunks_ + kStageChunks - 1) / kStageChunks),
        s_(*reinterpret_cast<Shared*>(gpu::dynamic_shared())) {}

  MOEBENCH_HOST_DEVICE static int num_row_tiles(int rows) { return (rows + kRows - 1) / kRows; }

  // Computes the block's products. `codes`: the bytes of all experts' rows. For each even row of a
  // thread calls visit.begin(tile, row, its first token), and with what that gives, for that token
  // and the next (c: 1) visit.end(output, c, pair, output of row, of row + 1), and visit.advance to
  // the one eight further on, and so on. Tiles, codes, scales and biases must be there when the
  // kernel starts, inputs when the one before it has ended.
  template <class Visit>
  MOEBENCH_DEVICE void run(const gpu::TensorMap& codes, const Visit& visit) {
    if (threadIdx.x == 0) {
      constexpr int kWarps = kGroups * 4;
      gpu::init_ring(s_.full, s_.empty, kStages, 1, kWarps);
      gpu::init_ring(s_.scales_full, s_.scales_empty, 2, 1, kWarps);
    }
    if constexpr (kFolds) make_tables<kThreads>(s_.tables);
    gpu::sync_threads();
    if (gpu::warp_id() < kGroups * 4) {
      gpu::raise_max_registers<kMultiplierRegisters>();
      gpu::wait_for_previous_kernel();
      multiply_all(visit);
    } else {
      gpu::lower_max_registers<kLoaderRegisters>();
      if (threadIdx.x == kGroups * kGroupThreads) load_all(codes);
    }
  }

 private:
  MOEBENCH_DEVICE bool find(Product& product) const {
    return find_product<kRows>(groups_, row_tiles_, product);
  }
  MOEBENCH_DEVICE bool advance(Product& product) const {
    product.index += static_cast<int>(gridDim.x);
    return find(product);
  }
  // The numbers of tokens of the wgmma that as many take, or fewer. Each is code of its own: with
  // three ptxas keeps values in local memory, but where scales are not folded.
  static constexpr int kFewer = kMostTokens == 96             ? 64
                                : kMostTokens == 32 && kFolds ? 24
                                                              : kMostTokens / 2;
  static constexpr int kMiddle = kMostTokens == 32 ? 24 : kFewer;
  MOEBENCH_DEVICE static int product_tokens(int count) {
    return count > kMiddle ? kMostTokens : count > kFewer ? kMiddle : kFewer;
  }

  // ---- Copies, by one thread
  MOEBENCH_DEVICE static int num_parts(const Product& product) {
    return product_tokens(product.tile.count) / 8;
  }
  MOEBENCH_DEVICE static int token_bytes(const Product& product) {
    return num_parts(product) * 8 * static_cast<int>(sizeof(Inputs::Token));
  }
  // With the first step come its tokens. Past the last chunk of a row, codes are zeros and inputs
  // anything: they are not multiplied.
  MOEBENCH_DEVICE void load_codes(const gpu::TensorMap& codes, const Product& product, int step,
                                  int stage) const {
    const int boxes =
        (min(stack_.first.rows - product.first_row, kRows) + kGroupRows - 1) / kGroupRows;
    const int row = product.tile.expert * stack_.first.rows + product.first_row;
    gpu::mbarrier_arrive_expect_bytes(&s_.full[stage],
                                      boxes * kGroupRows * kRowBytes +
                                          kStageChunks * num_parts(product) * kPartBytes +
                                          (step == 0 ? token_bytes(product) : 0));
    for (int box = 0; box < boxes; ++box) {
      gpu::load_tile_async(s_.stages[stage] + box * kGroupRows * kRowBytes, codes, step * kRowBytes,
                           row + box * kGroupRows, &s_.full[stage]);
    }
  }
  MOEBENCH_DEVICE void load_inputs(const Product& product, int step, int stage, int place) const {
    const int slot = Inputs::first_slot(product.tile, product.index / row_tiles_);
    if (step == 0) {
      gpu::copy_bulk_async(s_.tokens[place], inputs_.tokens + 8 * slot, token_bytes(product),
                           &s_.full[stage]);
    }
    MOEBENCH_UNROLL
    for (int c = 0; c < kStageChunks; ++c) {
      gpu::copy_bulk_async(s_.stages[stage] + kCodeBytes + c * kInputBytes,
                           inputs_.at(step * kStageChunks + c, slot),
                           num_parts(product) * kPartBytes, &s_.full[stage]);
    }
  }
  // Tells the others of a product, and has the scales and biases of its rows copied.
  MOEBENCH_DEVICE void begin_product(const Product& product, const RingTurn<2>& turn) const {
    gpu::Mbarrier* full = &s_.scales_full[turn.stage];
    gpu::mbarrier_wait(&s_.scales_empty[turn.stage], turn.parity ^ 1);  // new ones are
    s_.products[turn.stage] = product;
    if (product.tile.count == 0) return gpu::mbarrier_arrive(full);
    const EncodedMatrix matrix = matrix_of(stack_, product.tile.expert);
    const int rows = min(matrix.rows - product.first_row, kRows);
    const int scale_bytes = rows * static_cast<int>(matrix.row_scale_bytes);
    const int bias_bytes = rows * static_cast<int>(sizeof(float));
    gpu::mbarrier_arrive_expect_bytes(full, scale_bytes + bias_bytes);
    gpu::copy_bulk_async(s_.scales[turn.stage], row_of(matrix, product.first_row).scales,
                         scale_bytes, full);
    gpu::copy_bulk_async(
        s_.biases[turn.stage],
        biases_ + static_cast<std::int64_t>(product.tile.expert) * matrix.rows + product.first_row,
        bias_bytes, full);
  }
  MOEBENCH_DEVICE void load_all(const gpu::TensorMap& codes) const {
    Product product{};
    product.index = static_cast<int>(blockIdx.x);
    RingTurn<kStages> turn;
    RingTurn<2> scales_turn;
    if (!find(product)) return begin_product({}, scales_turn);
    begin_product(product, scales_turn);
    // Codes do not wait for the kernel before.
    int step = 0;
    for (; step < min(kStages, num_steps_); ++step) load_codes(codes, product, step, step);
    gpu::wait_for_previous_kernel();
    for (int before = 0; before < step; ++before) {
      load_inputs(product, before, before, scales_turn.stage);
      turn.advance();
    }
    while (true) {
      for (; step < num_steps_; ++step) {
        gpu::mbarrier_wait(&s_.empty[turn.stage], turn.parity ^ 1);
        load_codes(codes, product, step, turn.stage);
        load_inputs(product, step, turn.stage, scales_turn.stage);
        turn.advance();
      }
      scales_turn.advance();
      if (!advance(product)) return begin_product({}, scales_turn);
      begin_product(product, scales_turn);
      step = 0;
    }
  }

  // ---- Products
  struct Ring : RingTurn<kStages> {
    std::uint64_t inputs;  // descriptor of the first stage's; others lie further on
  };
  MOEBENCH_DEVICE static void release(gpu::Mbarrier& empty) {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty);
  }

  template <class Visit>
  MOEBENCH_DEVICE void multiply_all(const Visit& visit) const {
    // From one lane, so that all that follows is known to be the warp's.
    Ring ring{{},
              gpu::shuffle(gpu::kAllLanes,
                           gpu::wgmma_descriptor_unswizzled(s_.stages[0] + kCodeBytes, kHalfBytes,
                                                            kPartBytes),
                           0)};
    RingTurn<2> scales_turn;
    while (true) {
      gpu::mbarrier_wait(&s_.scales_full[scales_turn.stage], scales_turn.parity);
      const Product& product = s_.products[scales_turn.stage];
      if (product.tile.count == 0) return;
      const int tokens = product_tokens(product.tile.count);
      if (product.first_row + group_row() >= stack_.first.rows) {
        for (int step = 0; step < num_steps_; ++step) {
          gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
          release(s_.empty[ring.stage]);
          ring.advance();
        }
      } else {
        if (tokens == kMostTokens) multiply<kMostTokens>(scales_turn.stage, ring, visit);
        if constexpr (kMiddle != kFewer) {
          if (tokens == kMiddle) multiply<kMiddle>(scales_turn.stage, ring, visit);
        }
        if (tokens == kFewer) multiply<kFewer>(scales_turn.stage, ring, visit);
      }
      release(s_.scales_empty[scales_turn.stage]);
      scales_turn.advance();
    }
  }

  // Of a tile.
  MOEBENCH_DEVICE static int group_row() { return gpu::warp_id() / 4 * kGroupRows; }
  static constexpr bool kReadsHalves = kFolds && kStageChunks == 2;
  // The lane's even row, of the group's 64; and which of the two it takes first.
  MOEBENCH_DEVICE static int even_row() {
    return gpu::warp_id() % 4 * 16 + even_row_of_warp<kReadsHalves>();
  }
  MOEBENCH_DEVICE static int first_is_odd() {
    return kReadsHalves ? 0 : kFolds ? gpu::lane_id() / 4 % 2 : gpu::lane_id() / 16;
  }

  using Rows = ChunkRows<kReadsHalves>;
  MOEBENCH_DEVICE Rows lane_rows(const Product& product, int place) const {
    const auto scale_bytes = static_cast<int>(stack_.first.row_scale_bytes);
    const int t = gpu::lane_id() % 4;
    // Rows past the end, of which there may be some in the last 64, repeat the last two.
    const int row = min(group_row() + even_row(), stack_.first.rows - product.first_row - 2);
    const unsigned char* scales = s_.scales[place] + t;
    // Folded: block t of the lane's row low. Otherwise matrices of rows low and high of block 0,
    // and of these of block 1.
    const int codes_row = group_row() + (kFolds ? even_row() + first_is_odd()
                                                : gpu::warp_id() % 4 * 16 + codes_row_of_warp());
    const int block = kFolds ? t : gpu::lane_id() / 16;
    const int swizzle = kStageChunks == 1 ? codes_row / 2 % 4 : codes_row % 8;
    return {scales + (row + first_is_odd()) * scale_bytes,
            scales + (row + 1 - first_is_odd()) * scale_bytes, scale_bytes,
            stack_.first.cols / 32 - t,
            static_cast<std::uint32_t>(codes_row * kRowBytes + (block ^ swizzle) * 16)};
  }
  // The ring's stage, and the descriptor of its inputs; the ring is at the next one then.
  struct Taken {
    int stage;
    std::uint64_t inputs;
  };
  MOEBENCH_DEVICE static Taken take_stage(Ring& ring) {
    // From one lane, so that it is known to be the warp's.
    const int stage = gpu::shuffle(gpu::kAllLanes, ring.stage, 0);
    ring.advance();
    return {stage, ring.inputs + static_cast<std::uint64_t>(stage) * (kStageBytes / 16)};
  }
  MOEBENCH_DEVICE void release_before(int stage, bool some) const {
    gpu::sync_warp();
    if (some && gpu::lane_id() == 0) {
      gpu::mbarrier_arrive(&s_.empty[(stage == 0 ? kStages : stage) - 1]);
    }
  }
  // A product of tiles. totals, of each part of eight tokens: of rows low, high; of each, the
  // part's tokens 2 t, 2 t + 1.
  template <int kCount>
  MOEBENCH_DEVICE void sum_blocks(Rows rows, Ring& ring, float (&totals)[kCount]) const {
    float d[kCount] = {};
    std::uint32_t a[2][4] = {};  // while a product runs, the next is decoded
    std::uint32_t scales[kProducts];
    std::uint32_t before = 0;  // the scales of the last block of the chunk before
    ChunkCodes codes;
    const auto read_scales = [&] {
      const std::uint32_t own = rows.read_scales() << kToBf16;
      MOEBENCH_UNROLL
      for (int i = 0; i < kProducts; ++i) scales[i] = gpu::shuffle_quad(gpu::kAllLanes, own, i);
    };
    // `part`: which of a stage's chunks.
    const auto read_codes = [&](int stage, std::uint32_t part) {
      codes.read(s_.stages[0], (static_cast<std::uint32_t>(stage) * kStageBytes + rows.codes_at) ^
                                   part * kChunkBytes);
    };

    read_scales();
    gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
    read_codes(ring.stage, 0);
    int left = num_chunks_;
    MOEBENCH_NO_UNROLL
    while (left > 0) {
      const auto [stage, inputs] = take_stage(ring);
      MOEBENCH_UNROLL
      for (int part = 0; part < kStageChunks; ++part) {
        MOEBENCH_UNROLL
        for (int i = 0; i < kProducts; ++i) {
          auto& weights = a[i % 2];
          // The condition always holds, which ptxas does not know: code of no block of its own is
          // moved behind the wait, where it runs beside no product.
          if (!kAhead || left <= kMostChunks) {
            decode_codes(codes.low[i], weights[0], weights[2]);
            decode_codes(codes.high[i], weights[1], weights[3]);
            if (kAhead) gpu::pin_registers(weights);
          }
          gpu::wgmma_wait<0>(d);
          add_scaled(d, i == 0 ? before : scales[i - 1], totals);  // the first time zeros
          if (i == 0 && part == 0) release_before(stage, left < num_chunks_);
          gpu::wgmma_fence(weights, d);
          multiply_both_digits(d, weights, inputs + (part * kInputBytes + i * kProductBytes) / 16,
                               false);
        }
        before = scales[kProducts - 1];
        if (--left == 0) break;
        // What takes long, while products run.
        read_scales();
        if (part + 1 == kStageChunks) {
          gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
          read_codes(ring.stage, 0);
        } else {
          read_codes(stage, part + 1);
        }
      }
    }
    gpu::wgmma_wait<0>(d);
    add_scaled(d, before, totals);
    release_before(ring.stage, true);
  }

  // The stages of a ring for sum_folded.
  struct Feed {
    const Float8Products& products;
    Ring& ring;
    static constexpr int kInputBytes = Float8Products::kInputBytes;
    MOEBENCH_DEVICE static bool decodes() { return true; }
    MOEBENCH_DEVICE int next() const { return ring.stage; }
    MOEBENCH_DEVICE void wait() const {
      gpu::mbarrier_wait(&products.s_.full[ring.stage], ring.parity);
    }
    MOEBENCH_DEVICE Taken take() const { return take_stage(ring); }
    MOEBENCH_DEVICE const unsigned char* codes(int stage) const {
      return products.s_.stages[stage];
    }
    MOEBENCH_DEVICE void release_before(int stage, bool some) const {
      products.release_before(stage, some);
    }
  };

  template <int kTokens, class Visit>
  MOEBENCH_DEVICE void multiply(int place, Ring& ring, const Visit& visit) const {
    const Product& product = s_.products[place];
    float totals[kTokens / 2] = {};
    if constexpr (kFolds) {
      Feed feed{*this, ring};
      sum_folded<(kMostTokens <= 32), kStageChunks>(lane_rows(product, place), num_chunks_,
                                                    s_.tables, feed, totals);
    } else {
      sum_blocks(lane_rows(product, place), ring, totals);
    }
    const int even = product.first_row + group_row() + even_row();
    if (even >= stack_.first.rows) return;
    const int t = gpu::lane_id() % 4;
    auto output = visit.begin(product.tile, even, 2 * t);
    const float2 biases =
        *reinterpret_cast<const float2*>(&s_.biases[place][group_row() + even_row()]);
    const bool turned = first_is_odd() != 0;
    MOEBENCH_UNROLL
    for (int part = 0; part < kTokens / 8; ++part) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int i = 8 * part + 2 * t + c;
        const Inputs::Token token = s_.tokens[place][i];
        const float of_low_row = totals[4 * part + c];
        const float of_high_row = totals[4 * part + 2 + c];
        const float first = turned ? of_high_row : of_low_row;
        const float second = turned ? of_low_row : of_high_row;
        if (i < product.tile.count) {
          visit.end(output, c, token.pair, first * token.factor + biases.x,
                    second * token.factor + biases.y);
        }
      }
      visit.advance(output);
    }
  }

  Stack stack_;
  const float* biases_;
  Groups groups_;
  Inputs inputs_;
  int row_tiles_;
  int num_chunks_;
  int num_steps_;  // of the ring, for a product
  Shared& s_;
};

// ---- Kernels ------------------------------------------------------------------------------------

// Where an output goes is found step by step: with a product for each token ptxas keeps them all in
// local memory, for which the cache has no room.
struct Activate {
  int columns;  // of an output
  float alpha;
  float limit;
  std::uint16_t* activated;  // [num_pairs, columns] bf16, in sorted order

  struct Output {
    std::uint16_t* of_tile;
    std::uint32_t at;
  };
  MOEBENCH_DEVICE Output begin(const Tile& tile, int row, int i) const {
    return {activated + static_cast<std::int64_t>(tile.first) * columns,
            static_cast<std::uint32_t>(i * columns + row / 2)};
  }
  MOEBENCH_DEVICE void end(const Output& output, int c, int, float gate, float up) const {
    output.of_tile[output.at + static_cast<std::uint32_t>(c * columns)] =
        swiglu_fast(gate, up, alpha, limit);
  }
  MOEBENCH_DEVICE void advance(Output& output) const {
    output.at += static_cast<std::uint32_t>(8 * columns);
    gpu::pin_registers(output.at);
  }
};

template <class Value>  // float, or the bits of bf16
struct Project {
  int rows;
  Value* projected;  // [num_pairs, rows]

  MOEBENCH_DEVICE Value* begin(const Tile&, int row, int) const { return projected + row; }
  MOEBENCH_DEVICE void end(Value* output, int, int pair, float first, float second) const {
    Value* to = output + static_cast<std::int64_t>(pair) * rows;
    if constexpr (std::is_same_v<Value, float>) {
      *reinterpret_cast<float2*>(to) = {first, second};
    } else {
      *reinterpret_cast<std::uint32_t*>(to) = gpu::pack_bf16(first, second);
    }
  }
  MOEBENCH_DEVICE void advance(Value*) const {}
};

template <int kMostTokens, bool kFolds, int kStageChunks, int kGroups, bool kAhead>
__global__ void MOEBENCH_BOUNDS(
    Float8Products<kMostTokens, kFolds, kStageChunks, kGroups>::kThreads, 1)
    activate_tiles(Groups groups, Stack gate_up, const float* biases, Inputs x,
                   MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Activate activate) {
  gpu::let_next_kernel_start();
  Float8Products<kMostTokens, kFolds, kStageChunks, kGroups, kAhead>(gate_up, biases, groups, x)
      .run(codes, activate);
}

template <int kMostTokens, bool kFolds, int kStageChunks, int kGroups, bool kAhead, class Value>
__global__ void MOEBENCH_BOUNDS(
    Float8Products<kMostTokens, kFolds, kStageChunks, kGroups>::kThreads, 1)
    project_tiles(Groups groups, Stack down, const float* biases, Inputs activated,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Project<Value> project) {
  gpu::let_next_kernel_start();
  Float8Products<kMostTokens, kFolds, kStageChunks, kGroups, kAhead>(down, biases, groups,
                                                                     activated)
      .run(codes, project);
}

// Tokens of a tile: with 10 of them on average, few experts have more than 16.
constexpr int kAverages[] = {10, 24, 48};  // of pairs an expert, up to which tiles are smaller
int tile_tokens(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > kAverages[2] * num_experts   ? 96
         : num_pairs > kAverages[1] * num_experts ? 64
         : num_pairs > kAverages[0] * num_experts ? 32
                                                  : 16;
}

// Calls launch(constant) with groups of four warps for rows of so many pairs: if there is less than
// a tile for each multiprocessor, those with which the one that has most has fewest rows.
template <int kMostTokens, class Launch>
void with_row_groups(std::int64_t num_pairs, std::int64_t num_experts, std::int64_t rows,
                     Launch&& launch) {
  constexpr int kUsual = kUsualGroups<kMostTokens>;
  if constexpr (kMostTokens == 16) {
    const std::int64_t experts = std::min(num_pairs, num_experts);  // at most
    const std::int64_t num_sms = gpu::device_info().num_sms;
    const auto tiles = [&](int groups) {
      const int tile_rows = groups * kGroupRows;
      return experts * ((rows + tile_rows - 1) / tile_rows);
    };
    const auto most_rows = [&](int groups) {
      return (tiles(groups) + num_sms - 1) / num_sms * groups;
    };
    if (tiles(kUsual) < num_sms) {
      if (most_rows(2) < std::min(most_rows(3), most_rows(kUsual))) {
        return launch(std::integral_constant<int, 2>());
      }
      if (most_rows(3) < most_rows(kUsual)) return launch(std::integral_constant<int, 3>());
    }
  }
  launch(std::integral_constant<int, kUsual>());
}

struct Scratch {
  Groups groups;
  Inputs inputs;             // of gate_up, then of down
  std::uint16_t* activated;  // [num_pairs, intermediate_size] bf16, in sorted order
  float* projected;          // [num_pairs, hidden_size], or half of it as bf16
};
Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t num_experts,
                     std::int64_t hidden_size, std::int64_t intermediate_size) {
  const int tokens = tile_tokens(num_pairs, num_experts);
  const std::int64_t tiles = most_tiles(num_pairs, num_experts, tokens);
  // A tile may be copied as one of more parts than it has.
  const std::int64_t slots = num_pairs / 8 + tiles + tokens / 8;
  // Stages are copied whole.
  const std::int64_t chunks =
      (num_chunks(static_cast<int>(std::max(hidden_size, intermediate_size))) + kMostStageChunks -
       1) /
      kMostStageChunks * kMostStageChunks;
  return {
      {workspace.take<int>(num_pairs), workspace.take<int>(num_experts + 1),
       workspace.take<Tile>(tiles), workspace.take<int>(1)},
      {reinterpret_cast<unsigned char*>(workspace.take<uint4>(chunks * slots * kPartBytes / 16)),
       workspace.take<Inputs::Token>(8 * slots), static_cast<int>(slots)},
      workspace.take<std::uint16_t>(num_pairs * intermediate_size),
      workspace.take<float>(num_pairs * hidden_size)};
}

// Projected: what the experts' outputs are rounded to.
template <int kMostTokens, bool kFolds, int kStageChunks, class Projected, bool kAhead = false>
void launch_all(const Args& args, Context& context) {
  const Sizes sizes = sizes_of(args);
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, sizes.num_pairs, sizes.num_experts,
                                       sizes.hidden_size, sizes.intermediate_size);
  const std::int64_t tiles = most_tiles(sizes.num_pairs, sizes.num_experts, kMostTokens);
  const auto config = [&](auto groups, std::int64_t rows) {
    using OfRows = Float8Products<kMostTokens, kFolds, kStageChunks, groups(), kAhead>;
    const std::int64_t products = tiles * OfRows::num_row_tiles(static_cast<int>(rows));
    return gpu::LaunchConfig{.grid = {static_cast<unsigned>(
                                 std::min<std::int64_t>(products, gpu::device_info().num_sms))},
                             .block = OfRows::kThreads,
                             .shared_bytes = OfRows::kBytes,
                             .stream = context.stream,
                             .overlap_previous = true,
                             .shared_percent = gpu::shared_percent_for(OfRows::kBytes, 1)};
  };
  const gpu::LaunchConfig digits_config{.grid = {static_cast<unsigned>(tiles * kMostTokens / 8)},
                                        .block = kDigitWarps<kMostTokens> * gpu::kWarp,
                                        .stream = context.stream,
                                        .overlap_previous = true};
  const auto codes_of = [&](const MatrixStackView& stack) {
    return gpu::device().make_tensor_map({.data = stack.data,
                                          .element_bytes = 1,
                                          .rows = stack.count * stack.rows,
                                          .columns = stack.cols / 2,
                                          .row_bytes = stack.cols / 2,
                                          .tile_rows = kGroupRows,
                                          .tile_columns = kStageChunks * kChunkBytes,
                                          .swizzle = kStageChunks * kChunkBytes});
  };
  auto* projected = reinterpret_cast<Projected*>(scratch.projected);
  // Products of 96 and 32 tokens (as 64) take longer than two of 64.
  launch_sort(args, context, {kMostTokens, kMostTokens == 96 ? 32 : 0}, scratch.groups);
  gpu::launch(write_digits<kFolds, kDigitWarps<kMostTokens>, float>, digits_config,
              "moe_experts/cuda_grouped_fp8 (digits of x)", scratch.groups, kMostTokens,
              sizes.top_k, sizes.hidden_size, args.x.data, scratch.inputs);
  const auto launch_rows = [&](const MatrixStackView& stack, auto&& launch) {
    with_row_groups<kMostTokens>(sizes.num_pairs, sizes.num_experts, stack.rows,
                                 [&](auto groups) { launch(groups, config(groups, stack.rows)); });
  };
  launch_rows(args.gate_up, [&](auto groups, const gpu::LaunchConfig& rows_config) {
    gpu::launch(
        activate_tiles<kMostTokens, kFolds, kStageChunks, groups(), kAhead>, rows_config,
        "moe_experts/cuda_grouped_fp8 (gate, up)", scratch.groups, device_stack(args.gate_up),
        args.gate_up_bias.data, scratch.inputs, codes_of(args.gate_up),
        Activate{sizes.intermediate_size, args.swiglu_alpha, args.swiglu_limit, scratch.activated});
  });
  gpu::launch(write_digits<kFolds, kDigitWarps<kMostTokens>, std::uint16_t>, digits_config,
              "moe_experts/cuda_grouped_fp8 (digits of activations)", scratch.groups, kMostTokens,
              0, sizes.intermediate_size, scratch.activated, scratch.inputs);
  launch_rows(args.down, [&](auto groups, const gpu::LaunchConfig& rows_config) {
    gpu::launch(project_tiles<kMostTokens, kFolds, kStageChunks, groups(), kAhead, Projected>,
                rows_config, "moe_experts/cuda_grouped_fp8 (down)", scratch.groups,
                device_stack(args.down), args.down_bias.data, scratch.inputs, codes_of(args.down),
                Project<Projected>{sizes.hidden_size, projected});
  });
  launch_combine(args, context, static_cast<const Projected*>(projected), true);
}

// Whether the step is one that this is for.
bool takes(const Args& args) {
  return are_chunks(args.gate_up, args.gate_up_bias.data) &&
         are_chunks(args.down, args.down_bias.data) &&
         std::max({Float8Products<16, true, 2, 2>::kBytes, Float8Products<16, true, 2, 3>::kBytes,
                   Float8Products<16, true, 2>::kBytes, Float8Products<32, true, 2>::kBytes,
                   Float8Products<64, true>::kBytes, Float8Products<96, true>::kBytes,
                   Float8Products<16, false, 2, 2>::kBytes, Float8Products<16, false, 2, 3>::kBytes,
                   Float8Products<16, false, 2>::kBytes, Float8Products<32, false, 2>::kBytes}) +
                 1024 <=
             gpu::device_info().shared_bytes_per_block;
}

// Scales are folded in tiles of more than kMostUnfolded tokens. kStageChunks: in tiles of up to 32.
// Projected: in larger ones.
template <int kMostUnfolded, int kStageChunks, class Projected, bool kAhead = false>
void run(const Args& args, Context& context) {
  if (!takes(args)) return cuda_grouped_registers_bf16.run(args, context);
  switch (tile_tokens(args.expert_ids.size(), args.gate_up.count)) {
    case 96:
      return launch_all<96, (96 > kMostUnfolded), 1, Projected>(args, context);
    case 64:
      return launch_all<64, (64 > kMostUnfolded), 1, Projected>(args, context);
    case 32:
      return launch_all<32, (32 > kMostUnfolded), kStageChunks, float, kAhead>(args, context);
    default:
      return launch_all<16, (16 > kMostUnfolded), kStageChunks, float, kAhead>(args, context);
  }
}

std::string unsupported(const Problem& problem) {
  return cuda_grouped_registers_bf16.unsupported(problem);
}

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  const std::int64_t pairs = problem.num_tokens * problem.top_k;
  // Fewer pairs may have more tiles, which are smaller then.
  const auto take = [&](std::int64_t num_pairs) {
    Workspace of_some;
    take_scratch(of_some, num_pairs, problem.num_experts, problem.hidden_size,
                 problem.intermediate_size);
    if (of_some.used() > workspace.used()) workspace = of_some;
  };
  take(pairs);
  for (const int most : kAverages) take(std::min(pairs, most * problem.num_experts));
  return std::max(workspace.used(),
                  cuda_grouped_registers_bf16.workspace_bytes(problem, num_threads));
}

constexpr Variant variant(std::string_view name, std::string_view summary, std::string_view rounds,
                          void (*run)(const Args& args, Context& context)) {
  return {.name = name,
          .backend = "cuda",
          .summary = summary,
          .rounds = rounds,
          .max_nmse = bf16_max_nmse,
          .weight_layout = RowLayout::kRowMajor,
          .unsupported = unsupported,
          .workspace_bytes = workspace_bytes,
          .run = run,
          .ends_with_norm = combines_with_norm};
}

}  // namespace

constinit const Variant cuda_grouped_fp8 = variant(
    "cuda_grouped_fp8",
    "MXFP4 weights as float8, inputs as two digits of it, pairs sorted by expert (Hopper)",
    "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits; many "
    "tokens: of 128, weights: 2^-15 of the largest scale of these, an expert's outputs: bf16",
    run<32, 2, std::uint16_t>);
constinit const Variant cuda_grouped_ahead_fp8 = variant(
    "cuda_grouped_ahead_fp8",
    "cuda_grouped_fp8 that decodes before it waits for the last product, few tokens (Hopper)",
    "as cuda_grouped_fp8, bit for bit", run<32, 2, std::uint16_t, true>);
constinit const Variant cuda_grouped_short_fp8 =
    variant("cuda_grouped_short_fp8",
            "cuda_grouped_fp8 with half as long a part of a row in a copy, for few tokens (Hopper)",
            "as cuda_grouped_fp8, bit for bit", run<32, 1, std::uint16_t>);
constinit const Variant cuda_grouped_chunks_fp8 = variant(
    "cuda_grouped_chunks_fp8",
    "cuda_grouped_fp8 with scales folded into weights in tiles of all sizes (Hopper)",
    "activations: two float8 digits, accumulate: f32, in chunks of 128 of fewer bits, weights: "
    "2^-15 of the largest scale of these",
    run<0, 2, float>);
constinit const Variant cuda_grouped_folded_32_fp8 =
    variant("cuda_grouped_folded_32_fp8",
            "cuda_grouped_fp8 with scales folded into weights from tiles of 32 tokens on (Hopper)",
            "as cuda_grouped_fp8, many tokens: more than 10 an expert", run<16, 2, std::uint16_t>);
constinit const Variant cuda_grouped_blocks_fp8 =
    variant("cuda_grouped_blocks_fp8",
            "cuda_grouped_fp8 with scales of their own for blocks in tiles of all sizes (Hopper)",
            "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits",
            run<96, 2, float>);

}  // namespace moebench::moe_experts
