// cuda_cluster: norm, product and choice in one launch, for decode steps on Hopper. A cluster of
// eight blocks takes a token: each normalises the token's row, multiplies its eighth of the
// router's weights, and leaves the logits in the shared memory of the first, which chooses.
//
// The weights a block needs are on their way before the kernel before it ends. The bits are those
// of rms_norm/cuda_block, linear/cuda_rows_f32 and router/cuda_warp one after the other. Logits
// that are there already are cuda_warp's.
#include <algorithm>
#include <string>

#include "kernels/fused/choose.cuh"
#include "kernels/fused/held_rows.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/router/router.h"

namespace moebench::router {
namespace {

constexpr unsigned kBlocks = 8;  // of a cluster
constexpr int kThreads = fused::kRowThreads;
constexpr int kWarps = kThreads / gpu::kWarp;
constexpr int kMostExperts = 128;
constexpr int kMostRows = kMostExperts / kBlocks;  // of a block
constexpr int kHeldGroups = 3;                     // of a lane, loaded ahead: 2880 columns of bf16
// More tokens than these are blocks for every multiprocessor, and read the weights too often.
constexpr int kMostTokens = 16;

// Rows of bf16 or f32.
struct Weight {
  const unsigned char* data;
  int row_bytes;
  int rows;
  int cols;
};
MOEBENCH_DEVICE gpu::EncodedRow encoded_row(const Weight& weight, int row) {
  return {weight.data + static_cast<std::int64_t>(row) * weight.row_bytes, nullptr, 1.0F};
}

// All rows of gpt-oss 20b at once.
template <int kExperts>
constexpr int kRowsOfWarp = kExperts <= 32 ? 2 : 4;

// Rows [first, first + kRows) of the weight, of which only those before `end` count.
template <Format kFormat, int kRows>
struct WarpRows : fused::HeldRows<kFormat, kRows, kHeldGroups> {
  MOEBENCH_DEVICE void load(const Weight& weight, int first, int end, int begin, int stride,
                            int groups) {
    MOEBENCH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = first + r < end ? first + r : end - 1;
      this->rows[r] = encoded_row(weight, row);
    }
    fused::HeldRows<kFormat, kRows, kHeldGroups>::load(begin, stride, groups);
  }
};

// Block (token, part of the rows). A warp takes kRows rows at a time, or shares them with the
// others of its `splits`.
template <Format kFormat, int kExperts>
__global__ void MOEBENCH_BOUNDS(kThreads, 2)
    route_normed(fused::DeviceNorm norm, float* normed, Weight weight, const float* bias,
                 std::int32_t* expert_ids, float* expert_weights, int top_k, int splits) {
  using Row = fused::RowPart<4>;
  constexpr int kRows = kRowsOfWarp<kExperts>;
  MOEBENCH_SHARED(float, x, [fused::kMostHeld]);
  MOEBENCH_SHARED(float, partial, [kMostRows][gpu::kMostSplits]);
  MOEBENCH_SHARED(float, logits, [kMostExperts]);  // of the cluster, in its first block
  gpu::let_next_kernel_start();
  const std::int64_t token = blockIdx.x / kBlocks;
  const auto rank = static_cast<int>(gpu::cluster_rank());
  const int size = weight.cols;
  const int of_block = (weight.rows + static_cast<int>(kBlocks) - 1) / static_cast<int>(kBlocks);
  const int begin = min(rank * of_block, weight.rows);
  const int end = min(begin + of_block, weight.rows);

  Row row;
  row.load_weights(norm.weight, size);
  const int groups = size / gpu::DeviceFormat<kFormat>::kValues;
  const int split = gpu::warp_id() % splits;
  const int first_group = split * gpu::kWarp + gpu::lane_id();
  const int stride = splits * gpu::kWarp;
  const int at_once = kWarps / splits * kRows;  // rows of a block
  int first = begin + gpu::warp_id() / splits * kRows;
  WarpRows<kFormat, kRows> mine;
  if (first < end) mine.load(weight, first, end, first_group, stride, groups);
  if (threadIdx.x == 0 && begin + at_once < end) {
    gpu::prefetch_bulk(encoded_row(weight, begin + at_once).data,
                       (end - begin - at_once) * weight.row_bytes);
  }
  gpu::sync_cluster();  // each block has begun: its memory is there
  gpu::wait_for_previous_kernel();

  row.load_row(norm.x + token * size, norm.addend == nullptr ? nullptr : norm.addend + token * size,
               size);
  if (rank == 1) row.store_row(norm.sum + token * size, size);
  row.normalise(fused::row_scale(gpu::block_sum<kThreads>(row.squares()), size, norm.epsilon));
  if (rank == 2) row.store_row(normed + token * size, size);
  row.store_row(x, size);
  gpu::sync_threads();

  for (; first < end; first += at_once) {
    float sums[kRows][1] = {};
    mine.multiply(x, first_group, stride, groups, sums);
    const int next = first + at_once;
    if (next < end) mine.load(weight, next, end, first_group, stride, groups);
    MOEBENCH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float sum = gpu::warp_sum(sums[r][0]);
      if (gpu::lane_id() == 0 && first + r < end) partial[first + r - begin][split] = sum;
    }
  }
  gpu::sync_threads();
  const int mine_of_logits = begin + static_cast<int>(threadIdx.x);
  if (mine_of_logits < end) {
    gpu::cluster_pointer(&logits[0], 0)[mine_of_logits] = gpu::finish_row<kFormat>(
        splits, [&](int s) { return partial[threadIdx.x][s]; }, encoded_row(weight, mine_of_logits),
        bias == nullptr ? nullptr : bias + mine_of_logits);
  }
  gpu::sync_cluster();
  if (rank > 0 || gpu::warp_id() > 0) return;
  fused::choose_experts<kExperts / gpu::kWarp>(
      logits, weight.rows, top_k, expert_ids + token * top_k, expert_weights + token * top_k);
}

// Empty, or why it cannot do the norm and the product, too.
std::string product_unsupported(const Problem& problem) {
  if (problem.num_tokens > kMostTokens) {
    return fmt::format("at most {} tokens; there are {}", kMostTokens, problem.num_tokens);
  }
  if (problem.num_experts > kMostExperts) {
    return fmt::format("at most {} experts; there are {}", kMostExperts, problem.num_experts);
  }
  if (problem.hidden_size <= 0 || problem.hidden_size % 32 != 0 ||
      problem.hidden_size > fused::kMostHeld) {
    return fmt::format("hidden_size must be a multiple of 32 up to {}; it is {}", fused::kMostHeld,
                       problem.hidden_size);
  }
  if (problem.format != Format::kBf16 && problem.format != Format::kF32) {
    return fmt::format("the router's weights must be bf16 or f32; they are {}",
                       format_name(problem.format));
  }
  return "";
}

void run(const Args& args, Context& context) {
  const Args::Product& product = args.product;
  const fused::Norm& norm = product.norm;
  if (norm.weight.data == nullptr) return cuda_warp.run(args, context);
  const std::int64_t num_tokens = args.expert_ids.shape[0];
  const std::string reason =
      product_unsupported({num_tokens, product.weight.rows, args.expert_ids.shape[1],
                           product.weight.format, product.weight.cols});
  require(reason.empty(), "run router with its product: {}", reason);
  fused::check_aligned(
      {norm.x.data, norm.addend.data, norm.weight.data, norm.sum.data, product.normed.data});
  const MatrixView& matrix = product.weight;
  require(matrix.layout == RowLayout::kRowMajor, "run router: weights are interleaved");
  const Weight weight{reinterpret_cast<const unsigned char*>(matrix.data),
                      static_cast<int>(codec(matrix.format).row_data_bytes(matrix.cols)),
                      static_cast<int>(matrix.rows), static_cast<int>(matrix.cols)};
  const auto start = [&](auto* kernel, int values) {
    gpu::launch(kernel,
                {.grid = {static_cast<unsigned>(num_tokens) * kBlocks},
                 .block = kThreads,
                 .stream = context.stream,
                 .cluster = kBlocks,
                 .overlap_previous = true,
                 .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
                "router/cuda_cluster", fused::device_norm(norm), product.normed.data, weight,
                product.bias.data, args.expert_ids.data, args.expert_weights.data,
                static_cast<int>(args.expert_ids.shape[1]),
                gpu::column_splits(weight.cols / values));
  };
  const bool few = weight.rows <= 32;
  if (product.weight.format == Format::kBf16) {
    constexpr Format kFormat = Format::kBf16;
    start(few ? route_normed<kFormat, 32> : route_normed<kFormat, kMostExperts>,
          gpu::DeviceFormat<kFormat>::kValues);
  } else {
    constexpr Format kFormat = Format::kF32;
    start(few ? route_normed<kFormat, 32> : route_normed<kFormat, kMostExperts>,
          gpu::DeviceFormat<kFormat>::kValues);
  }
}

}  // namespace

const Variant cuda_cluster = {
    .name = "cuda_cluster",
    .backend = "cuda",
    .summary = "norm, product and choice at once, eight blocks a token, for up to 16 (Hopper)",
    .rounds = "activations: f32, accumulate: f32, softmax: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = gpu::needs_compute_capability(90);
          return reason.empty() ? cuda_warp.unsupported(problem) : reason;
        },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
    .normalises = [](const Problem& problem) { return product_unsupported(problem).empty(); },
};

}  // namespace moebench::router
