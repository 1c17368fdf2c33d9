// avx2_f32: tokens grouped by expert, interleaved rows, float32 throughout.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kF32); }
using Rows = ByRows<products, avx2_swiglu>;

}  // namespace

const Variant avx2_f32 = {
    .name = "avx2_f32",
    .backend = "cpu",
    .summary = "tokens grouped by expert; rows decoded in registers, activation fused",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
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
