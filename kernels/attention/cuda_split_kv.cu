// cuda_split_kv: for decoding, in float32. A block takes one split of one token and up to eight
// query heads that share a key/value head, so that each key and value is read once (splits.cuh).
//
// A warp takes 64 of the positions: first all scores, then one softmax, then the values, so that
// nothing is rescaled and many loads are on their way at once. Eight lanes share a row and four
// rows stand side by side; the eight heads' partial products are added up by exchanging halves,
// which leaves each lane with the score of one head.
#include "kernels/attention/add_halves.cuh"
#include "kernels/attention/splits.cuh"

namespace moebench::attention {
namespace {

constexpr int kLanes = 8;                    // of a row
constexpr int kSlots = gpu::kWarp / kLanes;  // rows side by side
constexpr int kBatch = 4;                    // rows of a slot that are loaded together
constexpr int kBatchPositions = kBatch * kSlots;

// Blocks that fit a multiprocessor without spilling registers.
template <Format kFormat, int kHeadDim>
constexpr int kMostBlocks = kHeadDim == 32                              ? 5
                            : kHeadDim == 64 && kFormat != Format::kF32 ? 4
                                                                        : 1;

// `scale` is the contract's times log2 e.
template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kThreads, kMostBlocks<kFormat, kHeadDim>)
    attend_split(const float* queries, DeviceKv kv, float scale, int window, int num_heads,
                 Round round) {
  constexpr int kColumns = kHeadDim / kLanes;
  using Columns = KvColumns<kFormat, kColumns>;
  MOEBENCH_SHARED(std::int64_t, offsets, [kWarps][kPositions]);
  MOEBENCH_SHARED(float, weights, [kWarps][kPositions][kHeads]);  // first: scores
  MOEBENCH_SHARED(float, sums, [kWarps][kHeads][kHeadDim]);
  MOEBENCH_SHARED(float2, stats, [kWarps][kHeads]);

  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const SplitBlock block =
      split_block(kv, window, num_heads, std::int64_t{round.first_token} + blockIdx.x);
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int slot = lane / kLanes;
  const int column = lane % kLanes * kColumns;
  for (int split = static_cast<int>(blockIdx.z); split < block.visible.splits;
       split += static_cast<int>(gridDim.z)) {
    const WarpPart part = warp_part(block.visible, split);
    float largest = kLowest;            // score of head lane % 8
    float total = 0;                    // of its weights
    float sum[kHeads * kColumns] = {};  // [head, column]
    if (part.low < part.high) {
      find_rows(kv, block, part, offsets[warp]);
      float query[kHeads][kColumns];
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeads; ++h) {
        const float* from =
            queries + (block.token * num_heads + block.first_head + h) * kHeadDim + column;
        MOEBENCH_UNROLL
        for (int c = 0; c < kColumns; ++c) query[h][c] = h < block.heads ? from[c] * scale : 0;
      }
      const int first_batch = part.low / kBatchPositions * kBatchPositions;
      MOEBENCH_NO_UNROLL
      for (int batch = first_batch; batch < part.high; batch += kBatchPositions) {
        Columns keys[kBatch];
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          const std::int64_t offset = offsets[warp][batch + b * kSlots + slot];
          keys[b].clear();
          if (offset >= 0) keys[b].load(kv.keys + offset, kv.data_bytes, column);
        }
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          const int at = batch + b * kSlots + slot;
          float key[kColumns];
          keys[b].decode(key);
          float score[kHeads];
          MOEBENCH_UNROLL
          for (int h = 0; h < kHeads; ++h) {
            score[h] = 0;
            MOEBENCH_UNROLL
            for (int c = 0; c < kColumns; ++c) score[h] += query[h][c] * key[c];
          }
          add_halves<4>(score, 4);
          add_halves<2>(score, 2);
          add_halves<1>(score, 1);
          if (at < part.low || at >= part.high) score[0] = kLowest;
          weights[warp][at][lane % kLanes] = score[0];
          largest = fmaxf(largest, score[0]);
        }
      }
      MOEBENCH_UNROLL
      for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
        largest = fmaxf(largest, gpu::shuffle_xor(gpu::kAllLanes, largest, offset));
      }
      // Each lane wrote the very scores that it now replaces.
      for (int at = first_batch + slot; at < part.high; at += kSlots) {
        float& weight = weights[warp][at][lane % kLanes];
        weight = gpu::exp2_fast(weight - largest);
        total += weight;
      }
      MOEBENCH_UNROLL
      for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
        total += gpu::shuffle_xor(gpu::kAllLanes, total, offset);
      }
      gpu::sync_warp();

      MOEBENCH_NO_UNROLL
      for (int batch = first_batch; batch < part.high; batch += kBatchPositions) {
        Columns values[kBatch];
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          const std::int64_t offset = offsets[warp][batch + b * kSlots + slot];
          values[b].clear();
          if (offset >= 0) values[b].load(kv.values + offset, kv.data_bytes, column);
        }
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          const int at = batch + b * kSlots + slot;
          if (at >= part.high) continue;
          float value[kColumns];
          values[b].decode(value);
          MOEBENCH_UNROLL
          for (int h = 0; h < kHeads; ++h) {
            const float weight = weights[warp][at][h];
            MOEBENCH_UNROLL
            for (int c = 0; c < kColumns; ++c) sum[h * kColumns + c] += weight * value[c];
          }
        }
      }
    }
    // The slots' sums: a lane is left with two heads.
    add_halves<4 * kColumns>(sum, kLanes);
    add_halves<2 * kColumns>(sum, 2 * kLanes);
    const int head = (slot & 1) * 4 + (slot & 2);
    gpu::sync_threads();  // the split before this one has been read
    MOEBENCH_UNROLL
    for (int i = 0; i < 2 * kColumns; ++i) {
      sums[warp][head + i / kColumns][column + i % kColumns] = sum[i];
    }
    if (slot == 0) stats[warp][lane] = {largest, total};
    gpu::sync_threads();
    write_partials(sums, stats, block, num_heads, split, round.partials);
  }
}

template <Format kFormat, int kHeadDim>
void start(const Args& args, Context& context) {
  run_rounds<kHeadDim>(args, context, [&](gpu::Extent grid, const Round& round) {
    gpu::launch(
        attend_split<kFormat, kHeadDim>,
        {.grid = grid, .block = kThreads, .stream = context.stream, .overlap_previous = true},
        "attention/cuda_split_kv", args.queries.data, device_kv(args.kv, args.places),
        args.scale * kLog2E, static_cast<int>(args.window), static_cast<int>(args.queries.shape[1]),
        round);
  });
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.kv.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    if (args.kv.head_dim == 32) {
      start<kFormat, 32>(args, context);
    } else if (args.kv.head_dim == 64) {
      start<kFormat, 64>(args, context);
    } else {
      start<kFormat, 128>(args, context);
    }
  });
}

}  // namespace

const Variant cuda_split_kv = {
    .name = "cuda_split_kv",
    .backend = "cuda",
    .summary = "for decoding: fixed splits of 128 positions, merged in order",
    .rounds = "activations: f32, softmax sums: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = [](const Problem& problem) -> std::string {
      const std::string reason = splits_unsupported(problem);
      return reason.empty() ? gpu::unavailable() : reason;
    },
    .workspace_bytes = partials_bytes,
    .run = run,
};

}  // namespace moebench::attention
