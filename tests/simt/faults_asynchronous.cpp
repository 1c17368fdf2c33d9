// Faults in copies, mbarriers and wgmma.
#include "tests/simt/faults.h"
#include "tests/simt/support.h"
#include "tests/simt/words.h"

namespace moebench::test {
namespace {

// ---- cp.async -----------------------------------------------------------------------------------

enum class CopyFault { kNone, kNoWait, kOneGroupTooFew, kNoBarrier, kNotAtEnd };

// y[t] = the sum over four stages of x[stage][(t + 1) % 64], two stages in flight.
__global__ void sum_stages(const float* x, float* y, CopyFault fault) {
  MOEBENCH_SHARED(float, stages, [3 * 64 * 4]);
  const int t = static_cast<int>(threadIdx.x);
  const auto load = [&](int stage) {
    gpu::copy_async(&stages[(stage % 3 * 64 + t) * 4], x + (stage * 64 + t) * 4, stage < 4);
    gpu::commit_copies();
  };
  load(0);
  load(1);
  float sum = 0;
  for (int stage = 0; stage < 4; ++stage) {
    load(stage + 2);
    if (fault == CopyFault::kOneGroupTooFew) {
      gpu::wait_copies<3>();
    } else if (fault != CopyFault::kNoWait) {
      gpu::wait_copies<2>();
    }
    if (fault != CopyFault::kNoBarrier) gpu::sync_threads();
    sum += stages[(stage % 3 * 64 + (t + 1) % 64) * 4];
    gpu::sync_threads();
  }
  if (fault != CopyFault::kNotAtEnd) gpu::wait_copies<0>();
  y[t] = sum;
}

std::function<bool(bool)> sum_stages_with(CopyFault fault) {
  return [=](bool faulty) {
    SmallNumbers random;
    std::vector<float> values(6 * 64 * 4);
    for (float& value : values) value = static_cast<float>(random.next());
    DeviceArray<float> x(values), y(64);
    gpu::launch(sum_stages, {.block = 64}, "fault", x.data(), y.data(),
                faulty ? fault : CopyFault::kNone);
    for (std::size_t t = 0; t < 64; ++t) {
      float want = 0;
      for (std::size_t stage = 0; stage < 4; ++stage)
        want += values[(stage * 64 + (t + 1) % 64) * 4];
      if (!(y[t] == want)) return false;
    }
    return true;
  };
}

// ---- TMA, mbarriers, wgmma ----------------------------------------------------------------------

enum class RingFault {
  kNone,
  kReusesSlot,      // loads into a slot before it is empty
  kSkipsFull,       // reads a slot before it is full
  kTooFewBytes,     // expects one tile of two
  kTooManyBytes,    // expects a tile more
  kArrivesTwice,    // one more arrival than the barrier counts
  kNotInitialised,  // no barrier of the block after mbarrier_init
  kNoWait,          // uses accumulators in flight
  kNoCommit,        // waits for products that are in no group
  kNoFence,         // uses accumulators as wgmma's without wgmma_fence
  kTouches,         // writes to accumulators in flight
  kFreesEarly,      // says a slot is empty before its products are done
  kWrongRow,        // stores by a fragment row that is one too far
  kStaysInFlight,   // ends while a tile is under way
  kMisaligned,      // a tile that does not start at a multiple of 1024
};
constexpr int kSlots = 2;
constexpr int kATile = 64 * 128;
constexpr int kBTile = 32 * 128;
constexpr int kSlot = kATile + kBTile;

// c [64, 32] = a [64, K] b [32, K]^T of bf16: a producer warp, and four that multiply.
__global__ void MOEBENCH_BOUNDS(160)
    ring(MOEBENCH_GRID_CONSTANT gpu::TensorMap a, MOEBENCH_GRID_CONSTANT gpu::TensorMap b, float* c,
         int steps, RingFault fault) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kSlots]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kSlots]);
  unsigned char* slots = gpu::dynamic_shared();
  if (fault == RingFault::kMisaligned) slots += 512;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    for (int i = 0; i < kSlots; ++i) {
      gpu::mbarrier_init(&full[i], 1);
      gpu::mbarrier_init(&empty[i], 128);
    }
    gpu::fence_mbarrier_init();
  }
  if (fault != RingFault::kNotInitialised) gpu::sync_threads();
  if (t >= 128) {
    if (t > 128) return;
    for (int step = 0; step < steps; ++step) {
      const int i = step % kSlots;
      if (step >= kSlots && fault != RingFault::kReusesSlot) {
        gpu::mbarrier_wait(&empty[i], static_cast<unsigned>(step / kSlots - 1) & 1U);
      }
      int bytes = kSlot;
      if (fault == RingFault::kTooFewBytes) bytes = kATile;
      if (fault == RingFault::kTooManyBytes) bytes = kSlot + kBTile;
      gpu::mbarrier_arrive_expect_bytes(&full[i], bytes);
      if (fault == RingFault::kArrivesTwice) gpu::mbarrier_arrive(&full[i]);
      gpu::load_tile_async(slots + i * kSlot, a, step * 64, 0, &full[i]);
      gpu::load_tile_async(slots + i * kSlot + kATile, b, step * 64, 0, &full[i]);
    }
    if (fault == RingFault::kStaysInFlight) {
      gpu::mbarrier_wait(&empty[0], static_cast<unsigned>((steps + 1) / kSlots - 1) & 1U);
      gpu::mbarrier_arrive_expect_bytes(&full[0], kATile);
      gpu::load_tile_async(slots, a, 0, 0, &full[0]);
    }
    return;
  }
  float d[16] = {};
  for (int step = 0; step < steps; ++step) {
    const int i = step % kSlots;
    if (fault != RingFault::kSkipsFull) {
      gpu::mbarrier_wait(&full[i], static_cast<unsigned>(step / kSlots) & 1U);
    }
    if (fault != RingFault::kNoFence) gpu::wgmma_fence(d);
    for (int k = 0; k < 4; ++k) {
      gpu::wgmma_bf16(d, gpu::wgmma_descriptor(slots + i * kSlot + k * 32),
                      gpu::wgmma_descriptor(slots + i * kSlot + kATile + k * 32));
    }
    if (fault == RingFault::kTouches) d[3] += 1;
    if (fault != RingFault::kNoCommit) gpu::wgmma_commit();
    if (fault == RingFault::kFreesEarly) gpu::mbarrier_arrive(&empty[i]);
    if (fault != RingFault::kNoWait) gpu::wgmma_wait<0>(d);
    if (fault != RingFault::kFreesEarly) gpu::mbarrier_arrive(&empty[i]);
  }
  for (int e = 0; e < 16; ++e) {
    int row = t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8;
    if (fault == RingFault::kWrongRow) row ^= 1;
    c[row * 32 + e / 4 * 8 + t % 4 * 2 + e % 2] = d[e];
  }
  if (fault == RingFault::kNoWait) gpu::wgmma_wait<0>(d);
}

std::function<bool(bool)> ring_with(RingFault fault) {
  return [=](bool faulty) {
    constexpr std::size_t kSteps = 5;
    constexpr std::size_t kDepth = kSteps * 64;
    SmallNumbers random;
    std::vector<int> a(64 * kDepth), b(32 * kDepth);
    for (int& value : a) value = random.next();
    for (int& value : b) value = random.next();
    const auto encoded = [](const std::vector<int>& values) {
      std::vector<std::uint16_t> bits;
      for (const int value : values) bits.push_back(to_bf16(static_cast<float>(value)).bits);
      return bits;
    };
    DeviceArray<std::uint16_t> a_bits(encoded(a)), b_bits(encoded(b));
    DeviceArray<float> c(64 * 32);
    const auto map = [&](const DeviceArray<std::uint16_t>& bits, int rows) {
      return gpu::device().make_tensor_map({.data = bits.data(),
                                            .rows = rows,
                                            .columns = kDepth,
                                            .row_bytes = kDepth * 2,
                                            .tile_rows = rows,
                                            .tile_columns = 64});
    };
    gpu::launch(ring, {.block = 160, .shared_bytes = kSlots * kSlot + 1024}, "fault",
                map(a_bits, 64), map(b_bits, 32), c.data(), static_cast<int>(kSteps),
                faulty ? fault : RingFault::kNone);
    for (std::size_t row = 0; row < 64; ++row) {
      for (std::size_t column = 0; column < 32; ++column) {
        int want = 0;
        for (std::size_t k = 0; k < kDepth; ++k)
          want += a[row * kDepth + k] * b[column * kDepth + k];
        if (!(c[row * 32 + column] == static_cast<float>(want))) return false;
      }
    }
    return true;
  };
}

// d = a a^T with a written to shared memory by the threads.
__global__ void multiply_written(const std::uint16_t* a, float* c, bool faulty) {
  unsigned char* tile = gpu::dynamic_shared();
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < 64 * 16; i += 128) {
    *reinterpret_cast<std::uint16_t*>(tile + gpu::swizzle_128(i / 16 * 128 + i % 16 * 2)) = a[i];
  }
  if (!faulty) gpu::fence_async_proxy();
  gpu::sync_threads();
  float d[4];
  gpu::wgmma_fence(d);
  gpu::wgmma_bf16(d, gpu::wgmma_descriptor(tile), gpu::wgmma_descriptor(tile), false);
  gpu::wgmma_commit();
  gpu::wgmma_wait<0>(d);
  for (int e = 0; e < 4; ++e) {
    c[(t / 32 * 16 + t % 32 / 4 + e / 2 * 8) * 8 + t % 4 * 2 + e % 2] = d[e];
  }
}
bool multiply_what_threads_wrote(bool faulty) {
  SmallNumbers random;
  std::vector<int> a(64 * 16);
  std::vector<std::uint16_t> bits;
  for (int& value : a) {
    value = random.next();
    bits.push_back(to_bf16(static_cast<float>(value)).bits);
  }
  DeviceArray<std::uint16_t> a_bits(bits);
  DeviceArray<float> c(64 * 8);
  gpu::launch(multiply_written, {.block = 128, .shared_bytes = 64 * 128}, "fault", a_bits.data(),
              c.data(), faulty);
  for (std::size_t row = 0; row < 64; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      int want = 0;
      for (std::size_t k = 0; k < 16; ++k) want += a[row * 16 + k] * a[column * 16 + k];
      if (!(c[row * 8 + column] == static_cast<float>(want))) return false;
    }
  }
  return true;
}

// Two groups of four warps take registers that the third gives back: not more than there are.
__global__ void share_registers(int* out, bool faulty) {
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    gpu::lower_max_registers<40>();
  } else if (faulty) {
    gpu::raise_max_registers<240>();
  } else {
    gpu::raise_max_registers<232>();
  }
  out[threadIdx.x] = group;
}
bool registers_are_shared(bool faulty) {
  DeviceArray<int> out(384);
  gpu::launch(share_registers, {.block = 384}, "fault", out.data(), faulty);
  return out[0] == 0 && out[383] == 2;
}

}  // namespace

std::vector<Fault> asynchronous_faults() {
  constexpr bool kYes = true;
  constexpr bool kNo = false;
  // Found by: the machine, ThreadSanitizer.
  return {
      {"missing wait_copies", kYes, kNo, "", sum_stages_with(CopyFault::kNoWait)},
      {"wait_copies for one group too few", kYes, kNo, "",
       sum_stages_with(CopyFault::kOneGroupTooFew)},
      {"wait_copies without barrier", kYes, kYes, "", sum_stages_with(CopyFault::kNoBarrier)},
      {"end with copies in flight", kYes, kNo, "cp.async copies are in flight",
       sum_stages_with(CopyFault::kNotAtEnd)},
      {"tile loaded into a slot before it is empty", kYes, kYes, "",
       ring_with(RingFault::kReusesSlot)},
      {"slot read before it is full", kYes, kYes, "", ring_with(RingFault::kSkipsFull)},
      {"too few bytes expected", kYes, kNo, "", ring_with(RingFault::kTooFewBytes)},
      {"too many bytes expected", kYes, kNo, "bytes are missing",
       ring_with(RingFault::kTooManyBytes)},
      {"more arrivals than an mbarrier counts", kYes, kNo, "more arrivals",
       ring_with(RingFault::kArrivesTwice)},
      {"mbarrier used before it is initialised", kYes, kNo, "used before mbarrier_init",
       ring_with(RingFault::kNotInitialised)},
      {"missing wgmma_wait", kYes, kNo, "", ring_with(RingFault::kNoWait)},
      {"missing wgmma_commit", kYes, kNo, "wgmma products are in flight",
       ring_with(RingFault::kNoCommit)},
      {"missing wgmma_fence", kYes, kNo, "wgmma_fence is missing", ring_with(RingFault::kNoFence)},
      {"accumulators changed in flight", kYes, kNo, "changed accumulators",
       ring_with(RingFault::kTouches)},
      {"slot given back before its products are done", kYes, kYes, "",
       ring_with(RingFault::kFreesEarly)},
      {"accumulators stored to the wrong row", kYes, kNo, "", ring_with(RingFault::kWrongRow)},
      {"end with a tile in flight", kYes, kNo, "a bulk copy to its shared memory is in flight",
       ring_with(RingFault::kStaysInFlight)},
      {"misaligned tile", kYes, kNo, "is not a multiple of 1024",
       ring_with(RingFault::kMisaligned)},
      {"more registers than the block has", kYes, kNo, "want 520 registers", registers_are_shared},
      {"missing fence_async_proxy", kYes, kNo, "without fence_async_proxy",
       multiply_what_threads_wrote},
  };
}

}  // namespace moebench::test
