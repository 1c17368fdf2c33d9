// The SIMT machine as a device: its memory is the host's, its stream runs everything at once, and a
// capture keeps what is enqueued to run it later, again and again.
#include "kernels/core/device.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/core/error.h"
#include "tests/simt/machine.h"

namespace moebench::gpu {

struct GraphHandle {
  std::vector<std::function<void()>> steps;
};
struct EventHandle {};

namespace {

class EmulatedDevice : public Device {
 public:
  std::string unavailable() override { return ""; }
  const DeviceInfo& info() override { return info_; }
  std::size_t free_bytes() override { return info_.total_bytes; }

  // No rounding up: AddressSanitizer then guards the exact end.
  std::byte* allocate(std::size_t bytes, const char* purpose) override {
    void* memory = nullptr;
    const bool fits =
        bytes <= info_.total_bytes && posix_memalign(&memory, 256, bytes > 0 ? bytes : 1) == 0;
    require_or(ErrorCode::kOutOfMemory, fits, "allocate {} bytes for {}: {} bytes are free", bytes,
               purpose, info_.total_bytes);
    std::memset(memory, 0xff, bytes);  // NaN, until somebody writes
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) noexcept override { std::free(memory); }
  std::byte* allocate_pinned(std::size_t bytes, const char* purpose) override {
    return allocate(bytes, purpose);
  }
  void free_pinned(std::byte* memory) noexcept override { std::free(memory); }

  void copy(void* to, const void* from, std::size_t bytes, Copy, Stream) override {
    if (bytes == 0) return;
    enqueue([=] { std::memcpy(to, from, bytes); });
  }
  void fill_zero(void* memory, std::size_t bytes, Stream) override {
    enqueue([=] { std::memset(memory, 0, bytes); });
  }

  Stream create_stream() override { return reinterpret_cast<Stream>(this); }
  void destroy_stream(Stream) noexcept override {}
  void synchronize(Stream) override {
    require_or(ErrorCode::kDevice, capture_ == nullptr, "synchronize: a capture is under way");
  }

  void begin_capture(Stream) override { capture_ = std::make_unique<GraphHandle>(); }
  GraphHandle* end_capture(Stream) override { return capture_.release(); }
  void launch_graph(GraphHandle* graph, Stream) override {
    for (const auto& step : graph->steps) step();
  }
  void destroy_graph(GraphHandle* graph) noexcept override { delete graph; }

  TensorMap make_tensor_map(const TiledMatrix& matrix) override {
    check_limits(matrix);
    static_assert(sizeof matrix <= sizeof(TensorMap));
    TensorMap map{};
    std::memcpy(&map, &matrix, sizeof matrix);
    return map;
  }

  EventHandle* create_event() override { return new EventHandle; }
  void destroy_event(EventHandle* event) noexcept override { delete event; }
  void record_event(EventHandle*, Stream) override {}
  double milliseconds_between(EventHandle*, EventHandle*) override { return 0; }

  void enqueue(std::function<void()> step) {
    if (capture_ != nullptr) {
      capture_->steps.push_back(std::move(step));
    } else {
      step();
    }
  }

 private:
  DeviceInfo info_{"SIMT machine", 9,  0, 4, std::size_t{8} << 30, 1 << 20, 227 << 10, 0, 0,
                   true,           "", ""};
  std::unique_ptr<GraphHandle> capture_;
};

EmulatedDevice& emulated() {
  static EmulatedDevice device;
  return device;
}

}  // namespace

Device* linked_device() { return &emulated(); }

}  // namespace moebench::gpu

namespace moebench::simt {

Config& settings() {
  static Config config;
  return config;
}

void enqueue(const gpu::LaunchConfig& launch, const char* name, std::function<void()> body) {
  Config config = settings();
  config.grid = Dim3(launch.grid.x, launch.grid.y, launch.grid.z);
  config.block = Dim3(launch.block);
  config.cluster = Dim3(launch.cluster);
  config.smem = launch.shared_bytes;
  gpu::emulated().enqueue([config, name, body = std::move(body)] {
    const Report report = simt::launch(config, body);
    require_or(ErrorCode::kDevice, report.ok(), "run {}: {}", name, report.error);
  });
}

}  // namespace moebench::simt
