// Experts by row products: what the variants that read interleaved weights share.
//
// Tokens are grouped by expert. A first pass takes strips of 64 gate-and-up rows of an expert past
// all its tokens, activates the 32 features that come out and, if the second matrix wants integer
// inputs, rounds them at once: they are one block. A second pass takes strips of the down matrix.
// Each expert is read once however many tokens chose it.
#pragma once

#include <algorithm>

#include "kernels/core/thread_pool.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/moe_experts/routing.h"
#include "kernels/moe_experts/swiglu.h"
#include "kernels/rows/products.h"
#include "kernels/rows/variant.h"

namespace moebench::moe_experts {

// `kProducts` chooses the row products of a format; `kMachine` says why this machine cannot run
// them, or "".
template <const RowProducts& (*kProducts)(Format), Swiglu kSwiglu, std::string (*kMachine)()>
struct ByRows {
  static constexpr std::int64_t kStrip = 64;       // rows
  static constexpr std::int64_t kTokenBlock = 64;  // tokens that pass a strip together

  struct Scratch {
    ExpertGroups groups;
    std::int32_t* place;       // [num_pairs]: where in groups.pairs a pair stands
    std::int64_t* first_tile;  // [num_experts]: the tiles of an expert's prepared inputs
    std::byte* inputs;         // tiles of prepared inputs of hidden_size columns, or
    const float** x;           // [num_pairs], grouped: the inputs themselves
    std::byte* features;       // tiles of prepared activated features, or
    float* activated;          // [num_pairs, intermediate_size], grouped
    const float** rows;        // [num_pairs]: rows of `activated`
    float* projected;          // [num_pairs, hidden_size], grouped
    float* gate_up;            // [num_threads, kTokenBlock, kStrip]
    float* floats;             // [num_threads, scratch_floats]
  };

  static Scratch take_scratch(Workspace& workspace, const Problem& p, int num_threads) {
    const RowProducts& products = kProducts(p.format);
    const std::int64_t num_pairs = p.num_tokens * p.top_k;
    const bool prepares = products.prepare != nullptr;
    // Each expert's tokens begin a tile.
    const std::int64_t slots =
        num_pairs + (kInputTile - 1) * std::min(num_pairs, p.num_experts) + kInputTile;
    const auto tiles = [&](std::int64_t cols) {
      return workspace.take<std::byte>(
          static_cast<std::int64_t>(tile_bytes(products, slots, cols)));
    };
    Scratch s;
    s.groups = take_expert_groups(workspace, num_pairs, p.num_experts);
    s.place = workspace.take<std::int32_t>(num_pairs);
    s.first_tile = workspace.take<std::int64_t>(p.num_experts);
    s.inputs = tiles(p.hidden_size);
    s.x = workspace.take<const float*>(num_pairs);
    s.features = tiles(p.intermediate_size);
    s.activated = workspace.take<float>(prepares ? 0 : num_pairs * p.intermediate_size);
    s.rows = workspace.take<const float*>(num_pairs);
    s.projected = workspace.take<float>(num_pairs * p.hidden_size);
    s.gate_up = workspace.take<float>(num_threads * kTokenBlock * kStrip);
    s.floats = workspace.take<float>(num_threads *
                                     scratch_floats(std::max(p.hidden_size, p.intermediate_size)));
    return s;
  }

  static std::string unsupported(const Problem& problem) {
    const std::string reason = kMachine();
    if (!reason.empty()) return reason;
    const RowProducts& products = kProducts(problem.format);
    const std::string first = rows_unsupported(products, problem.format, problem.hidden_size);
    return first.empty() ? rows_unsupported(products, problem.format, problem.intermediate_size)
                         : first;
  }

  static std::size_t workspace_bytes(const Problem& problem, int num_threads) {
    Workspace workspace;
    take_scratch(workspace, problem, num_threads);
    return workspace.used();
  }

  // The tile of token `t` of expert `e`, for inputs of `cols` columns.
  static std::byte* tile_of(const RowProducts& products, const Scratch& s, std::byte* tiles,
                            std::int64_t e, std::int64_t t, std::int64_t cols) {
    const std::int64_t tile = s.first_tile[e] + t / kInputTile;
    return tiles + tile_bytes(products, tile * kInputTile, cols);
  }

  // Groups the pairs, and prepares each one's input. (A token's input is prepared anew for each of
  // its experts: that costs less than gathering it from elsewhere whenever it is read.)
  static void prepare(const Args& args, const RowProducts& products, Scratch& s, ThreadPool& pool) {
    const std::int64_t top_k = args.expert_ids.shape[1];
    const std::int64_t hidden_size = args.x.shape[1];
    group_by_expert(args.expert_ids, args.gate_up.count, s.groups);
    std::int64_t tiles = 0;
    for (std::int64_t e = 0; e < args.gate_up.count; ++e) {
      s.first_tile[e] = tiles;
      tiles += (s.groups.begin[e + 1] - s.groups.begin[e] + kInputTile - 1) / kInputTile;
    }
    pool.parallel_for(args.expert_ids.size(), 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t p = begin; p < end; ++p) {
        const std::int64_t pair = s.groups.pairs[p];
        s.place[pair] = static_cast<std::int32_t>(p);
        s.x[p] = args.x[pair / top_k].data;
        s.rows[p] = s.activated + p * args.down.cols;
        if (products.prepare == nullptr) continue;
        const std::int64_t e = args.expert_ids.data[pair];
        const std::int64_t t = p - s.groups.begin[e];
        products.prepare(s.x[p], hidden_size, tile_of(products, s, s.inputs, e, t, hidden_size),
                         t % kInputTile, 0);
      }
    });
  }

  // One strip of gate and up rows of expert `e`, for all its tokens.
  static void activate_strip(const Args& args, const RowProducts& products, const Scratch& s,
                             std::int64_t e, std::int64_t strip, float* gate_up, float* floats) {
    RowProduct product;
    product.weight = args.gate_up[e];
    product.begin_row = strip * kStrip;
    product.end_row = std::min(product.weight.rows, product.begin_row + kStrip);
    product.bias = args.gate_up_bias[e].data;
    product.out = gate_up;
    product.out_stride = kStrip;
    product.scratch = floats;
    const std::int64_t first_feature = product.begin_row / 2;
    const std::int64_t features = (product.end_row - product.begin_row) / 2;
    const std::int64_t begin = s.groups.begin[e];
    const std::int64_t count = s.groups.begin[e + 1] - begin;
    for (std::int64_t first = 0; first < count; first += kTokenBlock) {
      product.x = s.x + begin + first;
      product.prepared = tile_of(products, s, s.inputs, e, first, args.x.shape[1]);
      product.num_tokens = std::min(kTokenBlock, count - first);
      products.multiply(product);
      for (std::int64_t t = 0; t < product.num_tokens; ++t) {
        const float* from = gate_up + t * kStrip;
        if (products.prepare == nullptr) {
          kSwiglu(from, features, args.swiglu_alpha, args.swiglu_limit,
                  s.activated + (begin + first + t) * args.down.cols + first_feature);
          continue;
        }
        float activated[kStrip / 2];
        kSwiglu(from, features, args.swiglu_alpha, args.swiglu_limit, activated);
        products.prepare(activated, features,
                         tile_of(products, s, s.features, e, first + t, args.down.cols),
                         t % kInputTile, first_feature);
      }
    }
  }

  static void project_strip(const Args& args, const RowProducts& products, const Scratch& s,
                            std::int64_t e, std::int64_t strip, float* floats) {
    RowProduct product;
    product.weight = args.down[e];
    product.begin_row = strip * kStrip;
    product.end_row = std::min(product.weight.rows, product.begin_row + kStrip);
    product.bias = args.down_bias[e].data;
    product.out_stride = product.weight.rows;
    product.scratch = floats;
    const std::int64_t begin = s.groups.begin[e];
    product.x = s.rows + begin;
    product.prepared = tile_of(products, s, s.features, e, 0, args.down.cols);
    product.num_tokens = s.groups.begin[e + 1] - begin;
    product.out = s.projected + begin * product.weight.rows + product.begin_row;
    products.multiply(product);
  }

  static void run(const Args& args, Context& context) {
    require(args.gate_up.layout == RowLayout::kInterleaved &&
                args.down.layout == RowLayout::kInterleaved,
            "run moe_experts: weights are row-major");
    const std::int64_t num_tokens = args.x.shape[0];
    const std::int64_t hidden_size = args.x.shape[1];
    const std::int64_t intermediate_size = args.down.cols;
    const std::int64_t top_k = args.expert_ids.shape[1];
    const RowProducts& products = kProducts(args.gate_up.format);
    Workspace workspace(context.workspace);
    Scratch s = take_scratch(workspace,
                             {args.gate_up.format, num_tokens, hidden_size, intermediate_size,
                              args.gate_up.count, top_k},
                             context.pool.num_threads());
    prepare(args, products, s, context.pool);

    const std::int64_t floats = scratch_floats(std::max(hidden_size, intermediate_size));
    const auto strips = [](std::int64_t rows) { return (rows + kStrip - 1) / kStrip; };
    const std::int64_t wide_strips = strips(2 * intermediate_size);
    context.pool.parallel_for(s.groups.num_touched * wide_strips, 1,
                              [&](std::int64_t begin, std::int64_t end, int thread) {
                                for (std::int64_t item = begin; item < end; ++item) {
                                  activate_strip(
                                      args, products, s, s.groups.touched[item / wide_strips],
                                      item % wide_strips, s.gate_up + thread * kTokenBlock * kStrip,
                                      s.floats + thread * floats);
                                }
                              });
    const std::int64_t down_strips = strips(hidden_size);
    context.pool.parallel_for(s.groups.num_touched * down_strips, 1,
                              [&](std::int64_t begin, std::int64_t end, int thread) {
                                for (std::int64_t item = begin; item < end; ++item) {
                                  project_strip(args, products, s,
                                                s.groups.touched[item / down_strips],
                                                item % down_strips, s.floats + thread * floats);
                                }
                              });
    context.pool.parallel_for(num_tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; t < end; ++t) {
        float* out = args.out[t].data;
        std::fill(out, out + hidden_size, 0.0F);
        for (std::int64_t k = 0; k < top_k; ++k) {
          const float weight = args.expert_weights[t][k];
          const float* y = s.projected + s.place[t * top_k + k] * hidden_size;
          for (std::int64_t r = 0; r < hidden_size; ++r) out[r] += weight * y[r];
        }
      }
    });
  }
};

}  // namespace moebench::moe_experts
