// cuda_decode: for decode steps whose bits may depend on how many sequences there are, on Hopper:
// up to 16 tokens run as cuda_stream_bf16, whose sums are short, more as cuda_chain_bf16, which
// reads the weights once however many they are (cuda_stream_bf16 has cuda_rows_bf16 for that, whose
// warps load weights to registers).
//
// On an H200, 32 tokens of gpt-oss-20b (query, key and value; output; a 24th of the unembedding):
// 60.1 us a layer with cuda_rows_bf16, 55.8 with cuda_chain_bf16 as it was before its stages had
// 256 columns.
#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr std::int64_t kMostStreamed = 16;

const Variant& variant_for(std::int64_t num_tokens) {
  return num_tokens <= kMostStreamed ? cuda_stream_bf16 : cuda_chain_bf16;
}

}  // namespace

const Variant cuda_decode = {
    .name = "cuda_decode",
    .backend = "cuda",
    .summary = "up to 16 tokens cuda_stream_bf16, more cuda_chain_bf16 (Hopper)",
    .rounds = "activations: bf16, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = cuda_chain_bf16.unsupported(problem);
          return reason.empty() ? cuda_stream_bf16.unsupported(problem) : reason;
        },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return std::max(cuda_stream_bf16.workspace_bytes(problem, num_threads),
                          cuda_chain_bf16.workspace_bytes(problem, num_threads));
        },
    .run = [](const Args& args,
              Context& context) { variant_for(args.x.shape[0]).run(args, context); },
    .runs_several = true,
    .knows_bf16 =
        [](const Args& args) {
          const Variant& variant = variant_for(args.x.shape[0]);
          return variant.knows_bf16 != nullptr && variant.knows_bf16(args);
        },
    .normalises = [](const Problem& problem) { return cuda_stream_bf16.normalises(problem); },
};

}  // namespace moebench::linear
