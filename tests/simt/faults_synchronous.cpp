// Faults in barriers, shuffles, bounds and between blocks.
#include "tests/simt/faults.h"
#include "tests/simt/support.h"
#include "tests/simt/words.h"
// After the words that it is made of.
#include "kernels/core/grid_turn.cuh"

namespace moebench::test {
namespace {

std::vector<float> numbers(std::size_t count) {
  std::vector<float> values(count);
  SmallNumbers random;
  for (float& value : values) value = static_cast<float>(random.next());
  return values;
}

// ---- Barriers -----------------------------------------------------------------------------------

__global__ void reverse(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [64]);
  staged[threadIdx.x] = x[threadIdx.x];
  if (!faulty) gpu::sync_threads();
  y[threadIdx.x] = staged[63 - threadIdx.x];
}

__global__ void reverse_divergent(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [64]);
  staged[threadIdx.x] = x[threadIdx.x];
  if (faulty && threadIdx.x < 32) {
    gpu::sync_threads();
  } else {
    gpu::sync_threads();
  }
  y[threadIdx.x] = staged[63 - threadIdx.x];
}

__global__ void reverse_partial(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [64]);
  staged[threadIdx.x] = x[threadIdx.x];
  if (!faulty || threadIdx.x < 48) gpu::sync_named(1, 64);
  y[threadIdx.x] = staged[63 - threadIdx.x];
}

// Two warps meet; the other two have ended.
__global__ void reverse_named(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [64]);
  if (threadIdx.x >= 64) return;
  staged[threadIdx.x] = x[threadIdx.x];
  gpu::sync_named(1, faulty ? 128 : 64);
  y[threadIdx.x] = staged[63 - threadIdx.x];
}

// Half a warp in one barrier, the rest in another.
__global__ void reverse_split(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [64]);
  staged[threadIdx.x] = x[threadIdx.x];
  const bool first = threadIdx.x % 32 < 16;
  gpu::sync_named(faulty && !first ? 2 : 1, faulty ? 32 : 64);
  y[threadIdx.x] = staged[63 - threadIdx.x];
}

// Sums over a block twice, in the same buffer.
__global__ void two_sums(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, partial, [4]);
  float sums[2];
  for (int i = 0; i < 2; ++i) {
    const float sum = gpu::warp_sum(x[threadIdx.x] * static_cast<float>(i + 1));
    if (gpu::lane_id() == 0) partial[gpu::warp_id()] = sum;
    gpu::sync_threads();
    sums[i] = partial[0] + partial[1] + partial[2] + partial[3];
    if (!faulty) gpu::sync_threads();
  }
  y[threadIdx.x] = sums[0] + sums[1];
}

// The shuffles keep every schedule from showing that they order no memory.
__global__ void exchange_after_shuffle(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [32]);
  const int lane = gpu::lane_id();
  staged[lane] = x[lane];
  gpu::sync_warp();
  const float sum = gpu::warp_sum(staged[lane ^ 1]);
  if (!faulty) gpu::sync_warp();
  staged[lane] = sum + static_cast<float>(lane);
  gpu::sync_warp();
  y[lane] = staged[lane ^ 1] - sum;
}

__global__ void exchange(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [32]);
  const int lane = gpu::lane_id();
  staged[lane] = x[lane];
  if (!faulty) gpu::sync_warp();
  y[lane] = staged[31 - lane];
}

using OneBlock = void (*)(const float*, float*, bool);

// y = f(x), by one block.
std::function<bool(bool)> one_block(OneBlock kernel, unsigned threads,
                                    std::function<float(const std::vector<float>&, std::size_t)> f,
                                    std::size_t count = 0) {
  if (count == 0) count = threads;
  return [=](bool faulty) {
    const std::vector<float> values = numbers(count);
    DeviceArray<float> x(values), y(count);
    gpu::launch(kernel, {.block = threads}, "fault", x.data(), y.data(), faulty);
    for (std::size_t i = 0; i < count; ++i) {
      if (!(y[i] == f(values, i))) return false;
    }
    return true;
  };
}
float reversed(const std::vector<float>& x, std::size_t i) { return x[x.size() - 1 - i]; }
float neighbour_lane(const std::vector<float>&, std::size_t i) { return static_cast<float>(i ^ 1); }
float three_sums(const std::vector<float>& x, std::size_t) {
  float sum = 0;
  for (const float value : x) sum += value;
  return 3 * sum;
}

// ---- Shuffles -----------------------------------------------------------------------------------

__global__ void shuffle_outside(const float* x, float* y, bool faulty) {
  const int lane = gpu::lane_id();
  if (lane < 16) {
    const int source = faulty ? lane + 16 : 15 - lane;
    y[lane] = gpu::shuffle(0xffffU, x[lane], source);
  } else {
    y[lane] = gpu::shuffle(0xffff0000U, x[lane], 47 - lane);
  }
}
float reversed_halves(const std::vector<float>& x, std::size_t i) {
  return x[i < 16 ? 15 - i : 47 - i];
}

__global__ void shuffle_without_some(const float* x, float* y, bool faulty) {
  if (faulty && gpu::lane_id() >= 20) return;
  y[gpu::lane_id()] = gpu::shuffle_xor(gpu::kAllLanes, x[gpu::lane_id()], 31);
}

__global__ void shuffle_without_self(const float* x, float* y, bool faulty) {
  y[gpu::lane_id()] = gpu::shuffle_xor(faulty ? 0xffffU : gpu::kAllLanes, x[gpu::lane_id()], 31);
}

__global__ void shuffle_at_two_places(const float* x, float* y, bool faulty) {
  const int lane = gpu::lane_id();
  if (faulty && lane % 2 == 0) {
    y[lane] = gpu::shuffle_xor(gpu::kAllLanes, x[lane], 31);
  } else {
    y[lane] = gpu::shuffle_xor(gpu::kAllLanes, x[lane], 31);
  }
}

// ---- Bounds -------------------------------------------------------------------------------------

// One thread a row, blocks of 32: the last block has rows too many.
__global__ void double_rows(const float* x, float* y, int rows, bool faulty) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (faulty || row < rows) y[row] = 2 * x[row];
}
bool double_fifty_rows(bool faulty) {
  const std::vector<float> values = numbers(50);
  DeviceArray<float> x(values), y(50);
  gpu::launch(double_rows, {.grid = {2}, .block = 32}, "fault", x.data(), y.data(), 50, faulty);
  for (std::size_t i = 0; i < 50; ++i) {
    if (!(y[i] == 2 * values[i])) return false;
  }
  return true;
}

// Sums of rows of 40, by a warp that takes 32 columns at a time.
__global__ void sum_rows(const float* x, float* sums, int columns, bool faulty) {
  float sum = 0;
  for (int first = 0; first < columns; first += 32) {
    const int column = first + gpu::lane_id();
    if (faulty || column < columns) sum += x[static_cast<int>(blockIdx.x) * columns + column];
  }
  sum = gpu::warp_sum(sum);
  if (gpu::lane_id() == 0) sums[blockIdx.x] = sum;
}
bool sum_two_rows(bool faulty) {
  const std::vector<float> values(4 * 40, 1.0F);  // more rows than are asked for: no way outside
  DeviceArray<float> x(values), sums(2);
  gpu::launch(sum_rows, {.grid = {2}, .block = 32}, "fault", x.data(), sums.data(), 40, faulty);
  return sums[0] == 40 && sums[1] == 40;
}

__global__ void shift_static(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [32]);
  staged[threadIdx.x + (faulty ? 1 : 0)] = x[threadIdx.x];
  gpu::sync_threads();
  y[threadIdx.x] = staged[31 - threadIdx.x];
}
__global__ void shift_dynamic(const float* x, float* y, bool faulty) {
  auto* staged = reinterpret_cast<float*>(gpu::dynamic_shared());
  staged[threadIdx.x + (faulty ? 1 : 0)] = x[threadIdx.x];
  gpu::sync_threads();
  y[threadIdx.x] = staged[31 - threadIdx.x];
}
bool shift_in_dynamic(bool faulty) {
  const std::vector<float> values = numbers(32);
  DeviceArray<float> x(values), y(32);
  gpu::launch(shift_dynamic, {.block = 32, .shared_bytes = 128}, "fault", x.data(), y.data(),
              faulty);
  return y[0] == values[31];
}

__global__ void load_sixteen(const float* x, float* y, bool faulty) {
  const uint4 four = gpu::load_streaming(x + 4 * threadIdx.x + (faulty ? 1 : 0));
  y[threadIdx.x] = gpu::float_from_bits(four.x);
}
__global__ void load_sixteen_plainly(const float* x, float* y, bool faulty) {
  const auto* from = reinterpret_cast<const uint4*>(x + 4 * threadIdx.x + (faulty ? 1 : 0));
  y[threadIdx.x] = gpu::float_from_bits(from->x);
}
std::function<bool(bool)> load_eight(OneBlock kernel) {
  return [=](bool faulty) {
    const std::vector<float> values = numbers(40);
    DeviceArray<float> x(values), y(8);
    gpu::launch(kernel, {.block = 8}, "fault", x.data(), y.data(), faulty);
    for (std::size_t i = 0; i < 8; ++i) {
      if (!(y[i] == values[4 * i])) return false;
    }
    return true;
  };
}

// ---- Shared memory's size -----------------------------------------------------------------------

__global__ void much_static_memory(const float*, float* y, bool faulty) {
  MOEBENCH_SHARED(float, first, [6000]);
  first[threadIdx.x] = 1;
  if (faulty) {
    MOEBENCH_SHARED(float, second, [6500]);
    second[threadIdx.x] = 1;
  }
  y[threadIdx.x] = first[threadIdx.x];
}
float one(const std::vector<float>&, std::size_t) { return 1; }

__global__ void much_memory(float* y) {
  MOEBENCH_SHARED(float, array, [6000]);
  array[threadIdx.x] = 1;
  y[threadIdx.x] = array[threadIdx.x];
}
bool much_static_and_dynamic(bool faulty) {
  DeviceArray<float> y(32);
  const std::size_t kilobytes = faulty ? 205 : 200;
  gpu::launch(much_memory, {.block = 32, .shared_bytes = kilobytes << 10}, "fault", y.data());
  return y[31] == 1;
}

// ---- Between blocks -----------------------------------------------------------------------------

__global__ void add_up(const float* x, float* sums, bool faulty) {
  const float value = x[blockIdx.x * 32 + threadIdx.x];
  if (faulty) {
    sums[threadIdx.x] += value;  // as other blocks do
  } else {
    gpu::atomic_add(&sums[threadIdx.x], value);
  }
}
bool add_up_blocks(bool faulty) {
  const std::vector<float> values = numbers(4 * 32);
  DeviceArray<float> x(values), sums(std::vector<float>(32));
  gpu::launch(add_up, {.grid = {4}, .block = 32}, "fault", x.data(), sums.data(), faulty);
  for (std::size_t t = 0; t < 32; ++t) {
    if (!(sums[t] == values[t] + values[32 + t] + values[64 + t] + values[96 + t])) return false;
  }
  return true;
}

// Block 0 hands a value to block 1.
__global__ void hand_over(int* flag, float* value, float* out, bool faulty) {
  if (blockIdx.x == 0) {
    *value = 7;
    if (faulty) {
      gpu::atomic_add(flag, 1);  // orders nothing
    } else {
      gpu::add_release(flag, 1);
    }
  } else {
    while (gpu::load_acquire(flag) == 0) gpu::spin_pause();
    *out = *value;
  }
}
bool hand_over_a_value(bool faulty) {
  DeviceArray<int> flag(std::vector<int>{0});
  DeviceArray<float> value(1), out(1);
  gpu::launch(hand_over, {.grid = {2}, .block = 1, .cooperative = true}, "fault", flag.data(),
              value.data(), out.data(), faulty);
  return out[0] == 7;
}

// Each block adds up what all threads of all blocks show each other. Faulty: it does not look
// whether a value is there yet.
__global__ void add_up_shown(int* word, std::uint32_t* values, float* out, bool faulty) {
  const unsigned count = gridDim.x * 64;
  const unsigned own = blockIdx.x * 64 + threadIdx.x;
  const unsigned turn = gpu::grid_turn(word);
  std::uint32_t* const shown = values + turn * count;
  gpu::sync_threads();
  if (threadIdx.x == 0) gpu::arrive_at_grid(word);
  gpu::store_relaxed(&shown[own], gpu::shown(static_cast<float>(threadIdx.x)));
  if (threadIdx.x == 0) gpu::wait_for_grid(word, turn);
  gpu::sync_threads();
  float sum = 0;
  for (unsigned i = 0; i < count; ++i) {
    std::uint32_t bits = gpu::load_relaxed(&shown[i]);
    while (bits == 0 && !faulty) {
      gpu::spin_on();
      bits = gpu::load_relaxed(&shown[i]);
    }
    sum += gpu::float_from_bits(bits);
  }
  values[(turn ^ 1U) * count + own] = 0;
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
bool add_up_what_blocks_show(bool faulty) {
  DeviceArray<int> word(std::vector<int>{0});
  DeviceArray<std::uint32_t> values(std::vector<std::uint32_t>(std::size_t{2} * 3 * 64));
  DeviceArray<float> out(3);
  for (int run = 0; run < 3; ++run) {
    gpu::launch(add_up_shown, {.grid = {3}, .block = 64, .cooperative = true}, "fault", word.data(),
                values.data(), out.data(), faulty);
    if (out.values() != std::vector<float>(3, 3 * 2016)) return false;
  }
  return true;
}

// Waits for a flag that nobody sets, or that is set.
__global__ void wait_for_flag(const int* flag) {
  while (gpu::load_acquire(flag) == 0) gpu::spin_pause();
}
bool wait_for_a_flag(bool faulty) {
  DeviceArray<int> flag(std::vector<int>{faulty ? 0 : 1});
  gpu::launch(wait_for_flag, {.block = 32}, "fault", flag.data());
  return true;
}

__global__ void read_peer(float* y, bool faulty) {
  MOEBENCH_SHARED(float, mine, [32]);
  mine[threadIdx.x] = static_cast<float>(blockIdx.x);
  gpu::sync_cluster();
  y[blockIdx.x * 32 + threadIdx.x] =
      gpu::cluster_pointer(mine, gpu::cluster_rank() ^ 1U)[threadIdx.x];
  if (!faulty) gpu::sync_cluster();
}
bool read_the_peer(bool faulty) {
  DeviceArray<float> y(64);
  gpu::launch(read_peer, {.grid = {2}, .block = 32, .cluster = 2}, "fault", y.data(), faulty);
  for (std::size_t t = 0; t < 64; ++t) {
    if (!(y[t] == (t < 32 ? 1 : 0))) return false;
  }
  return true;
}

// Leaves numbers in the other block's shared memory, which must have begun, and must wait for them.
__global__ void write_peer(float* y, bool waits_before, bool waits_after) {
  MOEBENCH_SHARED(float, mine, [32]);
  if (waits_before) gpu::sync_cluster();
  gpu::cluster_pointer(mine, gpu::cluster_rank() ^ 1U)[threadIdx.x] =
      static_cast<float>(blockIdx.x);
  if (waits_after) gpu::sync_cluster();
  y[blockIdx.x * 32 + threadIdx.x] = mine[threadIdx.x];
}
bool write_to_peer(bool waits_before, bool waits_after) {
  DeviceArray<float> y(64);
  gpu::launch(write_peer, {.grid = {2}, .block = 32, .cluster = 2}, "fault", y.data(), waits_before,
              waits_after);
  for (std::size_t t = 0; t < 64; ++t) {
    if (!(y[t] == (t < 32 ? 1 : 0))) return false;
  }
  return true;
}
bool write_before_it_begins(bool faulty) { return write_to_peer(!faulty, true); }
bool read_before_it_is_written(bool faulty) { return write_to_peer(true, !faulty); }

// ---- Fragments ----------------------------------------------------------------------------------

// [16, 16] [16, 8] of bf16 in shared memory; the lane that names a row is the fault.
__global__ void multiply_matrices(const std::uint16_t* a, const std::uint16_t* b, float* c,
                                  bool faulty) {
  MOEBENCH_SHARED(std::uint16_t, a_rows, [16 * 16]);
  MOEBENCH_SHARED(std::uint16_t, b_rows, [16 * 16]);  // 8 rows; 8 more that are not used
  const int lane = gpu::lane_id();
  for (int i = lane; i < 256; i += 32) {
    a_rows[i] = a[i];
    b_rows[i] = i < 128 ? b[i] : std::uint16_t{0};
  }
  gpu::sync_warp();
  std::uint32_t fragment[4], both[4];
  const int row = faulty ? lane / 2 : lane % 16;
  gpu::load_matrices(fragment, &a_rows[row * 16 + lane / 16 * 8]);
  gpu::load_matrices(both, &b_rows[(lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8]);
  const std::uint32_t columns[2] = {both[0], both[1]};
  float sums[4] = {};
  gpu::multiply_bf16(sums, fragment, columns);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
bool multiply_two_matrices(bool faulty) {
  SmallNumbers random;
  std::vector<int> a(16 * 16), b(8 * 16);
  for (int& value : a) value = random.next();
  for (int& value : b) value = random.next();
  const auto encoded = [](const std::vector<int>& values) {
    std::vector<std::uint16_t> bits;
    for (const int value : values) bits.push_back(to_bf16(static_cast<float>(value)).bits);
    return bits;
  };
  DeviceArray<std::uint16_t> a_bits(encoded(a)), b_bits(encoded(b));
  DeviceArray<float> c(16 * 8);
  gpu::launch(multiply_matrices, {.block = 32}, "fault", a_bits.data(), b_bits.data(), c.data(),
              faulty);
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      int want = 0;
      for (std::size_t k = 0; k < 16; ++k) want += a[row * 16 + k] * b[column * 16 + k];
      if (!(c[row * 8 + column] == static_cast<float>(want))) return false;
    }
  }
  return true;
}

// A load that is made for the device's memory alone: on a GPU this ends the program.
__global__ void load_own_variable(const float* x, float* y, bool faulty) {
  const float mine = x[threadIdx.x];
  const float* from = faulty ? &mine : x + threadIdx.x;
  y[threadIdx.x] = gpu::load_constant(from);
}
__global__ void load_shared_variable(const float* x, float* y, bool faulty) {
  MOEBENCH_SHARED(float, staged, [32]);
  staged[threadIdx.x] = x[threadIdx.x];
  gpu::sync_warp();
  y[threadIdx.x] = gpu::load_constant((faulty ? staged : x) + threadIdx.x);
}
float same(const std::vector<float>& x, std::size_t i) { return x[i]; }

}  // namespace

std::vector<Fault> synchronous_faults() {
  constexpr bool kYes = true;
  constexpr bool kNo = false;
  // Found by: the machine, ThreadSanitizer.
  return {
      {"missing barrier", kYes, kYes, "", one_block(reverse, 64, reversed)},
      {"barrier in divergent code", kYes, kNo, "divergent barrier",
       one_block(reverse_divergent, 64, reversed)},
      {"barrier that half a warp does not reach", kYes, kNo, "deadlock: 48 threads wait",
       one_block(reverse_partial, 64, reversed)},
      {"named barrier for too many threads", kYes, kNo, "deadlock: 64 threads wait",
       one_block(reverse_named, 128, reversed, 64)},
      {"half a warp in each of two barriers", kYes, kNo, "did not come with its warp",
       one_block(reverse_split, 64, reversed)},
      {"reduction buffer written again without barrier", kYes, kYes, "",
       one_block(two_sums, 128, three_sums)},
      {"write after read ordered by a shuffle alone", kNo, kYes, "",
       one_block(exchange_after_shuffle, 32, neighbour_lane)},
      {"missing sync_warp", kYes, kYes, "", one_block(exchange, 32, reversed)},
      {"shuffle from a lane outside the mask", kYes, kNo, "which is not in mask 0000ffff",
       one_block(shuffle_outside, 32, reversed_halves)},
      {"shuffle that some lanes of the mask do not reach", kYes, kNo,
       "20 threads wait for the rest of their warp", one_block(shuffle_without_some, 32, reversed)},
      {"shuffle by lanes outside the mask", kYes, kNo, "is not in its own mask",
       one_block(shuffle_without_self, 32, reversed)},
      {"shuffle at two places", kYes, kNo, "meet at different collectives",
       one_block(shuffle_at_two_places, 32, reversed)},
      {"row tail not masked", kYes, kNo, "allocated", double_fifty_rows},
      {"K tail not masked", kYes, kNo, "", sum_two_rows},
      {"static shared memory out of bounds", kYes, kNo,
       "undefined: ", one_block(shift_static, 32, reversed)},
      {"dynamic shared memory out of bounds", kYes, kNo, "shared memory outside its arrays",
       shift_in_dynamic},
      {"misaligned 16-byte load", kYes, kNo, "16-byte load: misaligned", load_eight(load_sixteen)},
      {"misaligned 16-byte load through a pointer", kYes, kNo,
       "undefined: ", load_eight(load_sixteen_plainly)},
      {"load_constant of a thread's own variable", kYes, kNo, "not the device's",
       one_block(load_own_variable, 32, same)},
      {"load_constant of shared memory", kYes, kNo, "not the device's",
       one_block(load_shared_variable, 32, same)},
      {"more than 48 KB of static shared memory", kYes, kNo, "bytes in static arrays",
       one_block(much_static_memory, 32, one)},
      {"too much static and dynamic shared memory", kYes, kNo, "dynamic ones, of 232448",
       much_static_and_dynamic},
      {"race between blocks", kNo, kYes, "", add_up_blocks},
      {"flag without release", kNo, kYes, "", hand_over_a_value},
      {"read of what another block shows before it is there", kYes, kNo, "",
       add_up_what_blocks_show},
      {"wait for a flag that nobody sets", kYes, kNo, "livelock", wait_for_a_flag},
      {"read of a block's shared memory after its end", kYes, kNo, "", read_the_peer},
      {"write to the memory of a block that has not begun", kYes, kNo, "", write_before_it_begins},
      {"read of what another block writes, without a barrier", kYes, kYes, "",
       read_before_it_is_written},
      {"wrong fragment lane", kYes, kNo, "", multiply_two_matrices},
  };
}

std::vector<Fault> all_faults() {
  std::vector<Fault> all = synchronous_faults();
  for (auto more : {asynchronous_faults, launch_faults}) {
    for (Fault& fault : more()) all.push_back(std::move(fault));
  }
  return all;
}

}  // namespace moebench::test
