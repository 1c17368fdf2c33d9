// avx2_f32: tiles of 32 positions in AVX2, online softmax, float32.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/core/cpu_features.h"
#include "kernels/core/float_types.h"
#include "kernels/core/simd_avx2.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/attention/tiled.h"
namespace moebench::attention {
namespace {
void run(const Args& args, Context& context) { run_tiled<Avx2>(args, context); }
}  // namespace
}  // namespace moebench::attention
MOEBENCH_AVX2_END
#else
#include "kernels/attention/tiled.h"
#include "kernels/core/simd_portable.h"
namespace moebench::attention {
namespace {
void run(const Args& args, Context& context) { run_tiled<Portable>(args, context); }
}  // namespace
}  // namespace moebench::attention
#endif

namespace moebench::attention {

const Variant avx2_f32 = {
    .name = "avx2_f32",
    .backend = "cpu",
    .summary = "tiles of 32 positions shared by heads and tokens, online softmax",
    .rounds = "activations: f32, softmax sums: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = avx2_unsupported();
          return reason.empty() ? tiled_unsupported(problem) : reason;
        },
    .workspace_bytes = tiled_workspace_bytes,
    .run = run,
};

}  // namespace moebench::attention
