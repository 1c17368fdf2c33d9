// cuda_stream_bf16: decode steps on Hopper, weights copied row by row (stream.cuh).
#include "kernels/moe_experts/stream.cuh"

namespace moebench::moe_experts {

const Variant cuda_stream_bf16 = {
    .name = "cuda_stream_bf16",
    .backend = "cuda",
    .summary = "one block an SM, weights copied ahead row by row, for up to 64 tokens (Hopper)",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = stream_unsupported,
    .workspace_bytes = stream_workspace_bytes<false>,
    .run = run_stream<false>,
};

}  // namespace moebench::moe_experts
