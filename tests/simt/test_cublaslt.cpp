// Which of cuBLASLt's algorithms is taken, with a library that answers like it
// (support/fake_cublaslt.cpp) and the SIMT machine's clock.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "kernels/core/cublaslt.h"
#include "kernels/core/described_device.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

// Before the library is first asked for.
const bool folder_is_set = setenv("MOEBENCH_CUDA_LIBS", MOEBENCH_FAKE_CUBLASLT, 1) == 0;

struct Product {
  gpu::MatrixProduct product;
  DeviceArray<float> out{2};
  gpu::OwnedStream stream{gpu::device().create_stream()};

  explicit Product(std::int64_t left_rows) : product{.left_rows = left_rows} {
    product.right_rows = 16;
    product.columns = 32;
  }
  gpu::MatrixProductOperands operands() {
    return {.left = out.data(), .right = out.data(), .out = out.data()};
  }
  // The number of the algorithm that is taken.
  int multiply() {
    gpu::cublaslt_multiply(product, operands(), stream.get());
    return static_cast<int>(out[0]);
  }
  void tune() { gpu::cublaslt_tune(product, operands(), stream.get()); }
};

}  // namespace

TEST_CASE("cublaslt: its first proposal is taken, until tuning finds a faster one that runs") {
  REQUIRE(folder_is_set);
  Product product(5);
  REQUIRE(gpu::cublaslt_unsupported(product.product) == "");
  CHECK(product.multiply() == 0);
  product.tune();
  CHECK(product.multiply() == 2);
  CHECK(product.multiply() == 2);
}

TEST_CASE("cublaslt: a product is tuned once, and every product for itself") {
  Product product(6);
  Product other(8);
  product.tune();
  product.multiply();
  const float before = product.out[1];
  product.tune();  // multiplies nothing
  product.multiply();
  CHECK(product.out[1] == before + 1);
  CHECK(other.multiply() == 0);
}

TEST_CASE("cublaslt: no algorithm is a reason, except for a GPU that is only described") {
  Product product(7);
  CHECK_THAT(gpu::cublaslt_unsupported(product.product),
             Catch::Contains("no algorithm for [7, 32]"));
  CHECK_THROWS_AS(product.multiply(), Error);
  CHECK_THROWS_AS(product.tune(), Error);
  const gpu::DescribedDevice described(gpu::known_device("h200"));
  CHECK(gpu::cublaslt_unsupported(product.product) == "");
}

}  // namespace moebench::test
