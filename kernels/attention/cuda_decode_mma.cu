// cuda_decode_mma: cuda_split_kv's splits on tensor cores in bf16. The eight query heads that share
// a key/value head are the eight columns of the products, so nothing is padded:
//
//   scores^T [keys, heads]    = K [keys, head_dim] Q^T
//   sums^T [head_dim, heads]  = V^T [head_dim, keys] weights^T
//
// Both left operands come from the cache straight to registers, 16 bytes a load (of a format with
// two bytes an element). The order of the summed index is free, and so is that of the rows, as long
// as both operands, or the store, agree: of keys a thread takes neighbouring columns, which stand
// for columns 2t, 2t + 1, 2t + 8 and 2t + 9 of two instructions; of values it takes neighbouring
// columns, which stand for rows g and g + 8 of several.
//
// Rows of float8 have one scale each. Those of keys are multiplied with scores, those of values
// with weights, so that tensor cores take the codes, as f16, which two of them become in one
// instruction. Queries and weights are f16, too, brought to its exponents by a power of two for all
// of them.
//
// On Hopper, up to 16 splits are one launch if wanted (Args::joins): a cluster of blocks has all
// splits of a token, and joins them with the bits of the two launches.
#include "kernels/attention/splits.cuh"
#include "kernels/core/gpu_numbers.cuh"

namespace moebench::attention {
namespace {

constexpr int kTileKeys = 16;
constexpr int kTiles = kPositions / kTileKeys;  // of a warp
constexpr int kBatch = 2;                       // tiles that are loaded together

// Blocks that fit a multiprocessor without spilling registers.
template <Format kFormat, int kHeadDim>
constexpr int kMostBlocks = kFormat == Format::kF32 ? 128 / kHeadDim + 1 : 96 / kHeadDim + 2;

// `scale` is the contract's times log2 e. Lane 4g + t. Block (token, heads, split), which leaves
// what it found for merge_splits; or, if kJoins, (token and split, heads), in clusters.
template <Format kFormat, int kHeadDim, bool kJoins>
__global__ void MOEBENCH_BOUNDS(kThreads, kMostBlocks<kFormat, kHeadDim>)
    attend_split_mma(const float* queries, DeviceKv kv, float scale, int window, int num_heads,
                     Round round, Cluster cluster) {
  constexpr int kSteps = kHeadDim / 16;      // of the first product
  constexpr int kColumns = kHeadDim / 8;     // of values, of a lane
  using KeyColumns = KvColumns<kFormat, 8>;  // of two steps
  using ValueColumns = KvColumns<kFormat, kColumns>;
  constexpr bool kScalesRows = KeyColumns::kScalesRows;
  const auto decode = [](const auto& columns, auto& pairs) {
    if constexpr (kScalesRows) {
      columns.codes_as_f16(pairs);
    } else {
      columns.decode_bf16(pairs);
    }
  };
  const auto multiply = [](float(&sums)[4], const std::uint32_t(&a)[4],
                           const std::uint32_t(&b)[2]) {
    if constexpr (kScalesRows) {
      gpu::multiply_f16(sums, a, b);
    } else {
      gpu::multiply_bf16(sums, a, b);
    }
  };
  MOEBENCH_SHARED(std::int64_t, offsets, [kWarps][kPositions]);
  MOEBENCH_SHARED(float, sums, [kWarps][kHeads][kHeadDim]);
  MOEBENCH_SHARED(float2, stats, [kWarps][kHeads]);

  gpu::let_next_kernel_start();
  [[maybe_unused]] Handed<kHeadDim>* handed = nullptr;
  if constexpr (kJoins) {
    handed = &handed_to_block<kHeadDim>();
    gpu::sync_cluster();  // each block has begun: its memory is there
  }
  gpu::wait_for_previous_kernel();
  const int in_round = static_cast<int>(blockIdx.x) / (kJoins ? cluster.blocks : 1);
  const int first_split = static_cast<int>(kJoins ? gpu::cluster_rank() : blockIdx.z);
  const int depth = kJoins ? cluster.blocks : static_cast<int>(gridDim.z);
  const SplitBlock block =
      split_block(kv, window, num_heads, std::int64_t{round.first_token} + in_round);
  if (!kJoins && first_split >= block.visible.splits) return;
  const int warp = gpu::warp_id();
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;

  std::uint32_t query[kSteps][2];  // of head g, columns as keys have them
  MOEBENCH_UNROLL
  for (int s = 0; s < kSteps; ++s) {
    const int column = s / 2 * 32 + 8 * t + s % 2 * 4;
    float4 four{0, 0, 0, 0};
    if (g < block.heads) {
      four = *reinterpret_cast<const float4*>(
          queries + (block.token * num_heads + block.first_head + g) * kHeadDim + column);
    }
    query[s][0] = gpu::pack_bf16(four.x, four.y);
    query[s][1] = gpu::pack_bf16(four.z, four.w);
  }
  if constexpr (kScalesRows) {
    std::uint32_t most = 0;
    MOEBENCH_UNROLL
    for (const auto& of_step : query) {
      most = gpu::larger_bf16(gpu::larger_bf16(most, of_step[0]), of_step[1]);
    }
    const gpu::BringsToF16 brings(most);
    MOEBENCH_UNROLL
    for (auto& of_step : query) {
      MOEBENCH_UNROLL
      for (std::uint32_t& pair : of_step) pair = brings(pair);
    }
    scale *= brings.back();
  }

  for (int split = first_split; split < block.visible.splits; split += depth) {
    const WarpPart part = warp_part(block.visible, split);
    float largest[2] = {kLowest, kLowest};  // score of heads 2t, 2t + 1
    float total[2] = {};                    // of their weights
    float sum[kSteps][4] = {};              // rows g and g + 8 of a tile: see the store
    [[maybe_unused]] float sum_factor = 1;  // what they are to be multiplied with
    if (part.low < part.high) {
      find_rows(kv, block, part, offsets[warp]);
      // Zeros of a row that the token does not see.
      const auto load_columns = [&](auto& columns, const unsigned char* rows, std::int64_t offset,
                                    int column) {
        columns.clear();
        if (offset < 0) return;
        if constexpr (kScalesRows) {
          columns.load_codes(rows + offset, column);
        } else {
          columns.load(rows + offset, kv.data_bytes, column);
        }
      };

      float scores[kTiles][4] = {};  // keys g and g + 8, heads 2t and 2t + 1
      MOEBENCH_UNROLL
      for (int batch = 0; batch < kTiles; batch += kBatch) {
        KeyColumns keys[kBatch][2][kSteps / 2];
        [[maybe_unused]] float key_scales[kBatch][2];
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          MOEBENCH_UNROLL
          for (int r = 0; r < 2; ++r) {
            const std::int64_t offset = offsets[warp][(batch + b) * kTileKeys + g + 8 * r];
            MOEBENCH_UNROLL
            for (int s = 0; s < kSteps / 2; ++s) {
              load_columns(keys[b][r][s], kv.keys, offset, 32 * s + 8 * t);
            }
            if constexpr (kScalesRows) {
              key_scales[b][r] = offset < 0 ? 0 : kv_row_scale(kv.keys + offset, kv.data_bytes);
            }
          }
        }
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          MOEBENCH_UNROLL
          for (int s = 0; s < kSteps / 2; ++s) {
            std::uint32_t first[4];
            std::uint32_t second[4];
            decode(keys[b][0][s], first);
            decode(keys[b][1][s], second);
            multiply(scores[batch + b], {first[0], second[0], first[1], second[1]}, query[2 * s]);
            multiply(scores[batch + b], {first[2], second[2], first[3], second[3]},
                     query[2 * s + 1]);
          }
          if constexpr (kScalesRows) {
            MOEBENCH_UNROLL
            for (int c = 0; c < 4; ++c) scores[batch + b][c] *= key_scales[b][c / 2];
          }
        }
      }

      ValueColumns values[kBatch][4];  // of keys 2t, 2t + 1, 2t + 8, 2t + 9
      const auto load_values = [&](int batch) {
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          MOEBENCH_UNROLL
          for (int r = 0; r < 4; ++r) {
            const int at = (batch + b) * kTileKeys + 2 * t + r % 2 + r / 2 * 8;
            const std::int64_t offset = offsets[warp][at];
            load_columns(values[b][r], kv.values, offset, kColumns * g);
          }
        }
      };
      load_values(0);  // on their way during the softmax
      // Of keys g and g + 8. A power of two brings the largest of all to 2^14 or more.
      [[maybe_unused]] float value_scales[kTiles][2];
      if constexpr (kScalesRows) {
        float most = 0;
        MOEBENCH_UNROLL
        for (int i = 0; i < 2 * kTiles; ++i) {
          const std::int64_t offset = offsets[warp][i * 8 + g];
          float& of_row = value_scales[i / 2][i % 2];
          of_row = offset < 0 ? 0 : kv_row_scale(kv.values + offset, kv.data_bytes);
          most = fmaxf(most, of_row);
        }
        const int exponent =
            gpu::limited_exponent(gpu::reduce_max(gpu::kAllLanes, gpu::bits_of(most)) >> 23);
        sum_factor = gpu::power_of_two(exponent - 14);
        MOEBENCH_UNROLL
        for (auto& of_tile : value_scales) {
          MOEBENCH_UNROLL
          for (float& of_row : of_tile) of_row *= gpu::power_of_two(14 - exponent);
        }
      }

      MOEBENCH_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int at = tile * kTileKeys + g + c / 2 * 8;
          float& score = scores[tile][c];
          score = at >= part.low && at < part.high ? score * scale : kLowest;
          largest[c % 2] = fmaxf(largest[c % 2], score);
        }
      }
      MOEBENCH_UNROLL
      for (int h = 0; h < 2; ++h) {
        MOEBENCH_UNROLL
        for (int offset = 4; offset < gpu::kWarp; offset *= 2) {
          largest[h] = fmaxf(largest[h], gpu::shuffle_xor(gpu::kAllLanes, largest[h], offset));
        }
      }
      std::uint32_t weights[kTiles][2];  // of head g: keys 2t, 2t + 1, then 2t + 8, 2t + 9
      MOEBENCH_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 4; ++c) {
          scores[tile][c] = gpu::exp2_fast(scores[tile][c] - largest[c % 2]);
          total[c % 2] += scores[tile][c];
          if constexpr (kScalesRows) scores[tile][c] *= value_scales[tile][c / 2];
        }
        MOEBENCH_UNROLL
        for (int r = 0; r < 2; ++r) {
          const float* of_key = scores[tile] + 2 * r;
          weights[tile][r] =
              gpu::transpose_matrix(kScalesRows ? gpu::pack_f16(of_key[0], of_key[1])
                                                : gpu::pack_bf16(of_key[0], of_key[1]));
        }
      }
      MOEBENCH_UNROLL
      for (int h = 0; h < 2; ++h) {
        MOEBENCH_UNROLL
        for (int offset = 4; offset < gpu::kWarp; offset *= 2) {
          total[h] += gpu::shuffle_xor(gpu::kAllLanes, total[h], offset);
        }
      }

      MOEBENCH_UNROLL
      for (int batch = 0; batch < kTiles; batch += kBatch) {
        if (batch > 0) load_values(batch);
        MOEBENCH_UNROLL
        for (int b = 0; b < kBatch; ++b) {
          std::uint32_t pairs[4][kColumns / 2];
          MOEBENCH_UNROLL
          for (int r = 0; r < 4; ++r) decode(values[b][r], pairs[r]);
          MOEBENCH_UNROLL
          for (int s = 0; s < kSteps; ++s) {
            // Columns 2s (rows g) and 2s + 1 (rows g + 8) of two neighbouring keys.
            multiply(sum[s],
                     {gpu::byte_permute(pairs[0][s], pairs[1][s], 0x5410),
                      gpu::byte_permute(pairs[0][s], pairs[1][s], 0x7632),
                      gpu::byte_permute(pairs[2][s], pairs[3][s], 0x5410),
                      gpu::byte_permute(pairs[2][s], pairs[3][s], 0x7632)},
                     weights[batch + b]);
          }
        }
      }
    }
    gpu::sync_threads();  // the split before this one has been read
    MOEBENCH_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 4; ++c) {
        sums[warp][2 * t + c % 2][kColumns * g + 2 * s + c / 2] =
            kScalesRows ? sum[s][c] * sum_factor : sum[s][c];
      }
    }
    if (g == 0) {
      stats[warp][2 * t] = {largest[0], total[0]};
      stats[warp][2 * t + 1] = {largest[1], total[1]};
    }
    gpu::sync_threads();
    if constexpr (kJoins) {
      hand_over(sums, stats, block, split, cluster, *handed);
    } else {
      write_partials(sums, stats, block, num_heads, split, round.partials);
    }
  }
  if constexpr (kJoins) {
    gpu::sync_cluster();
    join_handed(block, num_heads, cluster, *handed);
  }
}

// Blocks of the clusters that join `splits`; 0: there are too many, or no clusters.
int cluster_blocks(std::int64_t splits) {
  if (splits > kMostJoined || !gpu::needs_compute_capability(90).empty()) return 0;
  int blocks = 1;
  while (blocks < splits && blocks < kMostBlocksOfCluster) blocks *= 2;
  return blocks;
}

template <Format kFormat, int kHeadDim>
void start(const Args& args, Context& context) {
  const auto launch = [&](auto* kernel, gpu::Extent grid, const Round& round,
                          const Cluster& cluster) {
    gpu::launch(kernel,
                {.grid = grid,
                 .block = kThreads,
                 .stream = context.stream,
                 .cluster = static_cast<unsigned>(cluster.blocks),
                 .overlap_previous = true,
                 .shared_percent = gpu::shared_percent_beside_streams(args.queries.shape[0])},
                "attention/cuda_decode_mma", args.queries.data, device_kv(args.kv, args.places),
                args.scale * kLog2E, static_cast<int>(args.window),
                static_cast<int>(args.queries.shape[1]), round, cluster);
  };
  const std::int64_t splits = most_splits(args.window, args.max_context);
  const int blocks = args.joins ? cluster_blocks(splits) : 0;
  if (blocks > 0) {
    const auto tokens = static_cast<unsigned>(args.queries.shape[0]);
    const auto parts =
        static_cast<unsigned>(num_parts(args.queries.shape[1], args.kv.num_kv_heads));
    return launch(attend_split_mma<kFormat, kHeadDim, true>,
                  {tokens * static_cast<unsigned>(blocks), parts}, Round{},
                  {args.sinks.data, args.out.data, blocks, static_cast<int>(splits)});
  }
  run_rounds<kHeadDim>(args, context, [&](gpu::Extent grid, const Round& round) {
    launch(attend_split_mma<kFormat, kHeadDim, false>, grid, round, {nullptr, nullptr, 1, 0});
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

const Variant cuda_decode_mma = {
    .name = "cuda_decode_mma",
    .backend = "cuda",
    .summary = "for decoding: as cuda_split_kv, eight heads at once on tensor cores",
    .rounds =
        "queries, keys, values, weights: bf16, or f16 if the cache is fp8_e4m3, accumulate and "
        "softmax sums: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = [](const Problem& problem) -> std::string {
      const std::string reason = splits_unsupported(problem);
      return reason.empty() ? gpu::needs_compute_capability(80) : reason;
    },
    .workspace_bytes = partials_bytes,
    .run = run,
};

}  // namespace moebench::attention
