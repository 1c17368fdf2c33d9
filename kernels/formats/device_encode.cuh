// Encoding on the GPU, to the very bytes of the host's codec: scales and codes, and a whole row by
// one warp.
//
// Every step is the codec's (see <format>.cpp): the same largest magnitudes, divisions and
// roundings, none of which depends on the order in which lanes meet. encode_row's tensor scale
// is 1.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_decode.cuh"
#include "kernels/formats/format.h"

namespace moebench::gpu {

// E2M1: see kernels/core/float_types.h. Ties go to the code with an even mantissa bit.
MOEBENCH_DEVICE std::uint32_t float_to_e2m1(float value) {
  const float a = fabsf(value);
  const std::uint32_t code = (a > 0.25F) + (a >= 0.75F) + (a > 1.25F) + (a >= 1.75F) + (a > 2.5F) +
                             (a >= 3.5F) + (a > 5.0F);
  return (bits_of(value) >> 28 & 8U) | code;
}

// The E8M0 code of 2^floor(log2(largest)) / 2^element_max_exponent.
MOEBENCH_DEVICE std::uint32_t e8m0_scale_for(float largest, int element_max_exponent) {
  const int code = static_cast<int>(bits_of(largest) >> 23 & 255U) - element_max_exponent;
  return static_cast<std::uint32_t>(code < 0 ? 0 : code > 254 ? 254 : code);
}

// The largest magnitude of a block whose columns are spread over kLanes neighbouring lanes.
template <int kLanes>
MOEBENCH_DEVICE float block_max(float value) {
  MOEBENCH_UNROLL
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, shuffle_xor(kAllLanes, value, offset));
  }
  return value;
}

// The value of largest magnitude with its sign; of equal ones the first column's.
template <int kLanes>
MOEBENCH_DEVICE float block_extreme(float value) {
  int from = lane_id();
  MOEBENCH_UNROLL
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    const float other = shuffle_xor(kAllLanes, value, offset);
    const int other_from = shuffle_xor(kAllLanes, from, offset);
    const float difference = fabsf(other) - fabsf(value);
    if (difference > 0.0F || (difference == 0.0F && other_from < from)) {
      value = other;
      from = other_from;
    }
  }
  return value;
}

// What a block of a format is scaled by: as a number, and as it is stored.
struct BlockScale {
  float value;
  std::uint32_t code;
};

// Of a block whose largest magnitude is `largest`; for int4, which needs its sign, the value
// itself.
template <Format kFormat>
MOEBENCH_DEVICE BlockScale scale_for(float largest, float tensor_scale) {
  if constexpr (kFormat == Format::kInt4) {
    if (largest == 0.0F) largest = 0.0F;  // the codec's zero has no sign
    const std::uint16_t code = float_to_f16(fminf(fmaxf(largest / -8.0F, -65504.0F), 65504.0F));
    return {f16_to_float(code), code};
  } else if constexpr (kFormat == Format::kInt8) {
    const std::uint16_t code = float_to_f16(fminf(largest / 127.0F, 65504.0F));
    return {f16_to_float(code), code};
  } else if constexpr (kFormat == Format::kNvfp4) {
    const std::uint8_t code = float_to_e4m3(largest / 6.0F / tensor_scale);
    return {e4m3_to_float(code) * tensor_scale, code};
  } else if constexpr (kFormat == Format::kFp8E4m3) {  // whose block is a row
    const float scale = largest > 0.0F ? largest / 448.0F : 1.0F;
    return {scale, bits_of(scale)};
  } else {
    const std::uint32_t code = e8m0_scale_for(largest, kFormat == Format::kMxfp8 ? 8 : 2);
    return {e8m0_to_float(code), code};
  }
}

// Two neighbouring columns a lane: a block of 32 columns is 16 lanes.
template <Format kFormat>
MOEBENCH_DEVICE BlockScale block_scale(float2 pair) {
  if constexpr (kFormat == Format::kInt4) {
    return scale_for<kFormat>(block_extreme<16>(fabsf(pair.y) > fabsf(pair.x) ? pair.y : pair.x),
                              1.0F);
  } else {
    constexpr int kLanes = kFormat == Format::kNvfp4 ? 8 : 16;
    return scale_for<kFormat>(block_max<kLanes>(fmaxf(fabsf(pair.x), fabsf(pair.y))), 1.0F);
  }
}

template <Format kFormat>
MOEBENCH_DEVICE std::uint32_t element_code(float value, float scale) {
  if constexpr (kFormat == Format::kFp8E4m3) {
    return float_to_e4m3(scale > 0.0F ? value / scale : 0.0F);
  } else if constexpr (kFormat == Format::kMxfp8) {
    return float_to_e4m3(value / scale);
  } else if constexpr (kFormat == Format::kInt8) {
    const float scaled = scale > 0.0F ? rintf(value / scale) : 0.0F;
    return static_cast<std::uint32_t>(static_cast<int>(fminf(fmaxf(scaled, -127.0F), 127.0F))) &
           255U;
  } else if constexpr (kFormat == Format::kInt4) {
    const float scaled = scale != 0.0F ? rintf(value / scale) : 0.0F;
    return static_cast<std::uint32_t>(fminf(fmaxf(scaled + 8.0F, 0.0F), 15.0F));
  } else if constexpr (kFormat == Format::kNvfp4) {
    return scale > 0.0F ? float_to_e2m1(value / scale) : 0U;
  } else {
    return float_to_e2m1(value / scale);
  }
}

// Called by every lane of a warp. `values` is aligned to 8 bytes; `cols` is a multiple of 4 and of
// the format's block; `data` is aligned to 4 bytes (f32: 8).
template <Format kFormat>
MOEBENCH_DEVICE void encode_row(const float* values, int cols, unsigned char* data,
                                unsigned char* scales) {
  const auto pair_at = [&](int column) {
    return column < cols ? *reinterpret_cast<const float2*>(values + column) : float2{0.0F, 0.0F};
  };
  constexpr int kColumns = 2 * kWarp;  // of the row at a time
  BlockScale row_scale{1.0F, 0};
  if constexpr (kFormat == Format::kFp8E4m3) {
    float largest = 0.0F;
    for (int column = 2 * lane_id(); column < cols; column += kColumns) {
      const float2 pair = pair_at(column);
      largest = fmaxf(largest, fmaxf(fabsf(pair.x), fabsf(pair.y)));
    }
    row_scale = scale_for<kFormat>(warp_max(largest), 1.0F);
    if (lane_id() == 0) *reinterpret_cast<float*>(scales) = row_scale.value;
  }
  for (int begin = 0; begin < cols; begin += kColumns) {
    const int column = begin + 2 * lane_id();
    const bool inside = column < cols;
    const float2 pair = pair_at(column);
    if constexpr (kFormat == Format::kF32) {
      if (inside) *reinterpret_cast<float2*>(data + 4 * column) = pair;
    } else if constexpr (kFormat == Format::kBf16) {
      if (inside) *reinterpret_cast<std::uint32_t*>(data + 2 * column) = pack_bf16(pair.x, pair.y);
    } else if constexpr (kFormat == Format::kF16) {
      if (inside) {
        *reinterpret_cast<std::uint32_t*>(data + 2 * column) =
            float_to_f16(pair.x) | static_cast<std::uint32_t>(float_to_f16(pair.y)) << 16;
      }
    } else {
      BlockScale scale = row_scale;
      if constexpr (kFormat != Format::kFp8E4m3) {
        scale = block_scale<kFormat>(pair);
        constexpr int kBlock = kFormat == Format::kNvfp4 ? 16 : 32;
        if (inside && column % kBlock == 0) {
          if constexpr (kFormat == Format::kInt8 || kFormat == Format::kInt4) {
            reinterpret_cast<std::uint16_t*>(scales)[column / kBlock] =
                static_cast<std::uint16_t>(scale.code);
          } else {
            scales[column / kBlock] = static_cast<unsigned char>(scale.code);
          }
        }
      }
      const std::uint32_t first = element_code<kFormat>(pair.x, scale.value);
      const std::uint32_t second = element_code<kFormat>(pair.y, scale.value);
      constexpr bool kNibbles =
          kFormat == Format::kInt4 || kFormat == Format::kMxfp4 || kFormat == Format::kNvfp4;
      if constexpr (kNibbles) {
        if (inside) data[column / 2] = static_cast<unsigned char>(first | second << 4);
      } else if (inside) {
        *reinterpret_cast<std::uint16_t*>(data + column) =
            static_cast<std::uint16_t>(first | second << 8);
      }
    }
  }
}

}  // namespace moebench::gpu
