// Experts by row products: what the variants that read interleaved weights share.
//
// Tokens are grouped by expert. A first pass takes strips of 64 gate-and-up rows of an expert past
// all its tokens, activates the 32 features that come out and, if the second matrix wants integer
// inputs, rounds them at once: they are one block. A second pass takes strips of the down matrix.
// Each expert is read once however many tokens chose it.
#pragma once

#include <algorithm>

#include "kernels/moe_experts/moe_experts.h"
#include "kernels/moe_experts/routing.h"
#include "kernels/moe_experts/swiglu.h"
#include "kernels/rows/products.h"

namespace moebench::moe_experts {

// `kProducts` chooses the row products of a format.
template <const RowProducts& (*kProducts)(Format), Swiglu kSwiglu>
struct ByRows {
  static constexpr std::int64_t kStrip = 64;       // rows
  static constexpr std::int64_t kTokenBlock = 64;  // tokens that pass a strip together

  struct Scratch {
    ExpertGroups groups;
    std::int32_t* place;         // [num_pairs]: where in groups.pairs a pair stands
    std::byte* prepared;         // [num_tokens, x_stride]
    const std::byte** inputs;    // [num_pairs], grouped: the input of each pair
    std::byte* hidden;           // [num_pairs, hidden_stride], grouped: activated features
    const std::byte** features;  // [num_pairs], grouped: where those begin
    float* projected;            // [num_pairs, hidden_size], grouped
    float* gate_up;              // [num_threads, kTokenBlock, kStrip]
    float* floats;               // [num_threads, scratch_floats]
  };

  static std::size_t input_stride(std::int64_t cols, Format format) {
    return (kProducts(format).prepared_bytes(cols) + 63) / 64 * 64;
  }
  // Activated features, prepared or as floats.
  static std::size_t hidden_stride(std::int64_t cols, Format format) {
    const std::size_t prepared = input_stride(cols, format);
    return prepared > 0 ? prepared : static_cast<std::size_t>((cols + 15) / 16 * 64);
  }

  static Scratch take_scratch(Workspace& workspace, const Problem& p, int num_threads) {
    const std::int64_t num_pairs = p.num_tokens * p.top_k;
    const auto bytes = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    Scratch s;
    s.groups = take_expert_groups(workspace, num_pairs, p.num_experts);
    s.place = workspace.take<std::int32_t>(num_pairs);
    s.prepared =
        workspace.take<std::byte>(p.num_tokens * bytes(input_stride(p.hidden_size, p.format)));
    s.inputs = workspace.take<const std::byte*>(num_pairs);
    s.hidden =
        workspace.take<std::byte>(num_pairs * bytes(hidden_stride(p.intermediate_size, p.format)));
    s.features = workspace.take<const std::byte*>(num_pairs);
    s.projected = workspace.take<float>(num_pairs * p.hidden_size);
    s.gate_up = workspace.take<float>(num_threads * kTokenBlock * kStrip);
    s.floats = workspace.take<float>(
        num_threads * scratch_floats(std::max(p.hidden_size, p.intermediate_size)));
    return s;
  }

  static std::string unsupported(const Problem& problem) {
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

  // Groups the pairs, and prepares each token's input once.
  static void prepare(const Args& args, const RowProducts& products, Scratch& s,
                      ThreadPool& pool) {
    const std::int64_t top_k = args.expert_ids.shape[1];
    const std::size_t stride = input_stride(args.x.shape[1], args.gate_up.format);
    group_by_expert(args.expert_ids, args.gate_up.count, s.groups);
    pool.parallel_for(args.x.shape[0], 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; products.prepare != nullptr && t < end; ++t) {
        products.prepare(args.x[t].data, args.x.shape[1],
                         s.prepared + static_cast<std::size_t>(t) * stride);
      }
    });
    const std::size_t wide = hidden_stride(args.down.cols, args.down.format);
    for (std::int64_t p = 0; p < args.expert_ids.size(); ++p) {
      const std::int64_t pair = s.groups.pairs[p];
      const std::int64_t token = pair / top_k;
      s.place[pair] = static_cast<std::int32_t>(p);
      s.inputs[p] = products.prepare != nullptr
                        ? s.prepared + static_cast<std::size_t>(token) * stride
                        : reinterpret_cast<const std::byte*>(args.x[token].data);
      s.features[p] = s.hidden + static_cast<std::size_t>(p) * wide;
    }
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
    const std::size_t wide = hidden_stride(args.down.cols, args.down.format);
    const std::int64_t end = s.groups.begin[e + 1];
    for (std::int64_t p = s.groups.begin[e]; p < end; p += kTokenBlock) {
      product.inputs = s.inputs + p;
      product.num_tokens = std::min(kTokenBlock, end - p);
      products.multiply(product);
      for (std::int64_t t = 0; t < product.num_tokens; ++t) {
        std::byte* to = s.hidden + static_cast<std::size_t>(p + t) * wide;
        if (products.prepare == nullptr) {
          kSwiglu(gate_up + t * kStrip, features, args.swiglu_alpha, args.swiglu_limit,
                  reinterpret_cast<float*>(to) + first_feature);
          continue;
        }
        float activated[kStrip / 2];
        kSwiglu(gate_up + t * kStrip, features, args.swiglu_alpha, args.swiglu_limit, activated);
        products.prepare(activated, features, to + products.prepared_bytes(first_feature));
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
    product.inputs = s.features + begin;
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
    context.pool.parallel_for(
        s.groups.num_touched * wide_strips, 1,
        [&](std::int64_t begin, std::int64_t end, int thread) {
          for (std::int64_t item = begin; item < end; ++item) {
            activate_strip(args, products, s, s.groups.touched[item / wide_strips],
                           item % wide_strips, s.gate_up + thread * kTokenBlock * kStrip,
                           s.floats + thread * floats);
          }
        });
    const std::int64_t down_strips = strips(hidden_size);
    context.pool.parallel_for(
        s.groups.num_touched * down_strips, 1,
        [&](std::int64_t begin, std::int64_t end, int thread) {
          for (std::int64_t item = begin; item < end; ++item) {
            project_strip(args, products, s, s.groups.touched[item / down_strips],
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
