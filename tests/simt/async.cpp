// cp.async, barriers that count bytes, and bulk copies.
#include "tests/simt/async.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/simt/accesses.h"
#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

constexpr std::size_t kCopyBytes = 16;  // of cp.async

bool aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

void land(const Copy& copy) {
  note_write(copy.to, kCopyBytes);
  const Unseen unseen;
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, kCopyBytes);
  } else {
    std::memcpy(copy.to, copy.from, kCopyBytes);
  }
}

}  // namespace

void copy_async(void* to, const void* from, bool valid, Where at) {
  if (!aligned(to, kCopyBytes) || (valid && !aligned(from, kCopyBytes))) {
    fail("copy_async at %s: an address is not a multiple of 16", place(at).c_str());
  }
  check_shared(to, kCopyBytes, "copy_async");
  if (valid) note_read(from, kCopyBytes);
  const Copy copy{to, valid ? from : nullptr};
  if (!Scheduler::running().late()) {
    land(copy);
    return;
  }
  note_write(to, kCopyBytes);
  poison(to, kCopyBytes);
  const Unseen unseen;
  Scheduler::fiber().copies.copies.push_back(copy);
}

void commit_copies() {
  const Unseen unseen;
  PendingCopies& pending = Scheduler::fiber().copies;
  pending.group_ends.push_back(pending.copies.size());
}

void wait_copies(int left) {
  PendingCopies& pending = Scheduler::fiber().copies;
  const std::size_t groups = pending.group_ends.size();
  if (groups <= static_cast<std::size_t>(left)) return;
  const std::size_t done = groups - static_cast<std::size_t>(left);
  const std::size_t end = pending.group_ends[done - 1];
  for (std::size_t i = 0; i < end; ++i) land(pending.copies[i]);
  const Unseen unseen;
  pending.copies.erase(pending.copies.begin(),
                       pending.copies.begin() + static_cast<std::ptrdiff_t>(end));
  pending.group_ends.erase(pending.group_ends.begin(),
                           pending.group_ends.begin() + static_cast<std::ptrdiff_t>(done));
  for (std::size_t& group_end : pending.group_ends) group_end -= end;
}

void check_nothing_in_flight(Fiber& fiber) {
  if (!fiber.copies.copies.empty()) {
    fail("a thread ends while its cp.async copies are in flight: wait_copies is missing");
  }
  const int thread = thread_of(fiber);
  const Warpgroup& warpgroup = fiber.block->warpgroups[thread / kWarpgroup];
  const Warpgroup::Progress& progress = warpgroup.threads[thread % kWarpgroup];
  if (warpgroup.used && progress.waited < progress.issued) {
    fail(
        "a thread ends while its wgmma products are in flight: wgmma_commit and wgmma_wait are "
        "missing");
  }
}

// ---- mbarrier -----------------------------------------------------------------------------------

namespace {

// What its 8 bytes hold; on the device that is nobody's business.
struct MbarrierState {
  std::uint16_t expected, pending;  // arrivals
  std::int32_t bytes_and_phase;     // bytes that are expected, less those that landed; one bit

  std::int32_t bytes() const { return bytes_and_phase >> 1; }
  unsigned phase() const { return static_cast<unsigned>(bytes_and_phase) & 1U; }
  void add_bytes(std::int32_t bytes) { bytes_and_phase += 2 * bytes; }
};
static_assert(sizeof(MbarrierState) == sizeof(std::uint64_t));
constexpr int kMaxArrivals = 0xfffe;  // 0xffff is poison
constexpr int kMaxBytes = (1 << 20) - 1;

MbarrierState load(const std::uint64_t* barrier) {
  check_shared(barrier, sizeof *barrier, "mbarrier");
  if (!aligned(barrier, sizeof *barrier)) fail("mbarrier: the address is not a multiple of 8");
  const auto state = std::bit_cast<MbarrierState>(*barrier);
  if (state.expected > kMaxArrivals) fail("mbarrier: used before mbarrier_init");
  return state;
}

// Ends the phase if nothing is missing.
void store(std::uint64_t* barrier, MbarrierState state) {
  const bool ends = state.pending == 0 && state.bytes() == 0;
  if (ends) {
    state.bytes_and_phase ^= 1;
    state.pending = state.expected;
  }
  *barrier = std::bit_cast<std::uint64_t>(state);
  if (ends) Scheduler::running().wake(Scheduler::running().waiting_at(barrier));
}

}  // namespace

void mbarrier_init(std::uint64_t* barrier, int arrivals) {
  check_shared(barrier, sizeof *barrier, "mbarrier_init");
  if (arrivals < 1 || arrivals > kMaxArrivals) fail("mbarrier_init: %d arrivals", arrivals);
  const auto count = static_cast<std::uint16_t>(arrivals);
  *barrier = std::bit_cast<std::uint64_t>(MbarrierState{count, count, 0});
  const Unseen unseen;
  const Fiber& self = Scheduler::fiber();
  self.block->unfenced_mbarriers.emplace_back(barrier, &self);
}

void fence_mbarrier_init() {
  const Unseen unseen;
  const Fiber& self = Scheduler::fiber();
  std::erase_if(self.block->unfenced_mbarriers,
                [&](const auto& entry) { return entry.second == &self; });
}

void mbarrier_arrive(std::uint64_t* barrier, int expected_bytes) {
  MbarrierState state = load(barrier);
  release(barrier);
  if (state.pending == 0) fail("mbarrier: more arrivals than the phase waits for");
  if (expected_bytes < 0 || expected_bytes > kMaxBytes || state.bytes() > kMaxBytes) {
    fail("mbarrier: a phase of %d more bytes", expected_bytes);
  }
  state.pending = static_cast<std::uint16_t>(state.pending - 1);
  state.add_bytes(expected_bytes);
  store(barrier, state);
}

void mbarrier_wait(std::uint64_t* barrier, unsigned parity, Where at) {
  if (parity > 1) fail("mbarrier_wait at %s: parity %u", place(at).c_str(), parity);
  Fiber& self = Scheduler::fiber();
  Scheduler& scheduler = Scheduler::running();
  self.waits_on = barrier;
  while (load(barrier).phase() == parity) {
    scheduler.wait(scheduler.waiting_at(barrier), "an mbarrier", at);
  }
  self.waits_on = nullptr;
  acquire(barrier);
}

std::string missing_at(const std::uint64_t& mbarrier) {
  const auto state = std::bit_cast<MbarrierState>(mbarrier);
  return std::to_string(state.pending) + " arrivals and " + std::to_string(state.bytes()) +
         " bytes are missing";
}

WaitList& Scheduler::waiting_at(std::uint64_t* mbarrier) {
  for (MbarrierWait& wait : mbarrier_waits_) {
    if (wait.barrier == mbarrier) return wait.waiting;
  }
  const Unseen unseen;
  return mbarrier_waits_.emplace_back(MbarrierWait{mbarrier, {}}).waiting;
}

// ---- Bulk copies --------------------------------------------------------------------------------

namespace {

// One that is under way.
struct Transfer {
  Block* block;
  void* to;
  const void* from;  // null: a tile
  std::size_t bytes;
  gpu::TiledMatrix matrix;
  int column, row;
  std::uint64_t* barrier;
};

constexpr std::size_t kChunk = 16;

std::size_t tile_row_bytes(const gpu::TiledMatrix& matrix) {
  return static_cast<std::size_t>(matrix.tile_columns) *
         static_cast<std::size_t>(matrix.element_bytes);
}

// The part of a tile's row that lies in the matrix: [first, last) of its bytes, from `from`.
struct RowPart {
  const std::byte* from = nullptr;
  std::size_t first = 0, last = 0;
};
RowPart part_in_matrix(const gpu::TiledMatrix& matrix, std::int64_t row, std::int64_t column) {
  if (row < 0 || row >= matrix.rows) return {};
  const std::int64_t begin = std::max<std::int64_t>(column, 0);
  const std::int64_t end = std::min<std::int64_t>(column + matrix.tile_columns, matrix.columns);
  if (begin >= end) return {};
  const std::int64_t bytes = matrix.element_bytes;
  return {static_cast<const std::byte*>(matrix.data) + row * matrix.row_bytes + begin * bytes,
          static_cast<std::size_t>((begin - column) * bytes),
          static_cast<std::size_t>((end - column) * bytes)};
}

void land_tile(const Transfer& transfer) {
  const gpu::TiledMatrix& matrix = transfer.matrix;
  const std::size_t row_bytes = tile_row_bytes(matrix);
  for (int r = 0; r < matrix.tile_rows; ++r) {
    std::byte bytes[512] = {};
    const RowPart part = part_in_matrix(matrix, std::int64_t{transfer.row} + r, transfer.column);
    if (part.from != nullptr) std::memcpy(bytes + part.first, part.from, part.last - part.first);
    std::byte* row = static_cast<std::byte*>(transfer.to) + static_cast<std::size_t>(r) * row_bytes;
    for (std::size_t c = 0; c * kChunk < row_bytes; ++c) {
      const int turn = matrix.swizzle == 128 ? r % 8 : matrix.swizzle == 64 ? r / 2 % 4 : 0;
      const std::size_t to = c ^ static_cast<std::size_t>(turn);
      std::memcpy(row + to * kChunk, bytes + c * kChunk, kChunk);
    }
  }
}

void land(const Transfer& transfer) {
  const Unseen unseen;
  if (transfer.from != nullptr) {
    std::memcpy(transfer.to, transfer.from, transfer.bytes);
  } else {
    land_tile(transfer);
  }
  auto state = std::bit_cast<MbarrierState>(*transfer.barrier);
  state.add_bytes(-static_cast<std::int32_t>(transfer.bytes));
  store(transfer.barrier, state);
}

void start(const Transfer& transfer) {
  load(transfer.barrier);  // fails if it is not ready
  Block& block = *transfer.block;
  for (const auto& [barrier, thread] : block.unfenced_mbarriers) {
    if (barrier == transfer.barrier) {
      fail(
          "a bulk copy counts at an mbarrier that thread %d has not fenced: fence_mbarrier_init is "
          "missing",
          thread_of(*thread));
    }
  }
  const int writer = unfenced_writer(block, shared_address(transfer.to), transfer.bytes);
  if (writer >= 0) {
    fail("a bulk copy goes where thread %d wrote without fence_async_proxy", writer);
  }
  if constexpr (kUnderTsan) note_write(transfer.to, transfer.bytes);
  release(transfer.barrier);
  if (!Scheduler::running().late()) {
    land(transfer);
    return;
  }
  poison(transfer.to, transfer.bytes);
  Scheduler::running().add_pending(block, [transfer] { land(transfer); });
}

}  // namespace

void copy_bulk_async(void* to, const void* from, int bytes, std::uint64_t* barrier, Where at) {
  if (bytes <= 0 || bytes % 16 != 0 || !aligned(to, 16) || !aligned(from, 16)) {
    fail("copy_bulk_async at %s: size and addresses must be multiples of 16", place(at).c_str());
  }
  const auto count = static_cast<std::size_t>(bytes);
  check_shared(to, count, "copy_bulk_async");
  note_read(from, count);
  check_not_written(from, count, "copy_bulk_async");
  start({&Scheduler::block(), to, from, count, {}, 0, 0, barrier});
}

void load_tile_async(void* to, const gpu::TiledMatrix& matrix, int column, int row,
                     std::uint64_t* barrier, Where at) {
  const std::size_t row_bytes = tile_row_bytes(matrix);
  const std::size_t bytes = row_bytes * static_cast<std::size_t>(matrix.tile_rows);
  // Eight rows' patterns, so that a row's place in the tile tells its place in the pattern.
  const int aligned_to = matrix.swizzle == 0 ? 128 : 8 * matrix.swizzle;
  if (shared_address(to) % static_cast<std::uint32_t>(aligned_to) != 0) {
    fail("load_tile_async at %s: the tile's address is not a multiple of %d", place(at).c_str(),
         aligned_to);
  }
  check_shared(to, bytes, "load_tile_async");
  for (int r = 0; r < matrix.tile_rows; ++r) {
    const RowPart part = part_in_matrix(matrix, std::int64_t{row} + r, column);
    if (part.from == nullptr) continue;
    note_read(part.from, part.last - part.first);
    check_not_written(part.from, part.last - part.first, "load_tile_async");
  }
  start({&Scheduler::block(), to, nullptr, bytes, matrix, column, row, barrier});
}

}  // namespace moebench::simt
