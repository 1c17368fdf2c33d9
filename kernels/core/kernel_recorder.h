// When each kernel ran on the GPU, as CUPTI (the library behind NVIDIA's profilers) recorded it.
// Kernels are told apart that one op launches, which events around the op cannot do.
//
//   KernelRecorder recorder;
//   if (recorder.unavailable().empty()) {
//     recorder.start();
//     recorder.mark(1); ...launches...; recorder.mark(2); ...launches...;
//     device.synchronize(stream); const std::vector<KernelTime> kernels = recorder.stop();
//   }
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/shared_library.h"

namespace moebench::gpu {

struct KernelTime {
  std::string name;           // demangled, without parameters: "moebench::rows_kernel<8>"
  std::uint64_t mark = 0;     // that its launch carried; 0: none
  std::int64_t begin_ns = 0;  // on CUPTI's own clock
  std::int64_t end_ns = 0;
};

class KernelRecorder {
 public:
  KernelRecorder();  // never throws: see unavailable()
  ~KernelRecorder();
  KernelRecorder(const KernelRecorder&) = delete;
  KernelRecorder& operator=(const KernelRecorder&) = delete;

  // Empty, or why nothing can be recorded: no library, or one that another profiler has taken.
  const std::string& unavailable() const { return unavailable_; }

  // Records all kernels of this process from now on. Throws Error(kDevice) with CUPTI's reason, and
  // Error(kInvalidArgument) while another recorder does.
  void start();
  // What this thread launches from now on carries `mark`.
  void mark(std::uint64_t mark);
  // Ends it. The device must have done all that was launched. In the order of their begin; kernels
  // that CUPTI has no times of are left out and counted in num_dropped().
  std::vector<KernelTime> stop();
  std::int64_t num_dropped() const { return num_dropped_; }

 private:
  void check(int result, const char* what) const;
  // Ends what start() began; never throws.
  void end() noexcept;

  SharedLibrary library_;
  std::string unavailable_;
  bool recording_ = false;
  bool marked_ = false;
  std::int64_t num_dropped_ = 0;
};

// "void moebench::f<8, (Kind)1>(int const*, int)" becomes "moebench::f<8, (Kind)1>".
std::string short_kernel_name(const char* mangled);

}  // namespace moebench::gpu
