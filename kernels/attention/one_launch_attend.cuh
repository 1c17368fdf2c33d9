// Attention in the launch that does its half of a layer: what splits of the positions find, and how
// they are joined.
#pragma once

#include "kernels/attention/add_halves.cuh"
#include "kernels/attention/one_launch.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/formats/device_encode.cuh"

namespace moebench::attention {
namespace {

// Columns 2 pair, 2 pair + 1 of four codes of float8.
MOEBENCH_DEVICE std::uint32_t e4m3_pair(std::uint32_t codes, int pair) {
  return gpu::multiply_bf16x2(gpu::e4m3_bits(codes, pair), gpu::power_of_two_bf16x2(120));
}

// What attention needs of shared memory.
template <int kHeadDim>
struct Attending {
  float sinks[kMostQuery / kHeadDim];  // of all heads, in powers of two
  float query[kHeads][kHeadDim];
  std::uint32_t key_value[2][kHeadDim / 2];  // this token's: pairs of bf16
  float scales[2];                           // of float8, likewise
  float sums[kWarps][kHeads][kHeadDim];
  float2 stats[kWarps][kHeads];
};

// A key/value head and a split of the positions [begin, end).
struct Item {
  int kv_head, split, begin, end;
  int at;  // in Shown

  MOEBENCH_DEVICE Item(const Work& work, const Token& token, int item)
      : kv_head(item % work.kv.num_kv_heads), split(item / work.kv.num_kv_heads) {
    begin = token.first + split * token.split_size;
    const int behind = token.position + 1;
    end = begin + token.split_size < behind ? begin + token.split_size : behind;
    at = kv_head * work.most_splits + split;
  }
};

// Keys and values of a chunk of positions, four of the lane's slot, as they are stored.
template <Format kCache, int kHeadDim>
struct Chunk {
  static constexpr int kColumns = kHeadDim / kLanes;
  using Columns = KvColumns<kCache, kColumns>;

  Columns keys[kBatch];
  Columns values[kBatch];

  // Of chunk `begin`, the lane's b-th position.
  MOEBENCH_DEVICE static int position(int begin, int b) {
    return begin + b * kStride + gpu::warp_id() * kSlots + gpu::lane_id() / kLanes;
  }
  MOEBENCH_DEVICE static int column() { return gpu::lane_id() % kLanes * kColumns; }

  // Those before the token.
  MOEBENCH_DEVICE void load(const DeviceKv& kv, const Token& token, const Item& item, int begin) {
    *this = {};
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const int at = position(begin, b);
      if (at >= item.end || at >= token.position) continue;
      const std::int64_t offset = kv_offset(kv, token.sequence, at, item.kv_head);
      load(keys[b], kv.keys + offset);
      load(values[b], kv.values + offset);
    }
  }
  MOEBENCH_DEVICE static void load(Columns& to, const unsigned char* row) {
    if constexpr (kCache == Format::kBf16 && kColumns == 8) {
      // Not where the compiler would like to have it: later.
      const uint4 words = gpu::load_streaming(row + 2 * column());
      to.words[0] = words.x;
      to.words[1] = words.y;
      to.words[2] = words.z;
      to.words[3] = words.w;
    } else {
      to.load(row, static_cast<int>(kHeadDim * sizeof(to.words) / kColumns), column());
    }
  }
};

// The columns of a key or value as pairs of bf16, still to be multiplied with `scale`, which those
// of bf16 have not.
template <Format kCache, int kColumns>
struct Pairs {
  std::uint32_t of[kColumns / 2];
  float scale;

  MOEBENCH_DEVICE void take(const KvColumns<kCache, kColumns>& stored) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns / 2; ++i) {
      if constexpr (kCache == Format::kBf16) {
        of[i] = stored.words[i];
      } else {
        of[i] = e4m3_pair(stored.words[i / 2], i % 2);
      }
    }
    if constexpr (kCache != Format::kBf16) scale = stored.decoded_scale();
  }
  MOEBENCH_DEVICE void decode(float (&values)[kColumns]) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns; i += 2) {
      values[i] = gpu::low_bf16(of[i / 2]);
      values[i + 1] = gpu::high_bf16(of[i / 2]);
    }
  }
  MOEBENCH_DEVICE float scaled(float value) const {
    return kCache == Format::kBf16 ? value : value * scale;
  }
};

// A chunk, so.
template <Format kCache, int kHeadDim>
struct Decoded {
  using Stored = Chunk<kCache, kHeadDim>;
  Pairs<kCache, Stored::kColumns> keys[kBatch];
  Pairs<kCache, Stored::kColumns> values[kBatch];

  MOEBENCH_DEVICE void take(const Stored& chunk) {
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      keys[b].take(chunk.keys[b]);
      values[b].take(chunk.values[b]);
    }
  }
  // And the token's own, if it is among them.
  MOEBENCH_DEVICE void add_own(const Token& token, const Item& item, int begin,
                               const Attending<kHeadDim>& shared) {
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const int at = Stored::position(begin, b);
      if (at >= item.end || at != token.position) continue;
      MOEBENCH_UNROLL
      for (int i = 0; i < Stored::kColumns / 2; ++i) {
        keys[b].of[i] = shared.key_value[0][Stored::column() / 2 + i];
        values[b].of[i] = shared.key_value[1][Stored::column() / 2 + i];
      }
      if constexpr (kCache != Format::kBf16) {
        keys[b].scale = shared.scales[0];
        values[b].scale = shared.scales[1];
      }
    }
  }
};

// Adds a chunk to what the warp has found: `largest` (of all its slots) and `total` (of the lane's)
// of head lane % 8, `sum` of [head, column].
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void attend_chunk(const Decoded<kCache, kHeadDim>& chunk, int begin, int end,
                                  const float (&query)[kHeads][kHeadDim], float& largest,
                                  float& total, float (&sum)[kHeads * kHeadDim / kLanes]) {
  using Stored = Chunk<kCache, kHeadDim>;
  constexpr int kColumns = Stored::kColumns;
  float weight[kBatch];  // first: the score of head lane % 8
  float most = largest;
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) weight[b] = kLowest;
  MOEBENCH_UNROLL
  for (int first = 0; first < kBatch; first += 2) {
    if (begin + first * kStride >= end) break;
    float key[2][kColumns];
    MOEBENCH_UNROLL
    for (int b = 0; b < 2; ++b) chunk.keys[first + b].decode(key[b]);
    float score[2][kHeads];
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      float q[kColumns];
      MOEBENCH_UNROLL
      for (int c = 0; c < kColumns; c += 4) {
        const auto four = *reinterpret_cast<const float4*>(&query[h][Stored::column() + c]);
        q[c] = four.x;
        q[c + 1] = four.y;
        q[c + 2] = four.z;
        q[c + 3] = four.w;
      }
      MOEBENCH_UNROLL
      for (int b = 0; b < 2; ++b) {
        score[b][h] = 0;
        MOEBENCH_UNROLL
        for (int c = 0; c < kColumns; ++c) score[b][h] += q[c] * key[b][c];
      }
    }
    MOEBENCH_UNROLL
    for (int b = 0; b < 2; ++b) {
      add_halves<4>(score[b], 4);
      add_halves<2>(score[b], 2);
      add_halves<1>(score[b], 1);
      if (Stored::position(begin, first + b) < end) {
        weight[first + b] = chunk.keys[first + b].scaled(score[b][0]);
      }
      most = fmaxf(most, weight[first + b]);
    }
  }
  MOEBENCH_UNROLL
  for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
    most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, offset));
  }
  const float factor = gpu::exp2_fast(largest - most);
  largest = most;
  total *= factor;
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) {
    weight[b] = Stored::position(begin, b) < end ? gpu::exp2_fast(weight[b] - most) : 0;
    total += weight[b];
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    const float of_head = gpu::shuffle(gpu::kAllLanes, factor, h);
    MOEBENCH_UNROLL
    for (int c = 0; c < kColumns; ++c) sum[h * kColumns + c] *= of_head;
  }
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) {
    if (begin + b * kStride >= end) break;
    float value[kColumns];
    chunk.values[b].decode(value);
    const float scaled = chunk.values[b].scaled(weight[b]);
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const float of_head =
          gpu::shuffle(gpu::kAllLanes, scaled, gpu::lane_id() / kLanes * kLanes + h);
      MOEBENCH_UNROLL
      for (int c = 0; c < kColumns; ++c) sum[h * kColumns + c] += of_head * value[c];
    }
  }
}

// This token's key and value, of a head: by a warp, four columns a lane.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void await_key_value(const Work& work, const Token& token, const Item& item,
                                     const Shown& shown, Attending<kHeadDim>& to) {
  const int i = 4 * gpu::lane_id();  // key, then value
  const int which = i / kHeadDim;
  const int column = i % kHeadDim;
  const bool is_inside = which < 2;
  uint4 words = {0, 0, 0, 0};
  if (is_inside) words = await_words(&shown.key_value[which][item.kv_head * kHeadDim + column]);
  if constexpr (kCache == Format::kBf16) {
    if (!is_inside) return;
    std::uint32_t* pairs = &to.key_value[which][column / 2];
    pairs[0] = (words.x & 0xffffU) | words.y << 16;
    pairs[1] = (words.z & 0xffffU) | words.w << 16;
  } else {
    gpu::sync_warp();
    const auto number = [&](std::uint32_t word) {
      return is_inside ? gpu::float_from_bits(word - 1) : 0.0F;
    };
    const float v[4] = {number(words.x), number(words.y), number(words.z), number(words.w)};
    float largest = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < 4; ++c) largest = fmaxf(largest, fabsf(v[c]));
    largest = gpu::block_max<kHeadDim / 4>(largest);
    const float scale = gpu::scale_for<kCache>(largest, 1.0F).value;
    if (!is_inside) return;
    std::uint32_t codes = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < 4; ++c) codes |= gpu::element_code<kCache>(v[c], scale) << 8 * c;
    to.key_value[which][column / 2] = e4m3_pair(codes, 0);
    to.key_value[which][column / 2 + 1] = e4m3_pair(codes, 1);
    unsigned char* row = (which == 0 ? work.kv.keys : work.kv.values) +
                         kv_offset(work.kv, token.sequence, token.position, item.kv_head);
    *reinterpret_cast<std::uint32_t*>(row + column) = codes;
    if (column > 0) return;
    to.scales[which] = scale;
    *reinterpret_cast<float*>(row + kHeadDim) = scale;
  }
}

// The queries of an item, and this token's key and value if it is the item's last position.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void await_queries(const Work& work, const Token& token, const Item& item,
                                   const Shown& shown, Attending<kHeadDim>& to) {
  constexpr int kThreadsOfQueries = kHeads * kHeadDim / 4;
  static_assert(kThreadsOfQueries % gpu::kWarp == 0 && 2 * kMostHeadDim / 4 <= gpu::kWarp);
  static_assert(kThreadsOfQueries + gpu::kWarp <= kConsumers);
  const auto thread = static_cast<int>(threadIdx.x);
  const int group = work.num_heads / work.kv.num_kv_heads;
  if (thread < kThreadsOfQueries) {
    const int head = 4 * thread / kHeadDim;
    float4 four = {0, 0, 0, 0};
    if (head < group) {
      const uint4 words = await_words(shown.query + item.kv_head * group * kHeadDim + 4 * thread);
      four = {
          gpu::float_from_bits(words.x) * work.scale, gpu::float_from_bits(words.y) * work.scale,
          gpu::float_from_bits(words.z) * work.scale, gpu::float_from_bits(words.w) * work.scale};
    }
    *reinterpret_cast<float4*>(&to.query[head][4 * thread % kHeadDim]) = four;
  } else if (item.end == token.position + 1 && gpu::warp_id() == kThreadsOfQueries / gpu::kWarp) {
    await_key_value<kCache>(work, token, item, shown, to);
  }
}

// What the warps found of a column, of the positions of an item.
struct Found {
  float largest;
  float total;
  float sum[2];
};
// With the head's sink: the two columns.
MOEBENCH_DEVICE void show_head(float sink, const Found& found, std::uint32_t* to) {
  const float most = fmaxf(found.largest, sink);
  const float weight = gpu::exp2_fast(found.largest - most);
  const float total = found.total * weight + gpu::exp2_fast(sink - most);
  show_pair(to, found.sum[0] * weight / total, found.sum[1] * weight / total);
}

// B. An item; `stored` is its first chunk, as far as it is in the cache. Later ones take its place:
// in one of their own, ptxas has them in local memory.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void attend(const Work& work, const Token& token, const Item& item,
                            Chunk<kCache, kHeadDim>& stored, Attending<kHeadDim>& shared,
                            Shown& shown) {
  using Stored = Chunk<kCache, kHeadDim>;
  constexpr int kColumns = Stored::kColumns;
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int slot = lane / kLanes;
  Decoded<kCache, kHeadDim> chunk;
  chunk.take(stored);
  // Of an item before this one, all have read the queries.
  await_queries<kCache>(work, token, item, shown, shared);
  sync_consumers();
  float largest = kLowest;
  float total = 0;
  float sum[kHeads * kColumns] = {};
  MOEBENCH_NO_UNROLL
  for (int begin = item.begin; begin < item.end; begin += kChunk) {
    Stored next = {};
    if (begin + kChunk < item.end) next.load(work.kv, token, item, begin + kChunk);
    chunk.add_own(token, item, begin, shared);
    attend_chunk(chunk, begin, item.end, shared.query, largest, total, sum);
    stored = next;
    chunk.take(stored);
  }
  MOEBENCH_UNROLL
  for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
    total += gpu::shuffle_xor(gpu::kAllLanes, total, offset);
  }
  // The slots' sums: a lane is left with two heads.
  add_halves<4 * kColumns>(sum, kLanes);
  add_halves<2 * kColumns>(sum, 2 * kLanes);
  const int head = (slot & 1) * 4 + (slot & 2);
  MOEBENCH_UNROLL
  for (int i = 0; i < 2 * kColumns; ++i) {
    shared.sums[warp][head + i / kColumns][Stored::column() + i % kColumns] = sum[i];
  }
  if (slot == 0) shared.stats[warp][lane] = {largest, total};
  sync_consumers();
  const int group = work.num_heads / work.kv.num_kv_heads;
  for (int i = static_cast<int>(threadIdx.x); i < group * kHeadDim / 2; i += kConsumers) {
    const int h = 2 * i / kHeadDim;
    const int column = 2 * i % kHeadDim;
    Found found{kLowest, 0, {0, 0}};
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) found.largest = fmaxf(found.largest, shared.stats[w][h].x);
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) {
      const float factor = gpu::exp2_fast(shared.stats[w][h].x - found.largest);
      found.total += factor * shared.stats[w][h].y;
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) found.sum[c] += factor * shared.sums[w][h][column + c];
    }
    if (token.splits == 1) {
      const int of_all = item.kv_head * group + h;
      show_head(shared.sinks[of_all], found, shown.found + (of_all * kHeadDim + column) / 2);
      continue;
    }
    std::uint32_t* sums = shown.sums[item.at] + h * kHeadDim + column;
    gpu::store_relaxed(sums, gpu::shown(found.sum[0]));
    gpu::store_relaxed(sums + 1, gpu::shown(found.sum[1]));
    if (column == 0) {
      gpu::store_relaxed(&shown.stats[item.at][h][0], gpu::shown(found.largest));
      gpu::store_relaxed(&shown.stats[item.at][h][1], gpu::shown(found.total));
    }
  }
}

// C. The item's part of its head's columns: four of them and all splits by sixteen lanes.
template <int kHeadDim>
MOEBENCH_DEVICE void join_splits(const Work& work, const Token& token, const Item& item,
                                 const float* sinks, Shown& shown) {
  const int group = work.num_heads / work.kv.num_kv_heads;
  const int units = group * kHeadDim / 4;
  const int split = static_cast<int>(threadIdx.x) % kMostSplits;
  const int last = units * (item.split + 1) / token.splits;
  for (int begin = units * item.split / token.splits; begin < last;
       begin += kConsumers / kMostSplits) {
    const int unit = begin + static_cast<int>(threadIdx.x) / kMostSplits;
    const int h = 4 * unit / kHeadDim;
    float largest = kLowest;
    float total = 0;
    float sum[4] = {};
    if (unit < last && split < token.splits) {
      const int at = item.kv_head * work.most_splits + split;
      const std::uint32_t* stats = shown.stats[at][h];
      std::uint32_t first = 0;
      std::uint32_t second = 0;
      uint4 words = {0, 0, 0, 0};
      while (true) {
        words = gpu::load_relaxed(reinterpret_cast<const uint4*>(shown.sums[at] + 4 * unit));
        first = gpu::load_relaxed(stats);
        second = gpu::load_relaxed(stats + 1);
        if (are_there(words) && first != 0 && second != 0) break;
        gpu::spin_on();
      }
      largest = gpu::float_from_bits(first);
      total = gpu::float_from_bits(second);
      sum[0] = gpu::float_from_bits(words.x);
      sum[1] = gpu::float_from_bits(words.y);
      sum[2] = gpu::float_from_bits(words.z);
      sum[3] = gpu::float_from_bits(words.w);
    }
    gpu::sync_warp();
    float most = largest;
    MOEBENCH_UNROLL
    for (int lanes = kMostSplits / 2; lanes > 0; lanes /= 2) {
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, lanes));
    }
    const float factor = gpu::exp2_fast(largest - most);
    total *= factor;
    MOEBENCH_UNROLL
    for (float& s : sum) s *= factor;
    MOEBENCH_UNROLL
    for (int lanes = kMostSplits / 2; lanes > 0; lanes /= 2) {
      total += gpu::shuffle_xor(gpu::kAllLanes, total, lanes);
      MOEBENCH_UNROLL
      for (float& s : sum) s += gpu::shuffle_xor(gpu::kAllLanes, s, lanes);
    }
    if (unit >= last || split >= 2) continue;
    const int head = item.kv_head * group + h;
    const Found found{most, total, {split == 0 ? sum[0] : sum[2], split == 0 ? sum[1] : sum[3]}};
    show_head(sinks[head], found,
              shown.found + (item.kv_head * group * kHeadDim + 4 * unit) / 2 + split);
  }
}

}  // namespace
}  // namespace moebench::attention
