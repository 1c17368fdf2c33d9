// Faults between kernels that may overlap, and between threads and the units that copy and
// multiply.
#include "tests/simt/faults.h"
#include "tests/simt/support.h"
#include "tests/simt/words.h"

namespace moebench::test {
namespace {

// ---- Programmatic dependent launch --------------------------------------------------------------

constexpr std::size_t kCount = 64;

// y = x + 1. The next kernel may start before this one waits, if it may at all.
__global__ void add_one(const int* x, int* y, bool waits_late, bool never_waits) {
  const unsigned i = blockIdx.x * 32 + threadIdx.x;
  gpu::let_next_kernel_start();
  if (!waits_late && !never_waits) gpu::wait_for_previous_kernel();
  const int value = x[i] + 1;
  if (waits_late) gpu::wait_for_previous_kernel();
  y[i] = value;
}
// y = x + 1 by two warps, of which the second waits behind a barrier. Faulty: it does not.
__global__ void add_one_by_two(const int* x, int* y, bool faulty) {
  const unsigned i = threadIdx.x;
  if (i < 32) gpu::wait_for_previous_kernel();
  if (!faulty) gpu::sync_threads();
  y[i] = x[i] + 1;
}
// y = 0. Faulty: before it waits.
__global__ void clear(int* y, bool faulty) {
  const unsigned i = blockIdx.x * 32 + threadIdx.x;
  if (!faulty) gpu::wait_for_previous_kernel();
  y[i] = 0;
  gpu::wait_for_previous_kernel();
}

gpu::LaunchConfig config(bool overlaps) {
  return {.grid = {2}, .block = 32, .overlap_previous = overlaps};
}
struct ThreeArrays {
  DeviceArray<int> a{std::vector<int>(kCount, 5)}, b{kCount}, c{kCount};
};
bool all_are(const DeviceArray<int>& array, int value) {
  return array.values() == std::vector<int>(kCount, value);
}

// b = a + 1; c = b + 1.
bool read_what_the_previous_writes(bool faulty) {
  ThreeArrays arrays;
  gpu::launch(add_one, config(false), "the first", arrays.a.data(), arrays.b.data(), false, false);
  gpu::launch(add_one, config(true), "the second", arrays.b.data(), arrays.c.data(), faulty, false);
  return all_are(arrays.c, 7);
}
// b = a + 1; a = 0.
bool write_what_the_previous_reads(bool faulty) {
  ThreeArrays arrays;
  gpu::launch(add_one, config(false), "the first", arrays.a.data(), arrays.b.data(), false, false);
  gpu::launch(clear, config(true), "the second", arrays.a.data(), faulty);
  return all_are(arrays.a, 0) && all_are(arrays.b, 6);
}
// b = a + 1; d = a + 1, after letting the third start; c = b + 1.
bool read_what_the_one_before_writes(bool faulty) {
  ThreeArrays arrays;
  DeviceArray<int> d(kCount);
  gpu::launch(add_one, config(false), "the first", arrays.a.data(), arrays.b.data(), false, false);
  gpu::launch(add_one, config(true), "the second", arrays.a.data(), d.data(), false, false);
  gpu::launch(add_one, config(true), "the third", arrays.b.data(), arrays.c.data(), faulty, false);
  return all_are(arrays.c, 7);
}
bool read_where_another_warp_waits(bool faulty) {
  ThreeArrays arrays;
  gpu::launch(add_one, config(false), "the first", arrays.a.data(), arrays.b.data(), false, false);
  gpu::launch(add_one_by_two, {.block = 64, .overlap_previous = true}, "the second",
              arrays.b.data(), arrays.c.data(), faulty);
  return all_are(arrays.c, 7);
}
bool never_wait(bool faulty) {
  ThreeArrays arrays;
  DeviceArray<int> d(kCount);
  gpu::launch(add_one, config(false), "the first", arrays.a.data(), arrays.b.data(), false, false);
  gpu::launch(add_one, config(true), "the second", arrays.a.data(), d.data(), false, faulty);
  return all_are(d, 6);
}

// ---- What threads and asynchronous units show each other ----------------------------------------

// y = x + 1 in two steps. Faulty: the second reads the first's by the path that is not coherent.
__global__ void add_one_in_two_steps(const float* x, float* y, bool faulty) {
  const unsigned t = threadIdx.x;
  y[t] = x[t];
  gpu::sync_threads();
  y[t ^ 1U] = (faulty ? gpu::load_constant(y + (t ^ 1U)) : y[t ^ 1U]) + 1;
}
bool read_by_the_constant_path(bool faulty) {
  DeviceArray<float> x(std::vector<float>(64, 2)), y(64);
  gpu::launch(add_one_in_two_steps, {.block = 64}, "fault", x.data(), y.data(), faulty);
  return y.values() == std::vector<float>(64, 3);
}

enum class ViewFault { kNone, kNoMbarrierFence, kNoFence, kOtherThreadsFence, kWritesSource };

// y = x by way of shared memory that two threads have cleared.
__global__ void copy_over_zeros(float* x, float* y, ViewFault fault) {
  MOEBENCH_SHARED(float, values, [8]);
  MOEBENCH_SHARED(gpu::Mbarrier, arrived);
  const int t = static_cast<int>(threadIdx.x);
  if (t < 2) {
    for (int i = 0; i < 4; ++i) values[4 * t + i] = 0;
  }
  if (fault != ViewFault::kNoFence && !(fault == ViewFault::kOtherThreadsFence && t > 0)) {
    gpu::fence_async_proxy();
  }
  if (fault == ViewFault::kWritesSource && t < 8) x[t] = static_cast<float>(t + 1);
  gpu::sync_threads();
  if (t == 0) {
    gpu::mbarrier_init(&arrived, 1);
    if (fault != ViewFault::kNoMbarrierFence) gpu::fence_mbarrier_init();
    gpu::mbarrier_arrive_expect_bytes(&arrived, 32);
    gpu::copy_bulk_async(values, x, 32, &arrived);
  }
  gpu::sync_threads();
  gpu::mbarrier_wait(&arrived, 0);
  if (t < 8) y[t] = values[t];
}
std::function<bool(bool)> copy_with(ViewFault fault) {
  return [=](bool faulty) {
    const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
    DeviceArray<float> x(values), y(8);
    gpu::launch(copy_over_zeros, {.block = 32}, "fault", x.data(), y.data(),
                faulty ? fault : ViewFault::kNone);
    return y.values() == values;
  };
}

}  // namespace

std::vector<Fault> launch_faults() {
  constexpr bool kYes = true;
  constexpr bool kNo = false;
  // Found by: the machine, ThreadSanitizer.
  return {
      {"read of what the previous kernel writes, before waiting", kYes, kNo,
       "reads before wait_for_previous_kernel what the first writes",
       read_what_the_previous_writes},
      {"write to what the previous kernel reads, before waiting", kYes, kNo,
       "writes before wait_for_previous_kernel what the first reads",
       write_what_the_previous_reads},
      {"read of what a kernel writes that the previous one has not waited for", kYes, kNo,
       "reads before wait_for_previous_kernel what the first writes",
       read_what_the_one_before_writes},
      {"read of what the previous kernel writes, where only another warp waits", kYes, kNo,
       "reads before wait_for_previous_kernel what the first writes",
       read_where_another_warp_waits},
      {"a kernel that may overlap and never waits", kYes, kNo, "never waits", never_wait},
      {"bulk copy that counts at an mbarrier without fence", kYes, kNo,
       "fence_mbarrier_init is missing", copy_with(ViewFault::kNoMbarrierFence)},
      {"bulk copy over what threads wrote", kYes, kNo, "thread 0 wrote without fence_async_proxy",
       copy_with(ViewFault::kNoFence)},
      {"bulk copy over what threads wrote, fenced by one of them", kYes, kNo,
       "thread 1 wrote without fence_async_proxy", copy_with(ViewFault::kOtherThreadsFence)},
      {"bulk copy of what threads of the same launch wrote", kYes, kNo,
       "reads what threads of this launch wrote", copy_with(ViewFault::kWritesSource)},
      {"load_constant of what threads of the same launch wrote", kYes, kNo,
       "load_constant reads what threads of this launch wrote", read_by_the_constant_path},
  };
}

}  // namespace moebench::test
