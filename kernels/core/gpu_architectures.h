// Which GPUs code for some architectures runs on.
#pragma once

#include <string>
#include <string_view>

namespace moebench::gpu {

// `architectures` is a list in CMake's words, "80-real,90a-real,120": the number with "-real" is
// machine code, with "-virtual" PTX, which the driver compiles for later GPUs, alone both. Machine
// code runs on GPUs of the same major version and a minor one that is not smaller; with an "a" (as
// wgmma needs) or PTX of such, on that very version; with an "f", as without.
bool runs_on(std::string_view architectures, int compute_major, int compute_minor);

// "sm_80, sm_90a"
std::string architecture_names(std::string_view architectures);

}  // namespace moebench::gpu
