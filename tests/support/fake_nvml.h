// The fake NVML (fake_nvml.cpp) in place of a driver's, and what it is to say.
#pragma once

#include <cstdlib>

#include "kernels/core/shared_library.h"

namespace moebench::test {

inline constexpr const char* kFakeGpu = "0000:1b:00.0";

// Has libraries looked for in `folder` first, while it lives.
class LibraryFolder {
 public:
  explicit LibraryFolder(const char* folder) { setenv("MOEBENCH_CUDA_LIBS", folder, 1); }
  ~LibraryFolder() { unsetenv("MOEBENCH_CUDA_LIBS"); }
};

// With an energy counter, or (false) with power only. What is set is forgotten when the last that
// holds the library lets go of it.
class FakeNvml {
 public:
  explicit FakeNvml(bool with_energy)
      : folder_(with_energy ? MOEBENCH_FAKE_NVML_ENERGY : MOEBENCH_FAKE_NVML),
        library_({"libnvidia-ml.so.1"}) {}
  // "power" (mW), "power status" (0: told), "sm clock" (MHz), "reasons" (bits), "energy" (mJ).
  void set(const char* what, unsigned long long value) const {
    library_.function<void (*)(const char*, unsigned long long)>("fake_nvml_set")(what, value);
  }

 private:
  LibraryFolder folder_;
  SharedLibrary library_;
};

}  // namespace moebench::test
