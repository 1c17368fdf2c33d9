// Barriers, and the collectives of a warp.
#include "tests/simt/collectives.h"

#include <cstring>

#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

// Hardware counts whole warps.
void check_whole_warps(const Block& block, int id, const Barrier& barrier) {
  for (int warp = 0; warp * 32 < block.num_threads; ++warp) {
    const unsigned came = barrier.lanes[warp];
    if (came == 0) continue;
    for (int lane = 0; lane < 32 && warp * 32 + lane < block.num_threads; ++lane) {
      const Fiber& fiber = *block.fibers[static_cast<std::size_t>(warp * 32 + lane)];
      if ((came >> lane & 1) == 0 && !fiber.finished) {
        fail("barrier %d at %s: lane %d of warp %d did not come with its warp", id,
             place(barrier.at).c_str(), lane, warp);
      }
    }
  }
}

void open_barrier(Scheduler& scheduler, Barrier& barrier) {
  ++scheduler.report().barriers;
  scheduler.wake(barrier.waiting);
  barrier.arrived = 0;
  for (unsigned& lanes : barrier.lanes) lanes = 0;
}

// True if this thread is the last.
bool arrive(Barrier& barrier, int id, int threads, Where at) {
  Scheduler& scheduler = Scheduler::running();
  const Fiber& self = Scheduler::fiber();
  Block& block = *self.block;
  if (threads % 32 != 0 || threads > (block.num_threads + 31) / 32 * 32) {
    fail("barrier %d at %s: %d threads (a multiple of 32, up to the block's %d)", id,
         place(at).c_str(), threads, block.num_threads);
  }
  if (barrier.arrived > 0 && barrier.expected != threads) {
    fail("barrier %d: for %d threads at %s, for %d at %s", id, barrier.expected,
         place(barrier.at).c_str(), threads, place(at).c_str());
  }
  if (barrier.arrived > 0 && threads == 0 && !same_place(barrier.at, at)) {
    fail("divergent barrier: some threads are at %s, this one at %s", place(barrier.at).c_str(),
         place(at).c_str());
  }
  unsigned& lanes = barrier.lanes[self.warp];
  if (lanes >> self.lane & 1) {
    fail("barrier %d at %s: a thread comes twice, before the others", id, place(at).c_str());
  }
  lanes |= 1U << self.lane;
  barrier.at = at;
  barrier.expected = threads;
  release(&barrier);
  const int needed = threads > 0 ? threads : block.running;
  if (++barrier.arrived < needed) return false;
  if (threads > 0) check_whole_warps(block, id, barrier);
  open_barrier(scheduler, barrier);
  return true;
}

Barrier& named_barrier(int id, Where at) {
  if (id < 0 || id >= kNumBarriers) {
    fail("barrier %d at %s: there are %d", id, place(at).c_str(), kNumBarriers);
  }
  return Scheduler::block().barriers[id];
}

int running_in_cluster(const Block& block, unsigned cluster) {
  int running = 0;
  for (unsigned rank = 0; rank < cluster; ++rank) running += block.cluster[rank]->running;
  return running;
}

}  // namespace

void sync_block(int id, int threads, Where at) {
  Barrier& barrier = named_barrier(id, at);
  if (!arrive(barrier, id, threads, at)) {
    Scheduler::running().wait(barrier.waiting, "barrier", at);
  }
  acquire(&barrier);
}

void arrive_at_block(int id, int threads, Where at) {
  arrive(named_barrier(id, at), id, threads, at);
}

void sync_cluster(Where at) {
  Scheduler& scheduler = Scheduler::running();
  const Block& block = Scheduler::block();
  Barrier& barrier = *block.cluster_barrier;
  release(&barrier);
  if (++barrier.arrived < running_in_cluster(block, block.cluster_size)) {
    scheduler.wait(barrier.waiting, "cluster barrier", at);
  } else {
    open_barrier(scheduler, barrier);
  }
  acquire(&barrier);
}

void exit_barriers(Scheduler& scheduler, Block& block) {
  Barrier& all = block.barriers[0];
  if (all.arrived > 0 && all.expected == 0 && all.arrived == block.running) {
    open_barrier(scheduler, all);
  }
  Barrier& cluster = *block.cluster_barrier;
  if (cluster.arrived > 0 && cluster.arrived == running_in_cluster(block, block.cluster_size)) {
    open_barrier(scheduler, cluster);
  }
}

// ---- Warps --------------------------------------------------------------------------------------

namespace {

// The gathering of this mask that this lane joins, which may be a new one.
Gathering& find_gathering(unsigned mask, Combine combine, Where at) {
  const Fiber& self = Scheduler::fiber();
  Block& block = *self.block;
  if ((mask >> self.lane & 1) == 0) {
    fail("collective at %s: lane %u is not in its own mask %08x", place(at).c_str(), self.lane,
         mask);
  }
  int& num_gathering = block.num_gathering[self.warp];
  int left = num_gathering;
  Gathering* unused = nullptr;
  for (Gathering& gathering : block.gatherings[self.warp]) {
    if (gathering.arrived == 0) {
      if (unused == nullptr) unused = &gathering;
      if (left == 0) break;
      continue;
    }
    --left;
    if (gathering.mask != mask) continue;
    if (gathering.combine != combine || !same_place(gathering.at, at)) {
      fail("lanes of one mask meet at different collectives: %s and %s",
           place(gathering.at).c_str(), place(at).c_str());
    }
    return gathering;
  }
  const int lanes_in_block = block.num_threads - static_cast<int>(self.warp) * 32;
  if (lanes_in_block < 32 && mask >> lanes_in_block != 0) {
    fail("collective at %s: mask %08x names lanes past the block's end", place(at).c_str(), mask);
  }
  if (unused == nullptr) fail("more than %d collectives at once in a warp", kMaxGatherings);
  ++num_gathering;
  unused->mask = mask;
  unused->combine = combine;
  unused->at = at;
  return *unused;
}

void gather(unsigned mask, Combine combine, void* operand, bool ordered, Where at) {
  Scheduler& scheduler = Scheduler::running();
  Gathering& gathering = find_gathering(mask, combine, at);
  const unsigned lane = current->lane;
  gathering.operands[lane] = operand;
  gathering.arrived |= 1U << lane;
  if (ordered) release(&gathering);
  if (gathering.arrived != mask) {
    scheduler.wait(gathering.waiting, "the rest of their warp", at);
  } else {
    if (combine != nullptr) {
      const Unseen unseen;
      combine(gathering.operands, mask);
    }
    ++scheduler.report().collectives;
    gathering.arrived = 0;
    --Scheduler::block().num_gathering[current->warp];
    scheduler.wake(gathering.waiting);
  }
  if (ordered) acquire(&gathering);
}

}  // namespace

void collective(unsigned mask, Combine combine, void* operand, Where at) {
  gather(mask, combine, operand, false, at);
}
void sync_warp(unsigned mask, Where at) { gather(mask, nullptr, nullptr, true, at); }

}  // namespace moebench::simt
