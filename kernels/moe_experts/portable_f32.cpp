// portable_f32: avx2_f32's way in the compiler's vectors.
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return portable_products(format); }
using Rows = ByRows<products, portable_swiglu>;

}  // namespace

const Variant portable_f32 = {
    .name = "portable_f32",
    .backend = "cpu",
    .summary = "tokens grouped by expert; rows decoded in registers, in vectors of 4",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .weight_layout = RowLayout::kInterleaved,
    .unsupported =
        [](const Problem& problem) {
          return Rows::unsupported(problem);
        },
    .workspace_bytes = Rows::workspace_bytes,
    .run = Rows::run,
};

}  // namespace moebench::moe_experts
