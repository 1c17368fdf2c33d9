// Matrix products by cuBLASLt, NVIDIA's library: a yardstick for kernels of our own.
//
// The library is large (half a GB), so it is opened when it is first asked for. The functions are
// weak: programs without CUDA do not have them; ask cublaslt_unavailable.
//
// Its algorithm depends on the shape: an output may change, by rounding, with the number of rows.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/device.h"

namespace moebench::gpu {

// out[i, j] = sum over c of left[i, c] right[j, c], + bias[j]. All row-major, out of f32.
struct MatrixProduct {
  enum class Type : std::uint8_t {
    kBf16,  // left and right; the bias is f32
    kE4m3,  // left and right, whose rows each have an f32 scale; the bias is bf16
  };
  Type type = Type::kBf16;
  std::int64_t left_rows = 0;
  std::int64_t right_rows = 0;
  std::int64_t columns = 0;
  bool has_bias = false;

  auto operator<=>(const MatrixProduct&) const = default;
};

// All on the device, aligned to 16 bytes.
struct MatrixProductOperands {
  const void* left = nullptr;
  const void* right = nullptr;
  const float* left_scales = nullptr;   // [left_rows], with kE4m3
  const float* right_scales = nullptr;  // [right_rows], with kE4m3
  const void* bias = nullptr;           // [right_rows], with has_bias
  float* out = nullptr;
  void* workspace = nullptr;  // kCublasLtWorkspaceBytes
};

inline constexpr std::size_t kCublasLtWorkspaceBytes = std::size_t{32} << 20;  // as NVIDIA advises

// Empty, or why cuBLASLt cannot compute the product: it is not installed, or has no algorithm for
// it. The first question about a product looks for algorithms; the answer is kept. Of a GPU that is
// only described nothing is known, and all is assumed.
[[gnu::weak]] std::string cublaslt_unsupported(const MatrixProduct& product);
// Enqueues the product, by the algorithm that was the fastest when it was tuned, or else the one
// that cuBLASLt thinks best. Allocates nothing on the device.
[[gnu::weak]] void cublaslt_multiply(const MatrixProduct& product,
                                     const MatrixProductOperands& operands, Stream stream);
// Times every algorithm that cuBLASLt has for the product on these operands (`out` is overwritten),
// and keeps the fastest for as long as the program runs. Waits for the device; does nothing the
// second time.
[[gnu::weak]] void cublaslt_tune(const MatrixProduct& product,
                                 const MatrixProductOperands& operands, Stream stream);

// Empty, or why this program cannot ask cuBLASLt at all.
inline std::string cublaslt_unavailable() {
  const std::string reason = unavailable();
  if (!reason.empty()) return reason;
  return cublaslt_unsupported != nullptr ? "" : "cuBLASLt is not linked in (only CUDA builds do)";
}

}  // namespace moebench::gpu
