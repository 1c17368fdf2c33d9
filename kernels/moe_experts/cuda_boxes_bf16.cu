// cuda_boxes_bf16: cuda_stream_bf16 with weights in boxes of rows by tensor maps, and their scales
// in one copy a tile (stream.cuh): a few instructions ask for what takes sixteen copies there, and
// no lane waits for a scale.
#include "kernels/moe_experts/stream.cuh"

namespace moebench::moe_experts {

const Variant cuda_boxes_bf16 = {
    .name = "cuda_boxes_bf16",
    .backend = "cuda",
    .summary = "as cuda_stream_bf16, weights and scales copied ahead in boxes by TMA (Hopper)",
    .rounds = "activations: bf16, weights: bf16, accumulate: f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = stream_unsupported,
    .workspace_bytes = stream_workspace_bytes<true>,
    .run = run_stream<true>,
};

}  // namespace moebench::moe_experts
