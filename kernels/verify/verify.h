// Every variant of every op against float64 arithmetic, on random inputs and edge shapes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/thread_pool.h"

namespace moebench {

struct VerifyResult {
  std::string op;
  std::string variant;
  std::string backend;
  std::string shape;   // "one_token", "all_on_one_expert", ...
  std::string format;  // of weights or cache; "" if the op has none
  enum class Outcome { kPassed, kFailed, kSkipped } outcome = Outcome::kFailed;
  std::string reason;  // of a failure or a skip
  double nmse = 0;
  double bound = 0;
  double max_abs = 0;
  std::int64_t worst_index = -1;  // of the flattened output
  double got = 0;
  double want = 0;
};

struct VerifyFilter {
  std::string op;       // empty: all
  std::string variant;  // empty: all
  std::string backend;  // empty: all
  // Only a few small shapes of each op, in one format of each family: for what runs a thousand
  // times slower (compute-sanitizer, ThreadSanitizer).
  bool small = false;
};

// Throws Error(kInvalidArgument) with the nearest name for unknown names in the filter.
std::vector<VerifyResult> verify_variants(const VerifyFilter& filter, std::uint64_t seed,
                                          ThreadPool& pool);

// One line per variant of every op, for `moebench kernels list`.
struct VariantInfo {
  std::string op, variant, backend, summary, rounds;
};
std::vector<VariantInfo> list_variants();

}  // namespace moebench
