// A library that answers like libcublasLt.so.13, with three algorithms for every product but those
// of seven rows: one that takes two milliseconds, one that is proposed and then refuses, and one
// that takes no time. A product leaves the algorithm's number in the first output, and how many
// products there were in the second.
#include <cublasLt.h>

#include <algorithm>
#include <chrono>
#include <deque>

namespace {

constexpr int kNumAlgorithms = 3;
constexpr std::uint64_t kSlow = 0;
constexpr std::uint64_t kRefuses = 1;
constexpr std::uint64_t kRowsWithoutAlgorithm = 7;

int something = 0;
int num_products = 0;

struct Layout {
  std::uint64_t rows, columns;
};
const Layout& layout(cublasLtMatrixLayout_t opaque) {
  return *reinterpret_cast<const Layout*>(opaque);
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(&something);
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_NOT_SUPPORTED";
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t,
                                        cudaDataType_t) {
  *operation = reinterpret_cast<cublasLtMatmulDesc_t>(&something);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                              const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* matrix, cudaDataType,
                                          uint64_t rows, uint64_t columns, int64_t) {
  static std::deque<Layout> layouts;  // nobody destroys them
  *matrix = reinterpret_cast<cublasLtMatrixLayout_t>(&layouts.emplace_back(Layout{rows, columns}));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(&something);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  *found = layout(out).columns == kRowsWithoutAlgorithm ? 0 : std::min(wanted, kNumAlgorithms);
  for (int i = 0; i < *found; ++i) {
    results[i] = {};
    results[i].algo.data[0] = static_cast<std::uint64_t>(i);
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void*,
                              cublasLtMatrixLayout_t, const void*, cublasLtMatrixLayout_t,
                              const void*, const void*, cublasLtMatrixLayout_t, void* out,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t* algorithm, void*,
                              size_t, cudaStream_t) {
  const std::uint64_t number = algorithm->data[0];
  if (number == kRefuses) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto begin = std::chrono::steady_clock::now();
  while (number == kSlow &&
         std::chrono::steady_clock::now() < begin + std::chrono::milliseconds(2)) {
  }
  auto* values = static_cast<float*>(out);
  values[0] = static_cast<float>(number);
  values[1] = static_cast<float>(++num_products);
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
