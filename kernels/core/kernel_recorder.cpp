// CUPTI's activity interface: it asks for buffers, fills them on threads of its own, and hands them
// back.
#include "kernels/core/kernel_recorder.h"

#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "kernels/core/cupti_records.h"
#include "kernels/core/error.h"

namespace moebench::gpu {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{4} << 20;
constexpr std::size_t kBufferAlignment = 8;

struct FreeBuffer {
  void operator()(std::uint8_t* buffer) const { std::free(buffer); }
};
struct FilledBuffer {
  std::unique_ptr<std::uint8_t, FreeBuffer> bytes;
  std::size_t valid = 0;
};

// CUPTI's callbacks have no argument to find their owner by, and a process has one CUPTI: this is
// the one place for what they bring.
struct Delivery {
  std::mutex mutex;
  bool taken = false;  // a recorder is recording
  std::vector<FilledBuffer> buffers;
};
Delivery& delivery() {
  static Delivery one;
  return one;
}

void buffer_requested(std::uint8_t** buffer, std::size_t* bytes, std::size_t* most_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *bytes = *buffer != nullptr ? kBufferBytes : 0;  // then CUPTI drops records, and counts them
  *most_records = 0;                               // as many as fit
}

void buffer_completed(void*, std::uint32_t, std::uint8_t* buffer, std::size_t,
                      std::size_t valid_bytes) {
  FilledBuffer filled{std::unique_ptr<std::uint8_t, FreeBuffer>(buffer), valid_bytes};
  Delivery& to = delivery();
  const std::lock_guard lock(to.mutex);
  if (to.taken) to.buffers.push_back(std::move(filled));
}

}  // namespace

std::string short_kernel_name(const char* mangled) {
  if (mangled == nullptr) return "?";
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), &std::free);
  std::string name = status == 0 && text ? text.get() : mangled;
  if (name.starts_with("void ")) name.erase(0, 5);
  // The parameters begin at the first parenthesis outside angle brackets. "(anonymous namespace)"
  // and
  // "(Kind)1" are none: the one stands for a name, the other is inside.
  constexpr std::string_view kAnonymous = "(anonymous namespace)";
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] != '(' || depth > 0) continue;
    if (std::string_view(name).substr(i).starts_with(kAnonymous)) {
      i += kAnonymous.size() - 1;
      continue;
    }
    name.erase(i);
    break;
  }
  return name;
}

KernelRecorder::KernelRecorder()
    : library_({"libcupti.so.13", "libcupti.so.12"}), unavailable_(library_.unavailable()) {
  if (!unavailable_.empty()) return;
  for (const char* name :
       {"cuptiActivityRegisterCallbacks", "cuptiActivityEnable", "cuptiActivityDisable",
        "cuptiActivityFlushAll", "cuptiActivityGetNextRecord",
        "cuptiActivityPushExternalCorrelationId", "cuptiActivityPopExternalCorrelationId"}) {
    if (library_.function<void (*)()>(name) != nullptr) continue;
    unavailable_ = fmt::format("{} has no {}", library_.path(), name);
    return;
  }
}

KernelRecorder::~KernelRecorder() {
  if (recording_) end();
}

void KernelRecorder::check(int result, const char* what) const {
  if (result == cupti::kSuccess) return;
  const auto text =
      library_.function<cupti::Result (*)(cupti::Result, const char**)>("cuptiGetResultString");
  const char* reason = nullptr;
  if (text == nullptr || text(result, &reason) != cupti::kSuccess) reason = nullptr;
  fail(ErrorCode::kDevice, "record kernels: {}: {} ({})", what,
       reason != nullptr ? reason : "unknown", result);
}

void KernelRecorder::start() {
  require(unavailable_.empty(), "record kernels: {}", unavailable_);
  {
    Delivery& to = delivery();
    const std::lock_guard lock(to.mutex);
    require(!to.taken, "record kernels: another recorder does already");
    to.taken = true;
    to.buffers.clear();
  }
  recording_ = true;
  marked_ = false;
  num_dropped_ = 0;
  try {
    check(library_.function<cupti::Result (*)(cupti::BufferRequested, cupti::BufferCompleted)>(
              "cuptiActivityRegisterCallbacks")(buffer_requested, buffer_completed),
          "cuptiActivityRegisterCallbacks");
    const auto enable = library_.function<cupti::Result (*)(int)>("cuptiActivityEnable");
    // A mark reaches a kernel by way of the runtime's call that launched it.
    for (const int kind :
         {cupti::kKindExternalCorrelation, cupti::kKindRuntime, cupti::kKindConcurrentKernel}) {
      check(enable(kind), "cuptiActivityEnable");
    }
  } catch (...) {
    end();
    throw;
  }
}

void KernelRecorder::mark(std::uint64_t mark) {
  require(recording_, "mark kernels: nothing is being recorded");
  if (marked_) {
    std::uint64_t last = 0;
    check(library_.function<cupti::Result (*)(int, std::uint64_t*)>(
              "cuptiActivityPopExternalCorrelationId")(cupti::kCustom, &last),
          "cuptiActivityPopExternalCorrelationId");
  }
  marked_ = false;
  if (mark == 0) return;
  check(library_.function<cupti::Result (*)(int, std::uint64_t)>(
            "cuptiActivityPushExternalCorrelationId")(cupti::kCustom, mark),
        "cuptiActivityPushExternalCorrelationId");
  marked_ = true;
}

void KernelRecorder::end() noexcept {
  if (marked_) {
    std::uint64_t last = 0;
    library_.function<cupti::Result (*)(int, std::uint64_t*)>(
        "cuptiActivityPopExternalCorrelationId")(cupti::kCustom, &last);
  }
  const auto disable = library_.function<cupti::Result (*)(int)>("cuptiActivityDisable");
  for (const int kind :
       {cupti::kKindConcurrentKernel, cupti::kKindRuntime, cupti::kKindExternalCorrelation}) {
    disable(kind);
  }
  Delivery& to = delivery();
  const std::lock_guard lock(to.mutex);
  to.taken = false;
  recording_ = false;
  marked_ = false;
}

std::vector<KernelTime> KernelRecorder::stop() {
  require(recording_, "stop recording kernels: nothing is being recorded");
  mark(0);
  const auto flushed = library_.function<cupti::Result (*)(std::uint32_t)>("cuptiActivityFlushAll")(
      cupti::kFlushForced);
  std::vector<FilledBuffer> buffers;
  {
    const std::lock_guard lock(delivery().mutex);
    buffers.swap(delivery().buffers);
  }
  end();
  check(flushed, "cuptiActivityFlushAll");
  const auto next =
      library_.function<cupti::Result (*)(std::uint8_t*, std::size_t, cupti::Record**)>(
          "cuptiActivityGetNextRecord");
  std::vector<std::pair<std::uint32_t, KernelTime>> kernels;  // with the id of their launch
  std::map<std::uint32_t, std::uint64_t> marks;
  for (const FilledBuffer& buffer : buffers) {
    cupti::Record* record = nullptr;
    for (;;) {
      const cupti::Result result = next(buffer.bytes.get(), buffer.valid, &record);
      if (result == cupti::kNoMoreRecords) break;
      check(result, "cuptiActivityGetNextRecord");
      if (record->kind == cupti::kKindExternalCorrelation) {
        const auto* mark = reinterpret_cast<const cupti::ExternalCorrelation*>(record);
        if (mark->external_kind == cupti::kCustom) marks[mark->correlation_id] = mark->external_id;
      } else if (record->kind == cupti::kKindConcurrentKernel) {
        const auto* kernel = reinterpret_cast<const cupti::Kernel*>(record);
        if (kernel->start == 0 || kernel->end < kernel->start) {
          ++num_dropped_;
          continue;
        }
        kernels.push_back(
            {kernel->correlation_id,
             {short_kernel_name(kernel->name), 0, static_cast<std::int64_t>(kernel->start),
              static_cast<std::int64_t>(kernel->end)}});
      }
    }
  }
  std::vector<KernelTime> times;
  for (auto& [launch, kernel] : kernels) {
    if (const auto it = marks.find(launch); it != marks.end()) kernel.mark = it->second;
    times.push_back(std::move(kernel));
  }
  std::stable_sort(times.begin(), times.end(), [](const KernelTime& a, const KernelTime& b) {
    return a.begin_ns < b.begin_ns;
  });
  return times;
}

}  // namespace moebench::gpu
