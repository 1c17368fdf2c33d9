// wgmma: products of four warps that run while the warps go on.
//
// Threads issue a product one by one. When all have, it runs at once, or later (Asynchrony::kLate);
// its accumulators hold NaN until each thread has waited for it.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "tests/simt/accesses.h"
#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

constexpr int kRows = 64;                  // of a
constexpr int kDepthBytes = 32;            // of a row of a and b that one product reads
constexpr int kChunks = kDepthBytes / 16;  // of such a row
constexpr int kMaxColumns = 256;
constexpr std::uint32_t kInFlight = 0x7fa0babeU;  // a NaN that arithmetic would change

Warpgroup& warpgroup_of(const Fiber& fiber) {
  const int index = thread_of(fiber) / kWarpgroup;
  if ((index + 1) * kWarpgroup > fiber.block->num_threads) {
    fail("wgmma: warp %u is not one of four", fiber.warp);
  }
  Warpgroup& group = fiber.block->warpgroups[index];
  group.used = true;
  return group;
}
int number_in_group(const Fiber& fiber) { return thread_of(fiber) % kWarpgroup; }

// ---- Matrix descriptors -------------------------------------------------------------------------

std::uint32_t field(std::uint64_t descriptor, int bit) {
  return static_cast<std::uint32_t>(descriptor >> bit & 0x3fffU) << 4;
}

// The address of 16 bytes (chunk 0 or 1 of the 32; of b transposed, 0 to 7) of a row.
std::uint32_t chunk_address(std::uint64_t descriptor, int row, int chunk) {
  const auto r = static_cast<std::uint32_t>(row);
  const auto c = static_cast<std::uint32_t>(chunk);
  const std::uint32_t groups = r / 8 * field(descriptor, 32);
  if (descriptor >> 62 == 0) {  // no swizzle
    return field(descriptor, 0) + groups + c * field(descriptor, 16) + r % 8 * 16;
  }
  const std::uint32_t address = field(descriptor, 0) + groups + r % 8 * 128 + c * 16;
  return address ^ (address >> 3 & 0x70U);
}

void check_descriptor(std::uint64_t descriptor, int rows, int chunks, Where at) {
  const Block& block = Scheduler::block();
  const auto mode = descriptor >> 62;
  if (mode > 1) fail("wgmma at %s: this swizzle is not emulated", place(at).c_str());
  if (mode == 1 && (field(descriptor, 0) & 0x380U) != 0) {
    fail("wgmma at %s: a swizzled tile does not start at a multiple of 1024 bytes",
         place(at).c_str());
  }
  for (int row = 0; row < rows; ++row) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      check_shared(block.memory + chunk_address(descriptor, row, chunk), 16, "wgmma");
    }
  }
}

// b's rows and their chunks: its columns, unless it is transposed.
int b_rows(const WgmmaOperands& operands) {
  return operands.b_transposed ? kDepthBytes / 2 : operands.columns;
}
int b_chunks(const WgmmaOperands& operands) {
  return operands.b_transposed ? operands.columns / 8 : kChunks;
}

// For ThreadSanitizer; of shared memory nobody else asks who reads it.
void note_reads(std::uint64_t descriptor, int first_row, int end_row, int chunks) {
  if constexpr (!kUnderTsan) return;
  const std::byte* memory = Scheduler::block().memory;
  for (int row = first_row; row < end_row; ++row) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      note_read(memory + chunk_address(descriptor, row, chunk), 16);
    }
  }
}
// What this thread's warp reads: its quarter of a, and all of b.
void note_reads(const Product& product) {
  const int warp = static_cast<int>(current->warp % 4);
  const WgmmaOperands& operands = product.operands;
  if (operands.a_registers == nullptr) {
    note_reads(operands.a_tile, warp * 16, warp * 16 + 16, kChunks);
  }
  note_reads(operands.b_tile, 0, b_rows(operands), b_chunks(operands));
}

void read_row(Block& block, std::uint64_t descriptor, int row, int chunks, std::byte* bytes,
              Where at) {
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const std::uint32_t address = chunk_address(descriptor, row, chunk);
    const int writer = unfenced_writer(block, address, 16);
    if (writer >= 0) {
      fail(
          "wgmma at %s reads shared memory that thread %d wrote without fence_async_proxy, or "
          "before wgmma_wait",
          place(at).c_str(), writer);
    }
    std::memcpy(bytes + chunk * 16, block.memory + address, 16);
  }
}

// ---- Products -----------------------------------------------------------------------------------

// Row 16 w + g of a in registers: words t and t + 4 of row g and g + 8 are lane 4 g + t's.
void gather_row(const Product& product, int row, std::byte* bytes) {
  for (int word = 0; word < 8; ++word) {
    const int thread = row / 16 * 32 + row % 8 * 4 + word % 4;
    const int i = row % 16 / 8 + word / 4 * 2;
    std::memcpy(bytes + word * 4, &product.a[static_cast<std::size_t>(thread * 4 + i)], 4);
  }
}

void compute(Block& block, Product& product) {
  const Unseen unseen;
  const WgmmaOperands& operands = product.operands;
  const int columns = operands.columns;
  const int depth = operands.element == Element::kBf16 ? kDepthBytes / 2 : kDepthBytes;
  std::byte bytes[128];
  float numbers[kDepthBytes];
  static thread_local float b[kDepthBytes][kMaxColumns];
  for (int row = 0; row < b_rows(operands); ++row) {
    read_row(block, operands.b_tile, row, b_chunks(operands), bytes, product.at);
    if (operands.b_transposed) {
      decode(operands.element, bytes, b[row], columns);
      continue;
    }
    decode(operands.element, bytes, numbers, depth);
    for (int k = 0; k < depth; ++k) b[k][row] = numbers[k];
  }
  for (int row = 0; row < kRows; ++row) {
    if (operands.a_registers != nullptr) {
      gather_row(product, row, bytes);
    } else {
      read_row(block, operands.a_tile, row, kChunks, bytes, product.at);
    }
    decode(operands.element, bytes, numbers, depth);
    float sums[kMaxColumns];
    multiply_row(numbers, &b[0][0], depth, columns, kMaxColumns, sums);
    for (int n = 0; n < columns; ++n) {
      const int thread = row / 16 * 32 + row % 8 * 4 + n % 8 / 2;
      float& sum = product.accumulators->of(thread)[n / 8 * 4 + row % 16 / 8 * 2 + n % 2];
      sum = operands.accumulate ? sum + sums[n] : sums[n];
    }
  }
  product.computed = true;
}

// All that every thread has issued, in order.
void compute_issued(Block& block, Warpgroup& group) {
  for (std::uint64_t number = group.first; number < group.issued; ++number) {
    if (!group.product(number).computed) compute(block, group.product(number));
  }
  group.pending = false;
  Scheduler::running().wake(group.waiting);
}

// Fails if a thread has written to accumulators in flight.
void check_untouched(const float* registers, int count, Where at) {
  for (int i = 0; i < count; ++i) {
    if (std::bit_cast<std::uint32_t>(registers[i]) != kInFlight) {
      fail("wgmma at %s: a thread changed accumulators while they were in flight",
           place(at).c_str());
    }
  }
}

bool same(const WgmmaOperands& a, const WgmmaOperands& b) {
  return a.element == b.element && a.columns == b.columns && a.a_tile == b.a_tile &&
         (a.a_registers == nullptr) == (b.a_registers == nullptr) && a.b_tile == b.b_tile &&
         a.accumulate == b.accumulate && a.b_transposed == b.b_transposed;
}

}  // namespace

void wgmma(const WgmmaOperands& operands, Where at) {
  const Fiber& self = Scheduler::fiber();
  Warpgroup& group = warpgroup_of(self);
  const int thread = number_in_group(self);
  Warpgroup::Progress& mine = group.threads[thread];
  const std::uint64_t number = mine.issued;
  const int count = operands.columns / 2;

  // The accumulators may be those of a product in flight; then nothing has to come between.
  std::shared_ptr<Accumulators> in_flight;
  for (std::uint64_t earlier = mine.waited; earlier < number; ++earlier) {
    const auto& accumulators = group.product(earlier).accumulators;
    if (accumulators->registers[thread] == operands.accumulators) in_flight = accumulators;
  }
  if (!mine.fenced && (in_flight == nullptr || operands.a_registers != nullptr)) {
    fail("wgmma at %s: wgmma_fence is missing between other uses of its registers and this",
         place(at).c_str());
  }
  if (in_flight != nullptr && in_flight->count != count) {
    fail("wgmma at %s: a product of another shape has these accumulators in flight",
         place(at).c_str());
  }

  if (number == group.first + group.products.size()) {
    if (operands.a_registers == nullptr) check_descriptor(operands.a_tile, kRows, kChunks, at);
    check_descriptor(operands.b_tile, b_rows(operands), b_chunks(operands), at);
    const Unseen unseen;
    Product& product = group.products.emplace_back();
    product.operands = operands;
    product.at = at;
    if (operands.a_registers != nullptr) product.a.resize(std::size_t{kWarpgroup} * 4);
    product.accumulators = in_flight;
    if (in_flight == nullptr) {
      product.accumulators = std::make_shared<Accumulators>();
      product.accumulators->count = count;
      product.accumulators->values.resize(static_cast<std::size_t>(kWarpgroup * count));
    }
  }
  Product& product = group.product(number);
  Accumulators& accumulators = *product.accumulators;
  if (!same(product.operands, operands) ||
      (in_flight == nullptr ? accumulators.registers[thread] != nullptr
                            : in_flight != product.accumulators)) {
    fail("wgmma at %s: the four warps differ in what they multiply", place(at).c_str());
  }
  if (in_flight != nullptr) {
    check_untouched(operands.accumulators, count, at);
  } else {
    accumulators.registers[thread] = operands.accumulators;
    std::copy_n(operands.accumulators, count, accumulators.of(thread));
    std::fill_n(operands.accumulators, count, std::bit_cast<float>(kInFlight));
  }
  if (operands.a_registers != nullptr) {
    std::copy_n(operands.a_registers, 4, product.a.data() + thread * 4);
  }
  if (current->lane == 0) note_reads(product);
  ++mine.issued;
  if (++product.issued < kWarpgroup) return;
  group.issued = number + 1;
  Block& block = *self.block;
  if (!Scheduler::running().late()) {
    compute_issued(block, group);
  } else if (!group.pending) {
    group.pending = true;
    Scheduler::running().add_pending(block, [&block, &group] { compute_issued(block, group); });
  }
}

void wgmma_fence() {
  const Fiber& self = Scheduler::fiber();
  warpgroup_of(self).threads[number_in_group(self)].fenced = true;
}

void wgmma_commit() {
  const Fiber& self = Scheduler::fiber();
  Warpgroup::Progress& mine = warpgroup_of(self).threads[number_in_group(self)];
  const Unseen unseen;
  mine.groups.push_back(mine.issued);
}

void wgmma_wait(int left) {
  const Fiber& self = Scheduler::fiber();
  Warpgroup& group = warpgroup_of(self);
  const int thread = number_in_group(self);
  Warpgroup::Progress& mine = group.threads[thread];
  sync_warp(0xffffffffU, Where::current());
  mine.fenced = false;
  const std::size_t groups = mine.groups.size();
  if (groups <= static_cast<std::size_t>(left)) return;
  const std::size_t done = groups - static_cast<std::size_t>(left);
  const std::uint64_t end = mine.groups[done - 1];
  {
    const Unseen unseen;
    mine.groups.erase(mine.groups.begin(), mine.groups.begin() + static_cast<std::ptrdiff_t>(done));
  }
  while (end > mine.waited && !group.product(end - 1).computed) {
    Scheduler::running().wait(group.waiting, "wgmma, which other warps may have to join,",
                              group.product(end - 1).at);
  }
  for (std::uint64_t number = mine.waited; number < end; ++number) {
    Product& product = group.product(number);
    if (current->lane == 0) note_reads(product);
    bool last = true;  // of those on its accumulators
    for (std::uint64_t later = number + 1; later < mine.issued; ++later) {
      last = last && group.product(later).accumulators != product.accumulators;
    }
    if (last) {
      float* registers = product.accumulators->registers[thread];
      check_untouched(registers, product.accumulators->count, product.at);
      std::copy_n(product.accumulators->of(thread), product.accumulators->count, registers);
    }
    ++product.waited;
  }
  mine.waited = end;
  const Unseen unseen;
  while (!group.products.empty() && group.products.front().waited == kWarpgroup) {
    group.products.pop_front();
    ++group.first;
  }
}

void set_max_registers(int count, Where at) {
  if (count < 24 || count > 256 || count % 8 != 0) {
    fail("set_max_registers at %s: %d (a multiple of 8 from 24 to 256)", place(at).c_str(), count);
  }
  warpgroup_of(Scheduler::fiber()).registers = count;
  collective(0xffffffffU, nullptr, nullptr, at);
}

void check_registers(const Block& block) {
  // A quarter of an SM has 512 for a lane of all its warps, of which a thread can have 255. At the
  // start each has as many as the compiler can give it, in steps of 8.
  const int groups = block.num_threads / kWarpgroup;
  const int warps = (block.num_threads / 32 + 3) / 4;
  const int at_start = std::min(256, 512 / std::max(warps, 1) / 8 * 8);
  int wanted = 0;
  for (int g = 0; g < groups; ++g) {
    const int registers = block.warpgroups[g].registers;
    wanted += registers > 0 ? registers : at_start;
  }
  if (wanted > at_start * groups) {
    fail(
        "setmaxnreg: the block's groups of four warps want %d registers; started with %d, they "
        "have %d",
        wanted, at_start, at_start * groups);
  }
}

}  // namespace moebench::simt
