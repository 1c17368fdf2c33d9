// cuda_flash_wgmma: for prompts, on Hopper. FlashAttention-3's plan (Shah et al., 2024) for heads
// of 64 and grouped queries, over a paged cache.
//
// Rows are the query heads that share a key/value head times neighbouring tokens. As many blocks as
// there are SMs walk over items of 192 rows; three groups of four warps take 64 rows each and share
// the tiles of 128 keys and values, which other warps bring, 4 tiles ahead and from one item into
// the next: whole tiles of a bf16 cache by the tensor memory accelerator, page by page; tiles that
// reach beyond what is seen by copies of 16 bytes, with zeros; other formats decoded.
//
// A group's queries lie in shared memory; scores, weights and sums stay in registers. Its loop:
//
//   weights = of tile j, from its scores                              (exponents)
//   sums += weights x values of tile j                                (tensor cores)
//   scores = queries x keys of tile j + 1                             (tensor cores)
//
// The groups take turns at starting products, so that while one's are computed the others work out
// weights. Weights become the left operand where they are, in registers; values are its right
// operand as they lie in the cache, by wgmma's transposed form.
//
// Weights are 2^(score - base). A row's base is the largest score of its first tile, and stays
// until a tile's weights come to more than 2^16: then the tile is weighed again, by its largest
// score, and sums are rescaled. So there is no maximum to be found first, and hardly ever a sum to
// rescale. Sinks come in at the end.
//
// Tokens of several sequences may meet in an item: their runs are taken one after the other, and
// rows of other runs see nothing meanwhile. Tiles begin at multiples of 128 of the absolute
// position and tiles that a row does not see leave it as it is, so a token's output has the same
// bits in any batch and in any chunking.
//
// Counted for a tile of 192 rows, in cycles of an SM: products 1,536; exponents 1,536 (16 a cycle);
// instructions 1,100 (365 of each of 12 warps, four start in a cycle). 32 KiB arrive meanwhile, 21
// bytes a cycle; from shared memory the products read 80 of the 128 that it has. So exponents are
// as long as products, and what of them does not overlap is lost; copies should not be in the way.
// A prediction, not a measurement: 8,192 tokens of gpt-oss-20b, a layer with full attention: 0.6 ms
// if all overlaps, 1.2 if exponents follow products.
//
// One token gets the same bits as many, so it could serve plans that keep one order of sums for
// prefill and decoding; but then few SMs walk over a long context, an item each. For that, splits
// would have to begin anew at fixed positions, every 1,024 say: a row's sums of the splits before
// wait in shared memory (48 KiB) and are joined in order, here as by the kernel that joins the
// splits of a decoded token, which then are items of their own.
#include <algorithm>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kGroupWarps = 4;  // that multiply together
constexpr int kGroupThreads = kGroupWarps * gpu::kWarp;
constexpr int kGroupRows = 64;
constexpr int kProducingWarps = 4;
constexpr int kKeys = 128;     // of a tile
constexpr int kRowChunks = 8;  // of 16 bytes, in a row of a tile: 64 columns
constexpr int kTileChunks = kKeys * kRowChunks;
constexpr int kStageChunks = 2 * kTileChunks;  // keys, values
constexpr int kQueryChunks = kGroupRows * kRowChunks;
constexpr int kStages = 4;
constexpr float kLowest = -1.0e30F;  // below any score, and finite: differences stay numbers
constexpr float kMost = 0x1p16F;     // of weights in a tile, before a row's base is raised

// A cache in bf16 is copied as it is, by threads that hardly need registers: theirs go to a third
// group. Any other has to be decoded.
template <Format kFormat>
struct Block {
  static constexpr bool kCopies = kFormat == Format::kBf16;
  static constexpr int kGroups = kCopies ? 3 : 2;
  static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kMultiplyingWarps = kGroups * kGroupWarps;
  static constexpr int kThreads = (kMultiplyingWarps + kProducingWarps) * gpu::kWarp;
  // Of a thread: at the start, for all the same; then as they are dealt out.
  static constexpr int kRegisters = kCopies ? 128 : 168;
  static constexpr int kMultiplyingRegisters = kCopies ? 160 : 184;
  static constexpr int kProducingRegisters = kCopies ? 32 : 136;
  static_assert(kGroups * kMultiplyingRegisters + kProducingRegisters ==
                (kGroups + 1) * kRegisters);
  static constexpr std::size_t kBytes =
      std::size_t{16} * (kStages * kStageChunks + kGroups * kQueryChunks);
};

struct Work {
  const float* queries;
  const float* sinks;
  float* out;
  std::uint32_t* rounded;        // pairs of bf16, instead of `out`; null: not
  const uint4* rounded_queries;  // of bf16, instead of `queries`; null: not
  float scale;                   // the contract's times log2 e
  int window;
  int num_tokens;
  int share;         // query heads of a key/value head
  int block_tokens;  // of an item
  int items;
  int box_rows;   // positions that a tensor map loads at a time; 0: it cannot
  int page_rows;  // of the maps, from a page to the next
};

// What a block takes at a time: some tokens, and a key/value head.
struct Item {
  int begin, end;
  int kv_head;
};
// The last tokens see most: they come first. Every other round goes backwards, so that no block has
// the heavier item every time.
MOEBENCH_DEVICE bool find_item(const Work& work, int num_kv_heads, int round, Item& item) {
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
  const int index = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
  if (index >= work.items) return false;
  item.begin = (work.items - 1 - index) / num_kv_heads * work.block_tokens;
  item.end = item.begin + work.block_tokens < work.num_tokens ? item.begin + work.block_tokens
                                                              : work.num_tokens;
  item.kv_head = index % num_kv_heads;
  return true;
}

// The tiles that an item's tokens see, run by run.
struct Tiles {
  Run run;
  int low, high;  // positions that the run sees
  int tile;       // the first position of the tile at hand

  MOEBENCH_DEVICE void begin(const DeviceKv& kv, int window, int token, int end) {
    run = find_run(kv, token, end);
    const int first = kv.position[run.begin];
    low = window > 0 && first >= window ? first - window + 1 : 0;
    high = kv.position[run.end - 1] + 1;
    tile = low / kKeys * kKeys;
  }
  // From one lane, so that the compiler knows the branches taken on it to be the warp's.
  MOEBENCH_DEVICE bool more(int end) const {
    const bool some = tile + kKeys < high || run.end < end;
    return gpu::shuffle(gpu::kAllLanes, static_cast<int>(some), 0) != 0;
  }
  // To the next, which there must be; true if it is another run's.
  MOEBENCH_DEVICE bool advance(const DeviceKv& kv, int window, int end) {
    tile += kKeys;
    if (tile < high) return false;
    begin(kv, window, run.end, end);
    return true;
  }
};

// Stages in turns.
struct Ring {
  unsigned count = 0;
  MOEBENCH_DEVICE int stage() const { return static_cast<int>(count % kStages); }
  MOEBENCH_DEVICE int stage_before() const { return static_cast<int>((count - 1) % kStages); }
  MOEBENCH_DEVICE unsigned parity() const { return count / kStages % 2; }
};

// ---- Producers ----------------------------------------------------------------------------------

template <Format kFormat, int kHeadDim>
struct Producer {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kRowsAtOnce = gpu::kWarp / kChunks;
  static_assert(kProducingWarps * gpu::kWarp == kKeys);  // a row is looked up by each thread
  using Columns = KvColumns<kFormat, 8>;

  const Work& work;
  const DeviceKv& kv;
  int warp;  // of the producers

  // A tile that is seen as a whole: its keys by two warps, its values by two. Each expects a
  // quarter of the bytes, whatever it loads itself.
  MOEBENCH_DEVICE void load_pages(const gpu::TensorMap& keys, const gpu::TensorMap& values,
                                  int sequence, int kv_head, int tile, uint4* stage,
                                  gpu::Mbarrier* full) const {
    if (gpu::lane_id() == 0) {
      gpu::mbarrier_arrive_expect_bytes(full, kStageChunks * 16 / kProducingWarps);
    }
    gpu::sync_warp();
    const int first = (warp / 2 + gpu::lane_id() * 2) * work.box_rows;
    if (first >= kKeys) return;
    const bool is_value = warp % 2 != 0;
    const std::int64_t pages = static_cast<std::int64_t>(sequence) * kv.pages_per_sequence;
    const int page = kv.page_tables[pages + (tile + first) / kv.page_size];
    gpu::load_tile_async(stage + (is_value ? kTileChunks : 0) + first * kRowChunks,
                         is_value ? values : keys, kv_head * kHeadDim,
                         page * work.page_rows + (tile + first) % kv.page_size, full);
  }

  // The positions [low, high) of a tile, and zeros for the others: 32 by each warp.
  MOEBENCH_DEVICE void load_rows(const Tiles& at, int sequence, int kv_head, uint4* stage) const {
    const int position = at.tile + warp * gpu::kWarp + gpu::lane_id();
    const std::int64_t offset =
        position >= at.low && position < at.high ? kv_offset(kv, sequence, position, kv_head) : -1;
    if constexpr (Block<kFormat>::kCopies) {
      MOEBENCH_UNROLL
      for (int i = 0; i < kChunks; ++i) {
        const std::int64_t row = gpu::shuffle(gpu::kAllLanes, offset, row_of(i));
        const std::int64_t from = row < 0 ? 0 : row + chunk() * 16;
        uint4* to = stage + place_of(i);
        gpu::copy_async(to, kv.keys + from, row >= 0);
        gpu::copy_async(to + kTileChunks, kv.values + from, row >= 0);
      }
    } else {
      constexpr int kAtOnce = 4;  // so many loads of each are on their way
      MOEBENCH_NO_UNROLL
      for (int begin = 0; begin < kChunks; begin += kAtOnce) {
        Columns keys[kAtOnce];
        Columns values[kAtOnce];
        MOEBENCH_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          keys[i].clear();
          values[i].clear();
          const std::int64_t row = gpu::shuffle(gpu::kAllLanes, offset, row_of(begin + i));
          if (row < 0) continue;
          keys[i].load(kv.keys + row, kv.data_bytes, chunk() * 8);
          values[i].load(kv.values + row, kv.data_bytes, chunk() * 8);
        }
        MOEBENCH_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          uint4* to = stage + place_of(begin + i);
          to[0] = rounded(keys[i]);
          to[kTileChunks] = rounded(values[i]);
        }
      }
    }
  }

 private:
  // The i-th of the lane's pieces: its row among the warp's, and where it goes.
  MOEBENCH_DEVICE static int row_of(int i) { return i * kRowsAtOnce + gpu::lane_id() / kChunks; }
  MOEBENCH_DEVICE static int chunk() { return gpu::lane_id() % kChunks; }
  MOEBENCH_DEVICE int place_of(int i) const {
    return (warp * gpu::kWarp + row_of(i)) * kRowChunks + (chunk() ^ row_of(i) % 8);
  }

  MOEBENCH_DEVICE static uint4 rounded(const Columns& columns) {
    std::uint32_t pairs[4];
    columns.decode_bf16(pairs);
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
};

template <Format kFormat, int kHeadDim>
MOEBENCH_DEVICE void produce(const Work& work, const DeviceKv& kv, const gpu::TensorMap& keys,
                             const gpu::TensorMap& values, uint4* stages, gpu::Mbarrier* full,
                             gpu::Mbarrier* empty) {
  using B = Block<kFormat>;
  const Producer<kFormat, kHeadDim> producer{work, kv, gpu::warp_id() - B::kMultiplyingWarps};
  const auto hand_over = [&](int stage) {
    gpu::fence_async_proxy();
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&full[stage]);
  };
  Ring ring;
  bool unfinished = false;  // threads' copies to the stage before are on their way
  Item item{};
  MOEBENCH_NO_UNROLL
  for (int round = 0; find_item(work, kv.num_kv_heads, round, item); ++round) {
    Tiles at;
    at.begin(kv, work.window, item.begin, item.end);
    MOEBENCH_NO_UNROLL
    for (bool some = true; some;) {
      gpu::mbarrier_wait(&empty[ring.stage()], ring.parity() ^ 1U);  // new ones are
      uint4* stage = stages + ring.stage() * kStageChunks;
      const int sequence = kv.sequence[at.run.begin];
      if constexpr (B::kCopies) {
        const bool whole = work.box_rows > 0 && at.low <= at.tile && at.tile + kKeys <= at.high;
        if (whole) {
          producer.load_pages(keys, values, sequence, item.kv_head, at.tile, stage,
                              &full[ring.stage()]);
        } else {
          producer.load_rows(at, sequence, item.kv_head, stage);
          gpu::commit_copies();
        }
        if (unfinished) {
          if (whole) {
            gpu::wait_copies<0>();
          } else {
            gpu::wait_copies<1>();
          }
          hand_over(ring.stage_before());
        }
        unfinished = !whole;
      } else {
        producer.load_rows(at, sequence, item.kv_head, stage);
        hand_over(ring.stage());
      }
      ++ring.count;
      some = at.more(item.end);
      if (some) at.advance(kv, work.window, item.end);
    }
  }
  if (unfinished) {
    gpu::wait_copies<0>();
    hand_over(ring.stage_before());
  }
}

// ---- Multipliers --------------------------------------------------------------------------------

// The item's token that a row of the block belongs to, -1 if there is none; and where the row's
// head begins in queries and out.
MOEBENCH_DEVICE int token_of(const Work& work, const Item& item, int row) {
  const int token = item.begin + row / work.share;
  return row / work.share < work.block_tokens && token < item.end ? token : -1;
}
MOEBENCH_DEVICE int head_of(const Work& work, const Item& item, int row) {
  return item.kv_head * work.share + row % work.share;
}
template <int kHeadDim>
MOEBENCH_DEVICE std::int64_t place_of(const Work& work, const Item& item, int num_kv_heads,
                                      int row) {
  const std::int64_t first_head =
      static_cast<std::int64_t>(token_of(work, item, row)) * num_kv_heads * work.share;
  return (first_head + head_of(work, item, row)) * kHeadDim;
}

// A group's queries, 16 rows by each warp.
template <int kHeadDim>
MOEBENCH_DEVICE void load_queries(const Work& work, const Item& item, int num_kv_heads,
                                  uint4* tile) {
  constexpr int kChunks = kHeadDim / 8;
  MOEBENCH_UNROLL
  for (int i = 0; i < 16 * kChunks / gpu::kWarp; ++i) {
    const int in_warp = gpu::lane_id() + i * gpu::kWarp;
    const int row = gpu::warp_id() * 16 + in_warp / kChunks;
    const int chunk = in_warp % kChunks;
    uint4 packed{0, 0, 0, 0};
    if (token_of(work, item, row) >= 0) {
      const std::int64_t place =
          place_of<kHeadDim>(work, item, num_kv_heads, row) + std::int64_t{8} * chunk;
      if (work.rounded_queries != nullptr) {
        packed = work.rounded_queries[place / 8];
      } else {
        const auto* from = reinterpret_cast<const float4*>(work.queries + place);
        packed = gpu::pack_inputs<Format::kBf16>(from[0], from[1]);
      }
    }
    tile[row % kGroupRows * kRowChunks + (chunk ^ row % 8)] = packed;
  }
}

// What a thread keeps of its two rows. It has columns 8n + 2t and the next of scores and sums, t
// its place among the four threads that share the rows.
struct ThreadRows {
  float sums[32];
  float base[2];   // of the exponents
  float total[2];  // of this thread's weights
  int last[2];     // position of the row's token; -1 unless the token is of the run at hand

  MOEBENCH_DEVICE static int row_of(int i) {
    return gpu::warp_id() * 16 + gpu::lane_id() / 4 + 8 * i;
  }

  MOEBENCH_DEVICE void clear() {
    MOEBENCH_UNROLL
    for (float& sum : sums) sum = 0;
    base[0] = base[1] = kLowest;
    total[0] = total[1] = 0;
  }

  MOEBENCH_DEVICE void find_positions(const Work& work, const Item& item, const DeviceKv& kv,
                                      const Run& run) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int token = token_of(work, item, row_of(i));
      last[i] = token >= run.begin && token < run.end ? kv.position[token] : -1;
    }
  }

  // Turns the scores of a tile into weights, as the next product wants them, and makes totals and
  // sums ready for them.
  MOEBENCH_DEVICE void weigh(float (&scores)[kKeys / 2], std::uint32_t (&weights)[kKeys / 16][4],
                             int tile, int window, float scale) {
    const float nothing = gpu::float_from_bits(0xff800000U);  // minus infinity
    const int column = gpu::lane_id() % 4 * 2;
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int first = window > 0 ? last[i] - window + 1 : 0;
      if (first <= tile && last[i] >= tile + kKeys - 1) continue;
      const int low = first - tile - column;
      const int high = last[i] - tile - column;
      MOEBENCH_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 2; ++c) {
          if (8 * n + c < low || 8 * n + c > high) scores[4 * n + 2 * i + c] = nothing;
        }
      }
    }
    float added[2];
    weigh_by_base(scores, weights, scale, added);
    const bool beyond[2] = {added[0] > kMost, added[1] > kMost};
    if (gpu::any(gpu::kAllLanes, beyond[0] || beyond[1])) {
      raise_base(scores, beyond, scale);
      weigh_by_base(scores, weights, scale, added);
    }
    total[0] += added[0];
    total[1] += added[1];
  }

  template <int kHeadDim>
  MOEBENCH_DEVICE void write(const Work& work, const Item& item, int num_kv_heads) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      total[i] += gpu::shuffle_xor(gpu::kAllLanes, total[i], 1);
      total[i] += gpu::shuffle_xor(gpu::kAllLanes, total[i], 2);
      if (token_of(work, item, row_of(i)) < 0) continue;
      const float* sink =
          work.sinks == nullptr ? nullptr : work.sinks + head_of(work, item, row_of(i));
      const float factor = factor_of_row(base[i], total[i], sink);
      const std::int64_t place =
          place_of<kHeadDim>(work, item, num_kv_heads, row_of(i)) + gpu::lane_id() % 4 * 2;
      MOEBENCH_UNROLL
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const float2 pair = {sums[4 * n + 2 * i] * factor, sums[4 * n + 2 * i + 1] * factor};
        if (work.rounded != nullptr) {
          work.rounded[(place + 8 * n) / 2] = gpu::pack_bf16(pair.x, pair.y);
        } else {
          *reinterpret_cast<float2*>(work.out + place + 8 * n) = pair;
        }
      }
    }
  }

 private:
  // And what they add to this thread's totals.
  MOEBENCH_DEVICE void weigh_by_base(const float (&scores)[kKeys / 2],
                                     std::uint32_t (&weights)[kKeys / 16][4], float scale,
                                     float (&added)[2]) const {
    added[0] = added[1] = 0;
    MOEBENCH_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {
      MOEBENCH_UNROLL
      for (int j = 0; j < 4; ++j) {  // both rows, then both rows 8 columns on
        const float* pair = &scores[8 * k + 2 * j];
        const float first = gpu::exp2_fast(pair[0] * scale - base[j % 2]);
        const float second = gpu::exp2_fast(pair[1] * scale - base[j % 2]);
        added[j % 2] += first + second;
        weights[k][j] = gpu::pack_bf16(first, second);
      }
    }
  }

  // Rows that went beyond in one of their four threads get their largest score as a base.
  MOEBENCH_DEVICE void raise_base(const float (&scores)[kKeys / 2], const bool (&beyond)[2],
                                  float scale) {
    float factors[2];
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      float most = kLowest;
      MOEBENCH_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        most = fmaxf(most, fmaxf(scores[4 * n + 2 * i], scores[4 * n + 2 * i + 1]));
      }
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 1));
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
      const unsigned threads = gpu::ballot(gpu::kAllLanes, beyond[i]) >> gpu::lane_id() / 4 * 4;
      const float raised = (threads & 15U) != 0 ? most * scale : base[i];
      factors[i] = gpu::exp2_fast(base[i] - raised);
      base[i] = raised;
      total[i] *= factors[i];
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < 32; ++j) sums[j] *= factors[j / 2 % 2];
  }
};

template <Format kFormat, int kHeadDim>
MOEBENCH_DEVICE void multiply(const Work& work, const DeviceKv& kv, uint4* stages,
                              gpu::Mbarrier* full, gpu::Mbarrier* empty) {
  constexpr int kGroups = Block<kFormat>::kGroups;
  // From one lane, as what branches depend on, so that the compiler knows it to be the warp's.
  const int group = gpu::shuffle(gpu::kAllLanes, gpu::warp_id() / kGroupWarps, 0);
  constexpr int kQueries = kStages * kStageChunks;  // behind the stages
  uint4* query_tile = stages + kQueries + group * kQueryChunks;
  // The tile so many chunks behind the first: descriptors count in these, in their low words.
  const std::uint64_t descriptor = gpu::wgmma_descriptor(stages);
  const auto low = gpu::shuffle(gpu::kAllLanes, static_cast<std::uint32_t>(descriptor), 0);
  const auto tile_at = [&](int chunks) {
    return descriptor >> 32 << 32 | (low + static_cast<std::uint32_t>(chunks));
  };
  const auto multiply_keys = [&](float(&scores)[kKeys / 2], int stage) {
    gpu::forget_registers(scores);
    gpu::wgmma_fence(scores);
    MOEBENCH_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {  // two chunks each
      gpu::wgmma_bf16(scores, tile_at(kQueries + group * kQueryChunks + 2 * k),
                      tile_at(stage * kStageChunks + 2 * k), k > 0);
    }
    gpu::wgmma_commit();
  };
  // Columns of values beyond a short head are whatever lies there, and so are their sums.
  const auto multiply_values = [&](float(&sums)[32], std::uint32_t(&weights)[kKeys / 16][4],
                                   int stage) {
    gpu::wgmma_fence(sums, weights);
    MOEBENCH_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {  // 16 rows each
      gpu::wgmma_bf16_transposed(sums, weights[k],
                                 tile_at(stage * kStageChunks + kTileChunks + 16 * kRowChunks * k));
    }
    gpu::wgmma_commit();
  };
  const auto release = [&](int stage) {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[stage]);
  };
  // Named barriers: one a group for its turn, then one a group for its queries.
  const auto take_turn = [&] { gpu::sync_named(1 + group, 2 * kGroupThreads); };
  const auto pass_turn = [&] {
    gpu::arrive_named(group + 1 < kGroups ? 2 + group : 1, 2 * kGroupThreads);
  };
  if (group == kGroups - 1) pass_turn();

  Ring ring;
  Item item{};
  MOEBENCH_NO_UNROLL
  for (int round = 0; find_item(work, kv.num_kv_heads, round, item); ++round) {
    // A warp's products with the rows before, which are the only ones to read them, are done.
    load_queries<kHeadDim>(work, item, kv.num_kv_heads, query_tile);
    gpu::fence_async_proxy();
    gpu::sync_named(1 + kGroups + group, kGroupThreads);
    Tiles at;
    at.begin(kv, work.window, item.begin, item.end);
    ThreadRows rows;
    rows.clear();
    rows.find_positions(work, item, kv, at.run);
    float scores[kKeys / 2];
    gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
    multiply_keys(scores, ring.stage());
    gpu::wgmma_wait<0>(scores);
    MOEBENCH_NO_UNROLL
    for (bool some = true; some;) {
      std::uint32_t weights[kKeys / 16][4];
      rows.weigh(scores, weights, at.tile, work.window, work.scale);
      ++ring.count;
      some = at.more(item.end);
      if (some) gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
      take_turn();
      multiply_values(rows.sums, weights, ring.stage_before());
      if (some) {
        multiply_keys(scores, ring.stage());
        pass_turn();
        if (at.advance(kv, work.window, item.end)) rows.find_positions(work, item, kv, at.run);
        gpu::wgmma_wait<1>(rows.sums, weights);
        release(ring.stage_before());
        gpu::wgmma_wait<0>(scores);
      } else {
        pass_turn();
        gpu::wgmma_wait<0>(rows.sums, weights);
        release(ring.stage_before());
      }
    }
    rows.write<kHeadDim>(work, item, kv.num_kv_heads);
  }
  if (group == 0) take_turn();  // what was passed last
}

template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(Block<kFormat>::kThreads, 1)
    attend(Work work, DeviceKv kv, MOEBENCH_GRID_CONSTANT gpu::TensorMap keys,
           MOEBENCH_GRID_CONSTANT gpu::TensorMap values) {
  using B = Block<kFormat>;
  // [kStages][keys, values], then each group's queries.
  auto* stages = reinterpret_cast<uint4*>(gpu::dynamic_shared());
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
  if (threadIdx.x == 0) {
    gpu::init_ring(full, empty, kStages, kProducingWarps, B::kMultiplyingWarps);
  }
  gpu::sync_threads();
  if (gpu::warp_id() < B::kMultiplyingWarps) {
    gpu::raise_max_registers<B::kMultiplyingRegisters>();
    multiply<kFormat, kHeadDim>(work, kv, stages, full, empty);
  } else {
    gpu::lower_max_registers<B::kProducingRegisters>();
    produce<kFormat, kHeadDim>(work, kv, keys, values, stages, full, empty);
  }
}

// How many positions a tensor map loads at a time; 0 if the pages do not lie as it wants.
int box_rows_of(const KvLayerView& kv) {
  const std::size_t position_bytes = static_cast<std::size_t>(kv.num_kv_heads) * kv.row_bytes;
  const auto aligned = [](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % 16 == 0;
  };
  const bool fits = kv.format == Format::kBf16 && kv.head_dim == 64 && kv.page_size % 8 == 0 &&
                    (kKeys % kv.page_size == 0 || kv.page_size % kKeys == 0) &&
                    kv.page_stride % position_bytes == 0 && aligned(kv.keys) && aligned(kv.values);
  return fits ? static_cast<int>(std::min<std::int64_t>(kv.page_size, kKeys)) : 0;
}

// All positions of all pages, one a row. How many there are is not known here (a TiB's, say), and
// none is asked for that no page table names.
gpu::TensorMap positions_of(const KvLayerView& kv, const std::byte* data, int box_rows) {
  if (box_rows == 0) return {};
  const std::int64_t position_bytes = kv.num_kv_heads * static_cast<std::int64_t>(kv.row_bytes);
  return gpu::device().make_tensor_map(
      {.data = data,
       .rows = std::min<std::int64_t>((std::int64_t{1} << 40) / position_bytes,
                                      std::numeric_limits<std::int32_t>::max()),
       .columns = kv.num_kv_heads * kv.head_dim,
       .row_bytes = position_bytes,
       .tile_rows = box_rows,
       .tile_columns = static_cast<int>(kv.head_dim)});
}

template <Format kFormat, int kHeadDim>
void start(const Args& args, Context& context) {
  using B = Block<kFormat>;
  const KvLayerView& kv = args.kv;
  const auto num_tokens = static_cast<int>(args.queries.shape[0]);
  const auto share = static_cast<int>(args.queries.shape[1] / kv.num_kv_heads);
  const int block_tokens = B::kRows / share;
  const int box_rows = box_rows_of(kv);
  const Work work{
      .queries = args.queries.data,
      .sinks = args.sinks.data,
      .out = args.out.data,
      .rounded = reinterpret_cast<std::uint32_t*>(args.rounded.data),
      .rounded_queries = reinterpret_cast<const uint4*>(args.rounded_queries.data),
      .scale = args.scale * kLog2E,
      .window = static_cast<int>(args.window),
      .num_tokens = num_tokens,
      .share = share,
      .block_tokens = block_tokens,
      .items = (num_tokens + block_tokens - 1) / block_tokens * static_cast<int>(kv.num_kv_heads),
      .box_rows = box_rows,
      .page_rows = static_cast<int>(kv.page_stride /
                                    (static_cast<std::size_t>(kv.num_kv_heads) * kv.row_bytes))};
  gpu::launch(attend<kFormat, kHeadDim>,
              {.grid = {static_cast<unsigned>(std::min(work.items, gpu::device_info().num_sms))},
               .block = B::kThreads,
               .shared_bytes = B::kBytes,
               .stream = context.stream},
              "attention/cuda_flash_wgmma", work, device_kv(kv, args.places),
              positions_of(kv, kv.keys, box_rows), positions_of(kv, kv.values, box_rows));
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.kv.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    if (args.kv.head_dim == 32) {
      start<kFormat, 32>(args, context);
    } else {
      start<kFormat, 64>(args, context);
    }
  });
}

std::string unsupported(const Problem& problem) {
  const std::string reason = shared_heads_unsupported(problem, 2 * kGroupRows);
  if (!reason.empty()) return reason;
  if (problem.head_dim != 32 && problem.head_dim != 64) {
    return fmt::format("head_dim {} is not 32 or 64", problem.head_dim);
  }
  return gpu::needs_wgmma();
}

}  // namespace

const Variant cuda_flash_wgmma = {
    .name = "cuda_flash_wgmma",
    .backend = "cuda",
    .summary = "for prompts: 192 query rows share tiles of 128 keys, products by wgmma (Hopper)",
    .rounds = "queries, keys, values, weights: bf16, accumulate and softmax sums: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = unsupported,
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
    .knows_bf16 = [](const Args&) { return true; },
};

}  // namespace moebench::attention
