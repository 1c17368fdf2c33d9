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
#include "kernels/attention/based_weights.cuh"
#include "kernels/attention/wgmma_rows.cuh"

namespace moebench::attention {
namespace {

struct ThreadRows : BasedRows<64, kStageKeys, false> {
  int last[2];  // positions

  MOEBENCH_DEVICE void weigh_tile(Scores& scores, Weights& weights, int tile, const Work& work) {
    int first[2];
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) first[i] = work.window > 0 ? last[i] - work.window + 1 : 0;
    weigh(scores, weights, tile, first, last, work.scale, false);
  }
};

template <Format kFormat, int kHeadDim>
MOEBENCH_DEVICE void multiply(const Work& work, const DeviceKv& kv, uint4* stages,
                              gpu::Mbarrier* full, gpu::Mbarrier* empty) {
  const RowsGroup<RowsBlock<kFormat>::kGroups> group(stages);
  Ring ring;
  Item item{};
  MOEBENCH_NO_UNROLL
  for (int round = 0; find_item(work, kv.num_kv_heads, round, item); ++round) {
    group.template take_queries<kHeadDim>(work, item, kv.num_kv_heads);
    Tiles at;
    at.begin(kv, work.window, item.begin, item.end);
    ThreadRows rows;
    rows.clear();
    find_positions(work, item, kv, at.run, rows.last);
    ThreadRows::Scores scores;
    gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
    group.template multiply_keys<kHeadDim>(scores, ring.stage(), 0);
    gpu::wgmma_wait<0>(scores);
    MOEBENCH_NO_UNROLL
    for (bool some = true; some;) {
      ThreadRows::Weights weights;
      rows.weigh_tile(scores, weights, at.tile, work);
      ++ring.count;
      some = at.more(item.end);
      if (some) gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
      group.take_turn();
      group.multiply_values(rows.sums, weights, ring.stage_before(), 0);
      if (some) {
        group.template multiply_keys<kHeadDim>(scores, ring.stage(), 0);
        group.pass_turn();
        if (at.advance(kv, work.window, item.end)) {
          find_positions(work, item, kv, at.run, rows.last);
        }
        gpu::wgmma_wait<1>(rows.sums, weights);
        group.release(empty, ring.stage_before());
        gpu::wgmma_wait<0>(scores);
      } else {
        group.pass_turn();
        gpu::wgmma_wait<0>(rows.sums, weights);
        group.release(empty, ring.stage_before());
      }
    }
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      write_row<kHeadDim>(work, item, kv.num_kv_heads, i, rows.base[i], rows.total_of_row(i),
                          rows.sums);
    }
  }
  group.end();
}

template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(RowsBlock<kFormat>::kThreads, 1)
    attend(Work work, DeviceKv kv, MOEBENCH_GRID_CONSTANT gpu::TensorMap keys,
           MOEBENCH_GRID_CONSTANT gpu::TensorMap values) {
  attend_in_rows<kFormat, kHeadDim>(work, kv, keys, values,
                                    [&](uint4* stages, gpu::Mbarrier* full, gpu::Mbarrier* empty) {
                                      multiply<kFormat, kHeadDim>(work, kv, stages, full, empty);
                                    });
}

void run(const Args& args, Context& context) {
  gpu::with_format(args.kv.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    const char* name = "attention/cuda_flash_wgmma";
    if (args.kv.head_dim == 32) {
      launch_in_rows<kFormat>(attend<kFormat, 32>, name, args, context);
    } else {
      launch_in_rows<kFormat>(attend<kFormat, 64>, name, args, context);
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
