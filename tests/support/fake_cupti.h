// The fake CUPTI (fake_cupti.cpp) in place of NVIDIA's, and what it is to record.
#pragma once

#include <cstdint>

#include "kernels/core/shared_library.h"
#include "tests/support/fake_nvml.h"

namespace moebench::test {

// Beside the other fakes.
inline constexpr const char* kFakeCupti = MOEBENCH_FAKE_NVML "/../fake_cupti";
inline constexpr const char* kNoCupti = MOEBENCH_FAKE_NVML "/../no_cupti";  // none of its functions

class FakeCupti {
 public:
  FakeCupti() : folder_(kFakeCupti), library_({"libcupti.so.13"}) {}
  ~FakeCupti() {
    set("kernel at each mark", 0);
    set("refuse kind", -1);
  }

  void launch(const char* mangled, std::uint64_t begin_ns, std::uint64_t end_ns) const {
    library_.function<void (*)(const char*, std::uint64_t, std::uint64_t)>("fake_cupti_launch")(
        mangled, begin_ns, end_ns);
  }
  void set(const char* what, int value) const {
    library_.function<void (*)(const char*, int)>("fake_cupti_set")(what, value);
  }
  int num_marks() const { return library_.function<int (*)()>("fake_cupti_num_marks")(); }
  int num_enabled() const { return library_.function<int (*)()>("fake_cupti_num_enabled")(); }

 private:
  LibraryFolder folder_;
  SharedLibrary library_;
};

}  // namespace moebench::test
