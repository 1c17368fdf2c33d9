// avx2_f32: eight elements at a time.

#include "kernels/core/cpu_features.h"
#include "kernels/core/simd_avx2.h"
#include "kernels/rope/rope.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/rope/vectors.h"
namespace moebench::rope {
namespace {
void run(const Args& args, Context& context) { run_vectors<Avx2>(args, context); }
}  // namespace
}  // namespace moebench::rope
MOEBENCH_AVX2_END
#else
#include "kernels/core/simd_portable.h"
#include "kernels/rope/vectors.h"
namespace moebench::rope {
namespace {
void run(const Args& args, Context& context) { run_vectors<Portable>(args, context); }
}  // namespace
}  // namespace moebench::rope
#endif

namespace moebench::rope {

const Variant avx2_f32 = {
    .name = "avx2_f32",
    .backend = "cpu",
    .summary = "pairs in vectors of 8",
    .rounds = "activations: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = avx2_unsupported();
          return reason.empty() ? vectors_unsupported(problem) : reason;
        },
    .workspace_bytes = no_workspace,
    .run = run,
};

}  // namespace moebench::rope
