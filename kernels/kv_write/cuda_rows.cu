// cuda_rows: encodes keys and values as the host's codec would, and rotates keys and queries first,
// if the arguments ask for that. Two kernels with the same bits: of few tokens, and in formats with
// scales, a warp takes one vector; of many tokens in f32, bf16 or f16 a block takes all of a token,
// each thread eight columns of several vectors, all of which are under way before the first is
// used.
#include "kernels/attention/kv_device.cuh"
#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_encode.cuh"
#include "kernels/fused/rotation.cuh"
#include "kernels/kv_write/kv_write.h"

namespace moebench::kv_write {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * gpu::kWarp;
// Fewer tokens than these are too few blocks, if a block takes all of one.
constexpr std::int64_t kManyTokens = 64;

// Where a step's vectors are, and what becomes of them besides the cache.
struct Vectors {
  const float* queries;
  const float* keys;
  const float* values;
  std::int64_t query_stride;  // floats from a token to the next
  std::int64_t kv_stride;
  float* rotated_queries;          // [num_tokens, num_heads, head_dim]
  std::uint16_t* rounded_queries;  // of bf16, instead of these; null: not
  float* rotated_keys;  // with the stride of `keys`; of many tokens null: nowhere but to the cache
  const float* cos;     // null: nothing is rotated
  const float* sin;
  int num_heads;  // of queries that are rotated
};

// By a warp: write(column, value). The values may go to where they came from.
template <class Write>
MOEBENCH_DEVICE void rotate(const float* from, const float* cos, const float* sin, int half,
                            Write&& write) {
  for (int i = gpu::lane_id(); i < half; i += gpu::kWarp) {
    const float a = from[i];
    const float b = from[i + half];
    write(i, fused::rotated_low(a, b, cos[i], sin[i]));
    write(i + half, fused::rotated_high(a, b, cos[i], sin[i]));
  }
  gpu::sync_warp();
}

// Block (token, eight of its vectors): first the keys of all heads, then the values; then queries.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads) write_rows(Vectors vectors, DeviceKv kv, int head_dim) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  int vector = static_cast<int>(blockIdx.y) * kWarps + gpu::warp_id();
  const int half = head_dim / 2;
  if (vector >= 2 * kv.num_kv_heads) {
    vector -= 2 * kv.num_kv_heads;
    if (vector >= vectors.num_heads) return;
    const std::int64_t to = (token * vectors.num_heads + vector) * head_dim;
    rotate(vectors.queries + token * vectors.query_stride + vector * head_dim,
           vectors.cos + token * half, vectors.sin + token * half, half,
           [&](int column, float value) {
             if (vectors.rounded_queries != nullptr) {
               vectors.rounded_queries[to + column] = gpu::float_to_bf16(value);
             } else {
               vectors.rotated_queries[to + column] = value;
             }
           });
    return;
  }
  const bool is_key = vector < kv.num_kv_heads;
  const int head = is_key ? vector : vector - kv.num_kv_heads;
  const std::int64_t at = token * vectors.kv_stride + head * head_dim;
  const float* from = (is_key ? vectors.keys : vectors.values) + at;
  if (is_key && vectors.cos != nullptr) {
    rotate(from, vectors.cos + token * half, vectors.sin + token * half, half,
           [&](int column, float value) { vectors.rotated_keys[at + column] = value; });
    from = vectors.rotated_keys + at;
  }
  unsigned char* row =
      (is_key ? kv.keys : kv.values) + kv_offset(kv, kv.sequence[token], kv.position[token], head);
  gpu::encode_row<kFormat>(from, head_dim, row, row + kv.data_bytes);
}

constexpr bool has_no_scales(Format format) {
  return format == Format::kF32 || format == Format::kBf16 || format == Format::kF16;
}

// Four columns from `column` (a multiple of 4) of a row of the cache.
template <Format kFormat>
MOEBENCH_DEVICE void store_columns(unsigned char* row, int column, const float4& v) {
  if constexpr (kFormat == Format::kF32) {
    reinterpret_cast<float4*>(row)[column / 4] = v;
  } else if constexpr (kFormat == Format::kBf16) {
    reinterpret_cast<uint2*>(row)[column / 4] = {gpu::pack_bf16(v.x, v.y),
                                                 gpu::pack_bf16(v.z, v.w)};
  } else {
    const auto pair = [](float first, float second) {
      return gpu::float_to_f16(first) | static_cast<std::uint32_t>(gpu::float_to_f16(second)) << 16;
    };
    reinterpret_cast<uint2*>(row)[column / 4] = {pair(v.x, v.y), pair(v.z, v.w)};
  }
}

// A block does all vectors of a token: keys, values, queries. A thread has columns 4 q .. of a
// vector and those that rotate with them, head_dim / 2 further; q is the same for all it does, and
// so are their angles.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads, 4)
    write_tokens(Vectors vectors, DeviceKv kv, int head_dim) {
  constexpr int kAtOnce = 3;  // vectors of a thread: all of gpt-oss's
  gpu::let_next_kernel_start();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const int half = head_dim / 2;
  const int quads = half / 4;
  const int column = static_cast<int>(threadIdx.x) % quads * 4;
  const int stride = kThreads / quads;  // vectors that a block has at once
  const int count = 2 * kv.num_kv_heads + vectors.num_heads;
  const bool rotates = vectors.cos != nullptr;
  const float* queries = vectors.queries + token * vectors.query_stride;
  const float* keys = vectors.keys + token * vectors.kv_stride;
  const float* values = vectors.values + token * vectors.kv_stride;
  // Vector v of the token, in the order above.
  const auto source = [&](int v) {
    if (v < kv.num_kv_heads) return keys + v * head_dim;
    if (v < 2 * kv.num_kv_heads) return values + (v - kv.num_kv_heads) * head_dim;
    return queries + (v - 2 * kv.num_kv_heads) * head_dim;
  };
  gpu::wait_for_previous_kernel();
  float4 cos = {1, 1, 1, 1};
  float4 sin = {0, 0, 0, 0};
  if (rotates) {
    cos = *reinterpret_cast<const float4*>(vectors.cos + token * half + column);
    sin = *reinterpret_cast<const float4*>(vectors.sin + token * half + column);
  }
  const std::int64_t place = kv_offset(kv, kv.sequence[token], kv.position[token], 0);
  for (int first = static_cast<int>(threadIdx.x) / quads; first < count;
       first += kAtOnce * stride) {
    float4 low[kAtOnce];
    float4 high[kAtOnce];
    MOEBENCH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int v = first + i * stride;
      if (v >= count) continue;
      const float* from = source(v) + column;
      low[i] = *reinterpret_cast<const float4*>(from);
      high[i] = *reinterpret_cast<const float4*>(from + half);
    }
    MOEBENCH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int v = first + i * stride;
      if (v >= count) continue;
      const bool is_value = v >= kv.num_kv_heads && v < 2 * kv.num_kv_heads;
      const float4 a = low[i];
      const float4 b = high[i];
      if (rotates && !is_value) {
        low[i] = {
            fused::rotated_low(a.x, b.x, cos.x, sin.x), fused::rotated_low(a.y, b.y, cos.y, sin.y),
            fused::rotated_low(a.z, b.z, cos.z, sin.z), fused::rotated_low(a.w, b.w, cos.w, sin.w)};
        high[i] = {fused::rotated_high(a.x, b.x, cos.x, sin.x),
                   fused::rotated_high(a.y, b.y, cos.y, sin.y),
                   fused::rotated_high(a.z, b.z, cos.z, sin.z),
                   fused::rotated_high(a.w, b.w, cos.w, sin.w)};
      }
      float* to = nullptr;
      if (v >= 2 * kv.num_kv_heads) {
        const std::int64_t at = (token * vectors.num_heads + v - 2 * kv.num_kv_heads) * head_dim;
        if (vectors.rounded_queries != nullptr) {
          auto* row = reinterpret_cast<unsigned char*>(vectors.rounded_queries + at);
          store_columns<Format::kBf16>(row, column, low[i]);
          store_columns<Format::kBf16>(row, column + half, high[i]);
        } else {
          to = vectors.rotated_queries + at;
        }
      } else {
        const int head = is_value ? v - kv.num_kv_heads : v;
        unsigned char* row = (is_value ? kv.values : kv.keys) + place +
                             static_cast<std::int64_t>(head) * kv.row_bytes;
        store_columns<kFormat>(row, column, low[i]);
        store_columns<kFormat>(row, column + half, high[i]);
        if (!is_value && rotates && vectors.rotated_keys != nullptr) {
          to = vectors.rotated_keys + token * vectors.kv_stride + head * head_dim;
        }
      }
      if (to == nullptr) continue;
      *reinterpret_cast<float4*>(to + column) = low[i];
      *reinterpret_cast<float4*>(to + column + half) = high[i];
    }
  }
}

Vectors vectors_of(const Args& args) {
  const Args::Rotation& r = args.rotation;
  const std::int64_t head_dim = args.kv.head_dim;
  const std::int64_t kv_size = args.kv.num_kv_heads * head_dim;
  Vectors v{};
  v.cos = r.cos.data;
  v.sin = r.sin.data;
  v.num_heads = r.cos.data != nullptr ? static_cast<int>(r.queries.shape[1]) : 0;
  const std::int64_t query_size = v.num_heads * head_dim;
  v.rotated_queries = r.queries.data;
  v.rounded_queries = reinterpret_cast<std::uint16_t*>(r.rounded_queries.data);
  if (r.joined.data != nullptr) {
    v.queries = r.joined.data;
    v.keys = r.joined.data + query_size;
    v.values = v.keys + kv_size;
    v.query_stride = v.kv_stride = r.joined.shape[1];
    v.rotated_keys = r.joined.data + query_size;
    require(v.cos != nullptr && v.query_stride == query_size + 2 * kv_size,
            "run kv_write: joined rows of {} are not queries of {}, keys and values of {}",
            v.query_stride, query_size, kv_size);
    return v;
  }
  require(r.rounded_queries.data == nullptr,
          "run kv_write: queries are rounded from joined rows only");
  v.queries = r.queries.data;
  v.keys = args.keys.data;
  v.values = args.values.data;
  v.query_stride = query_size;
  v.kv_stride = kv_size;
  v.rotated_keys = r.keys.data;
  return v;
}

// Whether write_tokens can do it.
bool takes_tokens(const Args& args, const Vectors& v) {
  const std::int64_t head_dim = args.kv.head_dim;
  const auto aligned = [](const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
  };
  return args.places.position.shape[0] >= kManyTokens && has_no_scales(args.kv.format) &&
         head_dim % 8 == 0 && kThreads % (head_dim / 8) == 0 && args.kv.row_bytes % 16 == 0 &&
         args.kv.page_stride % 16 == 0 && v.query_stride % 4 == 0 && v.kv_stride % 4 == 0 &&
         aligned(v.queries) && aligned(v.keys) && aligned(v.values) && aligned(v.cos) &&
         aligned(v.sin) && aligned(v.rotated_queries) && aligned(v.rounded_queries) &&
         aligned(v.rotated_keys) && aligned(args.kv.keys) && aligned(args.kv.values);
}

void run(const Args& args, Context& context) {
  Vectors vectors = vectors_of(args);
  const std::int64_t num_tokens = args.places.position.shape[0];
  const DeviceKv kv = device_kv(args.kv, args.places);
  const auto head_dim = static_cast<int>(args.kv.head_dim);
  const bool by_token = takes_tokens(args, vectors);
  const auto num_vectors =
      static_cast<unsigned>(2 * args.kv.num_kv_heads + std::int64_t{vectors.num_heads});
  const auto start = [&](auto* kernel, unsigned groups) {
    gpu::launch(kernel,
                {.grid = {static_cast<unsigned>(num_tokens), groups},
                 .block = kThreads,
                 .stream = context.stream,
                 .overlap_previous = true,
                 .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
                "kv_write/cuda_rows", vectors, kv, head_dim);
  };
  gpu::with_format(args.kv.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    if constexpr (has_no_scales(kFormat)) {
      if (by_token) {
        if (args.rotation.joined.data != nullptr) vectors.rotated_keys = nullptr;
        return start(write_tokens<kFormat>, 1);
      }
    }
    start(write_rows<kFormat>, (num_vectors + kWarps - 1) / kWarps);
  });
}
}  // namespace

const Variant cuda_rows = {
    .name = "cuda_rows",
    .backend = "cuda",
    .summary = "a warp a vector, or a block a token of many, to the codec's own bits",
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
    .knows_bf16 = [](const Args& args) { return args.rotation.joined.data != nullptr; },
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_KV_WRITE_CUDA_VARIANTS)

}  // namespace moebench::kv_write
