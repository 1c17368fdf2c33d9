// Products of MXFP4 weights and inputs of two float8 digits in chunks of 128 columns, by wgmma:
// what cuda_grouped_fp8.cu, which describes them, shares with one token's variants.
#pragma once

#include "kernels/moe_experts/digits.cuh"
#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

constexpr int kGroupThreads = 4 * gpu::kWarp;
constexpr int kGroupRows = 64;
constexpr int kChunk = 128;  // columns
constexpr int kChunkBytes = kChunk / 2;
constexpr int kProducts = 4;  // of 32 columns, in a chunk
constexpr int kMostChunks = 24;
constexpr int kMostColumns = kMostChunks * kChunk;

// Inputs of eight tokens (a part of a tile) and a chunk: [digit][product][half of K][token], 16
// bytes each.
constexpr int kHalfBytes = 8 * 16;
constexpr int kProductBytes = 2 * kHalfBytes;
constexpr int kDigitBytes = 4 * kProductBytes;
constexpr int kPartBytes = 2 * kDigitBytes;

MOEBENCH_HOST_DEVICE int num_chunks(int cols) { return (cols + kChunk - 1) / kChunk; }

inline std::uintptr_t address_of(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

// Whether experts' rows are such: copies of scales and biases take whole 16 bytes.
inline bool are_chunks(const MatrixStackView& stack, const float* biases) {
  const auto scale_bytes =
      static_cast<std::int64_t>(codec(stack.format).row_scale_bytes(stack.cols));
  return stack.format == Format::kMxfp4 && stack.cols <= kMostColumns &&
         stack.rows * scale_bytes % 16 == 0 && stack.rows % 4 == 0 &&
         address_of(stack.scales) % 16 == 0 && address_of(biases) % 16 == 0;
}

// ---- Inputs -------------------------------------------------------------------------------------

// What a token's inputs are multiplied by, of the exponent of its row's largest number: that goes
// to 128 .. 256.
MOEBENCH_DEVICE float digits_factor(int exponent) { return gpu::power_of_two(7 - exponent); }
// What its products are to be multiplied by: of inputs 2^7, of weights 2^6, or 2^-6 where they are
// codes' bits.
template <bool kFolds>
MOEBENCH_DEVICE float products_factor(int exponent) {
  return gpu::power_of_two(exponent - 7 - (kFolds ? 6 : -6));
}

// Two numbers times factor as two digits of E4M3: the first ones in the low half, what they leave
// in the other. The first: four bits of the number, by rounding its float.
MOEBENCH_DEVICE std::uint32_t both_digits(float x, float y, float factor) {
  const float values[2] = {x * factor, y * factor};
  float first[2];
  MOEBENCH_UNROLL
  for (int j = 0; j < 2; ++j) {
    first[j] = gpu::float_from_bits((gpu::bits_of(values[j]) + 0x80000U) & 0xfff00000U);
  }
  return gpu::pack_e4m3(first[0], first[1]) |
         gpu::pack_e4m3(values[0] - first[0], values[1] - first[1]) << 16;
}

// ---- Products -----------------------------------------------------------------------------------

// Of a group's 16 rows of a warp, the lane's even one. What is read of shared memory together must
// meet all of its banks: 16 bytes of eight quads' rows, or 64 of two quads'. These lie, of a row of
// 64 bytes, in the half that bit 0 of the row says, of one of 128 in that of its bit 2 (and of the
// chunk): quads 2 i and 2 i + 1 take pairs that differ in it.
template <bool kReadsHalves>
MOEBENCH_DEVICE int even_row_of_warp() {
  const int quad = gpu::lane_id() / 4;
  const int pair = kReadsHalves ? (quad & 4) | (quad & 1) << 1 | (quad >> 1 & 1) : quad;
  return pair * 2;
}

// What a lane reads of a product's rows low and high, those that it takes first and second.
// kReadsHalves: where high follows low.
template <bool kReadsHalves>
struct ChunkRows {
  const unsigned char* low_scales;  // of the lane's blocks, every fourth one
  const unsigned char* high_scales;
  int scale_bytes;  // of a row
  int blocks;       // from the lane's next one on
  // In a stage, of the 16 bytes of its first chunk that the lane reads, or that it has the warp
  // read, where the copies have put them.
  std::uint32_t codes_at;

  // Of the next chunk: of low, and above of high. Not past the end.
  MOEBENCH_DEVICE std::uint32_t read_scales() {
    std::uint32_t both = 0;
    if (blocks > 0) {
      // The same, in a register less.
      const unsigned char* high = kReadsHalves ? low_scales + scale_bytes : high_scales;
      both = *low_scales | static_cast<std::uint32_t>(*high) << 16;
    }
    low_scales += 4;
    high_scales += 4;
    blocks -= 4;
    return both;
  }
};

// Adds sums to totals: of rows low, high, times their scales, which as two bf16 are so far left.
constexpr int kToBf16 = 7;
template <int kCount>
MOEBENCH_DEVICE void add_scaled(const float (&sums)[kCount], std::uint32_t scales,
                                float (&totals)[kCount]) {
  const float of_rows[2] = {gpu::low_bf16(scales), gpu::high_bf16(scales)};
  MOEBENCH_UNROLL
  for (int j = 0; j < kCount; ++j) totals[j] += sums[j] * of_rows[j / 2 % 2];
}
// Both digits of the inputs at `inputs` by the same weights.
template <int kCount>
MOEBENCH_DEVICE void multiply_both_digits(float (&sums)[kCount], const std::uint32_t (&weights)[4],
                                          std::uint64_t inputs, bool accumulate) {
  gpu::wgmma_e4m3(sums, weights, inputs, accumulate);
  gpu::wgmma_e4m3(sums, weights, inputs + kDigitBytes / 16);
  gpu::wgmma_commit();
}

// Four warps' 64 rows by inputs, over all columns in order. totals, of each part of eight tokens:
// of rows low, high; of each, the part's tokens 2 t, 2 t + 1.
//
// `feed` gives stages of kStageChunks chunks: next(), the stage that is next, which wait() waits
// for; take(), that one (its number, and the descriptor of its inputs, those of further chunks
// kInputBytes on), after which the one behind it is next; codes(stage); release_before(stage,
// some), that the stage before `stage` is free, if there is one. decodes(): whether the warp has
// rows at all.
//
// kFoldsAhead: with few tokens there are registers for the next chunk's scales, too: they are
// compared while this one's products run, and not between a chunk's products and the next one's.
template <bool kFoldsAhead, int kStageChunks, class Rows, class Feed, int kCount>
MOEBENCH_DEVICE void sum_folded(Rows rows, int num_chunks, const uint2* tables, Feed& feed,
                                float (&totals)[kCount]) {
  // Fragments of products under way: with many sums there are no registers for a chunk's, nor
  // with two chunks in the loop, of which each has fragments of its own.
  constexpr int kFragments = kCount > 32 || kStageChunks == 2 ? 2 : kProducts;
  constexpr int kRowBytes = kStageChunks * kChunkBytes;
  float d[kCount] = {};
  std::uint32_t a[kFragments][4] = {};
  // Chunks' scales: of the next products, and of those under way.
  std::uint32_t base = 0;
  std::uint32_t base_under_way = 0;
  uint2 of_low{};  // tables
  uint2 of_high{};
  uint4 low{};
  uint4 high{};
  std::uint32_t own = 0;  // ahead: of the lane's block, of the chunk after the next
  std::uint32_t next_base = 0;
  std::uint32_t next_less = 0;
  const auto compare_ahead = [&] {
    next_base = compare_scales(own, next_less);
    own = rows.read_scales();
  };
  const auto read_scales = [&] {
    base_under_way = base;
    if constexpr (kFoldsAhead) {
      base = next_base;
      read_tables(tables, next_less, of_low, of_high);
    } else {
      base = fold_scales(rows.read_scales(), tables, of_low, of_high);
    }
  };
  // `part`: which of a stage's chunks.
  const auto read_codes = [&](int stage, std::uint32_t part) {
    // From an address in one of a lane's rows to that of the same codes in the other: what
    // differs, with the swizzle, which is that of both rows for 64 bytes.
    constexpr std::uint32_t kOtherRow = kStageChunks == 1 ? kRowBytes : kRowBytes + 16;
    if (!feed.decodes()) return;
    const unsigned char* codes = feed.codes(stage);
    const std::uint32_t at = rows.codes_at ^ part * kChunkBytes;
    low = *reinterpret_cast<const uint4*>(codes + at);
    high = *reinterpret_cast<const uint4*>(codes + (at ^ kOtherRow));
  };
  const auto decode_row = [](std::uint32_t codes, uint2 table, std::uint32_t& even,
                             std::uint32_t& odd) {
    const std::uint32_t sizes = codes & 0x77777777U;
    const std::uint32_t first = gpu::byte_permute(table.x, table.y, sizes);
    const std::uint32_t second = gpu::byte_permute(table.x, table.y, sizes >> 16);
    even = gpu::byte_permute(first, second, 0x6420U) | (codes << 4 & 0x80808080U);
    odd = gpu::byte_permute(first, second, 0x7531U) | (codes & 0x80808080U);
  };

  if constexpr (kFoldsAhead) {
    own = rows.read_scales();
    compare_ahead();
  }
  read_scales();
  feed.wait();
  read_codes(feed.next(), 0);
  const int num_steps = (num_chunks + kStageChunks - 1) / kStageChunks;
  MOEBENCH_NO_UNROLL
  for (int step = 0; step < num_steps; ++step) {
    const auto [stage, inputs] = feed.take();
    MOEBENCH_UNROLL
    for (int part = 0; part < kStageChunks; ++part) {
      const int chunk = step * kStageChunks + part;
      if (part > 0 && chunk == num_chunks) break;
      MOEBENCH_UNROLL
      for (int i = 0; i < kProducts; ++i) {
        auto& weights = a[i % kFragments];
        // Until the product is done that had these registers before.
        if (i == 0 || kFragments < kProducts) gpu::wgmma_wait<kFragments - 1>(weights);
        if (feed.decodes()) {
          decode_row(gpu::word_of(low, i), of_low, weights[0], weights[2]);
          decode_row(gpu::word_of(high, i), of_high, weights[1], weights[3]);
        }
        if (i == 0) {
          gpu::wgmma_wait<0>(d);
          add_scaled(d, base_under_way << kToBf16, totals);  // the first time zeros
          if (part == 0) feed.release_before(stage, step > 0);
          gpu::wgmma_fence(weights, d);
        } else {
          gpu::wgmma_fence(weights);
        }
        multiply_both_digits(d, weights,
                             inputs + (part * Feed::kInputBytes + i * kProductBytes) / 16, i > 0);
        if (kFoldsAhead && i == 1) compare_ahead();
      }
      read_scales();
      if (chunk + 1 < num_chunks) {
        if (part + 1 == kStageChunks) {
          feed.wait();
          read_codes(feed.next(), 0);
        } else {
          read_codes(stage, part + 1);
        }
      }
    }
  }
  gpu::wgmma_wait<0>(d);
  add_scaled(d, base_under_way << kToBf16, totals);
  feed.release_before(feed.next(), true);
}

// E2M1 codes as E4M3's bits, of their values over 2^6: those of even columns, and of odd.
MOEBENCH_DEVICE void decode_codes(std::uint32_t codes, std::uint32_t& even, std::uint32_t& odd) {
  even = (codes << 4 & 0x80808080U) | (codes << 2 & 0x1c1c1c1cU);
  odd = (codes & 0x80808080U) | (codes >> 2 & 0x1c1c1c1cU);
}

// Where scales are not folded, the row of a warp's 16 whose codes a lane has the warp read, as one
// of a matrix: lanes 8 i .. 8 i + 7 have a row of each quad, of rows low and high. A lane takes the
// odd row first if it is one of the last 16.
MOEBENCH_DEVICE int codes_row_of_warp() {
  const int quad = gpu::lane_id() % 8;
  return quad * 2 + (quad / 4 ^ gpu::lane_id() / 8 % 2);
}
// The lane's words of a chunk's four products, of rows low and high.
struct ChunkCodes {
  std::uint32_t low[kProducts];
  std::uint32_t high[kProducts];

  // Of a block's 16 bytes a lane gets four: two loads and addresses instead of eight.
  MOEBENCH_DEVICE void read(const unsigned char* from, std::uint32_t at) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kProducts; i += 2) {
      std::uint32_t words[4];
      gpu::load_matrices(words, from + (at ^ static_cast<std::uint32_t>(i) * 16));
      low[i] = words[0];
      high[i] = words[1];
      low[i + 1] = words[2];
      high[i + 1] = words[3];
    }
  }
};

// As sum_folded, of scales that are not folded and up to four tokens, whose digits are columns of
// their own: 2 t and 2 t + 1 of lanes t. A chunk's products have sums of their own and are under
// way two by two: while two run, the codes of the next two are decoded. totals: of rows low, high.
// feed.release(stage): its codes are read.
template <int kStageChunks, class Rows, class Feed>
MOEBENCH_DEVICE void sum_blocks_of_few(Rows rows, int num_chunks, Feed& feed, float (&totals)[2]) {
  static_assert(kStageChunks == 2 && kProducts == 4);
  float d[kProducts][4] = {};
  std::uint32_t a[kProducts][4] = {};
  ChunkCodes codes;
  const auto read = [&](int stage, std::uint32_t part) {
    if (feed.decodes()) codes.read(feed.codes(stage), rows.codes_at ^ part * kChunkBytes);
  };
  const auto decode_two = [&](int first) {
    if (!feed.decodes()) return;
    MOEBENCH_UNROLL
    for (int i = first; i < first + 2; ++i) {
      decode_codes(codes.low[i], a[i][0], a[i][2]);
      decode_codes(codes.high[i], a[i][1], a[i][3]);
    }
  };
  const auto multiply_two = [&](int first, std::uint64_t inputs) {
    gpu::wgmma_fence(a[first], a[first + 1], d[first], d[first + 1]);
    MOEBENCH_UNROLL
    for (int i = first; i < first + 2; ++i) {
      gpu::wgmma_e4m3(d[i], a[i], inputs + i * kProductBytes / 16, false);
    }
    gpu::wgmma_commit();
  };
  std::uint32_t own = rows.read_scales() << kToBf16;  // of the lane's block
  const auto add_two = [&](int first) {
    MOEBENCH_UNROLL
    for (int i = first; i < first + 2; ++i) {
      const std::uint32_t scales = gpu::shuffle_quad(gpu::kAllLanes, own, i);
      totals[0] += (d[i][0] + d[i][1]) * gpu::low_bf16(scales);
      totals[1] += (d[i][2] + d[i][3]) * gpu::high_bf16(scales);
    }
  };
  feed.wait();
  read(feed.next(), 0);
  decode_two(0);
  const int num_steps = (num_chunks + kStageChunks - 1) / kStageChunks;
  MOEBENCH_NO_UNROLL
  for (int step = 0; step < num_steps; ++step) {
    const auto [stage, inputs] = feed.take();
    MOEBENCH_UNROLL
    for (int part = 0; part < kStageChunks; ++part) {
      const int chunk = step * kStageChunks + part;
      if (part > 0 && chunk == num_chunks) break;
      const std::uint64_t of_chunk = inputs + part * Feed::kInputBytes / 16;
      multiply_two(0, of_chunk);
      decode_two(2);
      multiply_two(2, of_chunk);
      if (chunk + 1 < num_chunks) {
        if (part + 1 == kStageChunks) {
          feed.wait();
          read(feed.next(), 0);
        } else {
          read(stage, part + 1);
        }
      }
      if (part == 0) feed.release(stage);
      gpu::wgmma_wait<1>(d[0], d[1], a[0], a[1]);
      add_two(0);
      if (chunk + 1 < num_chunks) decode_two(0);
      gpu::wgmma_wait<0>(d[2], d[3], a[2], a[3]);
      add_two(2);
      own = rows.read_scales() << kToBf16;
    }
  }
}

// SwiGLU of a gate and its up, to a bf16's bits.
MOEBENCH_DEVICE std::uint16_t swiglu_fast(float gate, float up, float alpha, float limit) {
  const float g = fminf(gate, limit);
  const float u = fmaxf(fminf(up, limit), -limit);
  constexpr float kLog2E = 1.44269504F;
  const float activation =
      gpu::divide_fast(g, 1.0F + gpu::exp2_fast(g * (-alpha * kLog2E))) * (u + 1.0F);
  return gpu::float_to_bf16(activation);
}

}  // namespace moebench::moe_experts
