// The SIMT machine as a device: its memory is the host's, its streams run everything at once (or as
// late as can be: late_streams.h), and a capture keeps what is enqueued to run it later, again and
// again.
#include "kernels/core/device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "tests/simt/accesses.h"
#include "tests/simt/late_streams.h"
#include "tests/simt/machine.h"

namespace moebench::gpu {

struct GraphHandle {
  std::vector<std::function<void()>> steps;
};
struct EventHandle {
  std::chrono::steady_clock::time_point reached;
  Stream stream = nullptr;   // where it was recorded last
  std::int64_t pending = 0;  // records that the stream has not come to
};

namespace {

class EmulatedDevice : public Device {
 public:
  EmulatedDevice() {
    info_.name = "SIMT machine";
    info_.compute_major = 9;
    info_.num_sms = simt::kNumSms;
    info_.total_bytes = std::size_t{8} << 30;
    info_.l2_bytes = 1 << 20;
    info_.shared_bytes_per_block = simt::kSharedBytesPerBlock;
    info_.emulated = true;
  }

  std::string unavailable() override { return ""; }
  const DeviceInfo& info() override { return info_; }
  std::string has_no_kernels_for(const DeviceInfo&) override { return ""; }
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
  // Only what nobody uses is freed, as by cudaFree, which waits.
  void free(std::byte* memory) noexcept override {
    simt::no_launch_is_under_way();
    std::free(memory);
  }
  std::byte* allocate_pinned(std::size_t bytes, const char* purpose) override {
    return allocate(bytes, purpose);
  }
  void free_pinned(std::byte* memory) noexcept override { std::free(memory); }

  void copy(void* to, const void* from, std::size_t bytes, Copy, Stream stream) override {
    if (bytes == 0) return;
    enqueue(stream, [=] {
      simt::no_launch_is_under_way();
      std::memcpy(to, from, bytes);
    });
  }
  void fill_zero(void* memory, std::size_t bytes, Stream stream) override {
    if (bytes == 0) return;
    enqueue(stream, [=] {
      simt::no_launch_is_under_way();
      std::memset(memory, 0, bytes);
    });
  }

  Stream create_stream() override {
    return reinterpret_cast<Stream>(++num_streams_);  // never null, and never looked into
  }
  void destroy_stream(Stream) noexcept override {}
  void synchronize(Stream stream) override {
    require_or(ErrorCode::kDevice, captures_.count(stream) == 0,
               "synchronize: the stream is being captured");
    while (run_next(stream)) {
    }
    simt::no_launch_is_under_way();
  }

  void begin_capture(Stream stream) override {
    require_or(ErrorCode::kDevice, captures_.count(stream) == 0,
               "begin a capture: the stream is being captured");
    captures_[stream] = std::make_unique<GraphHandle>();
  }
  GraphHandle* end_capture(Stream stream) override {
    const auto found = captures_.find(stream);
    require_or(ErrorCode::kDevice, found != captures_.end(), "end a capture: none was begun");
    GraphHandle* graph = found->second.release();
    captures_.erase(found);
    return graph;
  }
  std::size_t graph_bytes(const GraphHandle*) override { return 0; }
  void launch_graph(GraphHandle* graph, Stream stream) override {
    require_or(ErrorCode::kDevice, captures_.count(stream) == 0,
               "launch a graph: the stream is being captured");
    enqueue(stream, [graph] {
      for (const auto& step : graph->steps) step();
    });
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
  void record_event(EventHandle* event, Stream stream) override {
    event->stream = stream;
    ++event->pending;
    enqueue(stream, [event] {
      event->reached = std::chrono::steady_clock::now();
      --event->pending;
    });
  }
  void wait_for(EventHandle* event) override {
    while (event->pending > 0 && run_next(event->stream)) {
    }
    require_or(ErrorCode::kDevice, event->pending == 0, "wait for an event: it is being captured");
    ++waits_;
    if (!late_[event->stream].empty()) ++waits_with_work_left_;
  }
  double milliseconds_between(EventHandle* first, EventHandle* second) override {
    return std::chrono::duration<double, std::milli>(second->reached - first->reached).count();
  }

  void enqueue(Stream stream, std::function<void()> step) {
    const auto found = captures_.find(stream);
    if (found != captures_.end()) {
      found->second->steps.push_back(std::move(step));
    } else if (runs_late_ && stream != nullptr) {
      late_[stream].push_back(std::move(step));
    } else {
      step();
    }
  }

  // What is enqueued from now on waits, or does not; all that waited has run.
  void run_late(bool on) {
    for (auto& [stream, steps] : late_) synchronize(stream);
    runs_late_ = on;
    waits_ = 0;
    waits_with_work_left_ = 0;
  }
  std::int64_t waits() const { return waits_; }
  std::int64_t waits_with_work_left() const { return waits_with_work_left_; }

 private:
  // False if the stream has nothing left.
  bool run_next(Stream stream) {
    std::deque<std::function<void()>>& steps = late_[stream];
    if (steps.empty()) return false;
    const std::function<void()> step = std::move(steps.front());
    steps.pop_front();
    step();
    return true;
  }

  DeviceInfo info_;
  std::size_t num_streams_ = 0;
  bool runs_late_ = false;
  std::map<Stream, std::deque<std::function<void()>>> late_;
  std::int64_t waits_ = 0;
  std::int64_t waits_with_work_left_ = 0;
  std::map<Stream, std::unique_ptr<GraphHandle>> captures_;
};

EmulatedDevice& emulated() {
  static EmulatedDevice device;
  return device;
}

}  // namespace

Device* linked_device() { return &emulated(); }

}  // namespace moebench::gpu

namespace moebench::simt {
namespace {
std::vector<std::string>& launch_names() {
  static std::vector<std::string> names;
  return names;
}
}  // namespace

const std::vector<std::string>& launches() { return launch_names(); }

LateStreams::LateStreams() { gpu::emulated().run_late(true); }
LateStreams::~LateStreams() { gpu::emulated().run_late(false); }
std::int64_t LateStreams::waits() const { return gpu::emulated().waits(); }
std::int64_t LateStreams::waits_with_work_left() const {
  return gpu::emulated().waits_with_work_left();
}

void enqueue(const gpu::LaunchConfig& config, const char* name, std::function<void()> kernel) {
  launch_names().emplace_back(name);
  Shape shape;
  shape.grid = {config.grid.x, config.grid.y, config.grid.z};
  shape.block = {config.block, 1, 1};
  shape.cluster = config.cluster;
  shape.shared_bytes = config.shared_bytes;
  shape.cooperative = config.cooperative;
  shape.overlap_previous = config.overlap_previous;
  shape.name = name;
  gpu::emulated().enqueue(config.stream, [shape, name, kernel = std::move(kernel)] {
    const Report report = run(shape, settings(), kernel);
    require_or(ErrorCode::kDevice, report.ok(), "run {}: {}", name, report.error);
  });
}

}  // namespace moebench::simt
