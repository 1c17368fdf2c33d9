// Scheduler of the SIMT test machine. Compile without -fsanitize=thread: it tells TSan of the
// fibers itself.
#include "tests/simt/machine.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <vector>
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void simt_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch,.-simt_switch
)");
#else
#error "add the context switch of this processor"
#endif

namespace moebench::simt {
__thread Ctx* cur;
namespace {
constexpr size_t stack_bytes = 256 << 10, arena_bytes = 228 << 10, arena_align = 1024;
struct Block;
struct Fiber : Ctx {
  void* sp = nullptr;
  char* stack = nullptr;
  Block* blk = nullptr;
  bool done = false;
  const char* what = nullptr;
  Site at{};
  void* tsan = nullptr;
  void* fake = nullptr;
};
struct Group {  // lanes gathering for one collective
  unsigned mask = 0, arrived = 0;
  int n = 0, need = 0;
  CollectiveFn fn = nullptr;
  Site at{};
  void* args[128];
  Fiber* who[128];
};
struct Bar {
  int n = 0, need = 0;
  Site at{};
  std::vector<Fiber*> who;
};
struct Shared {
  const void* key;
  size_t off, size;
};
struct Block {
  Dim3 id;
  int threads = 0, live = 0;
  std::vector<Fiber*> f;
  Group g[32][4], wg[8];
  Bar bar[16];
  char* arena = nullptr;
  size_t dyn = 0, used = 0;
  Shared st[64];
  int n_st = 0;
  unsigned cluster_rank = 0;
  Block** cluster = nullptr;
};
struct Sched {
  const Config* cfg = nullptr;
  void (*fn)(void*) = nullptr;
  void* arg = nullptr;
  std::vector<Fiber*> ready,
      pool;  // ready is a ring of power-of-two size, no growth while fibers run
  std::vector<char*> arenas;
  size_t head = 0, tail = 0;
  Fiber*& at(size_t i) { return ready[i & (ready.size() - 1)]; }
  uint64_t rng = 1;
  void* main_sp = nullptr;
  int alive = 0, idle_spins = 0;
  std::string error;
  Report rep;
  Bar cluster_bar;
  std::vector<Block*> blocks;
  void *tsan_main = nullptr, *main_fake = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
};
thread_local Sched* sch;
Fiber* me() { return static_cast<Fiber*>(cur); }

void acquire(void* a) {
#ifdef SIMT_TSAN
  __tsan_acquire(a);
#else
  (void)a;
#endif
}
void release(void* a) {
#ifdef SIMT_TSAN
  __tsan_release(a);
#else
  (void)a;
#endif
}
uint64_t next_random(Sched* s) {
  s->rng ^= s->rng << 13, s->rng ^= s->rng >> 7, s->rng ^= s->rng << 17;
  return s->rng;
}
Fiber* pop(Sched* s) {
  if (s->head == s->tail) return nullptr;
  if (s->cfg->order == lifo) return s->at(--s->tail);
  if (s->cfg->order == shuffled)
    std::swap(s->at(s->head), s->at(s->head + next_random(s) % (s->tail - s->head)));
  return s->at(s->head++);
}
void go(void** save, Fiber* to, Fiber* from, bool dying = false) {
  Sched* s = sch;
  ++s->rep.switches;
  cur = to;
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(to ? to->tsan : s->tsan_main, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(dying  ? nullptr
                                 : from ? &from->fake
                                        : &s->main_fake,
                                 to ? to->stack : s->main_bottom, to ? stack_bytes : s->main_size);
#endif
  (void)dying;
  simt_switch(save, to ? to->sp : s->main_sp);
#ifdef SIMT_ASAN
  const void* b;
  size_t n;
  __sanitizer_finish_switch_fiber(from ? from->fake : s->main_fake, &b, &n);
#endif
  (void)from;
}
void block_until_woken(const char* what, Site at) {
  Fiber* f = me();
  f->what = what, f->at = at;
  Fiber* n = pop(sch);
  if (n == f) {
    cur = f;
    return;
  }
  go(&f->sp, n, f);
}
void wake(Sched* s, Fiber* f) { s->at(s->tail++) = f, s->idle_spins = 0; }
void finish_bar(Sched* s, Bar& b) {
  ++s->rep.barriers;
  for (Fiber* w : b.who) wake(s, w);
  b.who.clear(), b.n = 0;
}
void check_exit_bar(Sched* s, Block* b) {
  Bar& r = b->bar[0];
  if (r.n && r.need == 0 && r.n == b->live) finish_bar(s, r);
}
void entry() {
#ifdef SIMT_ASAN
  {
    const void* b;
    size_t n;
    __sanitizer_finish_switch_fiber(nullptr, &b, &n);
    if (!sch->main_bottom) sch->main_bottom = b, sch->main_size = n;
  }
#endif
  Sched* s = sch;
  acquire(s);
  s->fn(s->arg);
  Fiber* f = me();
  if (f->n_async) fail("thread exits with cp.async still in flight");
  f->done = true;
  release(&s->alive);
  --s->alive, --f->blk->live;
  check_exit_bar(s, f->blk);
  Fiber* n = pop(s);
  go(&f->sp, n, f, true);
  std::abort();
}
void prepare(Fiber* f) {
#ifdef SIMT_ASAN
  __asan_unpoison_memory_region(f->stack, stack_bytes);
#endif
  void** top = reinterpret_cast<void**>(f->stack + stack_bytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  f->sp = top, f->done = false, f->n_async = f->n_groups = 0, f->what = nullptr;
}
std::string where(Site a) {
  return std::string(a.file ? a.file : "?") + ":" + std::to_string(a.line);
}

void run_set(Sched* s, const std::vector<Dim3>& ids, size_t cluster) {
  const Config& c = *s->cfg;
  int threads = int(c.block.x * c.block.y * c.block.z);
  size_t want = ids.size() * size_t(threads);
  while (s->pool.size() < want) {
    auto* f = new Fiber;
    f->stack = static_cast<char*>(mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (f->stack == MAP_FAILED) {
      s->error = "no memory for fiber stacks";
      return;
    }
#ifdef SIMT_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    s->pool.push_back(f);
  }
  while (s->arenas.size() < ids.size())
    s->arenas.push_back(static_cast<char*>(aligned_alloc(arena_align, arena_bytes)));
  while (s->blocks.size() < ids.size()) s->blocks.push_back(new Block);
  size_t cap = 1024;
  while (cap < want * 2) cap *= 2;
  s->ready.resize(cap);
  s->head = s->tail = size_t(1) << 40, s->alive = int(want), s->idle_spins = 0;
  s->cluster_bar.who.clear(), s->cluster_bar.who.reserve(want), s->cluster_bar.n = 0;
  for (size_t b = 0; b < ids.size(); ++b) {
    Block* k = s->blocks[b];
    k->id = ids[b], k->threads = k->live = threads, k->n_st = 0;
    k->arena = s->arenas[b], k->dyn = c.smem, k->used = (c.smem + 127) / 128 * 128;
    k->cluster_rank = unsigned(b % cluster), k->cluster = &s->blocks[b / cluster * cluster];
    for (auto& w : k->g)
      for (auto& g : w) g.n = 0, g.arrived = 0;
    for (auto& g : k->wg) g.n = 0;
    for (auto& r : k->bar) r.n = 0, r.who.clear(), r.who.reserve(size_t(threads));
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(k->arena, arena_bytes);
#endif
    std::memset(k->arena, 0xff, arena_bytes);  // NaN in every float format
#ifdef SIMT_ASAN
    __asan_poison_memory_region(k->arena + c.smem, arena_bytes - c.smem);
#endif
    k->f.assign(s->pool.begin() + long(b) * threads, s->pool.begin() + long(b + 1) * threads);
    int i = 0;
    for (Fiber* f : k->f) {
      f->tid = Dim3(unsigned(i) % c.block.x, unsigned(i) / c.block.x % c.block.y,
                    unsigned(i) / (c.block.x * c.block.y));
      f->bid = ids[b], f->bdim = c.block, f->gdim = c.grid, f->cdim = c.cluster;
      f->lane = unsigned(i) % 32, f->warp = unsigned(i) / 32, f->blk = k;
      prepare(f), s->at(s->tail++) = f, ++i;
    }
  }
  release(s);
  go(&s->main_sp, pop(s), nullptr);
  acquire(&s->alive);
  if (s->alive && s->error.empty()) {
    std::map<std::string, int> n;
    for (size_t b = 0; b < ids.size(); ++b)
      for (Fiber* f : s->blocks[b]->f)
        if (!f->done && f->what) ++n[std::string(f->what) + " at " + where(f->at)];
    s->error = "deadlock:";
    for (auto& [w, k] : n) s->error += " [" + std::to_string(k) + " threads in " + w + "]";
    s->error += " live " + std::to_string(s->alive);
  }
}
}  // namespace

CopyTiming copies() { return sch->cfg->copies; }
void fail(const char* fmt, ...) {
  char buf[512];
  va_list ap;
  va_start(ap, fmt);
  std::vsnprintf(buf, sizeof buf, fmt, ap);
  va_end(ap);
  Fiber* f = me();
  sch->error = std::string(buf) + " (block " + std::to_string(f->bid.x) + "," +
               std::to_string(f->bid.y) + " thread " + std::to_string(f->tid.x) + ")";
  go(&f->sp, nullptr, f);  // never comes back
  std::abort();
}
void yield() {
  Fiber* f = me();
  Sched* s = sch;
  if (++s->idle_spins > 1000000) fail("livelock: every thread spins");
  if (s->cfg->order == lifo)
    s->at(--s->head) = f;  // last in line
  else
    s->at(s->tail++) = f;
  block_until_woken("spin", {});
}
void sync_block(int id, int threads, Site at) {
  Sched* s = sch;
  Fiber* f = me();
  Block* k = f->blk;
  Bar& b = k->bar[id];
  if (b.n && (b.at.line != at.line || b.at.file != at.file) && threads == 0)
    fail("divergent __syncthreads: some threads at %s, this one at %s", where(b.at).c_str(),
         where(at).c_str());
  if (b.n && b.need != threads)
    fail("barrier %d: thread counts differ (%d, %d)", id, b.need, threads);
  b.at = at, b.need = threads;
  release(&b);
  ++b.n;
  int need = threads ? threads : k->live;
  if (b.n == need) {
    finish_bar(s, b);
  } else {
    b.who.push_back(f);
    block_until_woken("barrier", at);
  }
  acquire(&b);
}
void arrive_block(int id, int threads, Site at) {
  Sched* s = sch;
  Bar& b = me()->blk->bar[id];
  if (b.n && b.need != threads)
    fail("barrier %d: thread counts differ (%d, %d)", id, b.need, threads);
  b.at = at, b.need = threads;
  release(&b);
  if (++b.n == threads) finish_bar(s, b);
}
unsigned cluster_rank() { return me()->blk->cluster_rank; }
void sync_cluster(Site at) {
  Sched* s = sch;
  Fiber* f = me();
  Bar& b = s->cluster_bar;  // prototype: one cluster at a time
  release(&b);
  if (++b.n == s->alive)
    finish_bar(s, b);
  else
    b.who.push_back(f), block_until_woken("cluster barrier", at);
  acquire(&b);
}
static void gather(Group* g, unsigned bit, int need, CollectiveFn fn, void* arg, int slot,
                   Site at) {
  Sched* s = sch;
  Fiber* f = me();
  g->args[slot] = arg, g->at = at, g->fn = fn, g->arrived |= bit;
  release(g);
  if (++g->n < need) {
    g->who[g->n - 1] = f;
    block_until_woken("collective", at);
    acquire(g);
    return;
  }
  acquire(g);
  fn(g->args, g->mask);
  release(g);
  ++s->rep.collectives;
  for (int i = 0; i < need - 1; ++i) wake(s, g->who[i]);
  g->n = 0, g->arrived = 0;
}
void collective(unsigned mask, CollectiveFn fn, void* arg, Site at) {
  Fiber* f = me();
  Block* k = f->blk;
  if (!(mask >> f->lane & 1)) fail("lane %u is not in its own mask %08x", f->lane, mask);
  Group *g = nullptr, *empty = nullptr;
  for (auto& x : k->g[f->warp]) {
    if (x.n == 0)
      empty = empty ? empty : &x;
    else if (x.mask == mask)
      g = &x;
    else if (x.mask & mask)
      fail("warp collective: masks %08x and %08x overlap (%s, %s)", x.mask, mask,
           where(x.at).c_str(), where(at).c_str());
  }
  if (g && (g->at.line != at.line || g->at.file != at.file || g->fn != fn))
    fail("warp collective: lanes meet at different places (%s, %s)", where(g->at).c_str(),
         where(at).c_str());
  if (!g) {
    if (!empty) fail("too many open collectives in one warp");
    g = empty, g->mask = mask;
    if (f->warp * 32 + 31 >= unsigned(k->threads) && k->threads % 32 && mask >> (k->threads % 32))
      fail("mask %08x names lanes past the block's end", mask);
  }
  gather(g, 1u << f->lane, __builtin_popcount(mask), fn, arg, int(f->lane), at);
}
void group_collective(int log2, CollectiveFn fn, void* arg, Site at) {
  Fiber* f = me();
  unsigned i = f->warp * 32 + f->lane;
  gather(&f->blk->wg[i >> log2], 0, 1 << log2, fn, arg, int(i & ((1u << log2) - 1)), at);
}
void* static_shared(const void* key, size_t size, size_t align) {
  Block* k = me()->blk;
  for (int i = 0; i < k->n_st; ++i)
    if (k->st[i].key == key) return k->arena + k->st[i].off;
  size_t off = (k->used + align - 1) / align * align;
  if (off + size > arena_bytes || k->n_st == 64)
    fail("shared memory: %zu bytes are too many", off + size);
  k->st[k->n_st++] = {key, off, size};
  k->used = (off + size + 32 + 7) / 8 * 8;  // a red zone after each array
#ifdef SIMT_ASAN
  __asan_unpoison_memory_region(k->arena + off, size);
#endif
  return k->arena + off;
}
void* dynamic_shared() { return me()->blk->arena; }
uint32_t shared_addr(const void* p) {
  auto d = static_cast<const char*>(p) - me()->blk->arena;
  if (d < 0 || size_t(d) >= arena_bytes) fail("address is not in this block's shared memory");
  return uint32_t(d);
}
void* shared_ptr(uint32_t a) { return me()->blk->arena + a; }
void* cluster_ptr(const void* mine, unsigned rank) {
  return me()->blk->cluster[rank]->arena + shared_addr(mine);
}

void mbar_release(MBar* b) { release(b); }
void mbar_acquire(MBar* b) { acquire(b); }
static void mbar_check(MBar* b) {
  if (b->pending == 0 && b->tx == 0) b->phase ^= 1, b->pending = b->expected, sch->idle_spins = 0;
}
void mbar_arrive(MBar* b, int n, int tx) {
  release(b);
  if (b->pending < n) fail("mbarrier: more arrivals than expected");
  b->pending = uint16_t(b->pending - n), b->tx = b->tx + tx;
  mbar_check(b);
}
void mbar_complete_tx(MBar* b, int bytes) {
  release(b);
  b->tx = b->tx - bytes;
  mbar_check(b);
}
bool mbar_try_wait(MBar* b, unsigned parity) { return b->phase != parity; }

Report run(const Config& c, void (*fn)(void*), void* arg) {
  size_t blocks = size_t(c.grid.x) * c.grid.y * c.grid.z,
         cluster = size_t(c.cluster.x) * c.cluster.y * c.cluster.z;
  unsigned threads = c.block.x * c.block.y * c.block.z;
  Report total;
  if (!blocks || !threads || threads > 1024 || c.smem > (227 << 10)) {
    total.error = "invalid launch configuration";
    return total;
  }
  size_t set = c.coresident ? blocks : cluster;
  std::atomic<size_t> next{0};
  std::mutex mu;
  auto work = [&] {
    static thread_local Sched store;  // stacks and arenas are kept for the next launch
    Sched* s = &store;
    sch = s, s->cfg = &c, s->fn = fn, s->arg = arg, s->rep = {}, s->error.clear(),
    s->rng = c.seed * 0x9e3779b97f4a7c15ull | 1;
#ifdef SIMT_TSAN
    s->tsan_main = __tsan_get_current_fiber();
#endif
    std::vector<Dim3> ids;
    for (size_t i; s->error.empty() && (i = next.fetch_add(set)) < blocks;) {
      ids.clear();
      for (size_t j = i; j < i + set && j < blocks; ++j) {
        size_t b = c.order == lifo ? blocks - 1 - j : j;
        ids.push_back(Dim3(unsigned(b % c.grid.x), unsigned(b / c.grid.x % c.grid.y),
                           unsigned(b / c.grid.x / c.grid.y)));
      }
      run_set(s, ids, cluster);
      if (!s->error.empty()) next = blocks;
    }
    std::lock_guard lock(mu);
    total.switches += s->rep.switches, total.collectives += s->rep.collectives,
        total.barriers += s->rep.barriers;
    if (total.error.empty()) total.error = s->error;
    cur = nullptr;
  };
  if (c.workers <= 1)
    work();
  else {
    std::vector<std::thread> t;
    for (int i = 0; i < c.workers; ++i) t.emplace_back(work);
    for (auto& x : t) x.join();
  }
  return total;
}
}  // namespace moebench::simt
