// avx2_f32: interleaved rows, decoded in registers, float32 throughout.
#include "kernels/core/cpu_features.h"
#include "kernels/linear/by_rows.h"

namespace moebench::linear {
namespace {

const RowProducts& products(Format format) { return avx2_products(format, Activations::kF32); }

}  // namespace

const Variant avx2_f32 = variant_by_rows<Variant, ByRows<products, avx2_unsupported>>(
    "avx2_f32", "8 rows at a time, decoded in registers, fused multiply-add",
    "activations: f32, accumulate: f32", [](const Problem&) { return 1e-11; });

}  // namespace moebench::linear
