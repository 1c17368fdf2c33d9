// The end of attention's launch if it routes ahead: the product of the router behind it, of which
// each block has some columns (kernels/fused/router_sums.h).
#pragma once

#include "kernels/attention/one_launch_products.cuh"
#include "kernels/fused/router_sums.cuh"

namespace moebench::attention {
namespace {

// The router's product of the block's rows, which are columns of its weights. Of each row the value
// before the norm, and what the norm multiplies it with, later their product; and as many rows of
// the experts' weights.
struct RouterPart {
  // That a thread has in registers at once: all there are on 132 multiprocessors.
  static constexpr int kWords = 12;

  float* values;
  float* factors;
  std::uint32_t* weights;  // [words][num_experts], two bf16 each

  MOEBENCH_DEVICE RouterPart(unsigned char* memory, int rows)
      : values(reinterpret_cast<float*>(memory)),
        factors(values + rows),
        weights(reinterpret_cast<std::uint32_t*>(factors + rows)) {}

  // By the consumers, while they wait for others: what does not depend on what they wait for.
  MOEBENCH_DEVICE void load(const Work& work, const Share& rows) const {
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < rows.count) {
      const int column = rows.begin + thread;
      float value = work.norm.x[column];
      if (work.norm.addend != nullptr) value += work.norm.addend[column];
      values[thread] = value;
      factors[thread] = gpu::load_constant(work.router_norm + column);
    }
    static_assert(fused::kMostRouted <= kConsumers && kMostOutRows <= kConsumers);
    if (thread >= work.num_experts) return;
    // A thread an expert, by words of two columns, of which the first may begin with another's.
    const int odd = rows.begin % 2;
    const int words = (rows.count + odd + 1) / 2;
    const auto* const from = reinterpret_cast<const std::uint32_t*>(
        work.router_weight +
        2 * (static_cast<std::int64_t>(thread) * work.hidden_size + rows.begin - odd));
    MOEBENCH_NO_UNROLL
    for (int first = 0; first < words; first += kWords) {
      std::uint32_t two[kWords] = {};
      MOEBENCH_UNROLL
      for (int i = 0; i < kWords; ++i) {
        if (first + i < words) two[i] = gpu::load_constant(from + first + i);
      }
      MOEBENCH_UNROLL
      for (int i = 0; i < kWords; ++i) {
        if (first + i < words) weights[(first + i) * work.num_experts + thread] = two[i];
      }
    }
  }
  // A row of the product in front is there.
  MOEBENCH_DEVICE void add(int row, float sum) const {
    values[row] += sum;
    factors[row] *= values[row];
  }

  // When all are. The consumers.
  MOEBENCH_DEVICE void show(const Work& work, const Share& rows, unsigned turn) const {
    sync_consumers();
    fused::RouterSums& sums = work.router_signals->sums[turn];
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < work.num_experts && rows.count > 0) {
      const int odd = rows.begin % 2;
      const int words = (rows.count + odd + 1) / 2;
      float low = 0;
      float high = 0;
      MOEBENCH_NO_UNROLL
      for (int first = 0; first < words; first += kWords) {
        std::uint32_t two[kWords];
        float inputs[2 * kWords];  // zeros for columns of others
        MOEBENCH_UNROLL
        for (int i = 0; i < kWords; ++i) {
          two[i] = first + i < words ? weights[(first + i) * work.num_experts + thread] : 0;
        }
        MOEBENCH_UNROLL
        for (int i = 0; i < 2 * kWords; ++i) {
          const int row = 2 * first + i - odd;
          inputs[i] = row >= 0 && row < rows.count ? factors[row] : 0;
        }
        MOEBENCH_UNROLL
        for (int i = 0; i < kWords; ++i) {
          low += gpu::low_bf16(two[i]) * inputs[2 * i];
          high += gpu::high_bf16(two[i]) * inputs[2 * i + 1];
        }
      }
      gpu::atomic_add(&sums.products[thread], fused::router_steps(low + high));
    }
    if (gpu::warp_id() != kWarps - 1) return;
    float squares = 0;
    for (int row = gpu::lane_id(); row < rows.count; row += gpu::kWarp) {
      squares += values[row] * values[row];
    }
    squares = gpu::warp_sum(squares);
    if (gpu::lane_id() == 0) sums.squares[blockIdx.x] = squares;
  }
};

}  // namespace
}  // namespace moebench::attention
