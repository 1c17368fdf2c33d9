// The paged cache as kernels see it: where a vector lies, and a few of its columns as floats.
//
// A row is its elements, then its scales. Rows of f32, bf16 and f16 are multiples of 16 bytes and
// read 16 bytes at a time; those of formats with scales begin at any multiple of 4.
#pragma once

#include "kernels/attention/kv_view.h"
#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_decode.cuh"

namespace moebench {

// A kernel parameter: one layer's cache, and where the step's tokens stand in it.
struct DeviceKv {
  unsigned char* keys;
  unsigned char* values;
  std::int64_t page_stride;
  const std::int32_t* position;
  const std::int32_t* sequence;
  const std::int32_t* page_tables;
  int pages_per_sequence;
  int page_size;
  int num_kv_heads;
  int row_bytes;
  int data_bytes;  // of a row, before its scales
};

inline DeviceKv device_kv(const KvLayerView& kv, const TokenPlaces& places) {
  return {reinterpret_cast<unsigned char*>(kv.keys),
          reinterpret_cast<unsigned char*>(kv.values),
          static_cast<std::int64_t>(kv.page_stride),
          places.position.data,
          places.sequence.data,
          places.page_tables.data,
          static_cast<int>(places.page_tables.shape[1]),
          static_cast<int>(kv.page_size),
          static_cast<int>(kv.num_kv_heads),
          static_cast<int>(kv.row_bytes),
          static_cast<int>(codec(kv.format).row_data_bytes(kv.head_dim))};
}

// The scale of a row that has one, of float8.
MOEBENCH_DEVICE float kv_row_scale(const unsigned char* row, int data_bytes) {
  return gpu::load_constant(reinterpret_cast<const float*>(row + data_bytes));
}

// From the first key (value) of the layer to that of a position and head, in bytes.
MOEBENCH_DEVICE std::int64_t kv_offset(const DeviceKv& kv, int sequence, int position, int head) {
  const std::int64_t at = static_cast<std::int64_t>(sequence) * kv.pages_per_sequence;
  const std::int32_t page = kv.page_tables[at + position / kv.page_size];
  const int slot = position % kv.page_size;
  return page * kv.page_stride +
         static_cast<std::int64_t>(slot * kv.num_kv_heads + head) * kv.row_bytes;
}

// kBytes of a row into words; one that is half used if kBytes is 2.
template <int kBytes, bool kWide>
MOEBENCH_DEVICE void load_words(const unsigned char* from,
                                std::uint32_t (&words)[(kBytes + 3) / 4]) {
  if constexpr (kWide && kBytes % 16 == 0) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 four = gpu::load_constant(reinterpret_cast<const uint4*>(from) + i);
      words[4 * i] = four.x;
      words[4 * i + 1] = four.y;
      words[4 * i + 2] = four.z;
      words[4 * i + 3] = four.w;
    }
  } else if constexpr (kWide && kBytes == 8) {
    const uint2 two = gpu::load_constant(reinterpret_cast<const uint2*>(from));
    words[0] = two.x;
    words[1] = two.y;
  } else if constexpr (kBytes == 2) {
    words[0] = gpu::load_constant(reinterpret_cast<const std::uint16_t*>(from));
  } else {
    MOEBENCH_UNROLL
    for (int i = 0; i < kBytes / 4; ++i) {
      words[i] = gpu::load_constant(reinterpret_cast<const std::uint32_t*>(from) + i);
    }
  }
}

// kColumns neighbouring columns of a row (a multiple of 4 that divides 16), as they are stored:
// loaded first and decoded later, so that many loads are on their way at once.
template <Format kFormat, int kColumns>
struct KvColumns {
  static constexpr bool kWide =
      kFormat == Format::kF32 || kFormat == Format::kBf16 || kFormat == Format::kF16;
  static constexpr bool kNibbles =
      kFormat == Format::kInt4 || kFormat == Format::kMxfp4 || kFormat == Format::kNvfp4;
  static constexpr int kBytes = kFormat == Format::kF32 ? 4 * kColumns
                                : kWide                 ? 2 * kColumns
                                : kNibbles              ? kColumns / 2
                                                        : kColumns;

  std::uint32_t words[(kBytes + 3) / 4];
  std::uint32_t scale;

  // Zeros in every format, once decoded.
  MOEBENCH_DEVICE void clear() {
    MOEBENCH_UNROLL
    for (std::uint32_t& word : words) word = 0;
    scale = 0;
  }

  // `column` is a multiple of kColumns.
  MOEBENCH_DEVICE void load(const unsigned char* row, int data_bytes, int column) {
    load_codes(row, column);
    const unsigned char* scales = row + data_bytes;
    if constexpr (kFormat == Format::kFp8E4m3) {
      scale = gpu::load_constant(reinterpret_cast<const std::uint32_t*>(scales));
    } else if constexpr (kFormat == Format::kInt8 || kFormat == Format::kInt4) {
      scale = gpu::load_constant(reinterpret_cast<const std::uint16_t*>(scales) + column / 32);
    } else if constexpr (kFormat == Format::kNvfp4) {
      scale = gpu::load_constant(scales + column / 16);
    } else if constexpr (!kWide) {
      scale = gpu::load_constant(scales + column / 32);
    }
  }

  MOEBENCH_DEVICE void load_codes(const unsigned char* row, int column) {
    load_words<kBytes, kWide>(row + column * kBytes / kColumns, words);
  }

  MOEBENCH_DEVICE float decoded_scale() const {
    if constexpr (kFormat == Format::kFp8E4m3) {
      return gpu::float_from_bits(scale);
    } else if constexpr (kFormat == Format::kInt8 || kFormat == Format::kInt4) {
      return gpu::f16_to_float(static_cast<std::uint16_t>(scale));
    } else if constexpr (kFormat == Format::kNvfp4) {
      return gpu::e4m3_to_float(scale);
    } else {
      return gpu::e8m0_to_float(scale);
    }
  }

  // Rounded to bf16, two columns a word.
  MOEBENCH_DEVICE void decode_bf16(std::uint32_t (&pairs)[kColumns / 2]) const {
    if constexpr (kFormat == Format::kBf16) {
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns / 2; ++i) pairs[i] = words[i];
    } else {
      float values[kColumns];
      decode(values);
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns / 2; ++i) {
        pairs[i] = gpu::pack_bf16(values[2 * i], values[2 * i + 1]);
      }
    }
  }

  // Of a row with one scale, without it: exact, as f16, in one instruction for two columns.
  static constexpr bool kScalesRows = kFormat == Format::kFp8E4m3;
  MOEBENCH_DEVICE void codes_as_f16(std::uint32_t (&pairs)[kColumns / 2]) const {
    static_assert(kScalesRows);
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns / 2; ++i) pairs[i] = gpu::e4m3_to_f16x2(words[i / 2], i % 2);
  }

  MOEBENCH_DEVICE void decode(float (&values)[kColumns]) const {
    if constexpr (kFormat == Format::kF32) {
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns; ++i) values[i] = gpu::float_from_bits(words[i]);
    } else if constexpr (kFormat == Format::kBf16) {
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns; i += 2) {
        values[i] = gpu::low_bf16(words[i / 2]);
        values[i + 1] = gpu::high_bf16(words[i / 2]);
      }
    } else if constexpr (kFormat == Format::kF16) {
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns; i += 2) {
        values[i] = gpu::f16_to_float(static_cast<std::uint16_t>(words[i / 2]));
        values[i + 1] = gpu::f16_to_float(static_cast<std::uint16_t>(words[i / 2] >> 16));
      }
    } else {
      const float factor = decoded_scale();
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        constexpr int kPerWord = kNibbles ? 8 : 4;
        const std::uint32_t code = words[i / kPerWord] >> 32 / kPerWord * (i % kPerWord);
        if constexpr (kFormat == Format::kInt8) {
          values[i] = static_cast<float>(static_cast<signed char>(code & 255U)) * factor;
        } else if constexpr (kFormat == Format::kInt4) {
          values[i] = static_cast<float>(static_cast<int>(code & 15U) - 8) * factor;
        } else if constexpr (kNibbles) {
          values[i] = gpu::e2m1_to_float(code & 15U) * factor;
        } else {
          values[i] = gpu::e4m3_to_float(code & 255U) * factor;
        }
      }
    }
  }
};

}  // namespace moebench
