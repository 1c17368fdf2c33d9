// What the machine tells the sanitizers, which know nothing of its fibers and shared memory: either
// ThreadSanitizer, or else AddressSanitizer's runtime and accesses.h.
//
// ThreadSanitizer sees every CUDA thread as a thread of its own, and what orders them only where
// the machine says so. The machine itself is compiled without it (and with SIMT_TSAN defined): it
// names the kernel's accesses that it does on a thread's behalf, and hides its own.
#pragma once

#include <cstddef>
#include <cstring>

#if defined(SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* memory, unsigned long bytes);
void __tsan_write_range(void* memory, unsigned long bytes);
}
#else
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace moebench::simt {

#if defined(SIMT_TSAN)
// All that happened before a release is before what follows an acquire of the same token.
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }
inline void note_read(const void* memory, std::size_t bytes) {
  __tsan_read_range(const_cast<void*>(memory), bytes);
}
inline void note_write(void* memory, std::size_t bytes) { __tsan_write_range(memory, bytes); }
class Unseen {
 public:
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};
// Neighbouring blocks run on different fibers, so that races between them are seen.
inline constexpr int kFiberSets = 2;
inline constexpr bool kUnderTsan = true;
#else
// accesses.cpp: whoever is behind a thread that waited for the previous kernel has waited as well.
void release(void* token);
void acquire(void* token);
void note_read(const void* memory, std::size_t bytes);  // accesses.cpp
void note_write(void* memory, std::size_t bytes);
class Unseen {
 public:
  Unseen() {}
};
inline constexpr int kFiberSets = 1;
inline constexpr bool kUnderTsan = false;
#endif

#if defined(SIMT_TSAN)
inline void forbid(void*, std::size_t) {}
inline void allow(void*, std::size_t) {}
#else
inline void forbid(void* memory, std::size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(void* memory, std::size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#endif

// NaN in every float format, and -1.
inline void poison(void* memory, std::size_t bytes) {
  const Unseen unseen;
  std::memset(memory, 0xff, bytes);
}
inline void copy_unseen(void* to, const void* from, std::size_t bytes) {
  const Unseen unseen;
  std::memcpy(to, from, bytes);
}

}  // namespace moebench::simt
