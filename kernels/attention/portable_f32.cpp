// portable_f32: avx2_f32's way in the compiler's vectors.
#include "kernels/attention/tiled.h"
#include "kernels/core/simd_portable.h"

namespace moebench::attention {
namespace {
void run(const Args& args, Context& context) { run_tiled<Portable>(args, context); }
}  // namespace

const Variant portable_f32 = {
    .name = "portable_f32",
    .backend = "cpu",
    .summary = "as avx2_f32, in vectors of 4",
    .rounds = "activations: f32, softmax sums: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = tiled_unsupported,
    .workspace_bytes = tiled_workspace_bytes,
    .run = run,
};

}  // namespace moebench::attention
