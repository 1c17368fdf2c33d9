// What attention's half of a layer in one launch works on, and the words by which its blocks tell
// each other what they found. See cuda_one_launch_bf16.cu.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/core/grid_turn.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/fused/router_sums.h"

namespace moebench::attention {
namespace {

constexpr int kConsumers = fused::kRowThreads;
constexpr int kWarps = kConsumers / gpu::kWarp;
constexpr int kProducers = 4;  // warps: asking costs one about a hundred cycles a copy
constexpr int kThreads = kConsumers + kProducers * gpu::kWarp;
// Of a thread: what the producers give back the consumers take, who hold eight heads' sums.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
static_assert(kConsumers * kConsumerRegisters + (kThreads - kConsumers) * kProducerRegisters <=
              65536 / kThreads / 8 * 8 * kThreads);

constexpr int kHeads = 8;  // that share a key/value head
constexpr int kMostHeadDim = 64;
constexpr int kMostQuery = 4096;  // columns of all heads together
constexpr int kMostKeys = 1024;
constexpr int kMostKvHeads = 32;
constexpr int kMostSplits = 16;  // lanes that join
constexpr int kMostItems = 128;  // key/value heads times splits
constexpr int kOfWarp = 16;      // positions
constexpr int kChunk = kWarps * kOfWarp;
constexpr int kSplitStep = kChunk / 2;              // splits are multiples of these, or one chunk
constexpr float kLowest = -3.0e38F;                 // below any score, and finite
constexpr std::uint32_t kIsThere = 1U << 16;        // beside a bf16
constexpr std::uint32_t kNegativeZeros = 1U << 31;  // of two bf16: the second

// What the blocks of a launch leave for each other: zeros where there is nothing yet.
struct Shown {
  std::uint32_t query[kMostQuery];                        // floats, rotated
  std::uint32_t key_value[2][kMostKeys];                  // bf16 and kIsThere; or floats' bits + 1
  std::uint32_t found[kMostQuery / 2];                    // by all heads: pairs of bf16
  std::uint32_t sums[kMostItems][kHeads * kMostHeadDim];  // of splits, floats
  std::uint32_t stats[kMostItems][kHeads][2];             // the largest score, the sum of weights
};
struct Signals {
  Shown at[2];  // by the grid's turn
  int turn;
};
static_assert(sizeof(Signals) <= kAttentionSignalBytes);

struct DeviceProduct {
  const unsigned char* weight;
  const float* scales;  // of rows of float8
  const float* bias;    // null: none
};

// How blocks share something out: so many each, and the first `more` blocks one more. The host
// divides: for a block it would be among the first hundred instructions.
struct Shared {
  int each, more;
};
inline Shared shared_by(int blocks, int count) { return {count / blocks, count % blocks}; }

struct Work {
  fused::DeviceNorm norm;
  DeviceProduct parts[3];  // query, key, value
  int pairs[3];            // of rows of each
  DeviceProduct output;
  int hidden_size;
  int num_heads;
  int group;  // heads that share a key/value head
  DeviceKv kv;
  const float* cos;
  const float* sin;
  const float* sinks;  // null: none
  float scale;         // the contract's times log2 e
  int window;
  int most_splits;
  Shared pairs_of_block;
  Shared out_rows_of_block;
  float* out;
  Signals* signals;
  // Of the router behind it; no experts: its product is not to be done.
  int num_experts;
  const unsigned char* router_weight;  // bf16
  const float* router_norm;
  fused::RouterSignals* router_signals;
};

struct Share {
  int begin, count;
};
MOEBENCH_DEVICE Share share_of_block(const Shared& shared) {
  const auto block = static_cast<int>(blockIdx.x);
  const bool has_more = block < shared.more;
  return {block * shared.each + (has_more ? block : shared.more), shared.each + (has_more ? 1 : 0)};
}

// Barrier 1 is that of the consumers.
constexpr int kProducersBarrier = 2;
constexpr int kStartBarrier = 3;  // the ring, and the inputs of the first products, are there
MOEBENCH_DEVICE void sync_consumers() { gpu::sync_named(1, kConsumers); }

// Words that others write meanwhile, as soon as none is zero.
MOEBENCH_DEVICE uint4 await_words(const std::uint32_t* from) {
  while (true) {
    const uint4 words = gpu::load_relaxed(reinterpret_cast<const uint4*>(from));
    if (gpu::are_there(words)) return words;
    gpu::spin_on();
  }
}
MOEBENCH_DEVICE void show_pair(std::uint32_t* to, float first, float second) {
  const std::uint32_t pair = gpu::pack_bf16(first, second);
  gpu::store_relaxed(to, pair == 0 ? kNegativeZeros : pair);
}

// Where the token stands, and its positions' splits.
struct Token {
  int position;
  int sequence;
  int first;  // position that it sees
  int split_size;
  int splits;

  MOEBENCH_DEVICE Token(const Work& work, int at, int of_sequence)
      : position(at), sequence(of_sequence) {
    first = work.window > 0 && position >= work.window ? position - work.window + 1 : 0;
    split_size = kChunk;
    splits = 1;
    // Unsigned: a division that many instructions shorter.
    const auto count = static_cast<unsigned>(position - first + 1);
    if (count <= kChunk) return;
    const unsigned most = kSplitStep * static_cast<unsigned>(work.most_splits);
    const unsigned size = (count + most - 1) / most * kSplitStep;
    split_size = static_cast<int>(size);
    splits = static_cast<int>((count + size - 1) / size);
  }
};

}  // namespace
}  // namespace moebench::attention
