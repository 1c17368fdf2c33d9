// Re-encoding weights on the GPU: a matrix of the checkpoint goes up as it is stored and becomes
// the plan's format there, with the bits that the CPU's codec would give.
#pragma once

#include <string_view>

#include "engine/uploader.h"
#include "kernels/core/buffer.h"
#include "kernels/encode/encode.h"
#include "kernels/formats/encode_matrix.h"

namespace moebench {

class DeviceEncoder {
 public:
  explicit DeviceEncoder(ThreadPool& pool) : pool_(pool) {}

  // Whether the device has an encoder for this; else the CPU's serves.
  static bool supports(const encode::Problem& problem);

  // `source` lies in host memory, row-major; `data` and `scales` on the device. Sets the
  // per-matrix scale. Throws Error(kInvalidArgument) naming `what` for values that are not finite
  // or would become infinite.
  EncodingError encode(const MatrixView& source, Format to, std::byte* data, std::byte* scales,
                       float* tensor_scale, std::string_view what, Uploader& uploader);

 private:
  encode::Sums run(const encode::Args& args);

  ThreadPool& pool_;
  Buffer source_;  // the matrix as stored
  Buffer workspace_;
  Buffer sums_;
};

}  // namespace moebench
