// CUPTI, the library behind NVIDIA's profilers: so far only whether it is there.
#pragma once

#include <string>

namespace moebench::gpu {

struct Cupti {
  std::string unavailable;  // empty, or why it was not opened
  std::string path;
  int api_version = 0;  // 130000 for CUDA 13.0
};
Cupti find_cupti();

}  // namespace moebench::gpu
