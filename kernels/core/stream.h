// The queue that a GPU works off in order: a name for cudaStream_t that needs no CUDA header.
#pragma once

struct CUstream_st;  // what cudaStream_t points to

namespace moebench::gpu {

using Stream = CUstream_st*;

}  // namespace moebench::gpu
