// avx2_int8: 4-bit codes by 8-bit inputs, 32 products an instruction.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt8); }

}  // namespace

const Variant avx2_int8 = variant_by_rows<Variant, ByRows<products, avx2_unsupported>>(
    "avx2_int8", "4-bit codes times int8 inputs in integers; others as avx2_int15",
    "activations: int8 per 32 (int16 for int8 weights, f32 for float formats), "
    "accumulate: exact per 32, then f32",
    [](const Problem& p) { return rounding_bound(p.format, Activations::kInt8); });

}  // namespace moebench::linear
