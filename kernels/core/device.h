// The GPU as the host sees it: memory, copies, streams, graphs, and what it is.
//
// One class, two implementations: the CUDA runtime (device_cuda.cpp, in builds with MOEBENCH_CUDA),
// and the test suite's SIMT machine (tests/simt), whose device memory is the host's. Without either
// linked in there is no device, and only CUDA plans are refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "kernels/core/stream.h"

namespace moebench::gpu {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

// How a kernel is started; see gpu::launch in gpu.cuh.
struct LaunchConfig {
  Extent grid = {};
  unsigned block = 0;            // threads, in one dimension
  std::size_t shared_bytes = 0;  // dynamic shared memory
  Stream stream = nullptr;
  unsigned cluster = 1;           // blocks that see each other's shared memory (sm_90)
  bool overlap_previous = false;  // may start before the previous kernel ends (sm_90)
  bool cooperative = false;       // all blocks run at once, or the launch is refused
  // Of what an SM divides between shared memory and cache, the part that is to be shared memory;
  // -1: what the SM has, if that is enough. A block whose part is another waits until the SM is
  // empty.
  int shared_percent = -1;
};

// A row-major matrix in device memory as the tensor memory accelerator reads it (TMA, sm_90): tile
// by tile, into shared memory. What lies outside the matrix arrives as zeros.
struct TiledMatrix {
  const void* data = nullptr;  // aligned to 16 bytes
  int element_bytes = 2;       // 2 (bf16) or 1
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_bytes = 0;  // from a row to the next; a multiple of 16
  int tile_rows = 0;           // at most 256
  int tile_columns = 0;        // at most 256; as many bytes as the swizzle has, or a multiple of 16
  // 128: 16-byte chunk c of the tile's row r goes to chunk c ^ (r % 8), as wgmma wants it. 64: to
  // c ^ (r / 2 % 4). 0: none.
  int swizzle = 128;
};
// Throws Error(kInvalidArgument) for one outside these limits.
void check_limits(const TiledMatrix& matrix);

// What a kernel needs for that (on CUDA a CUtensorMap, which has this size): passed by value, as a
// MOEBENCH_GRID_CONSTANT parameter.
struct alignas(128) TensorMap {
  std::byte opaque[128];
};

struct DeviceInfo {
  std::string name;
  int compute_major = 0;
  int compute_minor = 0;
  int num_sms = 0;
  std::size_t total_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t shared_bytes_per_block = 0;  // most dynamic shared memory of one block
  int driver_version = 0;                  // 13000: CUDA 13.0
  int runtime_version = 0;
  bool emulated = false;   // the test suite's
  std::string uuid;        // "GPU-...", as nvidia-smi says it; empty if emulated
  std::string pci_bus_id;  // "0000:1b:00.0", by which NVML finds it
};

enum class Copy { kToDevice, kToHost, kOnDevice };

struct GraphHandle;  // a captured sequence of launches and copies
struct EventHandle;

class Device {
 public:
  virtual ~Device() = default;

  // Empty if it can be used, else why not and what would help.
  virtual std::string unavailable() = 0;
  virtual const DeviceInfo& info() = 0;
  virtual std::size_t free_bytes() = 0;

  // Aligned to 256 bytes; contents undefined. Throws Error(kOutOfMemory) with what was needed for
  // `purpose` and what there was.
  virtual std::byte* allocate(std::size_t bytes, const char* purpose) = 0;
  virtual void free(std::byte* memory) noexcept = 0;
  // Host memory that copies reach without a detour.
  virtual std::byte* allocate_pinned(std::size_t bytes, const char* purpose) = 0;
  virtual void free_pinned(std::byte* memory) noexcept = 0;

  // In the stream's order. Host memory must stay as it is until then: only pinned memory may be
  // named in a capture.
  virtual void copy(void* to, const void* from, std::size_t bytes, Copy kind, Stream stream) = 0;
  virtual void fill_zero(void* memory, std::size_t bytes, Stream stream) = 0;

  virtual Stream create_stream() = 0;
  virtual void destroy_stream(Stream stream) noexcept = 0;
  // Waits for all that was enqueued. Throws Error(kDevice) for what went wrong meanwhile.
  virtual void synchronize(Stream stream) = 0;

  // Between the two calls nothing enqueued on `stream` runs: it becomes the graph.
  virtual void begin_capture(Stream stream) = 0;
  virtual GraphHandle* end_capture(Stream stream) = 0;
  virtual void launch_graph(GraphHandle* graph, Stream stream) = 0;
  virtual void destroy_graph(GraphHandle* graph) noexcept = 0;

  // Works without the GPU's doing: cuTensorMapEncodeTiled, which the CUDA runtime finds through
  // cudaGetDriverEntryPointByVersion(..., 12000, ...), so that nothing links with libcuda. Element
  // type UINT8 or BFLOAT16, rank 2 with columns first, element strides 1, no interleave, swizzle
  // 128B, 64B or none, L2 promotion 256B, out-of-bounds fill zero. Throws Error(kInvalidArgument)
  // if the matrix is outside the limits above.
  virtual TensorMap make_tensor_map(const TiledMatrix& matrix) = 0;

  virtual EventHandle* create_event() = 0;
  virtual void destroy_event(EventHandle* event) noexcept = 0;
  virtual void record_event(EventHandle* event, Stream stream) = 0;
  // Waits for all that was enqueued before the event was recorded, not for what came behind it.
  // Throws as synchronize does.
  virtual void wait_for(EventHandle* event) = 0;
  // Milliseconds between two events that have both been reached.
  virtual double milliseconds_between(EventHandle* first, EventHandle* second) = 0;

  // For reports. Empty if this build has kernels for such a GPU, else which it has and what would
  // help.
  virtual std::string has_no_kernels_for(const DeviceInfo& gpu) = 0;
  // By how much making the graph ready shrank the device's free memory (cudaMemGetInfo): 0 where
  // that came out of what the driver held already.
  virtual std::size_t graph_bytes(const GraphHandle* graph) = 0;
};

// The device that was linked in, whether or not this machine can use it.
[[gnu::weak]] Device* linked_device();

// Throws Error(kUnsupported) with the reason if there is none.
Device& device();

// What variants ask before they run, and plans before anything is loaded. Within the life of a
// DescribedDevice (described_device.h) the answers are for that GPU, which need not be here.
//
// Empty, or why there is no device to plan for.
std::string unavailable();
// Of the device to plan for. Throws Error(kUnsupported) with the reason if there is none.
const DeviceInfo& device_info();
// Empty if it has at least this compute capability (90 for sm_90), else the reason.
std::string needs_compute_capability(int at_least);
// Empty if it has wgmma, which is compute capability 9.x's alone, else the reason.
std::string needs_wgmma();
// A kernel's LaunchConfig::shared_percent for so many blocks on an SM with `shared_bytes` each, and
// the rest for cache: what kernels wish that load much to registers, since the cache holds what is
// under way. Without a wish they would run with what the kernel before took, which may be all.
int shared_percent_for(std::size_t shared_bytes, int blocks);
// Of small kernels beside those of one token that take nearly all shared memory: all, so that these
// can start before they end. With more tokens other kernels follow, which need the cache: no wish.
// On an H200, with the wishes above, 2 % of a step of one token; without them 8 % slower.
constexpr int shared_percent_beside_streams(std::int64_t num_tokens) {
  return num_tokens == 1 ? 100 : -1;
}

// Owners: move-only.
template <class Handle, void (Device::*kDestroy)(Handle) noexcept>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle handle) : handle_(handle) {}
  ~Owner() {
    if (handle_ != nullptr) (linked_device()->*kDestroy)(handle_);
  }
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};
using DeviceMemory = Owner<std::byte*, &Device::free>;
using PinnedMemory = Owner<std::byte*, &Device::free_pinned>;
using OwnedStream = Owner<Stream, &Device::destroy_stream>;
using Graph = Owner<GraphHandle*, &Device::destroy_graph>;
using Event = Owner<EventHandle*, &Device::destroy_event>;

}  // namespace moebench::gpu
