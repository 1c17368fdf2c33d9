// avx2_int15: as avx2_int8, with inputs of 15 bits: nearly float32's answers at the speed of
// memory.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kInt15); }

}  // namespace

const Variant avx2_int15 = variant_by_rows<Variant, ByRows<products, avx2_unsupported>>(
    "avx2_int15", "4- and 8-bit codes times 15-bit inputs in integers; others as avx2_f32",
    "activations: 15 bits per 32 (16 for int8 weights, f32 for float formats), "
    "accumulate: exact per 32, then f32",
    [](const Problem& p) { return rounding_bound(p.format, Activations::kInt15); });

}  // namespace moebench::linear
