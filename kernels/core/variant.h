// A variant: one implementation of an op, as a plain struct of functions.
//
// Each op's header names its variants once, in order, through MOEBENCH_VARIANTS; each variant is
// defined at the end of its own file. A line without its file fails to link; a file without its
// line fails to compile (-Wunused or -Wmissing-declarations). There are no self-registering
// globals.
//
// CUDA variants form a second list. Their files (cuda_*.cu) are objects that a program links or
// does not (built with MOEBENCH_CUDA, or for the test suite's SIMT machine), so the list is asked
// for by a weak function, which is absent where they are not linked.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/context.h"
#include "kernels/core/error.h"
#include "kernels/core/row_layout.h"
#include "kernels/core/suggest.h"

namespace moebench {

template <class ProblemType, class ArgsType>
struct Variant {
  using Problem = ProblemType;
  using Args = ArgsType;

  std::string_view name;
  std::string_view backend;  // "cpu" or "cuda"
  std::string_view summary;  // how it works, in one line
  std::string_view rounds;   // what it rounds: "activations: f32, accumulate: f32"
  // Largest error it may have on random inputs: sum (got - want)^2 / sum want^2, where `want` is
  // float64 arithmetic on the same decoded weights. `moebench kernels verify` holds it to that.
  double (*max_nmse)(const ProblemType&);

  // The order of bytes it wants weights in; none if it reads any (or there are no weights).
  std::optional<RowLayout> weight_layout = std::nullopt;

  // Empty if it can run such a problem, else the reason.
  std::string (*unsupported)(const ProblemType&);
  // Scratch memory that `run` needs, on the device if that is the backend. `num_threads` is that of
  // the context's pool.
  std::size_t (*workspace_bytes)(const ProblemType&, int num_threads);
  // Computes; allocates nothing beyond the workspace. On the CUDA backend every pointer of the
  // arguments is the device's, and `run` enqueues on the context's stream without waiting.
  void (*run)(const ArgsType&, Context&);

  // Whether `run` knows the optional parts of its arguments, for ops that have some.
  bool runs_several = false;
  // Whether `run` knows the optional parts of such arguments that are bf16: inputs that somebody
  // has rounded already, results that are to be. Null: never.
  bool (*knows_bf16)(const ArgsType&) = nullptr;
  // Whether `run` knows the optional norm of its arguments, for ops that have one, and is made to
  // do it for such a problem. Null: never.
  bool (*normalises)(const ProblemType&) = nullptr;
  // The same of the optional norm behind it.
  bool (*ends_with_norm)(const ProblemType&) = nullptr;
  // Attention's: whether `run` can do the product of the router behind it and leave its sums in the
  // signals; the experts': whether it can take them from there.
  bool routes_ahead = false;
};

template <class V>
const V& find_variant(std::span<const V* const> variants, std::string_view op,
                      std::string_view name) {
  std::vector<std::string> known;
  for (const V* variant : variants) {
    if (variant->name == name) return *variant;
    known.emplace_back(variant->name);
  }
  fail(ErrorCode::kInvalidArgument, "choose a variant of {}: no variant '{}'; {}", op, name,
       suggestion(name, {known.data(), known.size()}));
}

}  // namespace moebench

// Inside an op's namespace: declares every variant of both lists, and the function variants(): the
// CPU's, then the CUDA ones that are linked in.
#define MOEBENCH_DECLARE_VARIANT(name) extern const Variant name;
#define MOEBENCH_LIST_VARIANT(name) &name,
#define MOEBENCH_VARIANTS(LIST, CUDA_LIST)                             \
  LIST(MOEBENCH_DECLARE_VARIANT)                                       \
  CUDA_LIST(MOEBENCH_DECLARE_VARIANT)                                  \
  [[gnu::weak]] std::span<const Variant* const> cuda_variants();       \
  inline std::span<const Variant* const> variants() {                  \
    static const std::vector<const Variant*> kAll = [] {               \
      std::vector<const Variant*> all = {LIST(MOEBENCH_LIST_VARIANT)}; \
      if (cuda_variants != nullptr) {                                  \
        const auto cuda = cuda_variants();                             \
        all.insert(all.end(), cuda.begin(), cuda.end());               \
      }                                                                \
      return all;                                                      \
    }();                                                               \
    return kAll;                                                       \
  }

// Once per op, in the file of its first CUDA variant.
#define MOEBENCH_DEFINE_CUDA_VARIANTS(CUDA_LIST)                                 \
  std::span<const Variant* const> cuda_variants() {                              \
    static constexpr const Variant* kAll[] = {CUDA_LIST(MOEBENCH_LIST_VARIANT)}; \
    return kAll;                                                                 \
  }
