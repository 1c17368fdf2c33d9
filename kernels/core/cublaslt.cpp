// Opening cuBLASLt, and keeping what it answers and what was measured: one plan per product.
//
// cuBLASLt counts columns first, so that our row-major out [left_rows, right_rows] is its
// [right_rows, left_rows]: its A is `right`, transposed, its B is `left`. That is also the one
// order it knows for E4M3.
#include "kernels/core/cublaslt.h"

#if __has_include(<cublasLt.h>)  // builds without the toolkit have no use for this file
#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/core/described_device.h"
#include "kernels/core/error.h"
#include "kernels/core/shared_library.h"

namespace moebench::gpu {
namespace {

// The functions we call. Types come from the header, addresses from the library.
struct Library {
  SharedLibrary file{{"libcublasLt.so.13", "libcublasLt.so.12"}};
  std::string unavailable = file.unavailable();
  cublasLtHandle_t handle = nullptr;

#define MOEBENCH_CUBLASLT(member, name) decltype(&name) member = find<decltype(&name)>(#name)
  MOEBENCH_CUBLASLT(create, cublasLtCreate);
  MOEBENCH_CUBLASLT(status_name, cublasLtGetStatusName);
  MOEBENCH_CUBLASLT(create_operation, cublasLtMatmulDescCreate);
  MOEBENCH_CUBLASLT(set_operation, cublasLtMatmulDescSetAttribute);
  MOEBENCH_CUBLASLT(create_layout, cublasLtMatrixLayoutCreate);
  MOEBENCH_CUBLASLT(create_preference, cublasLtMatmulPreferenceCreate);
  MOEBENCH_CUBLASLT(set_preference, cublasLtMatmulPreferenceSetAttribute);
  MOEBENCH_CUBLASLT(destroy_preference, cublasLtMatmulPreferenceDestroy);
  MOEBENCH_CUBLASLT(find_algorithms, cublasLtMatmulAlgoGetHeuristic);
  MOEBENCH_CUBLASLT(multiply, cublasLtMatmul);
#undef MOEBENCH_CUBLASLT

  Library() {
    if (!unavailable.empty()) return;
    const cublasStatus_t status = create(&handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
      unavailable =
          fmt::format("cuBLASLt ({}) did not start: {}", file.path(), status_name(status));
    }
  }

  template <class Pointer>
  Pointer find(const char* name) {
    const auto function = file.function<Pointer>(name);
    if (function == nullptr && unavailable.empty()) {
      unavailable = fmt::format("{} has no {}", file.path(), name);
    }
    return function;
  }

  void check(cublasStatus_t status, const char* what) const {
    require_or(ErrorCode::kDevice, status == CUBLAS_STATUS_SUCCESS, "cuBLASLt, {}: {}", what,
               status_name(status));
  }
  template <class T>
  void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
           const T& value) const {
    check(set_operation(operation, attribute, &value, sizeof(value)), "describe a product");
  }
  template <class T>
  void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
           const T& value) const {
    check(set_preference(preference, attribute, &value, sizeof(value)), "state a preference");
  }
};

// Its descriptions live as long as the process.
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t left = nullptr;
  cublasLtMatrixLayout_t right = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  std::vector<cublasLtMatmulAlgo_t> algorithms;  // as cuBLASLt prefers them
  std::size_t chosen = 0;                        // of the algorithms
  bool is_tuned = false;
  std::string unsupported;
};

constexpr int kMostAlgorithms = 8;
constexpr int kTimedRuns = 5;  // of each; the best counts

class Plans {
 public:
  const Library& library() const { return library_; }
  std::mutex& mutex() { return mutex_; }

  // Call it with the mutex held, as long as the plan is used.
  Plan& find(const MatrixProduct& product) {
    const auto known = plans_.find(product);
    return known != plans_.end() ? known->second
                                 : plans_.emplace(product, make(product)).first->second;
  }

 private:
  Plan make(const MatrixProduct& product) const {
    Plan plan;
    const bool scaled = product.type == MatrixProduct::Type::kE4m3;
    const cudaDataType_t type = scaled ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    const auto rows = static_cast<std::uint64_t>(product.left_rows);
    const auto columns = static_cast<std::uint64_t>(product.right_rows);
    const auto inner = static_cast<std::uint64_t>(product.columns);
    const auto create = [&](cublasLtMatrixLayout_t* layout, cudaDataType_t of, std::uint64_t first,
                            std::uint64_t second) {
      library_.check(library_.create_layout(layout, of, first, second, static_cast<int64_t>(first)),
                     "describe a matrix");
    };
    create(&plan.left, type, inner, rows);
    create(&plan.right, type, inner, columns);
    create(&plan.out, CUDA_R_32F, columns, rows);
    library_.check(library_.create_operation(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                   "describe a product");
    library_.set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    // Pointers come with every product; what is asked first wants to see that there will be some.
    const void* const later = reinterpret_cast<const void*>(std::uintptr_t{256});
    if (product.has_bias) {
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                   scaled ? CUDA_R_16BF : CUDA_R_32F);
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, later);
    }
    if (scaled) {
      const std::int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, later);
      library_.set(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, later);
    }

    cublasLtMatmulPreference_t preference = nullptr;
    library_.check(library_.create_preference(&preference), "state a preference");
    library_.set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kCublasLtWorkspaceBytes);
    const std::uint32_t alignment = 16;
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      library_.set(preference, attribute, alignment);
    }
    int found = 0;
    std::vector<cublasLtMatmulHeuristicResult_t> results(kMostAlgorithms);
    const cublasStatus_t status =
        library_.find_algorithms(library_.handle, plan.operation, plan.right, plan.left, plan.out,
                                 plan.out, preference, kMostAlgorithms, results.data(), &found);
    library_.destroy_preference(preference);
    if (status == CUBLAS_STATUS_SUCCESS) {
      results.resize(static_cast<std::size_t>(std::clamp(found, 0, kMostAlgorithms)));
      for (const cublasLtMatmulHeuristicResult_t& result : results) {
        if (result.state == CUBLAS_STATUS_SUCCESS) plan.algorithms.push_back(result.algo);
      }
    }
    if (plan.algorithms.empty()) {
      plan.unsupported = fmt::format(
          "cuBLASLt has no algorithm for [{}, {}] times [{}, {}] of {} on this GPU ({})",
          product.left_rows, product.columns, product.columns, product.right_rows,
          scaled ? "E4M3" : "bf16", library_.status_name(status));
    }
    return plan;
  }

  Library library_;
  std::mutex mutex_;
  std::map<MatrixProduct, Plan> plans_;
};

Plans& plans() {
  static Plans all;
  return all;
}

// Call these with the mutex held.
Plan& find_supported(const MatrixProduct& product) {
  const std::string& missing = plans().library().unavailable;
  require_or(ErrorCode::kUnsupported, missing.empty(), "multiply: {}", missing);
  Plan& plan = plans().find(product);
  require_or(ErrorCode::kUnsupported, plan.unsupported.empty(), "multiply: {}", plan.unsupported);
  return plan;
}

void point_to(const Plan& plan, const MatrixProduct& product,
              const MatrixProductOperands& operands) {
  const Library& library = plans().library();
  if (product.has_bias) {
    library.set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  }
  if (product.type == MatrixProduct::Type::kE4m3) {
    library.set(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.right_scales);
    library.set(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands.left_scales);
  }
}

cublasStatus_t enqueue(const Plan& plan, std::size_t algorithm,
                       const MatrixProductOperands& operands, Stream stream) {
  const Library& library = plans().library();
  const float one = 1.0F;
  const float zero = 0.0F;
  return library.multiply(library.handle, plan.operation, &one, operands.right, plan.right,
                          operands.left, plan.left, &zero, operands.out, plan.out, operands.out,
                          plan.out, &plan.algorithms[algorithm], operands.workspace,
                          kCublasLtWorkspaceBytes, stream);
}

}  // namespace

std::string cublaslt_unsupported(const MatrixProduct& product) {
  if (described_device() != nullptr) return "";
  const std::string& reason = plans().library().unavailable;
  if (!reason.empty()) return reason;
  const std::lock_guard lock(plans().mutex());
  return plans().find(product).unsupported;
}

void cublaslt_multiply(const MatrixProduct& product, const MatrixProductOperands& operands,
                       Stream stream) {
  const std::lock_guard lock(plans().mutex());
  const Plan& plan = find_supported(product);
  const Library& library = plans().library();
  point_to(plan, product, operands);
  library.check(enqueue(plan, plan.chosen, operands, stream), "multiply");
}

void cublaslt_tune(const MatrixProduct& product, const MatrixProductOperands& operands,
                   Stream stream) {
  const std::lock_guard lock(plans().mutex());
  Plan& plan = find_supported(product);
  if (plan.is_tuned) return;
  point_to(plan, product, operands);
  Device& here = device();
  const Event begin(here.create_event());
  const Event end(here.create_event());
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t a = 0; a < plan.algorithms.size(); ++a) {
    // The first run may load the algorithm's kernels, or tell that it cannot run after all.
    if (enqueue(plan, a, operands, stream) != CUBLAS_STATUS_SUCCESS) continue;
    for (int run = 0; run < kTimedRuns; ++run) {
      here.record_event(begin.get(), stream);
      plans().library().check(enqueue(plan, a, operands, stream), "time an algorithm");
      here.record_event(end.get(), stream);
      here.synchronize(stream);
      const double took = here.milliseconds_between(begin.get(), end.get());
      if (took < least) {
        least = took;
        plan.chosen = a;
      }
    }
  }
  plan.is_tuned = true;
}

}  // namespace moebench::gpu
#endif
