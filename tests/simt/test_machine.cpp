// The machine itself: that each word means what the CUDA manuals say.
#include <catch2/catch.hpp>
#include <numeric>

#include "tests/simt/support.h"
#include "tests/simt/words.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

unsigned u(int value) { return static_cast<unsigned>(value); }

// ---- Launches -----------------------------------------------------------------------------------

__global__ void count_visits(int* visits) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  gpu::atomic_add(&visits[block * blockDim.x + threadIdx.x], 1);
}

TEST_CASE("simt: every thread of every block runs once, whatever the schedule") {
  const auto workers = GENERATE(1, 3);
  const auto resident_blocks = GENERATE(1, 4);
  for (simt::Settings settings : schedules()) {
    settings.workers = workers;
    settings.resident_blocks = resident_blocks;
    INFO(describe(settings) << ", " << settings.workers << " workers");
    const WithSettings with(settings);
    DeviceArray<int> visits(std::vector<int>(3 * 2 * 5 * 40));
    gpu::launch(count_visits, {.grid = {3, 2, 5}, .block = 40}, "test", visits.data());
    CHECK(visits.values() == std::vector<int>(visits.size(), 1));
  }
}

__global__ void never(int*) {}

TEST_CASE("simt: launches that a device refuses are refused") {
  const auto refused = [](const gpu::LaunchConfig& config, const char* reason) {
    INFO(reason);
    int* nothing = nullptr;
    CHECK_THROWS_WITH(gpu::launch(never, config, "test", nothing), Catch::Contains(reason));
  };
  refused({.block = 0}, "a block of 0 threads");
  refused({.block = 1025}, "a block of 1025 threads");
  refused({.grid = {0}, .block = 32}, "a grid of 0 x 1 x 1");
  refused({.grid = {1, 65536}, .block = 32}, "a grid of 1 x 65536 x 1");
  refused({.grid = {1, 1, 65536}, .block = 32}, "a grid of 1 x 1 x 65536");
  refused({.block = 32, .shared_bytes = (227 << 10) + 1}, "bytes of dynamic shared memory");
  refused({.grid = {6}, .block = 32, .cluster = 4}, "clusters of 4 in a grid of 6");
  refused({.grid = {16}, .block = 32, .cluster = 16}, "clusters of 16");
  refused({.grid = {9}, .block = 1024, .cooperative = true}, "9 cooperative blocks, of which 8");
}

// ---- Graphs -------------------------------------------------------------------------------------

__global__ void add_to(int* to, const int* from) { *to += *from; }

TEST_CASE("simt: captured launches run when the graph does, on memory as it is then") {
  gpu::Device& device = gpu::device();
  const gpu::OwnedStream stream(device.create_stream());
  const gpu::OwnedStream other(device.create_stream());
  DeviceArray<int> sum(std::vector<int>{1}), step(std::vector<int>{10}), seen(std::vector<int>{0});
  const gpu::LaunchConfig on_stream{.block = 1, .stream = stream.get()};

  device.begin_capture(stream.get());
  gpu::launch(add_to, on_stream, "test", sum.data(), step.data());
  device.copy(seen.data(), sum.data(), sizeof(int), gpu::Copy::kOnDevice, stream.get());
  gpu::launch(add_to, {.block = 1, .stream = other.get()}, "test", step.data(), step.data());
  CHECK_THROWS_WITH(device.synchronize(stream.get()), Catch::Contains("being captured"));
  const gpu::Graph graph(device.end_capture(stream.get()));
  CHECK(sum[0] == 1);
  CHECK(seen[0] == 0);
  CHECK(step[0] == 20);  // the other stream was not captured

  device.launch_graph(graph.get(), stream.get());
  CHECK(sum[0] == 21);
  CHECK(seen[0] == 21);
  step[0] = 100;
  device.launch_graph(graph.get(), stream.get());
  CHECK(sum[0] == 121);
  CHECK(seen[0] == 121);
}

// ---- Shared memory ------------------------------------------------------------------------------

__global__ void look_at_new_memory(std::uint32_t* seen) {
  MOEBENCH_SHARED(std::uint32_t, array, [64]);
  const auto* dynamic = reinterpret_cast<const std::uint32_t*>(gpu::dynamic_shared());
  seen[threadIdx.x] = array[threadIdx.x] & dynamic[threadIdx.x];
  gpu::sync_threads();
  array[threadIdx.x] = 0;  // the next block finds it poisoned again
}

TEST_CASE("simt: shared and device memory hold NaN until somebody writes") {
  DeviceArray<std::uint32_t> seen(64);
  CHECK(seen.values() == std::vector<std::uint32_t>(64, 0xffffffffU));
  seen[0] = 0;
  gpu::launch(look_at_new_memory, {.grid = {2}, .block = 64, .shared_bytes = 256}, "test",
              seen.data());
  CHECK(seen.values() == std::vector<std::uint32_t>(64, 0xffffffffU));
}

// ---- Warps --------------------------------------------------------------------------------------

struct WarpResults {
  int by_xor[32], by_lane[32], up[32], down[32];
  unsigned even[32], low_half[32], largest[32], smallest[32];
  bool any[32], all[32];
};

__global__ void warp_words(WarpResults* results) {
  const int lane = gpu::lane_id();
  const int value = lane * 10;
  results->by_xor[lane] = gpu::shuffle_xor(gpu::kAllLanes, value, 5);
  results->by_lane[lane] = gpu::shuffle(gpu::kAllLanes, value, (lane + 3) % 32);
  results->up[lane] = gpu::shuffle_up(gpu::kAllLanes, value, 2);
  results->down[lane] = gpu::shuffle_down(gpu::kAllLanes, value, 2);
  results->even[lane] = gpu::ballot(gpu::kAllLanes, lane % 2 == 0);
  if (lane < 16) {
    results->low_half[lane] = gpu::ballot(0xffffU, lane > 13);
  } else {
    results->low_half[lane] = gpu::ballot(0xffff0000U, lane > 29);
  }
  results->largest[lane] = gpu::reduce_max(gpu::kAllLanes, u(lane ^ 7));
  results->smallest[lane] = gpu::reduce_min(gpu::kAllLanes, u(lane ^ 7) + 3);
  results->any[lane] = gpu::any(gpu::kAllLanes, lane == 17);
  results->all[lane] = gpu::all(gpu::kAllLanes, lane != 17);
}

TEST_CASE("simt: shuffles, votes and reductions") {
  for (const simt::Settings& settings : schedules()) {
    const WithSettings with(settings);
    DeviceArray<WarpResults> results(1);
    gpu::launch(warp_words, {.block = 32}, "test", results.data());
    const WarpResults& r = results[0];
    for (int lane = 0; lane < 32; ++lane) {
      INFO(describe(settings) << ", lane " << lane);
      CHECK(r.by_xor[lane] == (lane ^ 5) * 10);
      CHECK(r.by_lane[lane] == (lane + 3) % 32 * 10);
      CHECK(r.up[lane] == (lane < 2 ? lane : lane - 2) * 10);
      CHECK(r.down[lane] == (lane > 29 ? lane : lane + 2) * 10);
      CHECK(r.even[lane] == 0x55555555U);
      CHECK(r.low_half[lane] == (lane < 16 ? 0xc000U : 0xc0000000U));
      CHECK(r.largest[lane] == 31);
      CHECK(r.smallest[lane] == 3);
      CHECK(r.any[lane]);
      CHECK_FALSE(r.all[lane]);
    }
  }
}

// Before it waits for the previous kernel; the lanes' operands are on their stacks, which kernels
// use again.
__global__ void combine_early(int* out, int source) {
  const int lane = static_cast<int>(threadIdx.x);
  const auto largest = static_cast<int>(gpu::warp_max(static_cast<float>(lane)));
  const int theirs = gpu::shuffle(0xffffffffU, lane, (lane + source) % 32);
  gpu::wait_for_previous_kernel();
  out[lane] = 100 * largest + theirs;
}

TEST_CASE("simt: lanes that combine before they wait touch nothing of the previous kernel's") {
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<int> out(32);
    for (const int source : {0, 1, 7}) {
      gpu::launch(combine_early, {.grid = {1}, .block = 32, .overlap_previous = source > 0}, "test",
                  out.data(), source);
      for (int lane = 0; lane < 32; ++lane) {
        CHECK(out[static_cast<std::size_t>(lane)] == 3100 + (lane + source) % 32);
      }
    }
  }
}

__global__ void sums(float* out) {
  const auto t = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = gpu::block_sum<96>(t) + 1000 * gpu::block_sum<96>(1.0F);
}

TEST_CASE("simt: block_sum gives every thread the sum, twice in a row") {
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<float> out(96);
    gpu::launch(sums, {.block = 96}, "test", out.data());
    CHECK(out.values() == std::vector<float>(96, 95 * 48 + 96000.0F));
  }
}

// ---- Barriers and atomics -----------------------------------------------------------------------

// Two pairs of warps, each with a barrier of its own; then warps 0, 1 hand over to warps 2, 3.
__global__ void named_barriers(int* out) {
  MOEBENCH_SHARED(int, values, [128]);
  const int t = static_cast<int>(threadIdx.x);
  const int half = t / 64;
  values[t] = t;
  gpu::sync_named(1 + half, 64);
  const int mirrored = values[half * 64 + 63 - t % 64];
  gpu::sync_named(1 + half, 64);
  values[t] = mirrored;
  if (half == 0) {
    gpu::arrive_named(3, 128);
  } else {
    gpu::sync_named(3, 128);
    out[t - 64] = values[t - 64];
  }
}

TEST_CASE("simt: named barriers are for as many threads as they say") {
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<int> out(64);
    gpu::launch(named_barriers, {.block = 128}, "test", out.data());
    std::vector<int> want(64);
    std::iota(want.rbegin(), want.rend(), 0);
    CHECK(out.values() == want);
  }
}

__global__ void atomics(int* sum, unsigned* unsigned_sum, float* float_sum, unsigned* largest) {
  gpu::atomic_add(sum, -1);
  gpu::atomic_add(unsigned_sum, 2U);
  gpu::atomic_add(float_sum, 0.5F);
  gpu::atomic_max(largest, threadIdx.x * 7 % 50);
}

TEST_CASE("simt: atomics from all blocks and workers add up") {
  simt::Settings settings;
  settings.workers = 4;
  const WithSettings with(settings);
  DeviceArray<int> sum(std::vector<int>{0});
  DeviceArray<unsigned> numbers(std::vector<unsigned>{0, 0});
  DeviceArray<float> float_sum(std::vector<float>{0});
  gpu::launch(atomics, {.grid = {10}, .block = 50}, "test", sum.data(), numbers.data(),
              float_sum.data(), numbers.data() + 1);
  CHECK(sum[0] == -500);
  CHECK(numbers[0] == 1000);
  CHECK(numbers[1] == 49);
  CHECK(float_sum[0] == 250);
}

// Blocks that wait for each other: legal only if all of them run at once.
__global__ void grid_barrier(int* arrived, int* values, int* out) {
  if (threadIdx.x == 0) {
    values[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    gpu::add_release(arrived, 1);
    while (gpu::load_acquire(arrived) < static_cast<int>(gridDim.x)) gpu::spin_pause();
    int sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += values[b];
    out[blockIdx.x] = sum;
  }
}

TEST_CASE("simt: cooperative blocks run at once, others wait in vain for each other") {
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<int> arrived(std::vector<int>{0}), values(7), out(7);
    gpu::launch(grid_barrier, {.grid = {7}, .block = 32, .cooperative = true}, "test",
                arrived.data(), values.data(), out.data());
    CHECK(out.values() == std::vector<int>(7, 28));
  }
  DeviceArray<int> arrived(std::vector<int>{0}), values(7), out(7);
  CHECK_THROWS_WITH(gpu::launch(grid_barrier, {.grid = {7}, .block = 32}, "test", arrived.data(),
                                values.data(), out.data()),
                    Catch::Contains("livelock") && Catch::Contains("test_machine.cpp"));
}

// Each block reads its neighbour's shared memory.
__global__ void read_neighbour(int* out) {
  MOEBENCH_SHARED(int, mine, [32]);
  mine[threadIdx.x] = static_cast<int>(blockIdx.x * 100 + threadIdx.x);
  gpu::sync_cluster();
  const int* theirs = gpu::cluster_pointer(mine, (gpu::cluster_rank() + 1) % 4);
  out[blockIdx.x * 32 + threadIdx.x] = theirs[31 - threadIdx.x];
  gpu::sync_cluster();
}

TEST_CASE("simt: the blocks of a cluster reach each other's shared memory") {
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<int> out(8 * 32);
    gpu::launch(read_neighbour, {.grid = {8}, .block = 32, .cluster = 4}, "test", out.data());
    for (int block = 0; block < 8; ++block) {
      const int neighbour = block / 4 * 4 + (block + 1) % 4;
      for (int t = 0; t < 32; ++t) {
        CHECK(out[static_cast<std::size_t>(block * 32 + t)] == neighbour * 100 + 31 - t);
      }
    }
  }
}

}  // namespace
}  // namespace moebench::test
