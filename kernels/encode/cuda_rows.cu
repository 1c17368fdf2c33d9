// cuda_rows: one warp a row; a lane holds 32 neighbouring columns, which are one block of most
// formats, so that lanes meet only for the scale of a whole row and for the sums.
//
// Codes and scales are bit for bit the codec's (device_encode.cuh). Sums are added row by row in a
// fixed order, which is not the reference's: they agree to float64's rounding.
#include "kernels/core/gpu.cuh"
#include "kernels/encode/encode.h"
#include "kernels/formats/device_decode.cuh"
#include "kernels/formats/device_encode.cuh"

namespace moebench::encode {
namespace {

constexpr int kWarps = 4;
constexpr int kColumns = 32;  // of a lane
constexpr int kJoinThreads = 256;

struct Source {
  Format format;
  const unsigned char* data;
  const unsigned char* scales;
  std::int64_t row_data;  // bytes
  std::int64_t row_scales;
  float tensor_scale;
};
struct Target {
  unsigned char* data;  // null: only sums are wanted
  unsigned char* scales;
  std::int64_t row_data;
  std::int64_t row_scales;
  float tensor_scale;
};

MOEBENCH_DEVICE bool is_finite(float value) { return fabsf(value) < INFINITY; }

template <Format kFrom>
MOEBENCH_DEVICE void decode_columns(const gpu::EncodedRow& row, int column,
                                    float (&values)[kColumns]) {
  using Decoder = gpu::DeviceFormat<kFrom>;
  uint4 groups[kColumns / Decoder::kValues];
  const unsigned char* from = row.data + static_cast<std::int64_t>(column / Decoder::kValues) * 16;
  MOEBENCH_UNROLL
  for (int g = 0; g < kColumns / Decoder::kValues; ++g) {
    groups[g] = gpu::load_streaming(from + 16 * g);
  }
  MOEBENCH_UNROLL
  for (int g = 0; g < kColumns / Decoder::kValues; ++g) {
    float of_group[Decoder::kValues];
    Decoder::decode(groups[g], column + g * Decoder::kValues, row, of_group);
    MOEBENCH_UNROLL
    for (int i = 0; i < Decoder::kValues; ++i) values[g * Decoder::kValues + i] = of_group[i];
  }
  if constexpr (kFrom == Format::kInt4) {
    // The codec's zero has its scale's sign, which decode() drops.
    const float zero = (row.scales[column / kColumns * 2 + 1] & 0x80) != 0 ? -0.0F : 0.0F;
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns; ++i) values[i] = values[i] == 0.0F ? zero : values[i];
  }
}

MOEBENCH_DEVICE void load_columns(Format from, const gpu::EncodedRow& row, int column,
                                  float (&values)[kColumns]) {
  switch (from) {
    case Format::kF32:
      return decode_columns<Format::kF32>(row, column, values);
    case Format::kBf16:
      return decode_columns<Format::kBf16>(row, column, values);
    case Format::kF16:
      return decode_columns<Format::kF16>(row, column, values);
    case Format::kFp8E4m3:
      return decode_columns<Format::kFp8E4m3>(row, column, values);
    case Format::kInt8:
      return decode_columns<Format::kInt8>(row, column, values);
    case Format::kInt4:
      return decode_columns<Format::kInt4>(row, column, values);
    case Format::kMxfp8:
      return decode_columns<Format::kMxfp8>(row, column, values);
    case Format::kMxfp4:
      return decode_columns<Format::kMxfp4>(row, column, values);
    case Format::kNvfp4:
      return decode_columns<Format::kNvfp4>(row, column, values);
  }
}

// The largest magnitude of columns [begin, begin + count); for int4 the value itself, the first of
// equal ones.
template <Format kTo>
MOEBENCH_DEVICE float extreme_of(const float (&values)[kColumns], int begin, int count) {
  float extreme = 0.0F;
  MOEBENCH_UNROLL
  for (int i = begin; i < begin + count; ++i) {
    if constexpr (kTo == Format::kInt4) {
      if (fabsf(values[i]) > fabsf(extreme)) extreme = values[i];
    } else {
      extreme = fmaxf(extreme, fabsf(values[i]));
    }
  }
  return extreme;
}

// 32 columns in a format: `groups` of 16 bytes each, and up to 4 bytes of scales.
template <Format kTo>
struct EncodedColumns {
  static constexpr int kGroups = kColumns / gpu::DeviceFormat<kTo>::kValues;
  uint4 groups[kGroups];
  unsigned char scales[4];
};

template <Format kTo>
MOEBENCH_DEVICE EncodedColumns<kTo> encode_columns(const float (&values)[kColumns], float row_scale,
                                                   float tensor_scale) {
  EncodedColumns<kTo> encoded{};
  constexpr int kWords = 4 * EncodedColumns<kTo>::kGroups;
  std::uint32_t words[kWords];
  if constexpr (kTo == Format::kF32) {
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) words[w] = gpu::bits_of(values[w]);
  } else if constexpr (kTo == Format::kBf16) {
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) words[w] = gpu::pack_bf16(values[2 * w], values[2 * w + 1]);
  } else if constexpr (kTo == Format::kF16) {
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) {
      words[w] = gpu::float_to_f16(values[2 * w]) |
                 static_cast<std::uint32_t>(gpu::float_to_f16(values[2 * w + 1])) << 16;
    }
  } else {
    constexpr int kBits = 4 * kWords * 8 / kColumns;  // of a code
    constexpr int kBlock = kTo == Format::kNvfp4 ? 16 : kColumns;
    constexpr int kScaleBytes = kTo == Format::kInt8 || kTo == Format::kInt4 ? 2 : 1;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) words[w] = 0;
    MOEBENCH_UNROLL
    for (int block = 0; block < kColumns / kBlock; ++block) {
      gpu::BlockScale scale{row_scale, gpu::bits_of(row_scale)};
      if constexpr (kTo == Format::kFp8E4m3) {
        MOEBENCH_UNROLL
        for (int i = 0; i < 4; ++i) {
          encoded.scales[i] = static_cast<unsigned char>(scale.code >> 8 * i);
        }
      } else {
        scale = gpu::scale_for<kTo>(extreme_of<kTo>(values, block * kBlock, kBlock), tensor_scale);
        MOEBENCH_UNROLL
        for (int i = 0; i < kScaleBytes; ++i) {
          encoded.scales[block * kScaleBytes + i] = static_cast<unsigned char>(scale.code >> 8 * i);
        }
      }
      MOEBENCH_UNROLL
      for (int i = block * kBlock; i < (block + 1) * kBlock; ++i) {
        words[i * kBits / 32] |= gpu::element_code<kTo>(values[i], scale.value) << i * kBits % 32;
      }
    }
  }
  MOEBENCH_UNROLL
  for (int g = 0; g < EncodedColumns<kTo>::kGroups; ++g) {
    encoded.groups[g] = {words[4 * g], words[4 * g + 1], words[4 * g + 2], words[4 * g + 3]};
  }
  return encoded;
}

// Over the lanes of a warp: sums, and the largest.
MOEBENCH_DEVICE Sums join_lanes(Sums sums) {
  MOEBENCH_UNROLL
  for (int offset = gpu::kWarp / 2; offset > 0; offset /= 2) {
    const auto other = [offset](auto value) {
      return gpu::shuffle_xor(gpu::kAllLanes, value, offset);
    };
    sums.signal += other(sums.signal);
    sums.noise += other(sums.noise);
    sums.max_abs = fmax(sums.max_abs, other(sums.max_abs));
    sums.largest = fmax(sums.largest, other(sums.largest));
    sums.non_finite += other(sums.non_finite);
  }
  return sums;
}

template <Format kTo>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp)
    encode_rows(Source source, Target target, Sums* row_sums, int rows, int cols) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + gpu::warp_id();
  if (row >= rows) return;
  const gpu::EncodedRow from{source.data + row * source.row_data,
                             source.scales + row * source.row_scales, source.tensor_scale};
  unsigned char* data = target.data + row * target.row_data;
  unsigned char* scales = target.scales + row * target.row_scales;
  constexpr int kStep = kColumns * gpu::kWarp;
  const int first = gpu::lane_id() * kColumns;
  float values[kColumns];

  float row_scale = 1.0F;
  if constexpr (kTo == Format::kFp8E4m3) {
    float largest = 0.0F;
    for (int column = first; column < cols; column += kStep) {
      load_columns(source.format, from, column, values);
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        if (is_finite(values[i])) largest = fmaxf(largest, fabsf(values[i]));
      }
    }
    largest = gpu::warp_max(largest);
    if (largest > 0.0F) row_scale = largest / 448.0F;
  }

  Sums sums{};
  for (int column = first; column < cols; column += kStep) {
    load_columns(source.format, from, column, values);
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns; ++i) {
      if (!is_finite(values[i])) {
        ++sums.non_finite;
        continue;
      }
      const auto value = static_cast<double>(values[i]);
      sums.signal += value * value;
      sums.largest = fmax(sums.largest, fabs(value));
    }
    if (target.data == nullptr) continue;
    const EncodedColumns<kTo> encoded = encode_columns<kTo>(values, row_scale, target.tensor_scale);
    using Decoder = gpu::DeviceFormat<kTo>;
    const std::uint32_t scale_bits = encoded.scales[0] | encoded.scales[1] << 8;
    const float factor = kTo == Format::kFp8E4m3 ? row_scale
                         : kTo == Format::kNvfp4 ? 256.0F * target.tensor_scale
                                                 : 1.0F;
    MOEBENCH_UNROLL
    for (int g = 0; g < EncodedColumns<kTo>::kGroups; ++g) {
      const std::int64_t group = column / Decoder::kValues + g;
      *reinterpret_cast<uint4*>(data + group * 16) = encoded.groups[g];
      float decoded[Decoder::kValues];
      Decoder::decode_scaled(encoded.groups[g], scale_bits, factor, decoded);
      MOEBENCH_UNROLL
      for (int i = 0; i < Decoder::kValues; ++i) {
        const float value = values[g * Decoder::kValues + i];
        if (!is_finite(value)) continue;  // counted above
        if (!is_finite(decoded[i])) {
          ++sums.non_finite;
          continue;
        }
        const double difference = static_cast<double>(decoded[i]) - static_cast<double>(value);
        sums.noise += difference * difference;
        sums.max_abs = fmax(sums.max_abs, fabs(difference));
      }
    }
    if constexpr (kTo == Format::kInt8 || kTo == Format::kInt4 || kTo == Format::kNvfp4) {
      unsigned char* to = scales + column / kColumns * 2;
      to[0] = encoded.scales[0];
      to[1] = encoded.scales[1];
    } else if constexpr (kTo == Format::kMxfp8 || kTo == Format::kMxfp4) {
      scales[column / kColumns] = encoded.scales[0];
    } else if constexpr (kTo == Format::kFp8E4m3) {
      if (column == 0) {
        for (int i = 0; i < 4; ++i) scales[i] = encoded.scales[i];
      }
    }
  }
  sums = join_lanes(sums);
  if (gpu::lane_id() == 0) row_sums[row] = sums;
}

MOEBENCH_DEVICE void add(Sums& sums, const Sums& other) {
  sums.signal += other.signal;
  sums.noise += other.noise;
  sums.max_abs = fmax(sums.max_abs, other.max_abs);
  sums.largest = fmax(sums.largest, other.largest);
  sums.non_finite += other.non_finite;
}

// One block.
__global__ void MOEBENCH_BOUNDS(kJoinThreads) join_rows(Sums* row_sums, int rows, Sums* to) {
  Sums sums{};
  for (int r = static_cast<int>(threadIdx.x); r < rows; r += kJoinThreads) add(sums, row_sums[r]);
  sums = join_lanes(sums);
  // Each warp's sums go where a row's were that only its first lane has read.
  const int mine = gpu::warp_id() * gpu::kWarp;
  if (gpu::lane_id() == 0 && mine < rows) row_sums[mine] = sums;
  gpu::sync_threads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kJoinThreads / gpu::kWarp && w * gpu::kWarp < rows; ++w) {
    add(sums, row_sums[w * gpu::kWarp]);
  }
  *to = sums;
}

void run(const Args& args, Context& context) {
  const MatrixView& from = args.from;
  const Codec& c = codec(from.format);
  const Codec& to = codec(args.to);
  Workspace workspace(context.workspace);
  auto* row_sums = workspace.take<Sums>(from.rows);
  const Source source{from.format,
                      reinterpret_cast<const unsigned char*>(from.data),
                      reinterpret_cast<const unsigned char*>(from.scales),
                      static_cast<std::int64_t>(c.row_data_bytes(from.cols)),
                      static_cast<std::int64_t>(c.row_scale_bytes(from.cols)),
                      from.tensor_scale};
  const Target target{reinterpret_cast<unsigned char*>(args.data),
                      reinterpret_cast<unsigned char*>(args.scales),
                      static_cast<std::int64_t>(to.row_data_bytes(from.cols)),
                      static_cast<std::int64_t>(to.row_scale_bytes(from.cols)), args.tensor_scale};
  const auto rows = static_cast<int>(from.rows);
  gpu::with_format(args.to, [&](auto format) {
    gpu::launch(encode_rows<decltype(format)::value>,
                {.grid = {static_cast<unsigned>((rows + kWarps - 1) / kWarps)},
                 .block = kWarps * gpu::kWarp,
                 .stream = context.stream},
                "encode/cuda_rows", source, target, row_sums, rows, static_cast<int>(from.cols));
  });
  gpu::launch(join_rows, {.grid = {1}, .block = kJoinThreads, .stream = context.stream},
              "encode/cuda_rows (sums)", row_sums, rows, args.sums);
}

}  // namespace

const Variant cuda_rows = {
    .name = "cuda_rows",
    .backend = "cuda",
    .summary = "one warp a row, 32 columns a lane, to the codec's own bits",
    .rounds = "to the format; sums: f64",
    .max_nmse = [](const Problem&) { return 0.0; },
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) -> std::string {
      if (problem.cols % kColumns != 0) {
        return fmt::format("{} columns are not a multiple of {}", problem.cols, kColumns);
      }
      return gpu::unavailable();
    },
    .workspace_bytes =
        [](const Problem& problem, int) {
          Workspace workspace;
          workspace.take<Sums>(problem.rows);
          return workspace.used();
        },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_ENCODE_CUDA_VARIANTS)

}  // namespace moebench::encode
