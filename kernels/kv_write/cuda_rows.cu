// cuda_rows: a warp encodes one vector, a key or a value of one head, as the host's codec would;
// or first rotates it, if it is a key, and others the queries.
#include "kernels/attention/kv_device.cuh"
#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_encode.cuh"
#include "kernels/fused/rotation.cuh"
#include "kernels/kv_write/kv_write.h"

namespace moebench::kv_write {
namespace {

constexpr int kWarps = 8;

struct Rotation {
  float* queries;
  float* keys;
  const float* cos;  // null: nothing is rotated
  const float* sin;
  int num_heads;  // of queries; 0 likewise
};

// By a warp.
MOEBENCH_DEVICE void rotate(float* vector, const float* cos, const float* sin, int half) {
  for (int i = gpu::lane_id(); i < half; i += gpu::kWarp) {
    const float a = vector[i];
    const float b = vector[i + half];
    vector[i] = fused::rotated_low(a, b, cos[i], sin[i]);
    vector[i + half] = fused::rotated_high(a, b, cos[i], sin[i]);
  }
  gpu::sync_warp();
}

// Block (token, eight of its vectors): first the keys of all heads, then the values; then queries.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp)
    write_rows(const float* keys, const float* values, DeviceKv kv, int head_dim,
               Rotation rotation) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  int vector = static_cast<int>(blockIdx.y) * kWarps + gpu::warp_id();
  const int half = head_dim / 2;
  if (vector >= 2 * kv.num_kv_heads) {
    vector -= 2 * kv.num_kv_heads;
    if (vector >= rotation.num_heads) return;
    rotate(rotation.queries + (token * rotation.num_heads + vector) * head_dim,
           rotation.cos + token * half, rotation.sin + token * half, half);
    return;
  }
  const bool is_key = vector < kv.num_kv_heads;
  const int head = is_key ? vector : vector - kv.num_kv_heads;
  const float* from = (is_key ? keys : values) +
                      (token * kv.num_kv_heads + head) * static_cast<std::int64_t>(head_dim);
  if (is_key && rotation.cos != nullptr) {
    rotate(rotation.keys + (from - keys), rotation.cos + token * half, rotation.sin + token * half,
           half);
  }
  unsigned char* row =
      (is_key ? kv.keys : kv.values) + kv_offset(kv, kv.sequence[token], kv.position[token], head);
  gpu::encode_row<kFormat>(from, head_dim, row, row + kv.data_bytes);
}

void run(const Args& args, Context& context) {
  const Args::Rotation& r = args.rotation;
  const Rotation rotation{r.queries.data, r.keys.data, r.cos.data, r.sin.data,
                          r.cos.data != nullptr ? static_cast<int>(r.queries.shape[1]) : 0};
  const auto num_vectors =
      static_cast<unsigned>(2 * args.kv.num_kv_heads + std::int64_t{rotation.num_heads});
  gpu::with_format(args.kv.format, [&](auto format) {
    gpu::launch(
        write_rows<decltype(format)::value>,
        {.grid = {static_cast<unsigned>(args.keys.shape[0]), (num_vectors + kWarps - 1) / kWarps},
         .block = kWarps * gpu::kWarp,
         .stream = context.stream,
         .overlap_previous = true,
         .shared_percent = gpu::shared_percent_beside_streams(args.keys.shape[0])},
        "kv_write/cuda_rows", args.keys.data, args.values.data, device_kv(args.kv, args.places),
        static_cast<int>(args.kv.head_dim), rotation);
  });
}

}  // namespace

const Variant cuda_rows = {
    .name = "cuda_rows",
    .backend = "cuda",
    .summary = "one warp a vector, to the codec's own bits",
    .rounds = "to the cache's format",
    .max_nmse = [](const Problem&) { return 0.0; },
    .unsupported = [](const Problem& problem) -> std::string {
      const std::int64_t block = std::max<std::int64_t>(4, codec(problem.kv_format).block);
      if (problem.head_dim % block != 0) {
        return fmt::format("head_dim {} is not a multiple of {}", problem.head_dim, block);
      }
      return gpu::unavailable();
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
    .runs_several = true,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_KV_WRITE_CUDA_VARIANTS)

}  // namespace moebench::kv_write
