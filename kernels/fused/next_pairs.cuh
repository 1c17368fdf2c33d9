// The same on the device: in which order blocks have pairs of rows, and how they are asked for.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/formats/format.h"
#include "kernels/fused/next_pairs.h"

namespace moebench::fused {

// So many things dealt out to blocks, found on the host: divisions take long on the device.
struct Shared {
  int each, more;
};
inline Shared shared_by(int blocks, int count) { return {count / blocks, count % blocks}; }

struct Share {
  int begin, count;
};
MOEBENCH_DEVICE Share share_of_block(const Shared& shared) {
  const auto block = static_cast<int>(blockIdx.x);
  const bool has_more = block < shared.more;
  return {block * shared.each + (has_more ? block : shared.more), shared.each + (has_more ? 1 : 0)};
}

// Rows that are rotated together, `half` apart, of three matrices one after the other.
struct DevicePairs {
  const unsigned char* rows[3];
  int pairs[3];
  int half;  // of a head's rows
  int row_bytes;
  Shared of_block;
};

// Of rows that are not as attention's one launch takes them, nothing.
inline DevicePairs device_pairs(const NextPairs& next, int blocks) {
  DevicePairs result{};
  int all = 0;
  int part = 0;
  for (const MatrixView* matrix : {&next.query, &next.key, &next.value}) {
    if (matrix->data == nullptr || matrix->layout != RowLayout::kRowMajor ||
        matrix->format != next.query.format || matrix->cols != next.query.cols ||
        reinterpret_cast<std::uintptr_t>(matrix->data) % 16 != 0 ||
        codec(matrix->format).row_data_bytes(matrix->cols) % 16 != 0) {
      return {};
    }
    result.rows[part] = reinterpret_cast<const unsigned char*>(matrix->data);
    result.pairs[part] = static_cast<int>(matrix->rows / 2);
    all += result.pairs[part++];
  }
  result.half = static_cast<int>(next.head_dim / 2);
  result.row_bytes = static_cast<int>(codec(next.query.format).row_data_bytes(next.query.cols));
  result.of_block = shared_by(blocks, all);
  return result;
}

// Asks for the block's rows, a little at a time, into the second-level cache. A whole warp.
class PairsAhead {
 public:
  MOEBENCH_DEVICE explicit PairsAhead(const DevicePairs& pairs)
      : pairs_(pairs), share_(share_of_block(pairs.of_block)) {}

  // The next kPairs pairs' next kBytes.
  MOEBENCH_DEVICE void ask() {
    if (first_ >= share_.count) return;
    int pair = first_ + gpu::lane_id() / 4;
    if (pair < share_.count) {
      pair += share_.begin;
      int part = 0;
      while (part < 2 && pair >= pairs_.pairs[part]) pair -= pairs_.pairs[part++];
      const bool is_high = gpu::lane_id() % 2 != 0;
      const int row =
          pair / pairs_.half * 2 * pairs_.half + pair % pairs_.half + (is_high ? pairs_.half : 0);
      const int begin = column_ + gpu::lane_id() / 2 % 2 * kBytes;
      const int left = pairs_.row_bytes - begin;
      if (left > 0) {
        gpu::prefetch_bulk(
            pairs_.rows[part] + static_cast<std::int64_t>(row) * pairs_.row_bytes + begin,
            left < kBytes ? left : kBytes);
      }
    }
    column_ += 2 * kBytes;
    if (column_ < pairs_.row_bytes) return;
    column_ = 0;
    first_ += kPairs;
  }

 private:
  static constexpr int kPairs = gpu::kWarp / 4;  // four lanes each
  static constexpr int kBytes = 640;             // of a row, by a lane: 20 KB at once

  const DevicePairs& pairs_;
  Share share_;
  int first_ = 0;
  int column_ = 0;  // in bytes
};

}  // namespace moebench::fused
