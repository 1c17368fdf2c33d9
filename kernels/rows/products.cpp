// What row products can take, and what rounding their inputs may cost.
#include "kernels/rows/products.h"

#include "kernels/core/error.h"

namespace moebench {

std::string rows_unsupported(const RowProducts& products, Format format, std::int64_t cols) {
  std::string reason = interleave_unsupported(format, cols);
  if (reason.empty() && products.prepare != nullptr && cols % 32 != 0) {
    reason = fmt::format("{} columns are not a multiple of the block of inputs, 32", cols);
  }
  return reason;
}

double rounding_bound(Format format, Activations activations) {
  constexpr double kFloat = 1e-11;
  if (activations == Activations::kF32) return kFloat;
  const auto of_steps = [](double n) { return kFloat + 4 * (1.0 / 12) / (n * n / 3); };
  switch (format) {
    case Format::kInt8:
      return of_steps(32767);
    case Format::kInt4:
    case Format::kMxfp4:
    case Format::kNvfp4:
      return of_steps(activations == Activations::kInt8 ? 127 : 16319);
    default:
      return kFloat;
  }
}

}  // namespace moebench
