// A library that answers like libcupti.so.13 about kernels that a test makes up: it keeps records
// in buffers that it asks for, behind the marks of their launches, and hands them over when
// flushed.
//
// Kernel records are longer here than what kernel_recorder.cpp knows of them, as in later versions.
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/core/cupti_records.h"

namespace {

using namespace moebench::gpu::cupti;

constexpr int kNotInitialized = 15;
constexpr std::size_t kLaterFields = 64;

struct State {
  BufferRequested requested = nullptr;
  BufferCompleted completed = nullptr;
  std::map<int, bool> enabled;
  std::vector<std::uint64_t> marks;
  std::uint8_t* buffer = nullptr;
  std::size_t bytes = 0, used = 0;
  std::uint32_t correlation = 0;
  bool kernel_at_each_mark = false;
  int refuse_kind = -1;  // cuptiActivityEnable fails for it
};
State state;

void hand_over() {
  if (state.buffer == nullptr) return;
  state.completed(nullptr, 0, state.buffer, state.bytes, state.used);
  state.buffer = nullptr;
}

void* add_record(std::size_t size) {
  if (state.buffer != nullptr && state.used + size > state.bytes) hand_over();
  if (state.buffer == nullptr) {
    std::size_t most = 0;
    state.used = 0;
    state.requested(&state.buffer, &state.bytes, &most);
    if (state.buffer == nullptr) return nullptr;
  }
  void* at = state.buffer + state.used;
  state.used += size;
  return std::memset(at, 0, size);
}

std::size_t size_of(const Record& record) {
  if (record.kind == kKindConcurrentKernel) return sizeof(Kernel) + kLaterFields;
  return record.kind == kKindExternalCorrelation ? sizeof(ExternalCorrelation) : 24;
}

}  // namespace

extern "C" {

int cuptiActivityRegisterCallbacks(BufferRequested requested, BufferCompleted completed) {
  state.requested = requested;
  state.completed = completed;
  return kSuccess;
}
int cuptiActivityEnable(int kind) {
  if (kind == state.refuse_kind) return kNotInitialized;
  state.enabled[kind] = true;
  return kSuccess;
}
int cuptiActivityDisable(int kind) {
  state.enabled[kind] = false;
  return kSuccess;
}
int cuptiActivityFlushAll(std::uint32_t) {
  hand_over();
  return kSuccess;
}
int cuptiActivityGetNextRecord(std::uint8_t* buffer, std::size_t valid, Record** record) {
  auto* at = reinterpret_cast<std::uint8_t*>(*record);
  at = at == nullptr ? buffer : at + size_of(**record);
  if (at >= buffer + valid) return kNoMoreRecords;
  *record = reinterpret_cast<Record*>(at);
  return kSuccess;
}
int cuptiGetResultString(int result, const char** text) {
  *text = result == kNotInitialized ? "CUPTI_ERROR_NOT_INITIALIZED" : "?";
  return kSuccess;
}

// A launch by the runtime, and its kernel.
void fake_cupti_launch(const char* name, std::uint64_t start, std::uint64_t end) {
  if (!state.enabled[kKindConcurrentKernel]) return;
  ++state.correlation;
  if (!state.marks.empty() && state.enabled[kKindExternalCorrelation]) {
    auto* mark = static_cast<ExternalCorrelation*>(add_record(sizeof(ExternalCorrelation)));
    if (mark == nullptr) return;
    mark->kind = kKindExternalCorrelation;
    mark->external_kind = kCustom;
    mark->external_id = state.marks.back();
    mark->correlation_id = state.correlation;
  }
  if (auto* call = static_cast<Record*>(add_record(24)); call != nullptr) {
    call->kind = kKindRuntime;
  }
  auto* kernel = static_cast<Kernel*>(add_record(sizeof(Kernel) + kLaterFields));
  if (kernel == nullptr) return;
  kernel->kind = kKindConcurrentKernel;
  kernel->name = name;
  kernel->start = start;
  kernel->end = end;
  kernel->correlation_id = state.correlation;
}
int cuptiActivityPushExternalCorrelationId(int kind, std::uint64_t mark) {
  if (kind != kCustom) return 1;
  state.marks.push_back(mark);
  // With "kernel at each mark": one of `mark` microseconds, a microsecond after the last one.
  if (state.kernel_at_each_mark) {
    const std::uint64_t begin = 1000 + mark * 1'000'000;
    fake_cupti_launch("_ZN8moebench4stepEv", begin, begin + mark * 1000);
  }
  return kSuccess;
}
int cuptiActivityPopExternalCorrelationId(int kind, std::uint64_t* last) {
  if (kind != kCustom || state.marks.empty()) return 1;
  *last = state.marks.back();
  state.marks.pop_back();
  return kSuccess;
}

void fake_cupti_set(const char* what, int value) {
  if (std::strcmp(what, "kernel at each mark") == 0) state.kernel_at_each_mark = value != 0;
  if (std::strcmp(what, "refuse kind") == 0) state.refuse_kind = value;
}
int fake_cupti_num_marks() { return static_cast<int>(state.marks.size()); }
int fake_cupti_num_enabled() {
  int count = 0;
  for (const auto& [kind, on] : state.enabled) count += on ? 1 : 0;
  return count;
}

}  // extern "C"
