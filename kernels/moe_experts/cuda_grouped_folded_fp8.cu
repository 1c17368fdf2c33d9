// cuda_grouped_folded_fp8: MXFP4 weights and more than a few tokens, on Hopper, with both in
// float8: from steps of 6 tokens to whole prompts.
//
// Pairs are sorted by expert and cut into tiles of up to 16, 32, 64 or 96 tokens. As many blocks as
// there are SMs walk over all products of a tile of tokens and one of rows. One thread has codes
// and inputs copied through a ring of stages, each a chunk of 128 columns: 64 bytes of each row by
// TMA, and of the inputs one run of memory, since the kernel before has laid them out as wgmma
// wants its B. Groups of four warps decode 64 rows each in the registers of wgmma.
//
// Weights: as float8 (E4M3) with the scales of their blocks folded in, by PRMT from a table of
// eight bytes; a code's sign is joined to what the other bits have found. 1.1 instructions a
// weight. Lane t of a quad decodes block t of a chunk: of its 32 columns, product i takes 8, in
// which the even ones come first.
//
// Inputs: two digits of E4M3, x times a power of two that a token has for its row, and what the
// first digit leaves. They have the 8 bits of a bf16 down to 2^-8 of the row's largest number;
// below, at most 2^-17 of that is lost. Both digits are multiplied by the same registers of weights
// and into the same sums. At a chunk's end these are scaled to floats and added up: the tensor
// cores' own sums are short.
//
// What bounds it (an H200, cycles a chunk of a block, without memory): 192 rows and 96 tokens
// 1,249, of which the tensor cores need 1,152; 256 rows and 32, 16, 8 tokens 947, 802 and 696 (512,
// 256, 128), in which memory gives 17 KB. cuda_grouped_registers_bf16 takes about 2,700 for the
// first.
//
// Rows g and g + 8 of a warp's 16 are two that follow each other in memory, a gate row and its up
// row; in odd quads the second comes first, so that eight lanes meet all banks of shared memory.
//
// A sum is one over columns in order, whatever the tile. Other formats and other shapes run as
// cuda_grouped_registers_bf16.
#include <algorithm>
#include <cstddef>

#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/digits.cuh"
#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kGroupThreads = 4 * gpu::kWarp;
constexpr int kGroupRows = 64;
constexpr int kChunk = 128;  // columns
constexpr int kChunkBytes = kChunk / 2;
constexpr int kProducts = 4;  // of 32 columns, in a chunk
constexpr int kMostChunks = 24;
constexpr int kMostColumns = kMostChunks * kChunk;
constexpr int kMostScaleBytes = kMostColumns / 32;  // of a row

// Inputs of eight tokens (a part of a tile) and a chunk: [digit][product][half of K][token], 16
// bytes each.
constexpr int kHalfBytes = 8 * 16;
constexpr int kProductBytes = 2 * kHalfBytes;
constexpr int kDigitBytes = 4 * kProductBytes;
constexpr int kPartBytes = 2 * kDigitBytes;

MOEBENCH_HOST_DEVICE int num_chunks(int cols) { return (cols + kChunk - 1) / kChunk; }

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

constexpr int kDigitWarps = 8;
constexpr int kDigitThreads = kDigitWarps * gpu::kWarp;
constexpr int kUnits = kMostColumns / 32 / kDigitWarps;  // of 8 columns, of a lane

// Eight columns that follow each other.
MOEBENCH_DEVICE void load_unit(const float* from, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0];
  const float4 b = reinterpret_cast<const float4*>(from)[1];
  const float all[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) x[j] = all[j];
}
MOEBENCH_DEVICE void load_unit(const std::uint16_t* from, float (&x)[8]) {
  const uint4 all = *reinterpret_cast<const uint4*>(from);
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) {
    const std::uint32_t word = gpu::word_of(all, j / 2);
    x[j] = gpu::float_from_bits(j % 2 == 0 ? word << 16 : word & 0xffff0000U);
  }
}

// A block writes the digits of a part: of eight sorted pairs. A pair's row: of its token if there
// are top_k pairs a token, or the one in its place of the sorted list (top_k: 0). Past the end,
// zeros up to whole chunks, and for tokens that a tile does not have. Four lanes share a token,
// each of which has one block of a chunk, as those have that multiply: a warp writes whole lines.
template <class Value>
__global__ void MOEBENCH_BOUNDS(kDigitThreads)
    write_digits(Groups groups, int most_tokens, int top_k, int cols, const Value* x,
                 Inputs inputs) {
  MOEBENCH_SHARED(float, largest, [kDigitWarps][8]);
  gpu::wait_for_previous_kernel();
  gpu::let_next_kernel_start();
  const int parts = most_tokens / 8;
  const int index = static_cast<int>(blockIdx.x) / parts;
  const int part = static_cast<int>(blockIdx.x) % parts;
  if (index >= groups.num_tiles[0]) return;
  const Tile tile = groups.tiles[index];
  if (8 * part >= tile.count) return;
  const int token = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  const int i = 8 * part + token;
  const bool is_there = i < tile.count;
  const int pair = is_there ? groups.pairs[tile.first + i] : 0;
  const int row = top_k == 0 ? tile.first + i : pair / top_k;
  const Value* from = x + static_cast<std::int64_t>(row) * cols;
  const int num_units = num_chunks(cols) * kProducts;
  float values[kUnits][8] = {};
  float most = 0;
  MOEBENCH_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    const int unit = u * kDigitWarps + gpu::warp_id();
    const int column = unit / kProducts * kChunk + t * 32 + unit % kProducts * 8;
    if (is_there && column < cols) load_unit(from + column, values[u]);
  }
  MOEBENCH_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    MOEBENCH_UNROLL
    for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(values[u][j]));
  }
  most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 1));
  most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
  if (t == 0) largest[gpu::warp_id()][token] = most;
  gpu::sync_threads();
  MOEBENCH_UNROLL
  for (int w = 0; w < kDigitWarps; ++w) most = fmaxf(most, largest[w][token]);
  // Of what is less than 2^-100 nothing needs to be left.
  const int exponent = max(static_cast<int>(gpu::bits_of(most) >> 23) - 127, -100);
  const float factor = power_of_two(7 - exponent);  // the largest goes to 128 .. 256
  const int slot = Inputs::first_slot(tile, index) + part;
  if (gpu::warp_id() == 0 && t == 0) {
    // With the 2^6 of weights and the 2^7 of inputs.
    inputs.tokens[8 * slot + token] = {power_of_two(exponent - 13), pair};
  }
  MOEBENCH_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    const int unit = u * kDigitWarps + gpu::warp_id();
    if (unit >= num_units) break;
    unsigned char* to =
        inputs.at(unit / kProducts, slot) + unit % kProducts * kProductBytes + gpu::lane_id() * 4;
    MOEBENCH_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float(&v)[8] = values[u];
      const float columns[4] = {v[half], v[half + 2], v[half + 4], v[half + 6]};
      const uint2 digits = two_digits<1>(columns, factor);
      *reinterpret_cast<std::uint32_t*>(to + half * kHalfBytes) = digits.x;
      *reinterpret_cast<std::uint32_t*>(to + kDigitBytes + half * kHalfBytes) = digits.y;
    }
  }
}

// ---- Products of tiles --------------------------------------------------------------------------

// kMostTokens: of a tile.
template <int kMostTokens>
class FoldedProducts {
 public:
  // Groups of four warps that multiply, each with 64 rows; one more has things copied, and gives
  // them registers.
  static constexpr int kGroups = kMostTokens > 32 ? 3 : 4;
  static constexpr int kThreads = (kGroups + 1) * kGroupThreads;
  static constexpr int kRows = kGroups * kGroupRows;

 private:
  static constexpr int kMultiplierRegisters = kGroups == 3 ? 160 : 112;
  static constexpr int kMostParts = kMostTokens / 8;
  static constexpr int kCodeBytes = kRows * kChunkBytes;  // of a stage
  static constexpr int kStageBytes = kCodeBytes + kMostParts * kPartBytes;
  static constexpr int kScaleBytes = kRows * kMostScaleBytes;  // of a tile
  static constexpr int kStages = std::min(12, ((220 << 10) - 2 * kScaleBytes) / kStageBytes);

  using Product = TileProduct;  // of no tokens after the last one

  struct Shared {
    alignas(1024) unsigned char stages[kStages][kStageBytes];  // codes, inputs
    // Of this product and the next.
    alignas(16) unsigned char scales[2][kScaleBytes];
    alignas(16) float biases[2][kRows];
    alignas(16) Inputs::Token tokens[2][kMostTokens];
    Product products[2];
    uint2 tables[kTables];
    gpu::Mbarrier full[kStages];
    gpu::Mbarrier empty[kStages];
    gpu::Mbarrier scales_full[2];
    gpu::Mbarrier scales_empty[2];
  };

 public:
  static constexpr std::size_t kBytes = sizeof(Shared);

  // `biases`: of all experts' rows.
  MOEBENCH_DEVICE FoldedProducts(const Stack& stack, const float* biases, const Groups& groups,
                                 const Inputs& inputs)
      : stack_(stack),
        biases_(biases),
        groups_(groups),
        inputs_(inputs),
        row_tiles_(num_row_tiles(stack.first.rows)),
        num_chunks_(num_chunks(stack.first.cols)),
        s_(*reinterpret_cast<Shared*>(gpu::dynamic_shared())) {}

  MOEBENCH_HOST_DEVICE static int num_row_tiles(int rows) { return (rows + kRows - 1) / kRows; }

  // Computes the block's products. `codes`: the bytes of all experts' rows. For each even row of a
  // thread calls visit.begin(tile, row), and with what that gives, for its tokens i, visit.end(i,
  // pair, begun, output of row, of row + 1). Tiles, codes, scales and biases must be there when the
  // kernel starts, inputs when the one before it has ended.
  template <class Visit>
  MOEBENCH_DEVICE void run(const gpu::TensorMap& codes, const Visit& visit) {
    if (threadIdx.x == 0) {
      constexpr int kWarps = kGroups * 4;
      gpu::init_ring(s_.full, s_.empty, kStages, 1, kWarps);
      gpu::init_ring(s_.scales_full, s_.scales_empty, 2, 1, kWarps);
    }
    make_tables<kThreads>(s_.tables);
    gpu::sync_threads();
    if (gpu::warp_id() < kGroups * 4) {
      gpu::raise_max_registers<kMultiplierRegisters>();
      gpu::wait_for_previous_kernel();
      multiply_all(visit);
    } else {
      gpu::lower_max_registers<32>();
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
  // The number of tokens of the wgmma that so many take. Each is code of its own: with three ptxas
  // keeps values in local memory.
  static constexpr int kFewer = kMostTokens == 96 ? 64 : kMostTokens / 2;
  MOEBENCH_DEVICE static int product_tokens(int count) {
    return count > kFewer ? kMostTokens : kFewer;
  }

  // ---- Copies, by one thread
  MOEBENCH_DEVICE static int num_parts(const Product& product) {
    return product_tokens(product.tile.count) / 8;
  }
  MOEBENCH_DEVICE static int token_bytes(const Product& product) {
    return num_parts(product) * 8 * static_cast<int>(sizeof(Inputs::Token));
  }
  // With the first chunk come its tokens.
  MOEBENCH_DEVICE void load_codes(const gpu::TensorMap& codes, const Product& product, int chunk,
                                  int stage) const {
    const int boxes =
        (min(stack_.first.rows - product.first_row, kRows) + kGroupRows - 1) / kGroupRows;
    const int row = product.tile.expert * stack_.first.rows + product.first_row;
    gpu::mbarrier_arrive_expect_bytes(&s_.full[stage], boxes * kGroupRows * kChunkBytes +
                                                           num_parts(product) * kPartBytes +
                                                           (chunk == 0 ? token_bytes(product) : 0));
    for (int box = 0; box < boxes; ++box) {
      gpu::load_tile_async(s_.stages[stage] + box * kGroupRows * kChunkBytes, codes,
                           chunk * kChunkBytes, row + box * kGroupRows, &s_.full[stage]);
    }
  }
  MOEBENCH_DEVICE void load_inputs(const Product& product, int chunk, int stage, int place) const {
    const int slot = Inputs::first_slot(product.tile, product.index / row_tiles_);
    if (chunk == 0) {
      gpu::copy_bulk_async(s_.tokens[place], inputs_.tokens + 8 * slot, token_bytes(product),
                           &s_.full[stage]);
    }
    gpu::copy_bulk_async(s_.stages[stage] + kCodeBytes, inputs_.at(chunk, slot),
                         num_parts(product) * kPartBytes, &s_.full[stage]);
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
    int chunk = 0;
    for (; chunk < min(kStages, num_chunks_); ++chunk) load_codes(codes, product, chunk, chunk);
    gpu::wait_for_previous_kernel();
    for (int c = 0; c < chunk; ++c) {
      load_inputs(product, c, c, scales_turn.stage);
      turn.advance();
    }
    while (true) {
      for (; chunk < num_chunks_; ++chunk) {
        gpu::mbarrier_wait(&s_.empty[turn.stage], turn.parity ^ 1);
        load_codes(codes, product, chunk, turn.stage);
        load_inputs(product, chunk, turn.stage, scales_turn.stage);
        turn.advance();
      }
      scales_turn.advance();
      if (!advance(product)) return begin_product({}, scales_turn);
      begin_product(product, scales_turn);
      chunk = 0;
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
        for (int chunk = 0; chunk < num_chunks_; ++chunk) {
          gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
          release(s_.empty[ring.stage]);
          ring.advance();
        }
      } else {
        if (tokens == kMostTokens) multiply<kMostTokens>(scales_turn.stage, ring, visit);
        if (tokens == kFewer) multiply<kFewer>(scales_turn.stage, ring, visit);
      }
      release(s_.scales_empty[scales_turn.stage]);
      scales_turn.advance();
    }
  }

  // Of a tile.
  MOEBENCH_DEVICE static int group_row() { return gpu::warp_id() / 4 * kGroupRows; }
  // The lane's even row, of the group's 64; and which of the two it takes first.
  MOEBENCH_DEVICE static int even_row() { return gpu::warp_id() % 4 * 16 + gpu::lane_id() / 4 * 2; }
  MOEBENCH_DEVICE static int first_is_odd() { return gpu::lane_id() / 4 % 2; }

  template <int kTokens, class Visit>
  MOEBENCH_DEVICE void multiply(int place, Ring& ring, const Visit& visit) const {
    const Product& product = s_.products[place];
    const unsigned char* scales = s_.scales[place];
    const auto t = gpu::lane_id() % 4;
    const auto scale_bytes = static_cast<int>(stack_.first.row_scale_bytes);
    // Rows past the end, of which there may be some in the last 64, repeat the last two.
    const int row = min(group_row() + even_row(), stack_.first.rows - product.first_row - 2);
    const unsigned char* low_scales = scales + (row + first_is_odd()) * scale_bytes + t;
    const unsigned char* high_scales = scales + (row + 1 - first_is_odd()) * scale_bytes + t;
    const int low_codes = (group_row() + even_row() + first_is_odd()) * kChunkBytes + t * 16;
    const int high_codes = low_codes ^ kChunkBytes;
    const int blocks = stack_.first.cols / 32 - t;  // from the lane's first on

    // Of each part of eight tokens: of rows low, high; of each, the part's tokens 2 t, 2 t + 1.
    float totals[kTokens / 2] = {};
    float d[kTokens / 2] = {};
    // Fragments of the products under way: with many sums there are no registers for a chunk's.
    constexpr int kSets = kTokens > 64 ? 2 : kProducts;
    std::uint32_t a[kSets][4];
    // Chunks' scales, of rows low and (above) high: of the next products, and of those under way.
    std::uint32_t base = 0;
    std::uint32_t base_under_way = 0;
    uint2 of_low{};  // tables
    uint2 of_high{};
    const auto read_scales = [&](int chunk) {
      std::uint32_t own = 0;
      if (4 * chunk < blocks) {
        own = *low_scales | static_cast<std::uint32_t>(*high_scales) << 16;
      }
      low_scales += 4;
      high_scales += 4;
      base_under_way = base;
      base = fold_scales(own, s_.tables, of_low, of_high);
    };
    const auto add = [&] {
      const float of_rows[2] = {
          gpu::float_from_bits(base_under_way << 23),
          gpu::float_from_bits(base_under_way << 7 & 0x7f800000U),
      };
      MOEBENCH_UNROLL
      for (int j = 0; j < kTokens / 2; ++j) totals[j] += d[j] * of_rows[j / 2 % 2];
    };
    uint4 low{};
    uint4 high{};
    const auto read_codes = [&](int stage) {
      const unsigned char* codes = s_.stages[stage];
      low = *reinterpret_cast<const uint4*>(codes + low_codes);
      high = *reinterpret_cast<const uint4*>(codes + high_codes);
    };
    // Eight codes of a row: of its columns the even ones and the odd ones.
    const auto decode_row = [](std::uint32_t codes, uint2 table, std::uint32_t& even,
                               std::uint32_t& odd) {
      const std::uint32_t sizes = codes & 0x77777777U;
      const std::uint32_t first = gpu::byte_permute(table.x, table.y, sizes);
      const std::uint32_t second = gpu::byte_permute(table.x, table.y, sizes >> 16);
      even = gpu::byte_permute(first, second, 0x6420U) | (codes << 4 & 0x80808080U);
      odd = gpu::byte_permute(first, second, 0x7531U) | (codes & 0x80808080U);
    };
    // The A fragments of the i-th product of a chunk.
    const auto decode = [&](int i, std::uint32_t(&weights)[4]) {
      decode_row(gpu::word_of(low, i), of_low, weights[0], weights[2]);
      decode_row(gpu::word_of(high, i), of_high, weights[1], weights[3]);
    };

    read_scales(0);
    gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
    read_codes(ring.stage);
    const auto release_before = [&](int stage, bool some) {
      gpu::sync_warp();
      if (some && gpu::lane_id() == 0) {
        gpu::mbarrier_arrive(&s_.empty[(stage == 0 ? kStages : stage) - 1]);
      }
    };
    MOEBENCH_NO_UNROLL
    for (int chunk = 0; chunk < num_chunks_; ++chunk) {
      // From one lane, so that it is known to be the warp's.
      const int stage = gpu::shuffle(gpu::kAllLanes, ring.stage, 0);
      const std::uint64_t inputs =
          ring.inputs + static_cast<std::uint64_t>(stage) * (kStageBytes / 16);
      ring.advance();
      MOEBENCH_UNROLL
      for (int i = 0; i < kProducts; ++i) {
        auto& weights = a[i % kSets];
        // Until the product is done that had these registers before.
        if (i == 0 || kSets < kProducts) gpu::wgmma_wait<kSets - 1>(weights);
        decode(i, weights);
        if (i == 0) {
          gpu::wgmma_wait<0>(d);
          add();  // the first time zeros
          release_before(stage, chunk > 0);
          gpu::wgmma_fence(weights, d);
        } else {
          gpu::wgmma_fence(weights);
        }
        const std::uint64_t b = inputs + i * (kProductBytes / 16);
        gpu::wgmma_e4m3(d, weights, b, i > 0);
        gpu::wgmma_e4m3(d, weights, b + kDigitBytes / 16);
        gpu::wgmma_commit();
      }
      // What takes long, while products run.
      read_scales(chunk + 1);
      if (chunk + 1 < num_chunks_) {
        gpu::mbarrier_wait(&s_.full[ring.stage], ring.parity);
        read_codes(ring.stage);
      }
    }
    gpu::wgmma_wait<0>(d);
    add();
    release_before(ring.stage, true);

    const int even = product.first_row + group_row() + even_row();
    if (even >= stack_.first.rows) return;
    const auto begun = visit.begin(product.tile, even);
    const float2 biases =
        *reinterpret_cast<const float2*>(&s_.biases[place][group_row() + even_row()]);
    const bool turned = first_is_odd() != 0;
    MOEBENCH_UNROLL
    for (int part = 0; part < kTokens / 8; ++part) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int i = 8 * part + 2 * t + c;
        if (i >= product.tile.count) continue;
        const Inputs::Token token = s_.tokens[place][i];
        const float of_low_row = totals[4 * part + c];
        const float of_high_row = totals[4 * part + 2 + c];
        const float first = turned ? of_high_row : of_low_row;
        const float second = turned ? of_low_row : of_high_row;
        visit.end(i, token.pair, begun, first * token.factor + biases.x,
                  second * token.factor + biases.y);
      }
    }
  }

  Stack stack_;
  const float* biases_;
  Groups groups_;
  Inputs inputs_;
  int row_tiles_;
  int num_chunks_;
  Shared& s_;
};

// ---- Kernels ------------------------------------------------------------------------------------

struct Activate {
  int columns;  // of an output
  float alpha;
  float limit;
  std::uint16_t* activated;  // [num_pairs, columns] bf16, in sorted order

  MOEBENCH_DEVICE std::uint16_t* begin(const Tile& tile, int row) const {
    return activated + static_cast<std::int64_t>(tile.first) * columns + row / 2;
  }
  MOEBENCH_DEVICE void end(int i, int, std::uint16_t* begun, float gate, float up) const {
    begun[i * columns] = gpu::float_to_bf16(swiglu(gate, up, alpha, limit));
  }
};

struct Project {
  int rows;
  float* projected;  // [num_pairs, rows]

  MOEBENCH_DEVICE float* begin(const Tile&, int row) const { return projected + row; }
  MOEBENCH_DEVICE void end(int, int pair, float* begun, float first, float second) const {
    *reinterpret_cast<float2*>(begun + static_cast<std::int64_t>(pair) * rows) = {first, second};
  }
};

template <int kMostTokens>
__global__ void MOEBENCH_BOUNDS(FoldedProducts<kMostTokens>::kThreads, 1)
    activate_folded(Groups groups, Stack gate_up, const float* biases, Inputs x,
                    MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Activate activate) {
  gpu::let_next_kernel_start();
  FoldedProducts<kMostTokens>(gate_up, biases, groups, x).run(codes, activate);
}

template <int kMostTokens>
__global__ void MOEBENCH_BOUNDS(FoldedProducts<kMostTokens>::kThreads, 1)
    project_folded(Groups groups, Stack down, const float* biases, Inputs activated,
                   MOEBENCH_GRID_CONSTANT gpu::TensorMap codes, Project project) {
  gpu::let_next_kernel_start();
  FoldedProducts<kMostTokens>(down, biases, groups, activated).run(codes, project);
}

// Tokens of a tile: with 10 of them on average, few experts have more than 16.
constexpr int kAverages[] = {10, 24, 48};  // of pairs an expert, up to which tiles are smaller
int tile_tokens(std::int64_t num_pairs, std::int64_t num_experts) {
  return num_pairs > kAverages[2] * num_experts   ? 96
         : num_pairs > kAverages[1] * num_experts ? 64
         : num_pairs > kAverages[0] * num_experts ? 32
                                                  : 16;
}

struct Scratch {
  Groups groups;
  Inputs inputs;             // of gate_up, then of down
  std::uint16_t* activated;  // [num_pairs, intermediate_size] bf16, in sorted order
  float* projected;          // [num_pairs, hidden_size]
};
Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t num_experts,
                     std::int64_t hidden_size, std::int64_t intermediate_size) {
  const int tokens = tile_tokens(num_pairs, num_experts);
  const std::int64_t tiles = most_tiles(num_pairs, num_experts, tokens);
  // A tile may be copied as one of more parts than it has.
  const std::int64_t slots = num_pairs / 8 + tiles + tokens / 8;
  const std::int64_t chunks =
      num_chunks(static_cast<int>(std::max(hidden_size, intermediate_size)));
  return {
      {workspace.take<int>(num_pairs), workspace.take<int>(num_experts + 1),
       workspace.take<Tile>(tiles), workspace.take<int>(1)},
      {reinterpret_cast<unsigned char*>(workspace.take<uint4>(chunks * slots * kPartBytes / 16)),
       workspace.take<Inputs::Token>(8 * slots), static_cast<int>(slots)},
      workspace.take<std::uint16_t>(num_pairs * intermediate_size),
      workspace.take<float>(num_pairs * hidden_size)};
}

template <int kMostTokens>
void launch_all(const Args& args, Context& context) {
  using Products = FoldedProducts<kMostTokens>;
  const Sizes sizes = sizes_of(args);
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, sizes.num_pairs, sizes.num_experts,
                                       sizes.hidden_size, sizes.intermediate_size);
  const std::int64_t tiles = most_tiles(sizes.num_pairs, sizes.num_experts, kMostTokens);
  const auto config = [&](std::int64_t rows) {
    const std::int64_t products = tiles * Products::num_row_tiles(static_cast<int>(rows));
    return gpu::LaunchConfig{.grid = {static_cast<unsigned>(
                                 std::min<std::int64_t>(products, gpu::device_info().num_sms))},
                             .block = Products::kThreads,
                             .shared_bytes = Products::kBytes,
                             .stream = context.stream,
                             .overlap_previous = true,
                             .shared_percent = gpu::shared_percent_for(Products::kBytes, 1)};
  };
  const gpu::LaunchConfig digits_config{.grid = {static_cast<unsigned>(tiles * kMostTokens / 8)},
                                        .block = kDigitThreads,
                                        .stream = context.stream,
                                        .overlap_previous = true};
  const auto codes_of = [&](const MatrixStackView& stack) {
    return gpu::device().make_tensor_map({.data = stack.data,
                                          .element_bytes = 1,
                                          .rows = stack.count * stack.rows,
                                          .columns = stack.cols / 2,
                                          .row_bytes = stack.cols / 2,
                                          .tile_rows = kGroupRows,
                                          .tile_columns = kChunkBytes,
                                          .swizzle_128 = false});
  };
  launch_sort(args, context, kMostTokens, scratch.groups);
  gpu::launch(write_digits<float>, digits_config,
              "moe_experts/cuda_grouped_folded_fp8 (digits of x)", scratch.groups, kMostTokens,
              sizes.top_k, sizes.hidden_size, args.x.data, scratch.inputs);
  gpu::launch(
      activate_folded<kMostTokens>, config(args.gate_up.rows),
      "moe_experts/cuda_grouped_folded_fp8 (gate, up)", scratch.groups, device_stack(args.gate_up),
      args.gate_up_bias.data, scratch.inputs, codes_of(args.gate_up),
      Activate{sizes.intermediate_size, args.swiglu_alpha, args.swiglu_limit, scratch.activated});
  gpu::launch(write_digits<std::uint16_t>, digits_config,
              "moe_experts/cuda_grouped_folded_fp8 (digits of activations)", scratch.groups,
              kMostTokens, 0, sizes.intermediate_size, scratch.activated, scratch.inputs);
  gpu::launch(project_folded<kMostTokens>, config(args.down.rows),
              "moe_experts/cuda_grouped_folded_fp8 (down)", scratch.groups, device_stack(args.down),
              args.down_bias.data, scratch.inputs, codes_of(args.down),
              Project{sizes.hidden_size, scratch.projected});
  launch_combine(args, context, scratch.projected, true);
}

std::uintptr_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// Whether the step is one that this is for.
bool takes(const Args& args) {
  // Copies of scales and biases take whole 16 bytes.
  const auto fits = [](const MatrixStackView& stack, const float* biases) {
    const auto scale_bytes =
        static_cast<std::int64_t>(codec(stack.format).row_scale_bytes(stack.cols));
    return stack.format == Format::kMxfp4 && stack.cols <= kMostColumns &&
           stack.rows * scale_bytes % 16 == 0 && stack.rows % 4 == 0 &&
           address_of(stack.scales) % 16 == 0 && address_of(biases) % 16 == 0;
  };
  return fits(args.gate_up, args.gate_up_bias.data) && fits(args.down, args.down_bias.data) &&
         std::max({FoldedProducts<16>::kBytes, FoldedProducts<32>::kBytes,
                   FoldedProducts<64>::kBytes, FoldedProducts<96>::kBytes}) +
                 1024 <=
             gpu::device_info().shared_bytes_per_block;
}

void run(const Args& args, Context& context) {
  if (!takes(args)) return cuda_grouped_registers_bf16.run(args, context);
  switch (tile_tokens(args.expert_ids.size(), args.gate_up.count)) {
    case 96:
      return launch_all<96>(args, context);
    case 64:
      return launch_all<64>(args, context);
    case 32:
      return launch_all<32>(args, context);
    default:
      return launch_all<16>(args, context);
  }
}

}  // namespace

const Variant cuda_grouped_folded_fp8 = {
    .name = "cuda_grouped_folded_fp8",
    .backend = "cuda",
    .summary =
        "MXFP4 weights as float8 with their scales, inputs as two digits, pairs sorted by expert "
        "(Hopper)",
    .rounds =
        "activations: two float8 digits, weights: 2^-15 of the largest scale of 128 columns, "
        "accumulate: f32, in blocks of 128 of fewer bits",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported =
        [](const Problem& problem) { return cuda_grouped_registers_bf16.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
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
        },
    .run = run,
};

}  // namespace moebench::moe_experts
