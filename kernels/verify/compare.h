// Turning outputs into results. Shared by the per-op checks of verify.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/random.h"
#include "kernels/core/variant.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/formats/format.h"
#include "kernels/verify/operands.h"
#include "kernels/verify/verify.h"

namespace moebench::verify {

// Fills nmse, the worst element and the outcome. Anything not finite fails.
inline void compare(std::span<const float> got, std::span<const double> want, VerifyResult& r) {
  double errors = 0;
  double squares = 0;
  double worst = -1;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto g = static_cast<double>(got[i]);
    double difference = std::fabs(g - want[i]);
    if (!std::isfinite(difference)) difference = std::numeric_limits<double>::infinity();
    errors += difference * difference;
    squares += want[i] * want[i];
    if (difference > worst) {
      worst = difference;
      r.worst_index = static_cast<std::int64_t>(i);
      r.got = g;
      r.want = want[i];
    }
  }
  r.max_abs = std::max(worst, 0.0);
  r.nmse = errors == 0 ? 0 : errors / squares;
  const bool passed = r.nmse <= r.bound;  // false for NaN and infinity
  r.outcome = passed ? VerifyResult::Outcome::kPassed : VerifyResult::Outcome::kFailed;
  if (!passed) {
    r.reason = fmt::format("NMSE {:.3e} exceeds {:.1e}; worst at {}: got {}, want {}", r.nmse,
                           r.bound, r.worst_index, r.got, r.want);
  }
}

inline std::vector<float> random_floats(RandomStream& random, std::int64_t count, float scale) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = scale * static_cast<float>(2 * random.uniform() - 1);
  return values;
}

inline std::vector<double> doubles(std::span<const float> values) {
  return {values.begin(), values.end()};
}

// Random weights in a format, and what they decode to.
struct RandomMatrices {
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  std::vector<float> tensor_scales;
  std::vector<double> decoded;  // [count, rows, cols]
  MatrixStackView view;         // row-major
  std::vector<std::byte> interleaved_data;
  std::vector<std::byte> interleaved_scales;

  // The same matrices in the order of bytes that a variant wants.
  MatrixStackView in_layout(std::optional<RowLayout> layout, ThreadPool& pool);

  RandomMatrices(RandomStream& random, Format format, std::int64_t count, std::int64_t rows,
                 std::int64_t cols, ThreadPool& pool);
  RandomMatrices(const RandomMatrices&) = delete;
  RandomMatrices& operator=(const RandomMatrices&) = delete;
};

inline RandomMatrices::RandomMatrices(RandomStream& random, Format format, std::int64_t count,
                                      std::int64_t rows, std::int64_t cols, ThreadPool& pool) {
  const Codec& c = codec(format);
  const auto n = static_cast<std::size_t>(count);
  const auto r = static_cast<std::size_t>(rows);
  data.resize(n * r * c.row_data_bytes(cols));
  scales.resize(n * r * c.row_scale_bytes(cols));
  tensor_scales.resize(n);
  const float scale = 1.0F / std::sqrt(static_cast<float>(cols));
  for (std::size_t m = 0; m < n; ++m) {
    const std::vector<float> values = random_floats(random, rows * cols, scale);
    encode_matrix(
        c, rows, cols,
        [&](std::int64_t row, float* out) { std::copy_n(values.data() + row * cols, cols, out); },
        data.data() + m * r * c.row_data_bytes(cols),
        scales.data() + m * r * c.row_scale_bytes(cols), &tensor_scales[m], "random weights", pool);
  }
  view = {format,       count, rows, cols, data.data(), scales.empty() ? nullptr : scales.data(),
          tensor_scales};
  std::vector<float> row_values(static_cast<std::size_t>(cols));
  for (std::int64_t m = 0; m < count; ++m) {
    for (std::int64_t row = 0; row < rows; ++row) {
      view[m].decode_row(row, row_values.data());
      decoded.insert(decoded.end(), row_values.begin(), row_values.end());
    }
  }
}

inline MatrixStackView RandomMatrices::in_layout(std::optional<RowLayout> layout,
                                                 ThreadPool& pool) {
  if (layout != RowLayout::kInterleaved) return view;
  const std::size_t matrix_rows =
      static_cast<std::size_t>(stored_rows(RowLayout::kInterleaved, view.rows));
  const std::size_t data_bytes = matrix_rows * codec(view.format).row_data_bytes(view.cols);
  const std::size_t scale_bytes = matrix_rows * codec(view.format).row_scale_bytes(view.cols);
  // Filled with what must not be read: rows that fill up a group are to be zeroed.
  interleaved_data.assign(data_bytes * static_cast<std::size_t>(view.count), std::byte{0xff});
  interleaved_scales.assign(scale_bytes * static_cast<std::size_t>(view.count), std::byte{0xff});
  for (std::int64_t m = 0; m < view.count; ++m) {
    const auto at = static_cast<std::size_t>(m);
    interleave_rows(view[m], interleaved_data.data() + at * data_bytes,
                    interleaved_scales.data() + at * scale_bytes, pool);
  }
  MatrixStackView other = view;
  other.data = interleaved_data.data();
  other.scales = scale_bytes > 0 ? interleaved_scales.data() : nullptr;
  other.layout = RowLayout::kInterleaved;
  return other;
}

// The shapes of a small run, by their names in the checks of the ops: odd counts, more than one
// tile or page, ties, a window. A test holds that every CUDA variant has some that it can run.
inline constexpr std::string_view kSmallShapes[] = {"repeated_tokens",
                                                    "gather_odd",
                                                    "t9_h7_add",
                                                    "t9_h64",
                                                    "odd_counts",
                                                    "nine_tokens",
                                                    "d32",
                                                    "scattered_pages",
                                                    "window_edge",
                                                    "no_sinks",
                                                    "ties",
                                                    "top4_of_128",
                                                    "normed_odd_counts",
                                                    "one_busy_expert",
                                                    "routed_odd_counts",
                                                    "v768",
                                                    "broken",
                                                    "r2_v1025",
                                                    "edges"};
// One of wide floats, of rows with one scale, of blocks, of blocks within a matrix's scale.
inline constexpr Format kSmallFormats[] = {Format::kBf16, Format::kFp8E4m3, Format::kInt4,
                                           Format::kMxfp4, Format::kNvfp4};

struct Check {
  const VerifyFilter& filter;
  std::uint64_t seed;
  ThreadPool& pool;
  std::vector<VerifyResult>& results;

  // Whether the filter lets a shape, a format through.
  bool wants(std::string_view shape) const {
    return !filter.small || std::find(std::begin(kSmallShapes), std::end(kSmallShapes), shape) !=
                                std::end(kSmallShapes);
  }
  bool wants(Format format) const {
    return !filter.small || std::find(std::begin(kSmallFormats), std::end(kSmallFormats), format) !=
                                std::end(kSmallFormats);
  }

  // For each variant that the filter lets through: a result with the names filled in, judged by
  // `judge(variant, result)` unless the variant cannot run `problem`.
  template <class V>
  void each(std::span<const V* const> variants, std::string_view op, std::string_view shape,
            std::string_view format, const typename V::Problem& problem,
            const std::function<void(const V&, VerifyResult&)>& judge) {
    for (const V* variant : variants) {
      if (!filter.variant.empty() && filter.variant != variant->name) continue;
      if (!filter.backend.empty() && filter.backend != variant->backend) continue;
      VerifyResult r;
      r.op = op;
      r.variant = variant->name;
      r.backend = variant->backend;
      r.shape = shape;
      r.format = format;
      r.bound = variant->max_nmse(problem);
      r.reason = variant->unsupported(problem);
      if (!r.reason.empty()) {
        r.outcome = VerifyResult::Outcome::kSkipped;
      } else {
        judge(*variant, r);
      }
      results.push_back(std::move(r));
    }
  }
};

// The sums of a router's product as the launch in front of the experts' would leave them
// (kernels/fused/router_sums.h), for a launch that comes next, in the signals of `context`.
// `router`: [num_experts, row.size()], as decoded; `norm`: the weights of the norm.
void leave_router_sums(const Context& context, const std::vector<double>& router,
                       const std::vector<float>& norm, const std::vector<float>& row);

// One per op: runs all its shapes. Defined in verify_dense.cpp, verify_attention.cpp,
// verify_experts.cpp, verify_sample.cpp and verify_encode.cpp.
void check_embedding(Check& check);
void check_rms_norm(Check& check);
void check_linear(Check& check);
void check_rope(Check& check);
void check_attention(Check& check);  // and kv_write
void check_kv_write(Check& check);
void check_router(Check& check);
void check_moe_experts(Check& check);
void check_sample(Check& check);
void check_log_softmax(Check& check);
void check_encode(Check& check);

}  // namespace moebench::verify
