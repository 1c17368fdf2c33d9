// Rows of queries over tiles of a paged cache by wgmma, on Hopper: what its variants share.
//
// Rows are the query heads that share a key/value head times neighbouring tokens. As many blocks as
// there are SMs walk over items of up to 192 rows; groups of four warps take 64 rows each and share
// the tiles of 128 keys and values, which other warps bring, 4 tiles ahead and from one item into
// the next: whole tiles of a bf16 cache by the tensor memory accelerator, page by page; tiles that
// reach beyond what is seen by copies of 16 bytes, with zeros; other formats decoded. A group's
// queries lie in shared memory, behind the tiles.
//
// Tokens of several sequences may meet in an item: their runs are taken one after the other, and
// rows of other runs see nothing meanwhile. Tiles begin at multiples of 128 of the absolute
// position.
#pragma once

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
constexpr int kStageKeys = 128;  // of a tile
constexpr int kRowChunks = 8;    // of 16 bytes, in a row of a tile: 64 columns
constexpr int kTileChunks = kStageKeys * kRowChunks;
constexpr int kStageChunks = 2 * kTileChunks;  // keys, values
constexpr int kQueryChunks = kGroupRows * kRowChunks;
constexpr int kStages = 4;

// A cache in bf16 is copied as it is, by threads that hardly need registers: theirs go to a third
// group. Any other has to be decoded.
template <Format kFormat>
struct RowsBlock {
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
    tile = low / kStageKeys * kStageKeys;
  }
  // From one lane, so that the compiler knows the branches taken on it to be the warp's.
  MOEBENCH_DEVICE bool more(int end) const {
    const bool some = tile + kStageKeys < high || run.end < end;
    return gpu::shuffle(gpu::kAllLanes, static_cast<int>(some), 0) != 0;
  }
  // To the next, which there must be; true if it is another run's.
  MOEBENCH_DEVICE bool advance(const DeviceKv& kv, int window, int end) {
    tile += kStageKeys;
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
  static_assert(kProducingWarps * gpu::kWarp == kStageKeys);  // a row is looked up by each thread
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
    if (first >= kStageKeys) return;
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
    if constexpr (RowsBlock<kFormat>::kCopies) {
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
  using B = RowsBlock<kFormat>;
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
        const bool whole =
            work.box_rows > 0 && at.low <= at.tile && at.tile + kStageKeys <= at.high;
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

// A group of four warps of a block, and its products over tiles of 64 columns.
template <int kGroups>
class RowsGroup {
  static constexpr int kQueries = kStages * kStageChunks;  // behind the stages

 public:
  // From one lane, as what branches depend on, so that the compiler knows it to be the warp's.
  MOEBENCH_DEVICE explicit RowsGroup(uint4* stages)
      : group(gpu::shuffle(gpu::kAllLanes, gpu::warp_id() / kGroupWarps, 0)),
        query_tile(stages + kQueries + group * kQueryChunks),
        descriptor(gpu::wgmma_descriptor(stages)),
        low(gpu::shuffle(gpu::kAllLanes, static_cast<std::uint32_t>(descriptor), 0)) {
    if (group == kGroups - 1) pass_turn();
  }

  // A warp's products with the rows before, which are the only ones to read them, must be done.
  template <int kHeadDim>
  MOEBENCH_DEVICE void take_queries(const Work& work, const Item& item, int num_kv_heads) const {
    load_queries<kHeadDim>(work, item, num_kv_heads, query_tile);
    gpu::fence_async_proxy();
    gpu::sync_named(1 + kGroups + group, kGroupThreads);
  }

  // Scores of 2 kScores keys of a stage, from key `first` on.
  template <int kHeadDim, int kScores>
  MOEBENCH_DEVICE void multiply_keys(float (&scores)[kScores], int stage, int first) const {
    gpu::forget_registers(scores);
    gpu::wgmma_fence(scores);
    MOEBENCH_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {  // two chunks each
      gpu::wgmma_bf16(scores, tile_at(kQueries + group * kQueryChunks + 2 * k),
                      tile_at(stage * kStageChunks + first * kRowChunks + 2 * k), k > 0);
    }
    gpu::wgmma_commit();
  }

  // Of 16 kSteps values of a stage, from value `first` on; added to sums, or instead of them.
  // Columns of values beyond a short head are whatever lies there, and so are their sums.
  template <int kSteps>
  MOEBENCH_DEVICE void multiply_values(float (&sums)[32], std::uint32_t (&weights)[kSteps][4],
                                       int stage, int first, bool adds = true) const {
    gpu::wgmma_fence(sums, weights);
    MOEBENCH_UNROLL
    for (int k = 0; k < kSteps; ++k) {  // 16 rows each
      gpu::wgmma_bf16_transposed(
          sums, weights[k],
          tile_at(stage * kStageChunks + kTileChunks + (first + 16 * k) * kRowChunks),
          k > 0 || adds);
    }
    gpu::wgmma_commit();
  }

  MOEBENCH_DEVICE void release(gpu::Mbarrier* empty, int stage) const {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[stage]);
  }

  // The groups take turns at starting products. Named barriers: one a group for its turn, then one
  // a group for its queries.
  MOEBENCH_DEVICE void take_turn() const { gpu::sync_named(1 + group, 2 * kGroupThreads); }
  MOEBENCH_DEVICE void pass_turn() const {
    gpu::arrive_named(group + 1 < kGroups ? 2 + group : 1, 2 * kGroupThreads);
  }
  // After all items: what was passed last.
  MOEBENCH_DEVICE void end() const {
    if (group == 0) take_turn();
  }

 private:
  // The tile so many chunks behind the first: descriptors count in these, in their low words.
  MOEBENCH_DEVICE std::uint64_t tile_at(int chunks) const {
    return descriptor >> 32 << 32 | (low + static_cast<std::uint32_t>(chunks));
  }

  int group;
  uint4* query_tile;
  std::uint64_t descriptor;
  std::uint32_t low;
};

// The thread's row i among the block's.
MOEBENCH_DEVICE int row_of_thread(int i) {
  return gpu::warp_id() * 16 + gpu::lane_id() / 4 + 8 * i;
}

// The positions of its rows' tokens; -1 unless a token is of the run at hand.
MOEBENCH_DEVICE void find_positions(const Work& work, const Item& item, const DeviceKv& kv,
                                    const Run& run, int (&last)[2]) {
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int token = token_of(work, item, row_of_thread(i));
    last[i] = token >= run.begin && token < run.end ? kv.position[token] : -1;
  }
}

// Ends its row i, whose base and sum of weights these are.
template <int kHeadDim>
MOEBENCH_DEVICE void write_row(const Work& work, const Item& item, int num_kv_heads, int i,
                               float base, float total, const float (&sums)[32]) {
  const int row = row_of_thread(i);
  if (token_of(work, item, row) < 0) return;
  const float* sink = work.sinks == nullptr ? nullptr : work.sinks + head_of(work, item, row);
  const float factor = factor_of_row(base, total, sink);
  const std::int64_t place =
      place_of<kHeadDim>(work, item, num_kv_heads, row) + gpu::lane_id() % 4 * 2;
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

// ---- A block ------------------------------------------------------------------------------------

// Producers produce, and the others call multiply(stages, full, empty), in a block of RowsBlock's
// threads and shared memory: [kStages][keys, values], then each group's queries.
template <Format kFormat, int kHeadDim, class Multiply>
MOEBENCH_DEVICE void attend_in_rows(const Work& work, const DeviceKv& kv,
                                    const gpu::TensorMap& keys, const gpu::TensorMap& values,
                                    Multiply&& multiply) {
  using B = RowsBlock<kFormat>;
  auto* stages = reinterpret_cast<uint4*>(gpu::dynamic_shared());
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
  if (threadIdx.x == 0) {
    gpu::init_ring(full, empty, kStages, kProducingWarps, B::kMultiplyingWarps);
  }
  gpu::sync_threads();
  if (gpu::warp_id() < B::kMultiplyingWarps) {
    gpu::raise_max_registers<B::kMultiplyingRegisters>();
    multiply(stages, full, empty);
  } else {
    gpu::lower_max_registers<B::kProducingRegisters>();
    produce<kFormat, kHeadDim>(work, kv, keys, values, stages, full, empty);
  }
}

// ---- Launching ----------------------------------------------------------------------------------

// How many positions a tensor map loads at a time; 0 if the pages do not lie as it wants.
inline int box_rows_of(const KvLayerView& kv) {
  const std::size_t position_bytes = static_cast<std::size_t>(kv.num_kv_heads) * kv.row_bytes;
  const auto aligned = [](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % 16 == 0;
  };
  const bool fits = kv.format == Format::kBf16 && kv.head_dim == 64 && kv.page_size % 8 == 0 &&
                    (kStageKeys % kv.page_size == 0 || kv.page_size % kStageKeys == 0) &&
                    kv.page_stride % position_bytes == 0 && aligned(kv.keys) && aligned(kv.values);
  return fits ? static_cast<int>(std::min<std::int64_t>(kv.page_size, kStageKeys)) : 0;
}

// All positions of all pages, one a row. How many there are is not known here (a TiB's, say), and
// none is asked for that no page table names.
inline gpu::TensorMap positions_of(const KvLayerView& kv, const std::byte* data, int box_rows) {
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

// `kernel` takes (Work, DeviceKv, map of keys, map of values).
template <Format kFormat, class Kernel>
void launch_in_rows(Kernel* kernel, const char* name, const Args& args, Context& context) {
  using B = RowsBlock<kFormat>;
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
  gpu::launch(kernel,
              {.grid = {static_cast<unsigned>(std::min(work.items, gpu::device_info().num_sms))},
               .block = B::kThreads,
               .shared_bytes = B::kBytes,
               .stream = context.stream},
              name, work, device_kv(kv, args.places), positions_of(kv, kv.keys, box_rows),
              positions_of(kv, kv.values, box_rows));
}

}  // namespace
}  // namespace moebench::attention
