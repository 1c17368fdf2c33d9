// cuda_plain_f32: one warp for each query head of each token, float32 throughout.
//
// Eight columns of a cached vector a lane: 8 lanes for head_dim 64, which leaves 4 slots. Each slot
// runs an online softmax (Milakov and Gimelshein, 2018) over every 4th visible position, and the
// slots' sums are joined at the end, where the sink comes in. An output depends on its token's
// position alone, not on what else the step holds. Nothing is shared between heads or tokens: this
// is the contract on a GPU, not a fast way.
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kWarps = 4;
constexpr int kColumns = 8;
constexpr float kLowest = -3.0e38F;  // below any score, and finite: differences stay numbers

// Block (token, four query heads).
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp)
    attend(const float* queries, DeviceKv kv, const float* sinks, float scale, int window,
           int num_heads, int head_dim, float* out) {
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y) * kWarps + gpu::warp_id();
  if (head >= num_heads) return;
  const int kv_head = head / (num_heads / kv.num_kv_heads);
  const int lanes = head_dim / kColumns;  // of a slot
  const int num_slots = gpu::kWarp / lanes;
  const int slot = gpu::lane_id() / lanes;
  const int column = gpu::lane_id() % lanes * kColumns;
  const std::int64_t row = (token * num_heads + head) * head_dim + column;
  float query[kColumns];
  MOEBENCH_UNROLL
  for (int c = 0; c < kColumns; ++c) query[c] = queries[row + c] * scale;

  const int position = kv.position[token];
  const int sequence = kv.sequence[token];
  const int first = window > 0 && position >= window ? position - window + 1 : 0;
  float largest = kLowest;
  float total = 0;
  float sum[kColumns] = {};
  for (int begin = first; begin <= position; begin += num_slots) {
    const int p = begin + slot;
    const bool visible = p <= position;
    KvColumns<kFormat, kColumns> key;
    KvColumns<kFormat, kColumns> value;
    key.clear();
    value.clear();
    if (visible) {
      const std::int64_t offset = kv_offset(kv, sequence, p, kv_head);
      key.load(kv.keys + offset, kv.data_bytes, column);
      value.load(kv.values + offset, kv.data_bytes, column);
    }
    float vector[kColumns];
    key.decode(vector);
    float score = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < kColumns; ++c) score += query[c] * vector[c];
    for (int offset = lanes / 2; offset > 0; offset /= 2) {
      score += gpu::shuffle_xor(gpu::kAllLanes, score, offset);
    }
    if (!visible) continue;
    const float new_largest = fmaxf(largest, score);
    const float factor = expf(largest - new_largest);
    const float weight = expf(score - new_largest);
    largest = new_largest;
    total = total * factor + weight;
    value.decode(vector);
    MOEBENCH_UNROLL
    for (int c = 0; c < kColumns; ++c) sum[c] = sum[c] * factor + weight * vector[c];
  }

  float most = gpu::warp_max(largest);
  if (sinks != nullptr) most = fmaxf(most, sinks[head]);
  const float factor = expf(largest - most);
  total *= factor;
  MOEBENCH_UNROLL
  for (int c = 0; c < kColumns; ++c) sum[c] *= factor;
  for (int offset = lanes; offset < gpu::kWarp; offset *= 2) {
    total += gpu::shuffle_xor(gpu::kAllLanes, total, offset);
    MOEBENCH_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      sum[c] += gpu::shuffle_xor(gpu::kAllLanes, sum[c], offset);
    }
  }
  if (sinks != nullptr) total += expf(sinks[head] - most);
  if (slot > 0) return;
  MOEBENCH_UNROLL
  for (int c = 0; c < kColumns; ++c) out[row + c] = sum[c] / total;
}

void run(const Args& args, Context& context) {
  const auto num_heads = static_cast<int>(args.queries.shape[1]);
  gpu::with_format(args.kv.format, [&](auto format) {
    gpu::launch(attend<decltype(format)::value>,
                {.grid = {static_cast<unsigned>(args.queries.shape[0]),
                          static_cast<unsigned>((num_heads + kWarps - 1) / kWarps)},
                 .block = kWarps * gpu::kWarp,
                 .stream = context.stream},
                "attention/cuda_plain_f32", args.queries.data, device_kv(args.kv, args.places),
                args.sinks.data, args.scale, static_cast<int>(args.window), num_heads,
                static_cast<int>(args.kv.head_dim), args.out.data);
  });
}

std::string unsupported(const Problem& problem) {
  if (problem.num_kv_heads <= 0 || problem.num_heads % problem.num_kv_heads != 0) {
    return "num_heads must be a multiple of num_kv_heads";
  }
  if (problem.head_dim != 32 && problem.head_dim != 64 && problem.head_dim != 128 &&
      problem.head_dim != 256) {
    return fmt::format("head_dim {} is not 32, 64, 128 or 256", problem.head_dim);
  }
  return gpu::unavailable();
}

}  // namespace

const Variant cuda_plain_f32 = {
    .name = "cuda_plain_f32",
    .backend = "cuda",
    .summary = "one warp for a token and head, online softmax",
    .rounds = "activations: f32, softmax sums: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = unsupported,
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_ATTENTION_CUDA_VARIANTS)

}  // namespace moebench::attention
