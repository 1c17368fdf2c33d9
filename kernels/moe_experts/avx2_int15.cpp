// avx2_int15: as avx2_int8, with inputs of 15 bits.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt15); }
using Rows = ByRows<products, avx2_swiglu>;

}  // namespace

const Variant avx2_int15 = {
    .name = "avx2_int15",
    .backend = "cpu",
    .summary = "tokens grouped by expert; 4- and 8-bit codes times 15-bit inputs, activation fused",
    .rounds = "activations: 15 bits per 32 (16 for int8 weights, f32 for float formats), accumulate: exact per 32, then f32",
    .max_nmse = [](const Problem& p) { return 4 * rounding_bound(p.format, Activations::kInt15); },
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
