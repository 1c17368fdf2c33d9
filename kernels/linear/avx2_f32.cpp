// avx2_f32: interleaved rows, decoded in registers, float32 throughout.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kF32); }

}  // namespace

const Variant avx2_f32 = {
    .name = "avx2_f32",
    .backend = "cpu",
    .summary = "8 rows at a time, decoded in registers, fused multiply-add",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .weight_layout = RowLayout::kInterleaved,
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = avx2_unsupported();
          return reason.empty() ? ByRows<products>::unsupported(problem) : reason;
        },
    .workspace_bytes = ByRows<products>::workspace_bytes,
    .run = ByRows<products>::run,
};

}  // namespace moebench::linear
