// Row products for any processor.
#include "kernels/core/simd_portable.h"
#include "kernels/rows/float_products.h"

namespace moebench {

const RowProducts& portable_products(Format format) {
  return rows::float_products<Portable>(format);
}

}  // namespace moebench
