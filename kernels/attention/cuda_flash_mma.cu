// cuda_flash_mma: for prompts. FlashAttention-2 (Dao, 2023) on tensor cores in bf16, 128 rows of
// queries a block (flash.cuh). Sinks come in at the end. A token's output has the same bits in any
// batch and in any chunking.
#include "kernels/attention/flash.cuh"

namespace moebench::attention {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kRows = 16 * kWarps;

// Block (part of the tokens, key/value head). `scale` is the contract's times log2 e.
template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kThreads, kFormat == Format::kBf16 && kHeadDim <= 64 ? 2 : 1)
    attend(const float* queries, DeviceKv kv, const float* sinks, float scale, int window,
           int num_tokens, int group, float* out) {
  const int block_tokens = kRows / group;
  // The last tokens see most: their blocks start first.
  const int begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * block_tokens;
  FlashBlock<kFormat, kHeadDim, kWarps> block(kv, window, begin, block_tokens, num_tokens,
                                              static_cast<int>(blockIdx.y), group);
  block.load_queries(queries);
  block.rows.clear();
  block.take_in(scale, 0, kWithoutEnd, [](int) {});

  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = block.row_of(i);
    const float total = block.rows.total_of_row(i);
    if (block.token_of(row) < 0) continue;
    const float* sink = sinks == nullptr ? nullptr : sinks + block.kv_head * group + row % group;
    const float factor = factor_of_row(block.rows.largest[i] * scale, total, sink);
    float* to = out + block.head_of(row) * kHeadDim + gpu::lane_id() % 4 * 2;
    MOEBENCH_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      *reinterpret_cast<float2*>(to + 8 * n) = {block.rows.sums[4 * n + 2 * i] * factor,
                                                block.rows.sums[4 * n + 2 * i + 1] * factor};
    }
  }
}

template <Format kFormat, int kHeadDim>
void start(const Args& args, Context& context) {
  const auto num_tokens = static_cast<int>(args.queries.shape[0]);
  const auto group = static_cast<int>(args.queries.shape[1] / args.kv.num_kv_heads);
  const int block_tokens = kRows / group;
  gpu::launch(attend<kFormat, kHeadDim>,
              {.grid = {static_cast<unsigned>((num_tokens + block_tokens - 1) / block_tokens),
                        static_cast<unsigned>(args.kv.num_kv_heads)},
               .block = kThreads,
               .shared_bytes = FlashBlock<kFormat, kHeadDim, kWarps>::kBytes,
               .stream = context.stream},
              "attention/cuda_flash_mma", args.queries.data, device_kv(args.kv, args.places),
              args.sinks.data, args.scale * kLog2E, static_cast<int>(args.window), num_tokens,
              group, args.out.data);
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

const Variant cuda_flash_mma = {
    .name = "cuda_flash_mma",
    .backend = "cuda",
    .summary = "for prompts: tiles of 128 query rows and 64 keys on tensor cores, online softmax",
    .rounds = "queries, keys, values, weights: bf16, accumulate and softmax sums: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = [](const Problem& problem) { return flash_unsupported(problem, kRows); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::attention
