// Opening CUPTI, which comes with the toolkit or beside the driver.
#include "kernels/core/cupti.h"

#include <cstdint>

#include "kernels/core/shared_library.h"

namespace moebench::gpu {

Cupti find_cupti() {
  const SharedLibrary library({"libcupti.so.13", "libcupti.so.12"});
  Cupti found;
  found.unavailable = library.unavailable();
  found.path = library.path();
  const auto version = library.function<int (*)(std::uint32_t*)>("cuptiGetVersion");
  std::uint32_t number = 0;
  if (version != nullptr && version(&number) == 0) found.api_version = static_cast<int>(number);
  return found;
}

}  // namespace moebench::gpu
