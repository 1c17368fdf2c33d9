// avx2_int8: tokens grouped by expert, 4-bit codes by 8-bit inputs.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt8); }
using Rows = ByRows<products, avx2_swiglu>;

}  // namespace

const Variant avx2_int8 = {
    .name = "avx2_int8",
    .backend = "cpu",
    .summary = "tokens grouped by expert; 4-bit codes times int8 inputs, activation fused and rounded",
    .rounds = "activations: int8 per 32 (int16 for int8 weights, f32 for float formats), accumulate: exact per 32, then f32",
    .max_nmse = [](const Problem& p) { return 4 * rounding_bound(p.format, Activations::kInt8); },
    .weight_layout = RowLayout::kInterleaved,
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = avx2_unsupported();
          return reason.empty() ? Rows::unsupported(problem) : reason;
        },
    .workspace_bytes = Rows::workspace_bytes,
    .run = Rows::run,
};

}  // namespace moebench::moe_experts
