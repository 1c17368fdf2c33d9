// Tensor core instructions of one warp, with the fragment layouts of the PTX manual.
#pragma once

#include <cstdint>

#include "tests/simt/products.h"
#include "tests/simt/thread.h"

namespace moebench::simt {

// Four 8x8 matrices of 16-bit values; `row` is this lane's of the 32 rows.
void load_matrices(std::uint32_t (&fragment)[4], const void* row, bool transposed, Where at);

// The transpose of one 8x8 matrix of 16-bit values, in the same layout (movmatrix).
std::uint32_t transpose_8x8(std::uint32_t elements, Where at);

// c += a b: a has 16 rows and b has 8 columns of 32 bytes. `c` is float[4], of kInt8 int32[4].
void multiply(Element element, void* c, const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where at);

}  // namespace moebench::simt
