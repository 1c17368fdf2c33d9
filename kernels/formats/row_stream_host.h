// The host's part of row_stream.cuh: matrices as the memory accelerator reads them.
#pragma once

#include "kernels/core/device.h"

namespace moebench::gpu {

// Boxes of `tile_rows` rows by 512 bytes of [rows, row_bytes] at `data`, aligned to 16 bytes.
inline TensorMap row_boxes(const void* data, std::int64_t rows, std::int64_t row_bytes,
                           int tile_rows) {
  return device().make_tensor_map({.data = data,
                                   .element_bytes = 2,
                                   .rows = rows,
                                   .columns = row_bytes / 2,
                                   .row_bytes = row_bytes,
                                   .tile_rows = tile_rows,
                                   .tile_columns = 256,
                                   .swizzle = 0});
}

}  // namespace moebench::gpu
