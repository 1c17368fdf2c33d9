// Named ranges of host time for NVIDIA's profilers (NVTX): `nsys profile`, `ncu --nvtx`.
//
//   const TraceRange range("moe_experts", layer);   // until the end of the block
//
// Without a profiler a range costs some nanoseconds, and in builds without CUDA nothing. Ops are
// named as in records, so that a profile can be joined with them.
#pragma once

#include <cstdint>

#if defined(MOEBENCH_CUDA)
#include <nvtx3/nvtx3.hpp>

#endif

namespace moebench {

#if defined(MOEBENCH_CUDA)
struct TraceDomain {
  static constexpr const char* name = "moebench";  // NVTX looks for it under this name
};

class [[nodiscard]] TraceRange {
 public:
  // `number` is a layer, or a count of tokens; -1: none.
  explicit TraceRange(const char* name, std::int64_t number = -1)
      : range_(nvtx3::event_attributes(name, nvtx3::payload(number))) {}

 private:
  nvtx3::scoped_range_in<TraceDomain> range_;
};
#else
class [[nodiscard]] TraceRange {
 public:
  explicit TraceRange(const char*, std::int64_t = -1) {}
};
#endif

}  // namespace moebench
