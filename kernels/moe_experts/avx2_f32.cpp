// avx2_f32: tokens grouped by expert, interleaved rows, float32 throughout.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kF32); }

}  // namespace

const Variant avx2_f32 = variant_by_rows<Variant, ByRows<products, avx2_swiglu, avx2_unsupported>>(
    "avx2_f32", "tokens grouped by expert; rows decoded in registers, activation fused",
    "activations: f32, accumulate: f32", [](const Problem&) { return 1e-11; });

}  // namespace moebench::moe_experts
