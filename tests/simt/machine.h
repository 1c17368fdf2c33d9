// The SIMT machine: runs CUDA kernels as ordinary C++ on the CPU, for the tests.
//
// Every CUDA thread is a fiber. The fibers of a block (of a cluster, of a cooperative grid) share
// one worker, which switches between them where they wait for each other; blocks are spread over
// workers. README.md tells what is found in this way, and by which flavour of the build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/core/device.h"
#include "tests/simt/thread.h"

namespace moebench::simt {

// Which of the threads that could run does: the one that waits longest, shortest, or any of them.
enum class Order { kFifo, kLifo, kShuffled };
// When asynchronous copies and products happen: at once, or as late as the kernel's waits allow,
// with NaN in their place until then. A right kernel cannot tell.
enum class Asynchrony { kEarly, kLate };

// Of the imagined device.
inline constexpr int kNumSms = 4;

struct Settings {
  Order order = Order::kFifo;
  std::uint64_t seed = 1;  // of kShuffled
  Asynchrony asynchrony = Asynchrony::kLate;
  int workers = 1;          // operating system threads, each with blocks of its own
  int resident_blocks = 1;  // that take turns on one worker; all of them if cooperative
  int num_sms = kNumSms;    // between which cooperative blocks must fit
};

struct Shape {
  Dim3 grid, block;
  unsigned cluster = 1;
  std::size_t shared_bytes = 0;
  bool cooperative = false;
  bool overlap_previous = false;  // see LaunchConfig
  const char* name = "a kernel";  // kept for good
};

struct Report {
  std::string error;  // empty if all went well
  std::uint64_t switches = 0;
  std::uint64_t collectives = 0;
  std::uint64_t barriers = 0;
  bool ok() const { return error.empty(); }
};

// Runs `kernel` once per thread.
Report run(const Shape& shape, const Settings& settings, const std::function<void()>& kernel);

// How the launches of gpu::launch run, for the tests to choose.
Settings& settings();
// A kernel launch in the device's stream: run now, or kept if the stream is being captured. Throws
// Error(kDevice) with what the machine found.
void enqueue(const gpu::LaunchConfig& config, const char* name, std::function<void()> kernel);

// The names of all launches so far, also of those that a capture keeps.
const std::vector<std::string>& launches();

// Sizes of the imagined device: an H200's.
inline constexpr std::size_t kSharedBytesPerSm = 228 << 10;
inline constexpr std::size_t kSharedBytesPerBlock = 227 << 10;
inline constexpr std::size_t kStaticSharedBytes = 48 << 10;

}  // namespace moebench::simt
