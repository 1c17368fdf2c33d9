// Which vector instructions this processor has.
#pragma once

#include <string>

namespace moebench {

// AVX2, FMA and F16C, with the operating system saving their registers. They came together
// (Haswell, 2013; Zen, 2017), and the kernels that use one use all.
bool cpu_has_avx2();

// Empty, or why kernels named avx2_* cannot run here.
std::string avx2_unsupported();

}  // namespace moebench
