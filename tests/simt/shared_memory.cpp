// Shared memory: dynamic bytes first, then the static arrays, with a gap after each.
#include "tests/simt/accesses.h"
#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

constexpr std::size_t kGap = 32;  // forbidden bytes

std::size_t offset_in(const Block& block, const void* pointer) {
  return static_cast<std::size_t>(static_cast<const std::byte*>(pointer) - block.memory);
}

}  // namespace

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment) {
  Block& block = Scheduler::block();
  for (const SharedArray& array : block.arrays) {
    if (array.key == key) return block.memory + array.offset;
  }
  const Unseen list;  // which grows, whoever of the block's threads comes first
  block.static_bytes += bytes;
  if (block.static_bytes > kStaticSharedBytes) {
    fail("shared memory: more than %zu bytes in static arrays", kStaticSharedBytes);
  }
  if (block.static_bytes + block.dynamic_bytes > kSharedBytesPerBlock) {
    fail("shared memory: %zu bytes in static arrays and %zu dynamic ones, of %zu",
         block.static_bytes, block.dynamic_bytes, kSharedBytesPerBlock);
  }
  const std::size_t offset = (block.used_bytes + kGap + alignment - 1) / alignment * alignment;
  block.used_bytes = offset + bytes;
  block.arrays.push_back({key, offset, bytes});
  allow(block.memory + offset, bytes);
  poison(block.memory + offset, bytes);
  return block.memory + offset;
}

void* dynamic_shared() { return Scheduler::block().memory; }

std::uint32_t shared_address(const void* pointer) {
  const Block& block = Scheduler::block();
  const std::size_t offset = offset_in(block, pointer);
  if (offset >= block.used_bytes) fail("this address is not in the block's shared memory");
  return static_cast<std::uint32_t>(offset);
}

void check_shared(const void* pointer, std::size_t bytes, const char* what) {
  const Block& block = Scheduler::block();
  const std::size_t begin = offset_in(block, pointer);
  if (begin < block.dynamic_bytes && bytes <= block.dynamic_bytes - begin) return;
  for (const SharedArray& array : block.arrays) {
    if (begin >= array.offset && begin + bytes <= array.offset + array.bytes) return;
  }
  fail("%s: %zu bytes at %p are not inside dynamic shared memory or one array", what, bytes,
       pointer);
}

void check_global(const void* pointer, std::size_t bytes, const char* what) {
  const auto* at = static_cast<const std::byte*>(pointer);
  const std::byte* stack = static_cast<const Fiber*>(current)->stack;
  if (at >= stack && at < stack + kStackBytes) {
    fail("%s: %p is a thread's own memory, not the device's", what, pointer);
  }
  const Block& block = Scheduler::block();
  if (at >= block.memory && offset_in(block, pointer) < block.used_bytes) {
    fail("%s: %p is shared memory, not the device's", what, pointer);
  }
  check_not_written(pointer, bytes, what);
}

void poison_shared(Block& block) {
  poison(block.memory, block.dynamic_bytes);
  for (const SharedArray& array : block.arrays) poison(block.memory + array.offset, array.bytes);
}

unsigned cluster_rank() { return Scheduler::block().cluster_rank; }

void* cluster_pointer(const void* mine, unsigned rank) {
  const Block& block = Scheduler::block();
  if (rank >= block.cluster_size) {
    fail("block %u of a cluster of %u", rank, block.cluster_size);
  }
  return block.cluster[rank]->memory + shared_address(mine);
}

// The token stands for all of memory: more is ordered than a fence alone would, but nothing without
// one.
void fence() {
  static char token;
  acquire(&token);
  release(&token);
}

}  // namespace moebench::simt
