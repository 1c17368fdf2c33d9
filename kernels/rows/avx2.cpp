// Row products for processors with AVX2.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/core/cpu_features.h"
#include "kernels/core/error.h"
#include "kernels/core/simd_avx2.h"
#include "kernels/rows/products.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/rows/integer_products.h"

namespace moebench {

const RowProducts& avx2_products(Format format, Activations activations) {
  switch (activations) {
    case Activations::kInt8:
      return rows::integer_products<Avx2, 1>(format);
    case Activations::kInt15:
      return rows::integer_products<Avx2, 2>(format);
    case Activations::kF32:
      break;
  }
  return rows::float_products<Avx2>(format);
}

}  // namespace moebench
MOEBENCH_AVX2_END
#else
namespace moebench {
const RowProducts& avx2_products(Format, Activations) {
  fail(ErrorCode::kUnsupported, "multiply rows: {}", avx2_unsupported());
}
}  // namespace moebench
#endif
