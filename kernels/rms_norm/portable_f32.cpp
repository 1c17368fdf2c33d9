// portable_f32: eight elements at a time in the compiler's vectors.
#include "kernels/core/simd_portable.h"
#include "kernels/rms_norm/vectors.h"

namespace moebench::rms_norm {
namespace {
void run(const Args& args, Context& context) { run_vectors<Portable>(args, context); }
}  // namespace

const Variant portable_f32 = {
    .name = "portable_f32",
    .backend = "cpu",
    .summary = "sums and products in vectors of 4",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = always_supported,
    .workspace_bytes = no_workspace,
    .run = run,
};

}  // namespace moebench::rms_norm
