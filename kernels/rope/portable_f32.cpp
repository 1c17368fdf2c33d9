// portable_f32: eight elements at a time in the compiler's vectors.
#include "kernels/core/simd_portable.h"
#include "kernels/rope/vectors.h"

namespace moebench::rope {
namespace {
void run(const Args& args, Context& context) { run_vectors<Portable>(args, context); }
}  // namespace

const Variant portable_f32 = {
    .name = "portable_f32",
    .backend = "cpu",
    .summary = "pairs in vectors of 4",
    .rounds = "activations: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported = vectors_unsupported,
    .workspace_bytes = no_workspace,
    .run = run,
};

}  // namespace moebench::rope
