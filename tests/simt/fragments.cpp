// Fragments of mma.sync and ldmatrix.
#include "tests/simt/fragments.h"

#include <cstring>

#include "tests/simt/collectives.h"
#include "tests/simt/products.h"
#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

struct MatrixRow {
  const void* row;
  std::uint32_t* fragment;
};

template <bool kTransposed>
void distribute(void* const* operands, unsigned) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::uint16_t values[8][8];
    for (int r = 0; r < 8; ++r) {
      const auto* given = static_cast<const MatrixRow*>(operands[matrix * 8 + r]);
      std::memcpy(values[r], given->row, sizeof values[r]);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4;
      const int column = lane % 4 * 2;
      const std::uint32_t low = kTransposed ? values[column][row] : values[row][column];
      const std::uint32_t high = kTransposed ? values[column + 1][row] : values[row][column + 1];
      static_cast<const MatrixRow*>(operands[lane])->fragment[matrix] = low | high << 16;
    }
  }
}

struct Elements {
  std::uint32_t given, received;
};

void transpose(void* const* operands, unsigned) {
  for (int row = 0; row < 8; ++row) {
    for (int column = 0; column < 8; ++column) {
      const auto* from = static_cast<const Elements*>(operands[column * 4 + row / 2]);
      auto* to = static_cast<Elements*>(operands[row * 4 + column / 2]);
      to->received |= (from->given >> 16 * (row % 2) & 0xffffU) << 16 * (column % 2);
    }
  }
}

struct Fragments {
  Element element;
  const std::uint32_t* a;
  const std::uint32_t* b;
  void* c;
};

// A row (of b: a column) is 32 bytes: lane 4 g + t has words t and t + 4 of row g.
template <class Sum, int kDepth>
void multiply_all(void* const* operands, unsigned) {
  const Element element = static_cast<const Fragments*>(operands[0])->element;
  std::uint32_t a_words[16][8], b_words[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* mine = static_cast<const Fragments*>(operands[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) a_words[g + i % 2 * 8][t + i / 2 * 4] = mine->a[i];
    for (int i = 0; i < 2; ++i) b_words[g][t + i * 4] = mine->b[i];
  }
  Sum a[16][kDepth], b[8][kDepth];
  decode(element, a_words, &a[0][0], 16 * kDepth);
  decode(element, b_words, &b[0][0], 8 * kDepth);
  Sum transposed[kDepth][8];
  for (int k = 0; k < kDepth; ++k) {
    for (int n = 0; n < 8; ++n) transposed[k][n] = b[n][k];
  }
  for (int m = 0; m < 16; ++m) {
    Sum sums[8];
    multiply_row(a[m], &transposed[0][0], kDepth, 8, 8, sums);
    for (int n = 0; n < 8; ++n) {
      auto* c = static_cast<Sum*>(static_cast<const Fragments*>(operands[m % 8 * 4 + n / 2])->c);
      c[m / 8 * 2 + n % 2] += sums[n];
    }
  }
}

}  // namespace

void load_matrices(std::uint32_t (&fragment)[4], const void* row, bool transposed, Where at) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
    fail("load_matrices at %s: a row's address is not a multiple of 16", place(at).c_str());
  }
  check_shared(row, 16, "load_matrices");
  note_read(row, 16);
  MatrixRow mine{row, fragment};
  collective(0xffffffffU, transposed ? &distribute<true> : &distribute<false>, &mine, at);
}

std::uint32_t transpose_8x8(std::uint32_t elements, Where at) {
  Elements mine{elements, 0};
  collective(0xffffffffU, &transpose, &mine, at);
  return mine.received;
}

void multiply(Element element, void* c, const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where at) {
  Fragments mine{element, a, b, c};
  Combine combine = &multiply_all<float, 16>;
  if (element == Element::kE4m3) combine = &multiply_all<float, 32>;
  if (element == Element::kInt8) combine = &multiply_all<std::int32_t, 32>;
  collective(0xffffffffU, combine, &mine, at);
}

}  // namespace moebench::simt
