// cuda_radix: a pass over the logits by many blocks, then one block a row, which sorts only the
// likeliest candidates.
//
// 1. summarise: a block reads kSlice logits once. It keeps what the row needs of them: the largest,
//    the sums of exp(), whether one is broken; and the largest of each chunk of kChunk.
// 2. draw<false>: a block joins the slices of its row. That is all for a greedy row, and a draw
//    from all candidates only has to look into the one slice where its number falls. Filters keep a
//    prefix of the candidates in falling order, so a prefix is gathered and sorted (radix sort, in
//    shared memory): the k-th largest of the chunks' largest has k candidates at or above it and
//    few more, whatever the logits. Without top_k a guess of kGuess serves, unless the filters keep
//    all of what was gathered.
// 3. draw<true>: the rows where that was not enough, or would not fit: all candidates are sorted,
// in
//    memory of one of kSlots.
//
// Rows do not depend on each other: each sum is added in an order that depends on the row alone.
#include <algorithm>
#include <cfloat>

#include "kernels/core/gpu.cuh"
#include "kernels/sample/block_walk.cuh"
#include "kernels/sample/sample.h"

namespace moebench::sample {
namespace {

constexpr int kSliceThreads = 256;
constexpr int kHeld = 16;  // logits of a thread
constexpr int kSlice = kSliceThreads * kHeld;
constexpr int kSliceWarps = kSliceThreads / gpu::kWarp;
constexpr int kChunk = 128;
constexpr int kRoundsOfChunk = kChunk / gpu::kWarp;
constexpr int kChunksOfWarp = kHeld / kRoundsOfChunk;

constexpr int kCapacity = 4096;  // candidates in shared memory, and chunks of a row
constexpr int kGuess = 1024;
constexpr int kSlots = 8;
constexpr std::int64_t kMostVocab = std::int64_t{kCapacity} * kChunk;

struct Slice {
  double sum;         // of exp(logit - largest)
  double warmed_sum;  // of exp((logit - largest) / temperature), of rows without top_k
  float largest;
  std::int32_t best;    // its id, the lowest of equals
  std::int32_t broken;  // the lowest id of a NaN or +inf; INT_MAX if there is none
};

// Device memory between the kernels.
struct Scratch {
  Slice* slices;          // [num_rows, num_slices]
  std::uint32_t* chunks;  // [num_rows, num_chunks]: order_of the largest
  std::int32_t* wanting;  // [num_rows]: 1 if all candidates must be sorted
  std::uint64_t* lists;   // [kSlots, 2, vocab_size], if the vocabulary exceeds kCapacity
};

int num_slices(std::int64_t vocab_size) {
  return static_cast<int>((vocab_size + kSlice - 1) / kSlice);
}
int num_chunks(std::int64_t vocab_size) {
  return static_cast<int>((vocab_size + kChunk - 1) / kChunk);
}
int num_slots(std::int64_t num_rows, std::int64_t vocab_size) {
  return vocab_size > kCapacity ? static_cast<int>(std::min<std::int64_t>(kSlots, num_rows)) : 0;
}

Scratch take_scratch(Workspace& workspace, std::int64_t num_rows, std::int64_t vocab_size) {
  return {workspace.take<Slice>(num_rows * num_slices(vocab_size)),
          workspace.take<std::uint32_t>(num_rows * num_chunks(vocab_size)),
          workspace.take<std::int32_t>(num_rows),
          workspace.take<std::uint64_t>(2 * num_slots(num_rows, vocab_size) * vocab_size)};
}

// 1 / temperature, such that 0 times it is 0.
MOEBENCH_DEVICE double inverse_of(double temperature) { return fmin(1.0 / temperature, DBL_MAX); }

// Block (row, slice). Warp w holds the logits from 512 w on, lane l those at l + 32 h.
__global__ void MOEBENCH_BOUNDS(kSliceThreads)
    summarise(const float* logits, const RowParams* params, Scratch scratch, int vocab_size,
              int chunks_of_row) {
  MOEBENCH_SHARED(unsigned, orders, [kSliceWarps]);
  MOEBENCH_SHARED(unsigned, ids, [kSliceWarps]);
  MOEBENCH_SHARED(unsigned, broken_ids, [kSliceWarps]);
  const std::int64_t row = blockIdx.x;
  const int warp = gpu::warp_id();
  const int first =
      static_cast<int>(blockIdx.y) * kSlice + warp * kHeld * gpu::kWarp + gpu::lane_id();
  logits += row * vocab_size;
  float held[kHeld];
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeld; ++h) {
    const int id = first + h * gpu::kWarp;
    held[h] = id < vocab_size ? logits[id] : -INFINITY;
  }

  unsigned broken = INT_MAX;
  unsigned largest = 0;
  unsigned best = INT_MAX;
  MOEBENCH_UNROLL
  for (int c = 0; c < kChunksOfWarp; ++c) {
    unsigned of_chunk = 0;
    MOEBENCH_UNROLL
    for (int h = c * kRoundsOfChunk; h < (c + 1) * kRoundsOfChunk; ++h) {
      const auto id = static_cast<unsigned>(first + h * gpu::kWarp);
      // Written so that NaN is broken.
      if (!(held[h] < INFINITY)) broken = min(broken, id);
      const unsigned order = gpu::order_of(held[h]);
      of_chunk = max(of_chunk, order);
      if (order > largest) {
        largest = order;
        best = id;
      }
    }
    of_chunk = gpu::reduce_max(gpu::kAllLanes, of_chunk);
    const int chunk = (static_cast<int>(blockIdx.y) * kSliceWarps + warp) * kChunksOfWarp + c;
    if (gpu::lane_id() == 0 && chunk < chunks_of_row) {
      scratch.chunks[row * chunks_of_row + chunk] = of_chunk;
    }
  }
  const unsigned of_warp = gpu::reduce_max(gpu::kAllLanes, largest);
  best = gpu::reduce_min(gpu::kAllLanes, largest == of_warp ? best : unsigned{INT_MAX});
  broken = gpu::reduce_min(gpu::kAllLanes, broken);
  if (gpu::lane_id() == 0) {
    orders[warp] = of_warp;
    ids[warp] = best;
    broken_ids[warp] = broken;
  }
  gpu::sync_threads();
  largest = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kSliceWarps; ++w) {
    broken = min(broken, broken_ids[w]);
    if (orders[w] > largest) {
      largest = orders[w];
      best = ids[w];
    }
  }

  const float subtracted = gpu::float_of_order(largest);
  double sum = 0;
  double warmed_sum = 0;
  if (subtracted > -INFINITY) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeld; ++h) sum += static_cast<double>(expf(held[h] - subtracted));
    if (params[row].temperature > 0 && params[row].top_k == 0) {
      const double inverse = inverse_of(params[row].temperature);
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeld; ++h) {
        const double difference = static_cast<double>(held[h]) - static_cast<double>(subtracted);
        warmed_sum += exp(difference * inverse);
      }
    }
  }
  sum = gpu::block_sum<kSliceThreads>(sum);
  warmed_sum = gpu::block_sum<kSliceThreads>(warmed_sum);
  if (threadIdx.x == 0) {
    scratch.slices[row * gridDim.y + blockIdx.y] = {sum, warmed_sum, subtracted,
                                                    static_cast<std::int32_t>(best),
                                                    static_cast<std::int32_t>(broken)};
  }
}

// A row, in every thread of its block.
struct Row {
  const float* logits;
  const Slice* slices;
  const std::uint32_t* chunks;
  RowParams params;
  int vocab_size;
  int num_slices;
  int num_chunks;
  float largest;
  double inverse;  // of the temperature

  MOEBENCH_DEVICE double mass(float logit) const {
    return exp((static_cast<double>(logit) - static_cast<double>(largest)) * inverse);
  }
  MOEBENCH_DEVICE double slice_mass(int s) const {
    return slices[s].warmed_sum * mass(slices[s].largest);
  }
  MOEBENCH_DEVICE double total_mass() const {
    return walk(
               num_slices, [&](int s) { return slice_mass(s); },
               [](double, double) { return true; })
        .sum;
  }
};

// A candidate, as the sort wants it: falling logit first, the id below.
MOEBENCH_DEVICE std::uint64_t candidate(std::uint32_t order, int id) {
  return static_cast<std::uint64_t>(~order) << 32 | static_cast<std::uint32_t>(id);
}
MOEBENCH_DEVICE std::uint32_t order_of_candidate(std::uint64_t candidate) {
  return ~static_cast<std::uint32_t>(candidate >> 32);
}

// The candidates at or above `threshold` in this warp's part of the row's chunks, by rising id:
// counts them, and writes them to `to` unless it is null.
MOEBENCH_DEVICE int candidates_of_warp(const Row& row, std::uint32_t threshold, std::uint64_t* to) {
  const int part = (row.num_chunks + kBlockWarps - 1) / kBlockWarps;
  const int begin = min(row.num_chunks, gpu::warp_id() * part);
  const int end = min(row.num_chunks, begin + part);
  const unsigned lanes_below = (1U << gpu::lane_id()) - 1;
  int count = 0;
  for (int i = begin; i < end; i += gpu::kWarp) {
    const int mine = i + gpu::lane_id();
    unsigned hits = gpu::ballot(gpu::kAllLanes,
                                mine < end && row.chunks[mine < end ? mine : begin] >= threshold);
    for (; hits != 0; hits &= hits - 1) {
      const int first = (i + gpu::lowest_bit(hits)) * kChunk + gpu::lane_id();
      std::uint32_t orders[kRoundsOfChunk];
      MOEBENCH_UNROLL
      for (int h = 0; h < kRoundsOfChunk; ++h) {
        const int id = first + h * gpu::kWarp;
        orders[h] = id < row.vocab_size ? gpu::order_of(row.logits[id]) : 0;
      }
      MOEBENCH_UNROLL
      for (int h = 0; h < kRoundsOfChunk; ++h) {
        const bool in = orders[h] >= threshold;
        const unsigned lanes = gpu::ballot(gpu::kAllLanes, in);
        if (to != nullptr && in) {
          to[count + gpu::count_bits(lanes & lanes_below)] =
              candidate(orders[h], first + h * gpu::kWarp);
        }
        count += gpu::count_bits(lanes);
      }
    }
  }
  return count;
}

// How many candidates are at or above `threshold`, and where those of this warp begin.
struct Gathered {
  int count;
  int begin;
};
MOEBENCH_DEVICE Gathered count_candidates(const Row& row, std::uint32_t threshold) {
  const int of_warp = candidates_of_warp(row, threshold, nullptr);
  const Prefix<int> prefix = block_scan(gpu::lane_id() == 0 ? of_warp : 0);
  return {prefix.total, gpu::shuffle(gpu::kAllLanes, prefix.before, 0)};
}

// Writes a prefix of the candidates in falling order to `list`, sorted: all of them if `kWhole`, or
// as many as the filters may need. Returns their number, or 0 if they do not fit.
template <bool kWhole>
MOEBENCH_DEVICE int gather(const Row& row, std::uint64_t* list, std::uint64_t* other,
                           unsigned* counts) {
  std::uint32_t threshold = 1;  // all of them: no logit's order is 0
  Gathered gathered{};
  if (kWhole || row.vocab_size <= kCapacity) {
    gathered = count_candidates(row, threshold);
  } else {
    const bool exact = row.params.top_k > 0;
    if (row.params.top_k > row.num_chunks) return 0;
    for (int i = static_cast<int>(threadIdx.x); i < row.num_chunks; i += kBlockThreads) {
      list[i] = candidate(row.chunks[i], i);
    }
    sort_by_upper_half(list, other, row.num_chunks, counts);
    int chunks = exact ? static_cast<int>(row.params.top_k) : min(kGuess, row.num_chunks);
    for (;; chunks /= 4) {
      threshold = order_of_candidate(list[chunks - 1]);
      gathered = count_candidates(row, threshold);
      if (gathered.count <= kCapacity) break;
      if (exact || chunks < 4) return 0;
    }
    gpu::sync_threads();  // all have read the chunks: candidates may take their place
  }
  candidates_of_warp(row, threshold, list + gathered.begin);
  sort_by_upper_half(list, other, gathered.count, counts);
  return gathered.count;
}

// The token of a row with a filter, or -1 if `list` has to hold more candidates.
template <bool kWhole>
MOEBENCH_DEVICE int draw_filtered(const Row& row, std::uint64_t* list, std::uint64_t* other,
                                  unsigned* counts) {
  const RowParams& params = row.params;
  const bool fits_all = row.params.top_k == 0 || row.params.top_k > row.vocab_size;
  const int limit = fits_all ? row.vocab_size : static_cast<int>(row.params.top_k);
  const int n = min(limit, gather<kWhole>(row, list, other, counts));
  if (n == 0) return -1;
  const auto mass_of = [&](int i) {
    return row.mass(gpu::float_of_order(order_of_candidate(list[i])));
  };
  double wanted = INFINITY;
  if (params.top_p < 1) {
    const auto all = [](double, double) { return true; };
    wanted = params.top_p * (params.top_k == 0 ? row.total_mass() : walk(n, mass_of, all).sum);
  }
  // The likeliest has mass 1, which makes min_p a mass.
  const Walked kept = walk(n, mass_of, [&](double before, double mass) {
    return before < wanted && mass >= params.min_p;
  });
  if (kept.count == n && n < limit) return -1;
  const double target = params.uniform * kept.sum;
  const int place =
      walk(kept.count, mass_of, [&](double before, double) { return before <= target; }).last;
  return static_cast<int>(static_cast<std::uint32_t>(list[place]));
}

// The token of a row without filters: its slice, then its place there.
MOEBENCH_DEVICE int draw_from_all(const Row& row) {
  const double target = row.params.uniform * row.total_mass();
  const Walked slices = walk(
      row.num_slices, [&](int s) { return row.slice_mass(s); },
      [&](double before, double) { return before <= target; });
  const int first = slices.last * kSlice;
  const float* logits = row.logits + first;
  const double rest = target - slices.before_last;
  const int place =
      walk(
          min(kSlice, row.vocab_size - first), [&](int i) { return row.mass(logits[i]); },
          [&](double before, double) { return before <= rest; })
          .last;
  return first + max(place, 0);
}

struct Outputs {
  std::int32_t* tokens;
  double* log_probabilities;
  std::int32_t* status;
};

// One row, by one block.
template <bool kWhole>
MOEBENCH_DEVICE void draw_row(std::int64_t r, Row row, const Scratch& scratch,
                              const Outputs& outputs, std::uint64_t* list, std::uint64_t* other,
                              unsigned* counts) {
  row.logits += r * row.vocab_size;
  row.slices += r * row.num_slices;
  row.chunks += r * row.num_chunks;
  unsigned broken = INT_MAX;
  unsigned largest = 0;
  for (int s = static_cast<int>(threadIdx.x); s < row.num_slices; s += kBlockThreads) {
    broken = min(broken, static_cast<unsigned>(row.slices[s].broken));
    largest = max(largest, gpu::order_of(row.slices[s].largest));
  }
  const Extremes extremes = block_extremes(broken, largest);
  unsigned best = INT_MAX;
  for (int s = static_cast<int>(threadIdx.x); s < row.num_slices; s += kBlockThreads) {
    if (gpu::order_of(row.slices[s].largest) != extremes.most) continue;
    best = min(best, static_cast<unsigned>(row.slices[s].best));
  }
  best = block_extremes(best, 0U).least;
  row.largest = gpu::float_of_order(extremes.most);
  row.inverse = inverse_of(row.params.temperature);

  std::int32_t status = kOk;
  int token = static_cast<int>(best);
  if (extremes.least != INT_MAX) {
    status = kBroken;
    token = static_cast<int>(extremes.least);
  } else if (row.largest == -INFINITY) {
    status = kNoneFinite;
    token = 0;
  } else if (row.params.temperature > 0) {
    const bool filters = row.params.top_k != 0 || row.params.top_p != 1 || row.params.min_p != 0;
    token = filters ? draw_filtered<kWhole>(row, list, other, counts) : draw_from_all(row);
  }
  if constexpr (!kWhole) {
    if (threadIdx.x == 0) scratch.wanting[r] = token < 0 ? 1 : 0;
    if (token < 0) return;
  }
  // The model's own distribution, each slice's sum brought to the row's largest.
  const double sum =
      walk(
          row.num_slices,
          [&](int s) {
            return row.slices[s].sum * exp(static_cast<double>(row.slices[s].largest) -
                                           static_cast<double>(row.largest));
          },
          [](double, double) { return true; })
          .sum;
  if (threadIdx.x == 0) {
    const double normaliser = static_cast<double>(row.largest) + log(sum);
    outputs.tokens[r] = token;
    outputs.log_probabilities[r] =
        status == kOk ? static_cast<double>(row.logits[token]) - normaliser : NAN;
    outputs.status[r] = status;
  }
}

template <bool kWhole>
__global__ void MOEBENCH_BOUNDS(kBlockThreads)
    draw(Row row, const RowParams* params, Scratch scratch, Outputs outputs, int num_rows) {
  auto* counts = reinterpret_cast<unsigned*>(gpu::dynamic_shared());
  std::uint64_t* list = reinterpret_cast<std::uint64_t*>(counts + kSortCounts);
  std::uint64_t* other = list + kCapacity;
  if constexpr (kWhole) {
    list = scratch.lists + 2 * static_cast<std::int64_t>(blockIdx.x) * row.vocab_size;
    other = list + row.vocab_size;
  }
  for (std::int64_t r = blockIdx.x; r < num_rows; r += gridDim.x) {
    if (kWhole && scratch.wanting[r] == 0) continue;
    row.params = params[r];
    draw_row<kWhole>(r, row, scratch, outputs, list, other, counts);
    gpu::sync_threads();
  }
}

void run(const Args& args, Context& context) {
  const std::int64_t num_rows = args.logits.shape[0];
  const std::int64_t vocab_size = args.logits.shape[1];
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, num_rows, vocab_size);
  const auto rows = static_cast<unsigned>(num_rows);
  const auto size = static_cast<int>(vocab_size);
  gpu::launch(summarise,
              {.grid = {rows, static_cast<unsigned>(num_slices(vocab_size))},
               .block = kSliceThreads,
               .stream = context.stream},
              "sample/cuda_radix", args.logits.data, args.params.data, scratch, size,
              num_chunks(vocab_size));

  Row row{};
  row.logits = args.logits.data;
  row.slices = scratch.slices;
  row.chunks = scratch.chunks;
  row.vocab_size = size;
  row.num_slices = num_slices(vocab_size);
  row.num_chunks = num_chunks(vocab_size);
  const Outputs outputs{args.tokens.data, args.log_probabilities.data, args.status.data};
  constexpr std::size_t kCountBytes = kSortCounts * sizeof(unsigned);
  gpu::launch(draw<false>,
              {.grid = {rows},
               .block = kBlockThreads,
               .shared_bytes = kCountBytes + 2 * kCapacity * sizeof(std::uint64_t),
               .stream = context.stream},
              "sample/cuda_radix", row, args.params.data, scratch, outputs,
              static_cast<int>(num_rows));
  const auto slots = static_cast<unsigned>(num_slots(num_rows, vocab_size));
  if (slots == 0) return;
  gpu::launch(draw<true>,
              {.grid = {slots},
               .block = kBlockThreads,
               .shared_bytes = kCountBytes,
               .stream = context.stream},
              "sample/cuda_radix (whole rows)", row, args.params.data, scratch, outputs,
              static_cast<int>(num_rows));
}

}  // namespace

const Variant cuda_radix = {
    .name = "cuda_radix",
    .backend = "cuda",
    .summary = "slices by many blocks, then one block a row sorts the likeliest",
    .rounds = "draw: f64; log-probability: exp in f32, sums in f64",
    .max_nmse = [](const Problem&) { return 1e-13; },
    .unsupported = [](const Problem& problem) -> std::string {
      if (problem.vocab_size > kMostVocab) {
        return fmt::format("vocab_size {} exceeds {}", problem.vocab_size, kMostVocab);
      }
      return gpu::needs_compute_capability(80);
    },
    .workspace_bytes =
        [](const Problem& problem, int) {
          Workspace workspace;
          take_scratch(workspace, problem.num_rows, problem.vocab_size);
          return workspace.used();
        },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_SAMPLE_CUDA_VARIANTS)

}  // namespace moebench::sample
