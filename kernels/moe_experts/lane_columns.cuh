// The order of columns in which lanes hold encoded weights that they decode to wgmma's A fragments,
// and bringing tokens into it: a sum over columns does not care for its order, as long as both
// operands agree.
#pragma once

#include "kernels/moe_experts/grouping.cuh"

namespace moebench::moe_experts {

constexpr int kTileCols = 64;
constexpr int kTileChunks = kTileCols / 8;  // of 16 bytes, in a row of a tile

// Of a row in memory: whole tiles.
MOEBENCH_HOST_DEVICE int padded_columns(int cols) {
  return (cols + kTileCols - 1) / kTileCols * kTileCols;
}

// The order in which tokens' columns lie in memory, for weights with `cols` columns.
//
// A window is what a quad reads of a row at once: lane t's run is the t-th 16 bytes. Tiles are 64
// columns, 16 of each lane: of formats of 4 bits a window is two, the halves of every lane's run;
// but if the last window has only one, lanes read 8 bytes there. The four products of a tile take
// two pairs of columns from each lane, as decode_bf16 gives them.
template <Format kFormat>
struct Columns {
  static constexpr int kRun = gpu::DeviceFormat<kFormat>::kValues;
  static constexpr int kWindow = 4 * kRun;
  static constexpr int kHalves = kWindow / kTileCols;

  int cols;

  MOEBENCH_HOST_DEVICE int num_tiles() const { return padded_columns(cols) / kTileCols; }
  MOEBENCH_HOST_DEVICE int num_windows() const { return (cols + kWindow - 1) / kWindow; }
  MOEBENCH_HOST_DEVICE int width() const { return padded_columns(cols); }
  // Whether lanes have half of a run in this window.
  MOEBENCH_HOST_DEVICE bool is_half(int window) const {
    return kHalves == 2 && 2 * window + 1 == num_tiles();
  }
  MOEBENCH_HOST_DEVICE int run_length(int window) const {
    return is_half(window) ? kRun / kHalves : kRun;
  }
  // The column at a position of a row; past the end there may be any from `cols` on.
  MOEBENCH_HOST_DEVICE int column_at(int position) const {
    const int tile = position / kTileCols;
    const int window = tile / kHalves;
    const int in_product = position % 16;
    const int lane = in_product % 8 / 2;
    const int pair = position % kTileCols / 16 * 2 + in_product / 8;
    const int element = position % 2;
    const int in_tile = kRun == 32 ? pair / 4 * 8 + pair % 4 + 4 * element : 2 * pair + element;
    return window * kWindow + lane * run_length(window) + tile % kHalves * 16 + in_tile;
  }
  MOEBENCH_HOST_DEVICE int position_of(int column) const {
    const int window = column / kWindow;
    const int lane = column % kWindow / run_length(window);
    const int in_run = column % kWindow % run_length(window);
    const int in_tile = in_run % 16;
    const int pair = kRun == 32 ? in_tile / 8 * 4 + in_tile % 4 : in_tile / 2;
    const int element = kRun == 32 ? in_tile % 8 / 4 : in_tile % 2;
    const int tile = window * kHalves + in_run / 16;
    return tile * kTileCols + pair / 2 * 16 + pair % 2 * 8 + 2 * lane + element;
  }
};

// `gathered`: for every sorted pair its token's x as bf16 in the order of Columns. Also writes
// zeros where rows of `activated` have no column. A thread does 8 positions.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kGroupingThreads)
    gather_columns(Sizes sizes, Groups groups, const float* x, std::uint16_t* gathered,
                   std::uint16_t* activated) {
  const Columns<kFormat> inputs{sizes.hidden_size};
  const Columns<kFormat> outputs{sizes.intermediate_size};
  const int chunks = inputs.width() / 8;
  const int padded = outputs.width() > sizes.intermediate_size ? Columns<kFormat>::kWindow / 8 : 0;
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kGroupingThreads +
                            static_cast<std::int64_t>(threadIdx.x);
  const auto row = item / (chunks + padded);
  const auto chunk = static_cast<int>(item % (chunks + padded));
  if (row >= sizes.num_pairs) return;
  if (chunk < chunks) {
    const float* from =
        x + static_cast<std::int64_t>(groups.pairs[row] / sizes.top_k) * sizes.hidden_size;
    const auto value = [&](int position) {
      const int column = inputs.column_at(position);
      return column < sizes.hidden_size ? from[column] : 0.0F;
    };
    uint4 values;
    std::uint32_t* words[4] = {&values.x, &values.y, &values.z, &values.w};
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      *words[i] = gpu::pack_bf16(value(8 * chunk + 2 * i), value(8 * chunk + 2 * i + 1));
    }
    reinterpret_cast<uint4*>(gathered)[row * chunks + chunk] = values;
    return;
  }
  const int first = outputs.width() / 8 - 1 - (chunk - chunks);
  for (int i = 0; first >= 0 && i < 8; ++i) {
    if (outputs.column_at(8 * first + i) >= sizes.intermediate_size) {
      activated[row * outputs.width() + 8 * first + i] = 0;
    }
  }
}

template <Format kFormat>
void launch_gather_columns(const Args& args, Context& context, const GroupedScratch& scratch) {
  const Sizes sizes = sizes_of(args);
  const std::int64_t items = sizes.num_pairs * std::int64_t{padded_columns(sizes.hidden_size) / 8 +
                                                            Columns<kFormat>::kWindow / 8};
  gpu::launch(gather_columns<kFormat>,
              {.grid = {static_cast<unsigned>((items + kGroupingThreads - 1) / kGroupingThreads)},
               .block = kGroupingThreads,
               .stream = context.stream},
              "moe_experts (gather tokens by lanes)", sizes, scratch.groups, args.x.data, scratch.x,
              scratch.activated);
}

}  // namespace moebench::moe_experts
