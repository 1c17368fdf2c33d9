// avx2_f32: eight elements at a time.
#include <cmath>

#include "kernels/core/cpu_features.h"
#include "kernels/core/simd_avx2.h"
#include "kernels/rms_norm/rms_norm.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/rms_norm/vectors.h"
namespace moebench::rms_norm {
namespace {
void run(const Args& args, Context& context) { run_vectors<Avx2>(args, context); }
}  // namespace
}  // namespace moebench::rms_norm
MOEBENCH_AVX2_END
#else
#include "kernels/core/simd_portable.h"
#include "kernels/rms_norm/vectors.h"
namespace moebench::rms_norm {
namespace {
void run(const Args& args, Context& context) { run_vectors<Portable>(args, context); }
}  // namespace
}  // namespace moebench::rms_norm
#endif

namespace moebench::rms_norm {

const Variant avx2_f32 = {
    .name = "avx2_f32",
    .backend = "cpu",
    .summary = "sums and products in vectors of 8",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-12; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = avx2_unsupported();
          return reason.empty() ? always_supported(problem) : reason;
        },
    .workspace_bytes = no_workspace,
    .run = run,
};

}  // namespace moebench::rms_norm
