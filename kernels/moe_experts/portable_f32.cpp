// portable_f32: avx2_f32's way in the compiler's vectors.
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return portable_products(format); }
std::string runs_anywhere() { return ""; }

}  // namespace

const Variant portable_f32 =
    variant_by_rows<Variant, ByRows<products, portable_swiglu, runs_anywhere>>(
        "portable_f32", "tokens grouped by expert; rows decoded in registers, in vectors of 4",
        "activations: f32, accumulate: f32", [](const Problem&) { return 1e-11; });

}  // namespace moebench::moe_experts
