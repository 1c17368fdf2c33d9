// avx2_int8: 4-bit codes by 8-bit inputs, 32 products an instruction.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt8); }

}  // namespace

const Variant avx2_int8 = {
    .name = "avx2_int8",
    .backend = "cpu",
    .summary = "4-bit codes times int8 inputs in integers; int8 weights as avx2_int15, other formats as avx2_f32",
    .rounds = "activations: int8 per 32 (int16 for int8 weights, f32 for float formats), accumulate: exact per 32, then f32",
    .max_nmse = [](const Problem& problem) { return rounding_bound(problem.format, Activations::kInt8); },
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
