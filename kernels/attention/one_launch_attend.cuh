// Attention in the launch that does its half of a layer: what splits of the positions find, and how
// they are joined.
#pragma once

#include "kernels/attention/one_launch.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/gpu_numbers.cuh"
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
  float sinks[kMostQuery / kHeadDim];  // of all heads, in powers of e
  // Pairs of bf16: what is nearest, then what is left; of 32 columns each.
  std::uint32_t query[2][kHeadDim / 32][kHeads][16];
  std::uint32_t key_value[2][kHeadDim / 2];          // this token's: pairs of bf16
  alignas(16) float sums[kWarps][kHeads][kHeadDim];  // columns as place_of_sum has them
  float2 stats[kWarps][kHeads];
  float scales[2];  // of this token's float8
};

// A key/value head and a split of the positions [begin, end).
struct Item {
  int kv_head, split, begin, end;
  int at;  // in Shown

  MOEBENCH_DEVICE Item(const Work& work, const Token& token, int item)
      : kv_head(static_cast<int>(static_cast<unsigned>(item) % heads(work))),
        split(static_cast<int>(static_cast<unsigned>(item) / heads(work))) {
    begin = token.first + split * token.split_size;
    const int behind = token.position + 1;
    end = begin + token.split_size < behind ? begin + token.split_size : behind;
    at = kv_head * work.most_splits + split;
  }
  MOEBENCH_DEVICE static unsigned heads(const Work& work) {
    return static_cast<unsigned>(work.kv.num_kv_heads);
  }
};

// How a warp multiplies, with g = lane / 4 and t = lane % 4: scores are queries [heads, columns] by
// keys [columns, positions], eight positions at a time, and sums are weights [heads, positions] by
// values [positions, columns]. Queries and weights are two bf16 each, which hold 16 bits; the rows
// of the second ones are those behind the eight of the heads, so that one mma does both and a lane
// adds what it has of rows g and g + 8. The order of columns is free: a lane has eight neighbouring
// ones of every 32 of a key, position g, and kHeadDim / 8 neighbouring ones of values, those of
// group g, at the four positions whose scores it will have.
MOEBENCH_DEVICE int lane_group() { return gpu::lane_id() / 4; }
MOEBENCH_DEVICE int lane_in_group() { return gpu::lane_id() % 4; }
// Of the warp's positions, the lane's: the key of its i-th, and the value and score of its r-th.
MOEBENCH_DEVICE int key_position(int i) { return 8 * i + lane_group(); }
MOEBENCH_DEVICE int value_position(int r) { return 2 * lane_in_group() + r % 2 + r / 2 * 8; }

// So many words of a key or value, as they are loaded.
template <Format kCache, int kCount>
struct Words {
  std::uint32_t of[kCount];

  MOEBENCH_DEVICE std::uint32_t operator[](int i) const { return of[i]; }
  template <bool kAlways>
  MOEBENCH_DEVICE void load(bool wanted, const unsigned char* from) {
    if (kAlways || wanted) load_words<4 * kCount, kCache == Format::kBf16>(from, of);
  }
};
// Without a branch and in neighbouring registers: else the compiler moves the words to others right
// behind the load, and so waits for it. Nor loads later, where it would like to.
template <Format kCache>
struct Words<kCache, 4> {
  uint4 of;

  MOEBENCH_DEVICE std::uint32_t operator[](int i) const {
    return i == 0 ? of.x : i == 1 ? of.y : i == 2 ? of.z : of.w;
  }
  template <bool kAlways>
  MOEBENCH_DEVICE void load(bool wanted, const unsigned char* from) {
    if constexpr (kAlways) {
      of = gpu::load_streaming(from);
    } else {
      gpu::load_streaming_if(wanted, from, of);
    }
  }
};

// Keys and values of a warp's positions of a chunk, as they are stored.
template <Format kCache, int kHeadDim>
struct Chunk {
  static constexpr int kOfWord = kCache == Format::kBf16 ? 2 : 4;
  static constexpr int kKeyWords = 8 / kOfWord;  // of 32 columns
  static constexpr int kValueWords = kHeadDim / 8 / kOfWord;

  Words<kCache, kKeyWords> keys[2][kHeadDim / 32];
  Words<kCache, kValueWords> values[4];
  std::uint32_t key_scales[4];  // of float8, as those of values
  std::uint32_t value_scales[4];

  // Where lane % 16 finds its position of an item's first chunk; below zero, in all lanes: no
  // position of the warp is before the token. Lanes behind the last such position have that one,
  // whose weight they will not have.
  MOEBENCH_DEVICE static std::int64_t place(const DeviceKv& kv, const Token& token,
                                            const Item& item) {
    const int first = item.begin + gpu::warp_id() * kOfWarp;
    if (first >= item.end || first >= token.position) return -1;
    return place_of_next(kv, token, item, item.begin);
  }
  // Of a later chunk that is to have something for the warp: some position is before the token.
  MOEBENCH_DEVICE static std::int64_t place_of_next(const DeviceKv& kv, const Token& token,
                                                    const Item& item, int begin) {
    const int at = begin + gpu::warp_id() * kOfWarp + gpu::lane_id() % kOfWarp;
    const int behind = item.end < token.position ? item.end : token.position;
    return kv_offset(kv, token.sequence, at < behind ? at : behind - 1, item.kv_head);
  }
  MOEBENCH_DEVICE void load_first(const DeviceKv& kv, std::int64_t place) {
    *this = {};
    load<false>(place >= 0, kv, place);
  }
  MOEBENCH_DEVICE void load_next(const DeviceKv& kv, std::int64_t place) {
    load<true>(true, kv, place);
  }
  template <bool kAlways>
  MOEBENCH_DEVICE void load(bool wanted, const DeviceKv& kv, std::int64_t place) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const unsigned char* row = kv.keys + gpu::shuffle(gpu::kAllLanes, place, key_position(i)) +
                                 4 * kKeyWords * lane_in_group();
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeadDim / 32; ++h)
        keys[i][h].template load<kAlways>(wanted, row + 16 * kKeyWords * h);
    }
    MOEBENCH_UNROLL
    for (int r = 0; r < 4; ++r) {
      const std::int64_t offset = gpu::shuffle(gpu::kAllLanes, place, value_position(r));
      values[r].template load<kAlways>(wanted, kv.values + offset + 4 * kValueWords * lane_group());
      if constexpr (kCache != Format::kBf16) {
        if (!kAlways && !wanted) continue;
        key_scales[r] =
            gpu::load_constant(reinterpret_cast<const std::uint32_t*>(kv.keys + offset + kHeadDim));
        value_scales[r] = gpu::load_constant(
            reinterpret_cast<const std::uint32_t*>(kv.values + offset + kHeadDim));
      }
    }
  }
};

// A chunk as pairs of bf16, the scales still to be multiplied with, which a cache of bf16 has not.
template <Format kCache, int kHeadDim>
struct Decoded {
  using Stored = Chunk<kCache, kHeadDim>;
  static constexpr int kColumns = kHeadDim / 8;  // of values

  std::uint32_t keys[2][kHeadDim / 32][4];  // of neighbouring columns
  std::uint32_t values[kColumns][2];        // of two positions
  float key_scales[4];
  float value_scales[4];

  template <int kWords>
  MOEBENCH_DEVICE static void decode(const Words<kCache, kWords>& words,
                                     std::uint32_t (&pairs)[kWords * Stored::kOfWord / 2]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kWords * Stored::kOfWord / 2; ++i) {
      if constexpr (kCache == Format::kBf16) {
        pairs[i] = words[i];
      } else {
        pairs[i] = e4m3_pair(words[i / 2], i % 2);
      }
    }
  }
  MOEBENCH_DEVICE void take(const Stored& chunk) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeadDim / 32; ++h) decode(chunk.keys[i][h], keys[i][h]);
    }
    MOEBENCH_UNROLL
    for (int p = 0; p < 2; ++p) {
      std::uint32_t first[kColumns / 2];
      std::uint32_t second[kColumns / 2];
      decode(chunk.values[2 * p], first);
      decode(chunk.values[2 * p + 1], second);
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns / 2; ++i) {
        values[2 * i][p] = gpu::byte_permute(first[i], second[i], 0x5410);
        values[2 * i + 1][p] = gpu::byte_permute(first[i], second[i], 0x7632);
      }
    }
    MOEBENCH_UNROLL
    for (int r = 0; r < 4; ++r) {
      key_scales[r] = gpu::float_from_bits(chunk.key_scales[r]);
      value_scales[r] = gpu::float_from_bits(chunk.value_scales[r]);
    }
  }
  // And the token's own, if it is among them.
  MOEBENCH_DEVICE void add_own(const Token& token, const Item& item, int begin,
                               const Attending<kHeadDim>& shared) {
    const int own = token.position - begin - gpu::warp_id() * kOfWarp;
    if (token.position >= item.end || own < 0 || own >= kOfWarp) return;
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (key_position(i) != own) continue;
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeadDim / 32; ++h) {
        MOEBENCH_UNROLL
        for (int w = 0; w < 4; ++w) {
          keys[i][h][w] = shared.key_value[0][16 * h + 4 * lane_in_group() + w];
        }
      }
    }
    MOEBENCH_UNROLL
    for (int r = 0; r < 4; ++r) {
      if (value_position(r) != own) continue;
      MOEBENCH_UNROLL
      for (int i = 0; i < kColumns / 2; ++i) {
        const std::uint32_t pair = shared.key_value[1][kColumns / 2 * lane_group() + i];
        std::uint32_t& low = values[2 * i][r / 2];
        std::uint32_t& high = values[2 * i + 1][r / 2];
        low = gpu::byte_permute(low, pair, r % 2 == 0 ? 0x3254 : 0x5410);
        high = gpu::byte_permute(high, pair, r % 2 == 0 ? 0x3276 : 0x7610);
      }
      if constexpr (kCache != Format::kBf16) {
        key_scales[r] = shared.scales[0];
        value_scales[r] = shared.scales[1];
      }
    }
  }
};

// Adds a chunk to what the warp has found of head g: `largest` and, of the lane's positions,
// `total`; sum[j] of column j of groups 2t and 2t + 1, in the two parts of the weights.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void attend_chunk(const Decoded<kCache, kHeadDim>& chunk, int begin, int end,
                                  bool is_first, const Attending<kHeadDim>& shared, float& largest,
                                  float& total, float (&sum)[kHeadDim / 8][4]) {
  float scores[2][2][4] = {};  // two chains each
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeadDim / 32; ++h) {
    const int at = 4 * lane_in_group();
    const auto high = *reinterpret_cast<const uint4*>(&shared.query[0][h][lane_group()][at]);
    const auto low = *reinterpret_cast<const uint4*>(&shared.query[1][h][lane_group()][at]);
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const auto& key = chunk.keys[i][h];
      gpu::multiply_bf16(scores[i][0], {high.x, low.x, high.y, low.y}, {key[0], key[1]});
      gpu::multiply_bf16(scores[i][1], {high.z, low.z, high.w, low.w}, {key[2], key[3]});
    }
  }
  const int first = begin + gpu::warp_id() * kOfWarp;
  float weight[4];  // first: the score
  float most = largest;
  MOEBENCH_UNROLL
  for (int r = 0; r < 4; ++r) {
    const auto& of = scores[r / 2];
    const int c = r % 2;
    weight[r] = of[0][c] + of[1][c] + (of[0][c + 2] + of[1][c + 2]);
    if constexpr (kCache != Format::kBf16) weight[r] *= chunk.key_scales[r];
    if (first + value_position(r) >= end) weight[r] = kLowest;
    most = fmaxf(most, weight[r]);
  }
  most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 1));
  most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
  if (!is_first) {
    const float factor = gpu::exp2_fast(largest - most);
    total *= factor;
    MOEBENCH_UNROLL
    for (auto& of_column : sum) {
      MOEBENCH_UNROLL
      for (float& part : of_column) part *= factor;
    }
  }
  largest = most;
  MOEBENCH_UNROLL
  for (int r = 0; r < 4; ++r) {
    weight[r] = first + value_position(r) < end ? gpu::exp2_fast(weight[r] - most) : 0;
    total += weight[r];
    if constexpr (kCache != Format::kBf16) weight[r] *= chunk.value_scales[r];
  }
  const gpu::TwoParts near(weight[0], weight[1]);
  const gpu::TwoParts far(weight[2], weight[3]);
  MOEBENCH_UNROLL
  for (int j = 0; j < kHeadDim / 8; ++j) {
    gpu::multiply_bf16(sum[j], {near.high, near.low, far.high, far.low}, chunk.values[j]);
  }
}

// Where columns 4 quad .. 4 quad + 3 of a head's sums lie, in units of four: what eight lanes store
// together meets all banks.
template <int kHeadDim>
MOEBENCH_DEVICE int place_of_sum(int head, int quad) {
  constexpr int kQuads = kHeadDim / 16;  // of a lane
  const int other = kQuads == 4 ? (quad / kQuads / 2 | (head & 1) << 1) : (head & 1);
  return quad ^ other;
}

// This token's key and value, of a head: by a warp, four columns a lane.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void await_key_value(const Work& work, const Token& token, const Item& item,
                                     const Shown& shown, Attending<kHeadDim>& to) {
  const int i = 4 * gpu::lane_id();  // key, then value
  const int which = i / kHeadDim;
  const int column = i % kHeadDim;
  const bool is_inside = which < 2;
  // Of float8, where they are stored: looked up before they are there.
  unsigned char* row = nullptr;
  if constexpr (kCache != Format::kBf16) {
    row = (which == 0 ? work.kv.keys : work.kv.values) +
          kv_offset(work.kv, token.sequence, token.position, item.kv_head);
  }
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
    if (column == 0) to.scales[which] = scale;
    *reinterpret_cast<std::uint32_t*>(row + column) = codes;
    if (column > 0) return;
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
  const int group = work.group;
  if (thread < kThreadsOfQueries) {
    const int head = 4 * thread / kHeadDim;
    float4 four = {0, 0, 0, 0};
    if (head < group) {
      const uint4 words = await_words(shown.query + item.kv_head * group * kHeadDim + 4 * thread);
      four = {
          gpu::float_from_bits(words.x) * work.scale, gpu::float_from_bits(words.y) * work.scale,
          gpu::float_from_bits(words.z) * work.scale, gpu::float_from_bits(words.w) * work.scale};
    }
    const gpu::TwoParts first(four.x, four.y);
    const gpu::TwoParts second(four.z, four.w);
    const int column = 4 * thread % kHeadDim;
    const int at = column % 32 / 2;
    *reinterpret_cast<uint2*>(&to.query[0][column / 32][head][at]) = {first.high, second.high};
    *reinterpret_cast<uint2*>(&to.query[1][column / 32][head][at]) = {first.low, second.low};
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
MOEBENCH_DEVICE void show_head(float of_head, const Found& found, std::uint32_t* to) {
  const float sink = of_head * kLog2E;
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
  const int warp = gpu::warp_id();
  Decoded<kCache, kHeadDim> chunk;
  chunk.take(stored);
  // Of an item before this one, all have read the queries.
  await_queries<kCache>(work, token, item, shown, shared);
  sync_consumers();
  float largest = kLowest;
  float total = 0;
  float sum[kHeadDim / 8][4] = {};
  const int warps = (item.end - item.begin + kOfWarp - 1) / kOfWarp;  // that find something
  if (warp < warps) {
    int begin = item.begin;
    MOEBENCH_NO_UNROLL
    for (int next = begin + kChunk; next + warp * kOfWarp < item.end; next += kChunk) {
      stored.load_next(work.kv, stored.place_of_next(work.kv, token, item, next));
      attend_chunk(chunk, begin, item.end, begin == item.begin, shared, largest, total, sum);
      chunk.take(stored);
      begin = next;
    }
    chunk.add_own(token, item, begin, shared);
    attend_chunk(chunk, begin, item.end, begin == item.begin, shared, largest, total, sum);
    total += gpu::shuffle_xor(gpu::kAllLanes, total, 1);
    total += gpu::shuffle_xor(gpu::kAllLanes, total, 2);
    const int head = lane_group();
    constexpr int kQuads = kHeadDim / 16;
    MOEBENCH_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      float four[4];
      MOEBENCH_UNROLL
      for (int i = 0; i < 4; ++i) {
        const auto& parts = sum[4 * q % (kHeadDim / 8) + i];
        const int group = q / (kQuads / 2);
        four[i] = parts[group] + parts[group + 2];
      }
      const int place = place_of_sum<kHeadDim>(head, kQuads * lane_in_group() + q);
      *reinterpret_cast<float4*>(&shared.sums[warp][head][4 * place]) = {four[0], four[1], four[2],
                                                                         four[3]};
    }
    if (lane_in_group() == 0) shared.stats[warp][head] = {largest, total};
  }
  sync_consumers();
  const int group = work.group;
  static_assert(kHeads * kHeadDim / 2 <= kConsumers);
  const int h = static_cast<int>(threadIdx.x / (kHeadDim / 2));
  const int column = static_cast<int>(2 * threadIdx.x % kHeadDim);
  if (h >= group) return;
  const int place = 4 * place_of_sum<kHeadDim>(h, column / 4) + column % 4;
  Found found{kLowest, 0, {0, 0}};
  float2 of_warp[kWarps];
  float2 two[kWarps];
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) {
    of_warp[w] = {kLowest, 0};
    two[w] = {0, 0};
    if (w >= warps) continue;
    of_warp[w] = shared.stats[w][h];
    two[w] = *reinterpret_cast<const float2*>(&shared.sums[w][h][place]);
  }
  float largest_of[kWarps];
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) largest_of[w] = of_warp[w].x;
  MOEBENCH_UNROLL
  for (int half = kWarps / 2; half > 0; half /= 2) {
    MOEBENCH_UNROLL
    for (int w = 0; w < half; ++w) largest_of[w] = fmaxf(largest_of[w], largest_of[w + half]);
  }
  found.largest = largest_of[0];
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) {
    const float factor = gpu::exp2_fast(of_warp[w].x - found.largest);
    found.total += factor * of_warp[w].y;
    found.sum[0] += factor * two[w].x;
    found.sum[1] += factor * two[w].y;
  }
  if (token.splits == 1) {
    const int of_all = item.kv_head * group + h;
    show_head(shared.sinks[of_all], found, shown.found + (of_all * kHeadDim + column) / 2);
    return;
  }
  std::uint32_t* sums = shown.sums[item.at] + h * kHeadDim + column;
  gpu::store_relaxed(sums, gpu::shown(found.sum[0]));
  gpu::store_relaxed(sums + 1, gpu::shown(found.sum[1]));
  if (column == 0) {
    gpu::store_relaxed(&shown.stats[item.at][h][0], gpu::shown(found.largest));
    gpu::store_relaxed(&shown.stats[item.at][h][1], gpu::shown(found.total));
  }
}

// C. The item's part of its head's columns: four of them and all splits by sixteen lanes.
template <int kHeadDim>
MOEBENCH_DEVICE void join_splits(const Work& work, const Token& token, const Item& item,
                                 const float* sinks, Shown& shown) {
  const int group = work.group;
  const int units = group * kHeadDim / 4;
  const int split = static_cast<int>(threadIdx.x) % kMostSplits;
  const auto part = [&](int split_of) {
    return static_cast<int>(static_cast<unsigned>(units * split_of) /
                            static_cast<unsigned>(token.splits));
  };
  const int last = part(item.split + 1);
  for (int begin = part(item.split); begin < last; begin += kConsumers / kMostSplits) {
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
        if (gpu::are_there(words) && first != 0 && second != 0) break;
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
