// avx2_int15: as avx2_int8, with inputs of 15 bits: nearly float32's answers at the speed of memory.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt15); }

}  // namespace

const Variant avx2_int15 = {
    .name = "avx2_int15",
    .backend = "cpu",
    .summary = "4- and 8-bit codes times 15-bit inputs in integers; other formats as avx2_f32",
    .rounds = "activations: 15 bits per 32 (16 for int8 weights, f32 for float formats), accumulate: exact per 32, then f32",
    .max_nmse = [](const Problem& problem) { return rounding_bound(problem.format, Activations::kInt15); },
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
