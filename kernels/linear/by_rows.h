// A linear layer by row products: what the variants that read interleaved weights share. They
// differ in the instruction set, and in what is done to the inputs.
#pragma once

#include <algorithm>

#include "kernels/core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "kernels/rows/products.h"
#include "kernels/rows/variant.h"

namespace moebench::linear {

// `kProducts` chooses the row products of a format; `kMachine` says why this machine cannot run
// them, or "".
template <const RowProducts& (*kProducts)(Format), std::string (*kMachine)()>
struct ByRows {
  struct Scratch {
    std::byte* prepared;  // tiles of inputs, or
    const float** x;      // [num_tokens]
    float* floats;        // [num_threads, scratch_floats]
  };

  static Scratch take_scratch(Workspace& workspace, const RowProducts& products,
                              std::int64_t num_tokens, std::int64_t cols, int num_threads) {
    return {workspace.take<std::byte>(
                static_cast<std::int64_t>(tile_bytes(products, num_tokens, cols))),
            workspace.take<const float*>(num_tokens),
            workspace.take<float>(scratch_floats(cols) * num_threads)};
  }

  static std::string unsupported(const Problem& problem) {
    const std::string reason = kMachine();
    if (!reason.empty()) return reason;
    return rows_unsupported(kProducts(problem.format), problem.format, problem.cols);
  }

  static std::size_t workspace_bytes(const Problem& problem, int num_threads) {
    Workspace workspace;
    take_scratch(workspace, kProducts(problem.format), problem.num_tokens, problem.cols,
                 num_threads);
    return workspace.used();
  }

  static void run(const Args& args, Context& context) {
    require(args.weight.layout == RowLayout::kInterleaved, "run linear: weights are row-major");
    const RowProducts& products = kProducts(args.weight.format);
    const std::int64_t cols = args.weight.cols;
    const std::int64_t num_tokens = args.x.shape[0];
    Workspace workspace(context.workspace);
    const Scratch scratch =
        take_scratch(workspace, products, num_tokens, cols, context.pool.num_threads());
    context.pool.parallel_for(num_tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; t < end; ++t) {
        scratch.x[t] = args.x[t].data;
        if (products.prepare == nullptr) continue;
        const std::int64_t tile = t / kInputTile * kInputTile;
        products.prepare(scratch.x[t], cols, scratch.prepared + tile_bytes(products, tile, cols),
                         t - tile, 0);
      }
    });
    constexpr std::int64_t kRows = 4 * kRowGroup;
    const std::int64_t rows = args.weight.rows;
    context.pool.parallel_for((rows + kRows - 1) / kRows, 1,
                              [&](std::int64_t begin, std::int64_t end, int thread) {
                                RowProduct product;
                                product.weight = args.weight;
                                product.begin_row = begin * kRows;
                                product.end_row = std::min(rows, end * kRows);
                                product.bias = args.bias.data;
                                product.x = scratch.x;
                                product.prepared = scratch.prepared;
                                product.num_tokens = num_tokens;
                                product.out = args.out.data + product.begin_row;
                                product.out_stride = rows;
                                product.scratch = scratch.floats + scratch_floats(cols) * thread;
                                products.multiply(product);
                              });
  }
};

}  // namespace moebench::linear
