// avx2_int15: as avx2_int8, with inputs of 15 bits.
#include "kernels/core/cpu_features.h"
#include "kernels/moe_experts/by_rows.h"

namespace moebench::moe_experts {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt15); }

}  // namespace

// Two products, one after the other; the activation between them is at most about twice as steep as
// a straight line.
const Variant avx2_int15 =
    variant_by_rows<Variant, ByRows<products, avx2_swiglu, avx2_unsupported>>(
        "avx2_int15", "tokens grouped by expert; codes times 15-bit inputs, activation fused",
        "activations: 15 bits per 32 (16 for int8 weights, f32 for float formats), "
        "accumulate: exact per 32, then f32",
        [](const Problem& p) { return 8 * rounding_bound(p.format, Activations::kInt15); });

}  // namespace moebench::moe_experts
