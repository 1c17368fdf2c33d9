// A small SIMT machine for tests: runs CUDA-style kernels as ordinary C++ on the CPU.
// Every CUDA thread is a fiber; a block's fibers share one OS thread, blocks are spread over
// workers. The scheduler lives in simt.cpp, which must be compiled WITHOUT -fsanitize=thread (see
// SIMT_TSAN).
#pragma once
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/core/device.h"

namespace moebench::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct Site {
  const char* file;
  int line;
};
inline Site site(std::source_location l) { return {l.file_name(), int(l.line())}; }

struct CpAsync {
  void* dst;
  const void* src;
  unsigned bytes, valid;
};

// The part of a fiber that kernel code may look at.
struct Ctx {
  Dim3 tid, bid, bdim, gdim, cdim;
  unsigned lane = 0, warp = 0;
  static constexpr int max_async = 128;
  CpAsync async[max_async];
  int n_async = 0, groups[16], n_groups = 0;  // groups[i] = end index of the i-th committed group
};
extern __thread Ctx* cur;

enum Order { fifo, lifo, shuffled };
enum CopyTiming { copy_late, copy_early };  // asynchronous copies land at the wait, or at the issue

struct Config {
  Dim3 grid, block, cluster;
  size_t smem = 0;
  Order order = fifo;
  uint64_t seed = 1;
  CopyTiming copies = copy_late;
  int workers = 1;
  bool coresident = false;  // all blocks of the grid at once (grid barriers, spin flags)
};
struct Report {
  std::string error;
  uint64_t switches = 0, collectives = 0, barriers = 0;
  bool ok() const { return error.empty(); }
};

Report run(const Config&, void (*fn)(void*), void* arg);
CopyTiming copies();

unsigned cluster_rank();
void arrive_block(int id, int threads, Site);
void sync_block(int id, int threads, Site);  // threads == 0: every live thread of the block
using CollectiveFn = void (*)(void** args, unsigned mask);
// Each lane of mask arrives with its operands; the last to arrive runs fn for all of them.
void collective(unsigned mask, CollectiveFn fn, void* arg, Site);
void group_collective(int threads_log2, CollectiveFn fn, void* arg,
                      Site);  // 128 threads: warpgroup
void sync_cluster(Site);
void yield();
[[noreturn]] void fail(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

void* static_shared(const void* key, size_t size, size_t align);
void* dynamic_shared();
uint32_t shared_addr(const void*);
void* shared_ptr(uint32_t);
void* cluster_ptr(const void* mine, unsigned rank);  // distributed shared memory

// How the device's launches run, for the tests to choose; blocks and sizes are the launch's.
Config& settings();
// What launches became since the last reset, and whether anything is captured instead of run.
void enqueue(const gpu::LaunchConfig& config, const char* name, std::function<void()> body);

template <class F>
Report launch(const Config& c, F&& f) {
  using D = std::remove_reference_t<F>;
  return run(
      c, [](void* p) { (*static_cast<D*>(p))(); }, const_cast<std::remove_const_t<D>*>(&f));
}

// ---- warp collectives
// ----------------------------------------------------------------------------
template <class T>
struct Shfl {
  T in, out;
  int src;
};
template <class T>
T shfl_from(unsigned mask, T v, int src, Site s) {
  Shfl<T> a{v, v, src};
  collective(
      mask,
      [](void** p, unsigned m) {
        for (int l = 0; l < 32; ++l)
          if (m >> l & 1) {
            auto* a = static_cast<Shfl<T>*>(p[l]);
            if (a->src < 0) continue;
            if (!(m >> a->src & 1))
              fail("shuffle: lane %d reads lane %d, which is not in mask %08x", l, a->src, m);
            a->out = static_cast<Shfl<T>*>(p[a->src])->in;
          }
      },
      &a, s);
  return a.out;
}
inline unsigned ballot(unsigned mask, bool v, Site s) {
  struct A {
    bool in;
    unsigned out;
  } a{v, 0};
  collective(
      mask,
      [](void** p, unsigned m) {
        unsigned r = 0;
        for (int l = 0; l < 32; ++l)
          if (m >> l & 1) r |= unsigned(static_cast<A*>(p[l])->in) << l;
        for (int l = 0; l < 32; ++l)
          if (m >> l & 1) static_cast<A*>(p[l])->out = r;
      },
      &a, s);
  return a.out;
}

// `combine` over the operands of all lanes of the mask.
template <class Combine>
unsigned reduce(unsigned mask, unsigned v, Combine, std::source_location at) {
  struct A {
    unsigned in, out;
  } a{v, 0};
  collective(
      mask,
      [](void** p, unsigned m) {
        unsigned r = 0;
        bool first = true;
        for (int l = 0; l < 32; ++l)
          if (m >> l & 1) {
            const unsigned in = static_cast<A*>(p[l])->in;
            r = first ? in : Combine()(r, in);
            first = false;
          }
        for (int l = 0; l < 32; ++l)
          if (m >> l & 1) static_cast<A*>(p[l])->out = r;
      },
      &a, site(at));
  return a.out;
}

// ---- cp.async
// ------------------------------------------------------------------------------------
inline void do_copy(const CpAsync& c) {
  auto* d = static_cast<unsigned char*>(c.dst);
  auto* s = static_cast<const unsigned char*>(c.src);
  for (unsigned i = 0; i < c.valid; ++i) d[i] = s[i];
  for (unsigned i = c.valid; i < c.bytes; ++i) d[i] = 0;
}
inline void cp_async(void* dst, const void* src, unsigned bytes, unsigned valid) {
  if (reinterpret_cast<uintptr_t>(dst) % bytes ||
      (valid && reinterpret_cast<uintptr_t>(src) % bytes))
    fail("cp.async: address not aligned to %u", bytes);
  (void)shared_addr(dst);  // must be shared memory
  CpAsync c{dst, src, bytes, valid};
  if (copies() == copy_early) return do_copy(c);
  if (cur->n_async == Ctx::max_async)
    fail("cp.async: more than %d copies in flight in one thread", Ctx::max_async);
  cur->async[cur->n_async++] = c;
}
inline void cp_async_commit() {
  if (cur->n_groups == 16) fail("cp.async: more than 16 groups in flight");
  cur->groups[cur->n_groups++] = cur->n_async;
}
inline void cp_async_wait(int keep) {
  int done = cur->n_groups - keep;
  if (done <= 0) return;
  int end = cur->groups[done - 1];
  for (int i = 0; i < end; ++i) do_copy(cur->async[i]);
  for (int i = end; i < cur->n_async; ++i) cur->async[i - end] = cur->async[i];
  cur->n_async -= end;
  for (int i = done; i < cur->n_groups; ++i) cur->groups[i - done] = cur->groups[i] - end;
  cur->n_groups -= done;
}

// ---- tensor core fragments
// -------------------------------------------------------------------------
inline float bf16_bits(uint32_t h) {
  uint32_t u = h << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
struct LdMatrix {
  const void* row;
  uint32_t out[4];
};
template <int N, bool Trans>
void ldmatrix(uint32_t (&r)[N], const void* row, Site s) {
  LdMatrix a{row, {}};
  (void)shared_addr(row);
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix: row address not 16-byte aligned");
  collective(
      ~0u,
      [](void** p, unsigned) {
        for (int m = 0; m < N; ++m)
          for (int t = 0; t < 32; ++t) {
            uint32_t v = 0;
            for (int j = 0; j < 2; ++j) {
              int row = Trans ? (t % 4) * 2 + j : t / 4, col = Trans ? t / 4 : (t % 4) * 2 + j;
              auto* q = static_cast<const uint16_t*>(static_cast<LdMatrix*>(p[m * 8 + row])->row);
              v |= uint32_t(q[col]) << 16 * j;
            }
            static_cast<LdMatrix*>(p[t])->out[m] = v;
          }
      },
      &a, s);
  for (int i = 0; i < N; ++i) r[i] = a.out[i];
}
struct Transpose {
  uint32_t in, out;
};
// movmatrix: an 8x8 matrix of 16-bit values in the layout of ldmatrix
inline uint32_t transpose_8x8(uint32_t elements, Site s) {
  Transpose x{elements, 0};
  collective(
      ~0u,
      [](void** p, unsigned) {
        for (int row = 0; row < 8; ++row)
          for (int col = 0; col < 8; ++col) {
            uint32_t v = static_cast<Transpose*>(p[col * 4 + row / 2])->in >> 16 * (row % 2);
            static_cast<Transpose*>(p[row * 4 + col / 2])->out |= (v & 0xffff) << 16 * (col % 2);
          }
      },
      &x, s);
  return x.out;
}
struct Mma {
  const uint32_t *a, *b;
  float* c;
};
// D = A*B + D, m16n8k16, bf16 operands, fp32 accumulators, row.col
inline void mma_16816(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site s) {
  Mma x{a, b, c};
  collective(
      ~0u,
      [](void** p, unsigned) {
        float A[16][16], B[8][16];
        for (int t = 0; t < 32; ++t) {
          auto* x = static_cast<Mma*>(p[t]);
          int g = t / 4, k = t % 4 * 2;
          for (int j = 0; j < 2; ++j) {
            A[g][k + j] = bf16_bits(x->a[0] >> 16 * j & 0xffff);
            A[g + 8][k + j] = bf16_bits(x->a[1] >> 16 * j & 0xffff);
            A[g][k + 8 + j] = bf16_bits(x->a[2] >> 16 * j & 0xffff);
            A[g + 8][k + 8 + j] = bf16_bits(x->a[3] >> 16 * j & 0xffff);
            B[g][k + j] = bf16_bits(x->b[0] >> 16 * j & 0xffff);
            B[g][k + 8 + j] = bf16_bits(x->b[1] >> 16 * j & 0xffff);
          }
        }
        for (int t = 0; t < 32; ++t) {
          auto* x = static_cast<Mma*>(p[t]);
          int g = t / 4, n = t % 4 * 2;
          for (int i = 0; i < 4; ++i) {
            const float *ar = A[g + (i / 2) * 8], *br = B[n + i % 2];
            float d = 0;
            for (int k = 0; k < 16; ++k) d += ar[k] * br[k];
            x->c[i] += d;
          }
        }
      },
      &x, s);
}

// ---- mbarrier and bulk copies (sm_90)
// ---------------------------------------------------------------- 8 bytes of shared memory, as on
// the device; the layout is ours.
struct MBar {
  uint16_t expected, pending;
  int32_t tx : 31;
  uint32_t phase : 1;
};
static_assert(sizeof(MBar) == 8);
void mbar_release(MBar*);
void mbar_acquire(MBar*);
inline void mbar_init(MBar* b, int n) { *b = MBar{uint16_t(n), uint16_t(n), 0, 0}; }
void mbar_arrive(MBar* b, int n, int tx);
void mbar_complete_tx(MBar* b, int bytes);
bool mbar_try_wait(MBar* b, unsigned parity);
inline void mbar_wait(MBar* b, unsigned parity) {
  while (!mbar_try_wait(b, parity)) yield();
  mbar_acquire(b);
}
inline void bulk_copy(void* dst, const void* src, unsigned bytes, MBar* b) {
  if (bytes % 16 || reinterpret_cast<uintptr_t>(dst) % 16 || reinterpret_cast<uintptr_t>(src) % 16)
    fail("cp.async.bulk: size and addresses must be multiples of 16");
  (void)shared_addr(dst);
  do_copy({dst, src, bytes, bytes});
  mbar_complete_tx(b, int(bytes));
}
// The tile of a matrix; what lies outside the matrix reads as zero. Our own descriptor stands in
// for CUtensorMap.
inline uint32_t swizzle128(uint32_t a) { return a ^ (a >> 7 & 7) << 4; }
inline void tma_load_2d(void* dst, const gpu::TiledMatrix& m, int col, int row, MBar* b) {
  uint32_t d = shared_addr(dst);
  if (d % (m.swizzle_128 ? 1024 : 128)) fail("tma: the tile's address is misaligned");
  const int bytes = m.element_bytes;
  for (int r = 0; r < m.tile_rows; ++r)
    for (int c = 0; c < m.tile_columns; ++c) {
      bool in = row + r >= 0 && row + r < m.rows && col + c >= 0 && col + c < m.columns;
      uint32_t to = d + uint32_t((r * m.tile_columns + c) * bytes);
      auto* q = static_cast<unsigned char*>(shared_ptr(m.swizzle_128 ? swizzle128(to) : to));
      auto* from =
          static_cast<const unsigned char*>(m.data) + (row + r) * m.row_bytes + (col + c) * bytes;
      for (int i = 0; i < bytes; ++i) q[i] = in ? from[i] : 0;
    }
  mbar_complete_tx(b, m.tile_rows * m.tile_columns * bytes);
}
// ---- wgmma m64nNk16, A in shared memory or registers, K-major, fp32 accumulators
struct Wgmma {
  uint64_t a, b;
  const uint32_t* a_registers;
  float* d;
  bool accumulate;
};
inline float e4m3_bits(uint32_t v) {
  const int e = v >> 3 & 15, m = v & 7;
  const float f = (v & 127) == 127 ? __builtin_nanf("")
                  : e == 0         ? float(m) * 0x1p-9F
                                   : std::ldexp(float(8 + m), e - 10);
  return v & 128 ? -f : f;
}
template <int kBytes>
float narrow(const void* p) {
  return kBytes == 2 ? bf16_bits(*static_cast<const uint16_t*>(p))
                     : e4m3_bits(*static_cast<const uint8_t*>(p));
}
template <int kBytes>
float wg_elem(uint64_t desc, int row, int k) {
  uint32_t start = uint32_t(desc & 0x3fff) << 4, lbo = uint32_t(desc >> 16 & 0x3fff) << 4,
           sbo = uint32_t(desc >> 32 & 0x3fff) << 4, byte = uint32_t(k * kBytes);
  if (desc >> 62 == 1) {
    uint32_t a = start + uint32_t(row / 8) * sbo + uint32_t(row % 8) * 128 + byte;
    return narrow<kBytes>(shared_ptr(swizzle128(a)));
  }
  if (desc >> 62 != 0) fail("wgmma: only the 128-byte swizzle and none are emulated");
  return narrow<kBytes>(shared_ptr(start + uint32_t(row / 8) * sbo + byte / 16 * lbo +
                                   uint32_t(row % 8) * 16 + byte % 16));
}
template <int kBytes, int kRegisters>
void wgmma(float (&d)[kRegisters], uint64_t a, const uint32_t* a_registers, uint64_t b,
           bool accumulate, Site s) {
  Wgmma x{a, b, a_registers, d, accumulate};
  group_collective(
      7,
      [](void** p, unsigned) {
        constexpr int N = kRegisters * 2, K = 32 / kBytes;
        auto* x0 = static_cast<Wgmma*>(p[0]);
        static thread_local float A[64][K], B[N][K];
        for (int r = 0; r < 64; ++r)
          for (int k = 0; k < K; ++k) {
            if (x0->a_registers == nullptr) {
              A[r][k] = wg_elem<kBytes>(x0->a, r, k);
              continue;
            }
            // row 16 w + g (+ 8), bytes 4 t .. 4 t + 3 (+ 16)
            const int byte = k * kBytes, lane = r % 8 * 4 + byte % 16 / 4;
            const uint32_t word =
                static_cast<Wgmma*>(p[r / 16 * 32 + lane])->a_registers[r % 16 / 8 + byte / 16 * 2];
            const uint32_t value = word >> byte % 4 * 8;
            A[r][k] = kBytes == 2 ? bf16_bits(value & 0xffff) : e4m3_bits(value & 0xff);
          }
        for (int r = 0; r < N; ++r)
          for (int k = 0; k < K; ++k) B[r][k] = wg_elem<kBytes>(x0->b, r, k);
        for (int t = 0; t < 128; ++t) {
          auto* x = static_cast<Wgmma*>(p[t]);
          if (x->a != x0->a || x->b != x0->b || x->accumulate != x0->accumulate)
            fail("wgmma: descriptors differ within the warpgroup");
          for (int i = 0; i < N / 2; ++i) {
            int row = t / 32 * 16 + t % 32 / 4 + (i / 2 % 2) * 8,
                col = i / 4 * 8 + t % 4 * 2 + i % 2;
            float v = 0;
            for (int k = 0; k < K; ++k) v += A[row][k] * B[col][k];
            x->d[i] = x->accumulate ? x->d[i] + v : v;
          }
        }
      },
      &x, s);
}
// m16n8k32 of bytes
struct Mma8 {
  const uint32_t *a, *b;
  void* c;
};
template <class Sum, class Decode>
void mma_16832(Sum (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Decode, Site s) {
  Mma8 x{a, b, c};
  collective(
      ~0u,
      [](void** p, unsigned) {
        Sum A[16][32], B[8][32];
        for (int t = 0; t < 32; ++t) {
          auto* x = static_cast<Mma8*>(p[t]);
          for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
              A[t / 4 + i % 2 * 8][t % 4 * 4 + j + i / 2 * 16] = Decode{}(x->a[i] >> 8 * j & 255);
              if (i < 2) B[t / 4][t % 4 * 4 + j + i * 16] = Decode{}(x->b[i] >> 8 * j & 255);
            }
        }
        for (int t = 0; t < 32; ++t) {
          auto* out = static_cast<Sum*>(static_cast<Mma8*>(p[t])->c);
          for (int i = 0; i < 4; ++i) {
            Sum sum = 0;
            for (int k = 0; k < 32; ++k) sum += A[t / 4 + i / 2 * 8][k] * B[t % 4 * 2 + i % 2][k];
            out[i] += sum;
          }
        }
      },
      &x, s);
}
}  // namespace moebench::simt
