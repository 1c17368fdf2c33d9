// The machine's tensor core words and asynchronous copies, against plain loops over matrices whose
// fragments are built here from the layouts of the PTX manual.
#include <catch2/catch.hpp>
#include <cstring>

#include "kernels/core/float_types.h"
#include "tests/simt/support.h"
#include "tests/simt/words.h"

namespace moebench::test {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

// [rows, columns] of small whole numbers.
struct Matrix {
  int rows, columns;
  std::vector<int> values;

  Matrix(int num_rows, int num_columns, SmallNumbers& numbers)
      : rows(num_rows), columns(num_columns), values(index(num_rows * num_columns)) {
    for (int& value : values) value = numbers.next();
  }
  int at(int row, int column) const { return values[index(row * columns + column)]; }
};

std::vector<std::uint8_t> encode(const Matrix& matrix, simt::Element element) {
  std::vector<std::uint8_t> bytes;
  for (const int value : matrix.values) {
    if (element == simt::Element::kBf16 || element == simt::Element::kF16) {
      const std::uint16_t bits = element == simt::Element::kBf16
                                     ? to_bf16(static_cast<float>(value)).bits
                                     : to_f16(static_cast<float>(value)).bits;
      bytes.push_back(static_cast<std::uint8_t>(bits & 255));
      bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
    } else if (element == simt::Element::kE4m3) {
      bytes.push_back(float_to_fp8_e4m3(static_cast<float>(value)));
    } else {
      bytes.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return bytes;
}

// a b^T
int product(const Matrix& a, const Matrix& b, int row, int column) {
  int sum = 0;
  for (int k = 0; k < a.columns; ++k) sum += a.at(row, k) * b.at(column, k);
  return sum;
}

// ---- ldmatrix and mma.sync ----------------------------------------------------------------------

__global__ void load_fragments(const std::uint16_t* matrices, std::uint32_t* plain,
                               std::uint32_t* transposed) {
  MOEBENCH_SHARED(std::uint16_t, rows, [32 * 8]);
  const int lane = gpu::lane_id();
  for (int i = 0; i < 8; ++i) rows[lane * 8 + i] = matrices[lane * 8 + i];
  gpu::sync_warp();
  std::uint32_t fragment[4];
  gpu::load_matrices(fragment, &rows[lane * 8]);
  for (int i = 0; i < 4; ++i) plain[lane * 4 + i] = fragment[i];
  gpu::load_matrices_transposed(fragment, &rows[lane * 8]);
  for (int i = 0; i < 4; ++i) transposed[lane * 4 + i] = fragment[i];
}

TEST_CASE("simt: load_matrices hands out four 8x8 matrices, transposed if asked") {
  std::vector<std::uint16_t> values(32 * 8);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i);
  DeviceArray<std::uint16_t> matrices(values);
  DeviceArray<std::uint32_t> plain(128), transposed(128);
  gpu::launch(load_fragments, {.block = 32}, "test", matrices.data(), plain.data(),
              transposed.data());
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      INFO("lane " << lane << ", matrix " << m);
      const int i = lane / 4;
      const int j = lane % 4 * 2;
      const auto value = [m](int row, int column) {
        return static_cast<std::uint32_t>(m * 64 + row * 8 + column);
      };
      CHECK(plain[index(lane * 4 + m)] == (value(i, j) | value(i, j + 1) << 16));
      CHECK(transposed[index(lane * 4 + m)] == (value(j, i) | value(j + 1, i) << 16));
    }
  }
}

template <simt::Element kElement, class Sum>
__global__ void multiply_once(const std::uint8_t* a_rows, const std::uint8_t* b_columns, Sum* c) {
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  const auto word = [](const std::uint8_t* rows, int row, int byte) {
    std::uint32_t value;
    std::memcpy(&value, rows + row * 32 + byte, sizeof value);
    return value;
  };
  const std::uint32_t a[4] = {word(a_rows, g, 4 * t), word(a_rows, g + 8, 4 * t),
                              word(a_rows, g, 4 * t + 16), word(a_rows, g + 8, 4 * t + 16)};
  const std::uint32_t b[2] = {word(b_columns, g, 4 * t), word(b_columns, g, 4 * t + 16)};
  Sum sums[4] = {100, 100, 100, 100};
  if constexpr (kElement == simt::Element::kBf16) gpu::multiply_bf16(sums, a, b);
  if constexpr (kElement == simt::Element::kF16) gpu::multiply_f16(sums, a, b);
  if constexpr (kElement == simt::Element::kE4m3) gpu::multiply_e4m3(sums, a, b);
  if constexpr (kElement == simt::Element::kInt8) gpu::multiply_int8(sums, a, b);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

template <simt::Element kElement, class Sum>
void check_multiply(int depth) {
  SmallNumbers numbers;
  const Matrix a(16, depth, numbers);
  const Matrix b(8, depth, numbers);
  DeviceArray<std::uint8_t> a_bytes(encode(a, kElement)), b_bytes(encode(b, kElement));
  DeviceArray<Sum> c(16 * 8);
  gpu::launch(multiply_once<kElement, Sum>, {.block = 32}, "test", a_bytes.data(), b_bytes.data(),
              c.data());
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      INFO("row " << row << ", column " << column);
      CHECK(c[index(row * 8 + column)] == static_cast<Sum>(100 + product(a, b, row, column)));
    }
  }
}

TEST_CASE("simt: multiply_bf16, _f16, _e4m3 and _int8 add the product of their fragments") {
  check_multiply<simt::Element::kBf16, float>(16);
  check_multiply<simt::Element::kF16, float>(16);
  check_multiply<simt::Element::kE4m3, float>(32);
  check_multiply<simt::Element::kInt8, std::int32_t>(32);
}

// ---- Copies -------------------------------------------------------------------------------------

// Three groups of one copy per thread; after waiting for all but one, two are there.
__global__ void copy_groups(const std::uint32_t* from, std::uint32_t* out) {
  MOEBENCH_SHARED(std::uint32_t, to, [3 * 32 * 4]);
  const int lane = gpu::lane_id();
  for (int group = 0; group < 3; ++group) {
    gpu::copy_async(&to[(group * 32 + lane) * 4], from + (group * 32 + lane) * 4,
                    lane != 5 || group != 1);
    gpu::commit_copies();
  }
  gpu::wait_copies<1>();
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = to[lane * 4 + i];
  for (int i = 0; i < 4; ++i) out[128 + lane * 4 + i] = to[128 + lane * 4 + i];
  gpu::wait_copies<0>();
  for (int i = 0; i < 4; ++i) out[256 + lane * 4 + i] = to[256 + lane * 4 + i];
}

TEST_CASE("simt: copies land by groups, and zeros where they are not valid") {
  std::vector<std::uint32_t> values(3 * 128);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint32_t>(i + 1);
  std::vector<std::uint32_t> want = values;
  for (std::size_t i = 0; i < 4; ++i) want[128 + 5 * 4 + i] = 0;
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    DeviceArray<std::uint32_t> from(values), out(3 * 128);
    gpu::launch(copy_groups, {.block = 32}, "test", from.data(), out.data());
    CHECK(out.values() == want);
  }
}

// One tile, and 64 bytes; each barrier is used for two phases.
__global__ void load_one_tile(MOEBENCH_GRID_CONSTANT gpu::TensorMap map, int column, int row,
                              int bytes, const std::uint8_t* more, std::uint8_t* out) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [1]);
  MOEBENCH_SHARED(std::uint8_t, extra, [64]);
  unsigned char* tile = gpu::dynamic_shared();
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    gpu::mbarrier_init(full, 1);
    gpu::fence_mbarrier_init();
  }
  gpu::sync_threads();
  if (t == 0) {
    gpu::mbarrier_arrive_expect_bytes(full, bytes);
    gpu::load_tile_async(tile, map, column, row, full);
  }
  gpu::mbarrier_wait(full, 0);
  for (int i = t; i < bytes; i += 64) out[i] = tile[i];
  gpu::sync_threads();  // the next phase must not end before all have seen this one's end
  if (t == 0) {
    gpu::copy_bulk_async(extra, more, 64, full);
    gpu::mbarrier_arrive_expect_bytes(full, 64);
  }
  gpu::mbarrier_wait(full, 1);
  out[bytes + t] = extra[t];
}

TEST_CASE("simt: tiles arrive where the swizzle puts them, with zeros outside the matrix") {
  const int rows = 20, columns = 100;  // in rows of 208 bytes
  std::vector<std::uint16_t> values(rows * 104);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i + 1);
  DeviceArray<std::uint16_t> matrix(values);
  std::vector<std::uint8_t> bytes(64);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i + 7);
  DeviceArray<std::uint8_t> more(bytes);
  struct Place {
    int column, row;
  };
  for (const simt::Settings& settings : schedules()) {
    for (const int swizzle : {128, 64, 0}) {
      for (const Place place : {Place{0, 0}, Place{64, 10}, Place{-3, -5}, Place{200, 0}}) {
        INFO(describe(settings) << ", swizzle " << swizzle << ", tile at " << place.row << ", "
                                << place.column);
        const WithSettings with(settings);
        const int tile_rows = 16, tile_columns = swizzle == 64 ? 32 : 64;
        const auto map = gpu::device().make_tensor_map({.data = matrix.data(),
                                                        .rows = rows,
                                                        .columns = columns,
                                                        .row_bytes = 208,
                                                        .tile_rows = tile_rows,
                                                        .tile_columns = tile_columns,
                                                        .swizzle = swizzle});
        const int tile_bytes = tile_rows * tile_columns * 2;
        DeviceArray<std::uint8_t> out(index(tile_bytes + 64));
        gpu::launch(load_one_tile, {.block = 64, .shared_bytes = index(tile_bytes)}, "test", map,
                    place.column, place.row, tile_bytes, more.data(), out.data());
        int wrong = 0;
        for (int r = 0; r < tile_rows; ++r) {
          for (int c = 0; c < tile_columns; ++c) {
            const int row = place.row + r;
            const int column = place.column + c;
            const bool inside = row >= 0 && row < rows && column >= 0 && column < columns;
            const int want = inside ? values[index(row * 104 + column)] : 0;
            // The manual's words: 16-byte chunks, exchanged within rows of 128 (64) bytes by bits
            // 7 to 9 (7 and 8) of their address.
            const int chunk = swizzle == 128  ? c / 8 ^ r % 8
                              : swizzle == 64 ? c / 8 ^ r / 2 % 4
                                              : c / 8;
            std::uint16_t got;
            std::memcpy(&got, &out[index(r * tile_columns * 2 + chunk * 16 + c % 8 * 2)], 2);
            wrong += got != want;
          }
        }
        CHECK(wrong == 0);
        CHECK(std::memcmp(&out[index(tile_bytes)], bytes.data(), 64) == 0);
      }
    }
  }
}

TEST_CASE("simt: tensor maps outside the hardware's limits are refused") {
  DeviceArray<std::uint16_t> matrix(64 * 64);
  const gpu::TiledMatrix good{.data = matrix.data(),
                              .rows = 64,
                              .columns = 64,
                              .row_bytes = 128,
                              .tile_rows = 64,
                              .tile_columns = 64};
  CHECK_NOTHROW(gpu::device().make_tensor_map(good));
  const auto refused = [&](auto change) {
    gpu::TiledMatrix matrix_map = good;
    change(matrix_map);
    CHECK_THROWS_AS(gpu::device().make_tensor_map(matrix_map), Error);
  };
  refused([](gpu::TiledMatrix& m) { m.data = static_cast<const std::uint16_t*>(m.data) + 1; });
  refused([](gpu::TiledMatrix& m) { m.row_bytes = 130; });
  refused([](gpu::TiledMatrix& m) { m.tile_rows = 257; });
  refused([](gpu::TiledMatrix& m) { m.tile_columns = 32; });
  refused([](gpu::TiledMatrix& m) { m.element_bytes = 4; });
  refused([](gpu::TiledMatrix& m) { m.rows = 0; });
}

// ---- wgmma --------------------------------------------------------------------------------------

enum class WgmmaOperands { kSwizzled, kUnswizzled, kRegisters, kNegated };

// c = a b^T (+ 1000), a [64, 4 x 32 bytes], b [N, the same], in two groups of two products. The
// second group is in flight while the first is waited for.
template <simt::Element kElement, int kRegisters, WgmmaOperands kOperands>
__global__ void multiply_tiles(const std::uint8_t* a_rows, const std::uint8_t* b_rows, bool add,
                               float* c) {
  constexpr int kColumns = kRegisters * 2;
  const int t = static_cast<int>(threadIdx.x);
  unsigned char* a_tile = gpu::dynamic_shared();
  unsigned char* b_tile = a_tile + 64 * 128;
  // Without swizzle: 8 rows of 16 bytes together, then the next 16 bytes of them, then more rows.
  const auto place = [](int row, int byte) {
    if (kOperands != WgmmaOperands::kUnswizzled) return gpu::swizzle_128(row * 128 + byte);
    return row / 8 * 1024 + byte / 16 * 128 + row % 8 * 16 + byte % 16;
  };
  for (int i = t; i < 64 * 128; i += 128) a_tile[place(i / 128, i % 128)] = a_rows[i];
  for (int i = t; i < kColumns * 128; i += 128) b_tile[place(i / 128, i % 128)] = b_rows[i];
  gpu::fence_async_proxy();
  gpu::sync_threads();

  float d[kRegisters];
  for (float& value : d) value = 1000;
  for (int group = 0; group < 2; ++group) {
    std::uint32_t a[2][4];
    for (int step = 0; step < 2; ++step) {
      for (int i = 0; i < 4; ++i) {
        const int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8;
        const int byte = (group * 2 + step) * 32 + t % 4 * 4 + i / 2 * 16;
        std::memcpy(&a[step][i], a_rows + row * 128 + byte, 4);
      }
    }
    if (group == 0) {
      gpu::wgmma_fence(d, a);
    } else {
      gpu::wgmma_fence(a);
    }
    for (int step = 0; step < 2; ++step) {
      const int k = group * 2 + step;
      const bool accumulate = add || k > 0;
      if constexpr (kOperands == WgmmaOperands::kUnswizzled) {
        const auto a_at = gpu::wgmma_descriptor_unswizzled(a_tile + k * 256, 128, 1024);
        const auto b_at = gpu::wgmma_descriptor_unswizzled(b_tile + k * 256, 128, 1024);
        if constexpr (kElement == simt::Element::kBf16) {
          gpu::wgmma_bf16(d, a_at, b_at, accumulate);
        } else {
          gpu::wgmma_e4m3(d, a_at, b_at, accumulate);
        }
      } else if constexpr (kOperands == WgmmaOperands::kSwizzled) {
        const auto a_at = gpu::wgmma_descriptor(a_tile + k * 32);
        const auto b_at = gpu::wgmma_descriptor(b_tile + k * 32);
        if constexpr (kElement == simt::Element::kBf16) {
          gpu::wgmma_bf16(d, a_at, b_at, accumulate);
        } else {
          gpu::wgmma_e4m3(d, a_at, b_at, accumulate);
        }
      } else {
        const auto b_at = gpu::wgmma_descriptor(b_tile + k * 32);
        if constexpr (kElement == simt::Element::kBf16) {
          gpu::wgmma_bf16(d, a[step], b_at, accumulate);
        } else if constexpr (kOperands == WgmmaOperands::kNegated) {
          gpu::wgmma_e4m3_negated(d, a[step], b_at, accumulate);
        } else {
          gpu::wgmma_e4m3(d, a[step], b_at, accumulate);
        }
      }
    }
    gpu::wgmma_commit();
    gpu::wgmma_wait<1>();
  }
  gpu::wgmma_wait<0>(d);
  for (int i = 0; i < kRegisters; ++i) {
    const int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
    const int column = i / 4 * 8 + t % 4 * 2 + i % 2;
    c[row * kColumns + column] = d[i];
  }
}

template <simt::Element kElement, int kRegisters, WgmmaOperands kOperands>
void check_wgmma() {
  constexpr int kColumns = kRegisters * 2;
  const int depth = kElement == simt::Element::kBf16 ? 64 : 128;
  SmallNumbers numbers;
  const Matrix a(64, depth, numbers);
  const Matrix b(kColumns, depth, numbers);
  DeviceArray<std::uint8_t> a_bytes(encode(a, kElement)), b_bytes(encode(b, kElement));
  for (const simt::Settings& settings : schedules()) {
    for (const bool add : {true, false}) {
      INFO(describe(settings) << ", " << kColumns << " columns, operands "
                              << static_cast<int>(kOperands) << ", add " << add);
      const WithSettings with(settings);
      DeviceArray<float> c(64 * kColumns);
      gpu::launch(multiply_tiles<kElement, kRegisters, kOperands>,
                  {.block = 128, .shared_bytes = (64 + kColumns) * 128}, "test", a_bytes.data(),
                  b_bytes.data(), add, c.data());
      int wrong = 0;
      for (int row = 0; row < 64; ++row) {
        for (int column = 0; column < kColumns; ++column) {
          const int sign = kOperands == WgmmaOperands::kNegated ? -1 : 1;
          const int want = sign * product(a, b, row, column) + (add ? 1000 : 0);
          wrong += !(c[index(row * kColumns + column)] == static_cast<float>(want));
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("simt: wgmma multiplies swizzled tiles, of every number of columns") {
  check_wgmma<simt::Element::kBf16, 4, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 8, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 16, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 32, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 48, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 64, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 96, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kBf16, 128, WgmmaOperands::kSwizzled>();
  check_wgmma<simt::Element::kE4m3, 64, WgmmaOperands::kSwizzled>();
}
TEST_CASE("simt: wgmma multiplies tiles without swizzle") {
  check_wgmma<simt::Element::kBf16, 32, WgmmaOperands::kUnswizzled>();
  check_wgmma<simt::Element::kE4m3, 4, WgmmaOperands::kUnswizzled>();
}
TEST_CASE("simt: wgmma multiplies registers with tiles") {
  check_wgmma<simt::Element::kBf16, 4, WgmmaOperands::kRegisters>();
  check_wgmma<simt::Element::kBf16, 64, WgmmaOperands::kRegisters>();
  check_wgmma<simt::Element::kE4m3, 32, WgmmaOperands::kRegisters>();
}
TEST_CASE("simt: wgmma multiplies negated registers with tiles") {
  check_wgmma<simt::Element::kE4m3, 8, WgmmaOperands::kNegated>();
  check_wgmma<simt::Element::kE4m3, 16, WgmmaOperands::kNegated>();
}

// c = a b (+ 1000), a [64, 32] in registers, b [32, 64] as its rows lie in memory.
__global__ void multiply_rows_of_b(const std::uint8_t* a_rows, const std::uint8_t* b_rows, bool add,
                                   float* c) {
  const int t = static_cast<int>(threadIdx.x);
  unsigned char* b_tile = gpu::dynamic_shared();
  for (int i = t; i < 32 * 128; i += 128) b_tile[gpu::swizzle_128(i)] = b_rows[i];
  gpu::fence_async_proxy();
  gpu::sync_threads();
  std::uint32_t a[2][4];
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < 4; ++i) {
      const int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8;
      std::memcpy(&a[k][i], a_rows + row * 64 + k * 32 + t % 4 * 4 + i / 2 * 16, 4);
    }
  }
  float d[32];
  for (float& value : d) value = 1000;
  gpu::wgmma_fence(d, a);
  for (int k = 0; k < 2; ++k) {
    gpu::wgmma_bf16_transposed(d, a[k], gpu::wgmma_descriptor(b_tile + k * 2048), add || k > 0);
  }
  gpu::wgmma_commit();
  gpu::wgmma_wait<0>(d);
  for (int i = 0; i < 32; ++i) {
    const int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
    c[row * 64 + i / 4 * 8 + t % 4 * 2 + i % 2] = d[i];
  }
}

TEST_CASE("simt: wgmma multiplies registers with the rows of a transposed tile") {
  SmallNumbers numbers;
  const Matrix a(64, 32, numbers);
  const Matrix b(32, 64, numbers);
  DeviceArray<std::uint8_t> a_bytes(encode(a, simt::Element::kBf16)),
      b_bytes(encode(b, simt::Element::kBf16));
  for (const simt::Settings& settings : schedules()) {
    for (const bool add : {true, false}) {
      INFO(describe(settings) << ", add " << add);
      const WithSettings with(settings);
      DeviceArray<float> c(64 * 64);
      gpu::launch(multiply_rows_of_b, {.block = 128, .shared_bytes = 32 * 128}, "test",
                  a_bytes.data(), b_bytes.data(), add, c.data());
      int wrong = 0;
      for (int row = 0; row < 64; ++row) {
        for (int column = 0; column < 64; ++column) {
          int want = add ? 1000 : 0;
          for (int k = 0; k < 32; ++k) want += a.at(row, k) * b.at(k, column);
          wrong += !(c[index(row * 64 + column)] == static_cast<float>(want));
        }
      }
      CHECK(wrong == 0);
    }
  }
}

}  // namespace
}  // namespace moebench::test
