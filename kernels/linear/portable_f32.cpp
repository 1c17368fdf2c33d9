// portable_f32: avx2_f32's way in the compiler's vectors, for processors without AVX2.
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return portable_products(format); }

}  // namespace

const Variant portable_f32 = {
    .name = "portable_f32",
    .backend = "cpu",
    .summary = "8 rows at a time, decoded in registers, in vectors of 4",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .weight_layout = RowLayout::kInterleaved,
    .unsupported =
        [](const Problem& problem) {
          return ByRows<products>::unsupported(problem);
        },
    .workspace_bytes = ByRows<products>::workspace_bytes,
    .run = ByRows<products>::run,
};

}  // namespace moebench::linear
