// The part of CUPTI's interface that kernel_recorder.cpp uses, declared here: builds and tests need
// no toolkit. Layouts and numbers are those of cupti_activity.h of CUDA 12 and 13; a test of CUDA
// builds compares them with the toolkit's (tests/simt/test_cupti_layout.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebench::gpu::cupti {

using Result = int;
inline constexpr Result kSuccess = 0;
inline constexpr Result kNoMoreRecords = 12;  // CUPTI_ERROR_MAX_LIMIT_REACHED

// CUpti_ActivityKind
inline constexpr int kKindRuntime = 5;
inline constexpr int kKindConcurrentKernel = 10;
inline constexpr int kKindExternalCorrelation = 39;
// CUpti_ExternalCorrelationKind: what is not one of the libraries that CUPTI knows.
inline constexpr int kCustom = 3;
inline constexpr std::uint32_t kFlushForced = 1;

// What every record begins with.
struct alignas(8) Record {
  std::int32_t kind;
};

// The beginning of CUpti_ActivityKernel4 and all later ones, which add at the end.
struct alignas(8) Kernel {
  std::int32_t kind;
  std::uint8_t cache_config;
  std::uint8_t shared_memory_config;
  std::uint16_t registers_per_thread;
  std::int32_t global_cache_requested;
  std::int32_t global_cache_executed;
  std::uint64_t start;  // ns on CUPTI's clock; 0 if it could not be told
  std::uint64_t end;
  std::uint64_t completed;
  std::uint32_t device_id;
  std::uint32_t context_id;
  std::uint32_t stream_id;
  std::int32_t grid[3];
  std::int32_t block[3];
  std::int32_t static_shared_memory;
  std::int32_t dynamic_shared_memory;
  std::uint32_t local_memory_per_thread;
  std::uint32_t local_memory_total;
  std::uint32_t correlation_id;
  std::int64_t grid_id;
  const char* name;  // mangled
};

// CUpti_ActivityExternalCorrelation: says which mark the launch with that id carried.
struct alignas(8) ExternalCorrelation {
  std::int32_t kind;
  std::int32_t external_kind;
  std::uint64_t external_id;
  std::uint32_t correlation_id;
  std::uint32_t reserved;
};

using BufferRequested = void (*)(std::uint8_t** buffer, std::size_t* bytes,
                                 std::size_t* most_records);
using BufferCompleted = void (*)(void* context, std::uint32_t stream, std::uint8_t* buffer,
                                 std::size_t bytes, std::size_t valid_bytes);

}  // namespace moebench::gpu::cupti
