// Products of a few tokens with rows of weights on tensor cores, for blocks that stream the weights
// from memory once: 16 weight rows are the left operand of an mma, 8 tokens its right one.
//
// Weights go from memory straight into the registers that mma wants, by choosing which columns are
// summed together: the sum over K does not care for its order, as long as both operands agree. Each
// of the four lanes of a quad reads a run of 16 bytes (f32: 32) of its row, so that the quad reads
// adjacent bytes, and an mma then takes four columns of every lane's run. Inputs lie in shared
// memory as bf16, in units of 8 columns in the order in which lanes want them: a quad's four units
// are adjacent, and the rows of two tokens meet different banks.
//
// Weights are copied ahead through a ring in shared memory, because registers could not hold enough
// of them in flight; a lane reads only what it copied, so that the ring needs no barriers.
//
// The warps of a block split K: warp w takes chunks w, w + kWarps, ... of each row, and the warps'
// sums are added in order. So a result depends on its row and its token alone, whatever the number
// of tokens or of rows a block takes.
#pragma once

#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

// A block's walk over groups of kRows rows of a matrix, for up to kTokens tokens at a time. The
// block has kThreads threads and shared_bytes() of dynamic shared memory, beside the static.
template <Format kFormat, int kTokenTiles>
class TensorRows {
  using Weights = gpu::DeviceFormat<kFormat>;
  static constexpr int kRowTiles = 2;
  static constexpr int kLaneRows = 2 * kRowTiles;
  static constexpr int kRun = Weights::kValues < 8 ? 8 : Weights::kValues;  // columns of a lane
  static constexpr int kLoads = kRun / Weights::kValues;                    // of 16 bytes
  static constexpr int kChunk = 4 * kRun;                                   // columns of a quad
  static constexpr int kUnits = kRun / 8;  // units of 8 columns in a run

 public:
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * gpu::kWarp;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kTokens = 8 * kTokenTiles;

  static constexpr std::size_t kStaticSharedBytes = sizeof(float) * kWarps * kRows * kTokens;
  static std::size_t shared_bytes(int cols, int num_tokens) {
    const int tokens = num_tokens < kTokens ? num_tokens : kTokens;
    return sizeof(uint4) * static_cast<std::size_t>(kRing + tokens * token_stride(cols));
  }

  // Groups [begin, end) of the matrix.
  MOEBENCH_DEVICE TensorRows(const EncodedMatrix& matrix, int begin, int end)
      : matrix_(matrix),
        num_chunks_(num_chunks(matrix.cols)),
        begin_(begin),
        end_(end),
        ring_(reinterpret_cast<uint4*>(gpu::dynamic_shared()) + threadIdx.x),
        inputs_(reinterpret_cast<uint4*>(gpu::dynamic_shared()) + kRing) {}

  // Starts the first copies; multiply() must follow.
  MOEBENCH_DEVICE void start() {
    if (gpu::warp_id() >= num_chunks_) return;
    next_to_copy_ = {begin_, gpu::warp_id()};
    MOEBENCH_UNROLL
    for (int s = 0; s < kStages - 1; ++s) copy_next();
    load_scales({begin_, gpu::warp_id()});
  }

  // Fills shared memory with the rows of `count` tokens, row(i) being the i-th, and with zeros up
  // to whole chunks. Rows are floats, or bf16 in the order of input_position.
  template <class Row>
  MOEBENCH_DEVICE void stage_inputs(int count, Row&& row) {
    const int stride = token_stride(matrix_.cols);
    const int units = num_chunks_ * kUnits * 4;
    for (int i = static_cast<int>(threadIdx.x); i < count * units; i += kThreads) {
      const int token = i / units;
      const int unit = i % units;
      const int run = unit / kUnits;
      uint4 values = {0, 0, 0, 0};
      if (8 * unit < matrix_.cols) values = load_inputs<kFormat>(row(token), 8 * unit);
      inputs_[token * stride + (run / 4 * kUnits + unit % kUnits) * 4 + run % 4] = values;
    }
  }

  // Multiplies each group with the inputs of `count` tokens and then calls finish(group, total),
  // where total(row, token) is a product's sum. Every thread of the block comes along.
  template <class Finish>
  MOEBENCH_DEVICE void multiply(int count, Finish&& finish) {
    MOEBENCH_SHARED(float, partial, [kWarps][kRows][kTokens]);
    gpu::sync_threads();  // the inputs are in place
    for (int group = begin_; group < end_; ++group) {
      float sums[kRowTiles][kTokenTiles][4] = {};
      MOEBENCH_NO_UNROLL
      for (int chunk = gpu::warp_id(); chunk < num_chunks_; chunk += kWarps) {
        std::uint32_t scales[kLaneRows];
        MOEBENCH_UNROLL
        for (int i = 0; i < kLaneRows; ++i) scales[i] = next_scales_[i];
        const Place next = after({group, chunk});
        if (next.group < end_) load_scales(next);
        gpu::wait_copies<kStages - 2>();
        copy_next();  // to where the chunk before this one was
        multiply_chunk(chunk, scales, count, sums);
        stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
      }
      MOEBENCH_UNROLL
      for (int i = 0; i < kLaneRows; ++i) {
        MOEBENCH_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          const float* pair = &sums[i / 2][n][2 * (i % 2)];
          *reinterpret_cast<float2*>(&partial[gpu::warp_id()][8 * i + gpu::lane_id() / 4]
                                             [8 * n + gpu::lane_id() % 4 * 2]) = {pair[0], pair[1]};
        }
      }
      gpu::sync_threads();
      finish(group, [&](int row, int token) {
        float sum = 0;
        MOEBENCH_UNROLL
        for (int w = 0; w < kWarps; ++w) sum += partial[w][row][token];
        return gpu::multiply(sum, Weights::row_factor(row_of(matrix_, group * kRows + row)));
      });
      gpu::sync_threads();  // before the next group's sums go there
    }
  }

 private:
  static constexpr int kLaneLoads = kLaneRows * kLoads;
  static constexpr int kStages = kLoads == 1 ? 3 : 2;
  static constexpr int kStage = kLaneLoads * kThreads;  // units of 16 bytes
  static constexpr int kRing = kStages * kStage;

  // A warp's next chunk.
  struct Place {
    int group;
    int chunk;
  };

  MOEBENCH_HOST_DEVICE static int num_chunks(int cols) { return (cols + kChunk - 1) / kChunk; }

  // Units from one token's inputs to the next one's: an odd number of half rows of banks (64
  // bytes), so that the quads of two tokens never meet in a bank.
  MOEBENCH_HOST_DEVICE static int token_stride(int cols) {
    return (num_chunks(cols) * kUnits * 4 + 7) / 8 * 8 + 4;
  }

  MOEBENCH_DEVICE Place after(Place place) const {
    place.chunk += kWarps;
    if (place.chunk < num_chunks_) return place;
    return {place.group + 1, gpu::warp_id()};
  }

  // Past the end, rows and runs repeat the last one: the sums of such rows are not used, and inputs
  // past the end are zeros.
  MOEBENCH_DEVICE gpu::EncodedRow lane_row(int group, int i) const {
    const int row = group * kRows + 8 * i + gpu::lane_id() / 4;
    return row_of(matrix_, row < matrix_.rows ? row : matrix_.rows - 1);
  }
  MOEBENCH_DEVICE int lane_column(int chunk) const {
    const int column = chunk * kChunk + gpu::lane_id() % 4 * kRun;
    return column < matrix_.cols ? column : matrix_.cols - kRun;
  }

  MOEBENCH_DEVICE void copy_next() {
    const Place from = next_to_copy_;
    if (from.group < end_) {
      const std::int64_t offset = lane_column(from.chunk) / Weights::kValues * std::int64_t{16};
      MOEBENCH_UNROLL
      for (int i = 0; i < kLaneRows; ++i) {
        const unsigned char* data = lane_row(from.group, i).data + offset;
        MOEBENCH_UNROLL
        for (int l = 0; l < kLoads; ++l) {
          gpu::copy_async(ring_ + copies_ * kStage + (i * kLoads + l) * kThreads, data + 16 * l);
        }
      }
      copies_ = copies_ + 1 == kStages ? 0 : copies_ + 1;
      next_to_copy_ = after(from);
    }
    gpu::commit_copies();
  }

  MOEBENCH_DEVICE void load_scales(const Place& place) {
    const int column = lane_column(place.chunk);
    MOEBENCH_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      next_scales_[i] = Weights::load_scale(lane_row(place.group, i), column);
    }
  }

  MOEBENCH_DEVICE void decode_run(int i, std::uint32_t scale,
                                  std::uint32_t (&pairs)[kRun / 2]) const {
    constexpr int kPairs = Weights::kValues / 2;
    MOEBENCH_UNROLL
    for (int l = 0; l < kLoads; ++l) {
      std::uint32_t some[kPairs];
      Weights::decode_bf16(ring_[stage_ * kStage + (i * kLoads + l) * kThreads], scale, some);
      MOEBENCH_UNROLL
      for (int p = 0; p < kPairs; ++p) pairs[l * kPairs + p] = some[p];
    }
  }

  MOEBENCH_DEVICE void multiply_chunk(int chunk, const std::uint32_t (&scales)[kLaneRows],
                                      int count, float (&sums)[kRowTiles][kTokenTiles][4]) const {
    const uint4* x[kTokenTiles];
    MOEBENCH_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      const int token = 8 * n + gpu::lane_id() / 4;  // past the end, the last one again
      x[n] = inputs_ + (token < count ? token : count - 1) * token_stride(matrix_.cols) +
             chunk * kUnits * 4 + gpu::lane_id() % 4;
    }
    MOEBENCH_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      std::uint32_t low[kRun / 2];
      std::uint32_t high[kRun / 2];
      decode_run(2 * r, scales[2 * r], low);
      decode_run(2 * r + 1, scales[2 * r + 1], high);
      MOEBENCH_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        const std::uint32_t first[4] = {low[4 * u], high[4 * u], low[4 * u + 1], high[4 * u + 1]};
        const std::uint32_t second[4] = {low[4 * u + 2], high[4 * u + 2], low[4 * u + 3],
                                         high[4 * u + 3]};
        MOEBENCH_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          if (8 * n >= count) continue;
          const uint4 inputs = x[n][4 * u];
          gpu::multiply_bf16(sums[r][n], first, {inputs.x, inputs.y});
          gpu::multiply_bf16(sums[r][n], second, {inputs.z, inputs.w});
        }
      }
    }
  }

  EncodedMatrix matrix_;
  int num_chunks_;
  int begin_;
  int end_;
  uint4* ring_;  // this lane's
  uint4* inputs_;
  Place next_to_copy_ = {0, 0};
  int copies_ = 0;  // the stage where the next chunk goes
  int stage_ = 0;   // the stage of the chunk to multiply
  std::uint32_t next_scales_[kLaneRows] = {};
};

}  // namespace moebench::moe_experts
