// avx2_int8: tokens grouped by expert, 4-bit codes by 8-bit inputs.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt8); }

}  // namespace

// Two products, one after the other; the activation between them is at most about twice as steep as
// a straight line.
const Variant avx2_int8 = variant_by_rows<Variant, ByRows<products, avx2_swiglu, avx2_unsupported>>(
    "avx2_int8", "tokens grouped by expert; codes times int8 inputs, activation fused",
    "activations: int8 per 32 (int16 for int8 weights, f32 for float formats), "
    "accumulate: exact per 32, then f32",
    [](const Problem& p) { return 8 * rounding_bound(p.format, Activations::kInt8); });

}  // namespace moebench::moe_experts
