// The arithmetic inside tensor core instructions: numbers from their encodings, and rows of a
// product. It sees arrays of fixed size only, so sanitizer builds leave it alone: checking each of
// its accesses took half the time of the SIMT suite.
#pragma once

namespace moebench::simt {

enum class Element { kBf16, kE4m3, kInt8, kF16 };

// `count` numbers from their encoding.
template <class T>
void decode(Element element, const void* bytes, T* numbers, int count);

// sums[n] = sum over k of row[k] * b[k * stride + n], k ascending; n < columns, a multiple
// of 8.
template <class T>
void multiply_row(const T* row, const T* b, int depth, int columns, int stride, T* sums);

}  // namespace moebench::simt
