// Checks of encode: bytes equal to the codec's, and the sums.
#include <cstring>

#include "kernels/encode/encode.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/verify/compare.h"

namespace moebench::verify {
namespace {

// Numbers at the edges of formats: blocks of zeros, subnormals, ties of every rounding, magnitudes
// far apart in one block; and plain ones.
std::vector<float> edge_values(RandomStream& random, std::int64_t rows, std::int64_t cols) {
  std::vector<float> values = random_floats(random, rows * cols, 1.0F);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < cols; ++i) {
      float& v = values[static_cast<std::size_t>(r * cols + i)];
      switch (r % 6) {
        case 0:  // a block of zeros of both signs, then plain ones
          if (i < 32) v = i % 2 == 0 ? 0.0F : -0.0F;
          break;
        case 1:
          v *= 0x1p-130F;
          break;
        case 2:  // multiples of 1/16: codes and the middles between codes
          v = std::floor(v * 128) / 16;
          break;
        case 3:
          v *= 60000;
          break;
        case 4:
          v = std::ldexp(v, static_cast<int>(random.below(30)) - 24);
          break;
        default:
          break;
      }
    }
  }
  return values;
}

struct Encoded {
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  float tensor_scale = 1.0F;
  EncodingError error;

  Encoded(const Codec& to, std::int64_t rows, std::int64_t cols)
      : data(static_cast<std::size_t>(rows) * to.row_data_bytes(cols)),
        scales(static_cast<std::size_t>(rows) * to.row_scale_bytes(cols)) {}
};

MatrixView view_of(const Encoded& e, Format format, std::int64_t rows, std::int64_t cols) {
  return {format,        rows, cols, e.data.data(), e.scales.empty() ? nullptr : e.scales.data(),
          e.tensor_scale};
}

template <class ReadRow>
Encoded encode_on_host(const Codec& to, std::int64_t rows, std::int64_t cols, ReadRow read_row,
                       ThreadPool& pool) {
  Encoded e(to, rows, cols);
  e.error = encode_matrix(to, rows, cols, read_row, e.data.data(), e.scales.data(), &e.tensor_scale,
                          "verify's numbers", pool);
  return e;
}

struct Got {
  Encoded encoded;
  encode::Sums sums;
  encode::Sums measured;
};

// Measures, then encodes, as for a format with a scale per matrix.
Got run_encode(const encode::Variant& variant, const encode::Problem& problem,
               const MatrixView& from, ThreadPool& pool) {
  const Codec& to = codec(problem.to);
  Got got{Encoded(to, problem.rows, problem.cols), {}, {}};
  const auto run = [&](std::vector<std::byte>* data, std::vector<std::byte>* scales,
                       encode::Sums& sums) {
    Operands o(variant.backend);
    encode::Args args;
    args.from = o.in(from);
    args.to = problem.to;
    if (data != nullptr) {
      args.data = o.out(*data);
      args.scales = o.out(*scales);
    }
    args.tensor_scale = got.encoded.tensor_scale;
    args.sums = o.out(&sums, 1);
    o.run(variant, problem, args, pool);
  };
  run(nullptr, nullptr, got.measured);
  if (to.tensor_scale != nullptr) {
    got.encoded.tensor_scale = to.tensor_scale(static_cast<float>(got.measured.largest));
  }
  run(&got.encoded.data, &got.encoded.scales, got.sums);
  return got;
}

// Empty, or what differs.
std::string difference(const std::vector<std::byte>& got, const std::vector<std::byte>& want,
                       std::string_view what) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;
    return fmt::format("{}: byte {} of {} is {:#x}, not {:#x}", what, i, want.size(),
                       static_cast<unsigned>(got[i]), static_cast<unsigned>(want[i]));
  }
  return "";
}

std::string difference(double got, double want, std::string_view what) {
  const bool equal = std::fabs(got - want) <= 1e-12 * std::fabs(want);  // false for NaN
  return equal ? "" : fmt::format("{}: got {}, want {}", what, got, want);
}

void judge(const std::vector<std::string>& differences, VerifyResult& r) {
  r.outcome = VerifyResult::Outcome::kPassed;
  for (const std::string& reason : differences) {
    if (reason.empty()) continue;
    r.outcome = VerifyResult::Outcome::kFailed;
    r.reason = reason;
    return;
  }
}

}  // namespace

void check_encode(Check& check) {
  struct Shape {
    std::string_view name;
    std::int64_t rows, cols;
  };
  for (const Shape& s : {Shape{"edges", 13, 96}, Shape{"h2880", 6, 2880}}) {
    if (!check.wants(s.name)) continue;
    RandomStream random(check.seed, 12);
    const std::vector<float> values = edge_values(random, s.rows, s.cols);
    for (const Codec* from : codecs()) {
      if (!check.wants(from->format)) continue;
      const Encoded source = encode_on_host(
          *from, s.rows, s.cols,
          [&](std::int64_t row, float* out) {
            std::copy_n(values.data() + row * s.cols, s.cols, out);
          },
          check.pool);
      const MatrixView view = view_of(source, from->format, s.rows, s.cols);
      for (const Codec* to : codecs()) {
        if (!check.wants(to->format)) continue;
        const Encoded want = encode_on_host(
            *to, s.rows, s.cols, [&](std::int64_t row, float* out) { view.decode_row(row, out); },
            check.pool);
        const encode::Problem problem{from->format, to->format, s.rows, s.cols};
        check.each<encode::Variant>(
            encode::variants(), "encode", s.name, fmt::format("{}_to_{}", from->name, to->name),
            problem, [&](const encode::Variant& variant, VerifyResult& r) {
              const Got got = run_encode(variant, problem, view, check.pool);
              judge({difference(got.encoded.tensor_scale, want.tensor_scale, "tensor scale"),
                     difference(got.encoded.scales, want.scales, "scales"),
                     difference(got.encoded.data, want.data, "data"),
                     difference(got.sums.signal, want.error.signal, "signal"),
                     difference(got.sums.noise, want.error.noise, "noise"),
                     difference(got.sums.max_abs, want.error.max_abs, "largest difference"),
                     difference(got.sums.largest, got.measured.largest, "largest magnitude"),
                     difference(got.measured.signal, want.error.signal, "signal measured"),
                     difference(static_cast<double>(got.sums.non_finite), 0, "not finite")},
                    r);
            });
      }
    }
  }

  // Three that are not finite, and two that f16 cannot hold.
  constexpr std::int64_t kRows = 3;
  constexpr std::int64_t kCols = 64;
  std::vector<float> values(static_cast<std::size_t>(kRows * kCols), 0.5F);
  values[3] = std::nanf("");
  values[4] = std::numeric_limits<float>::infinity();
  values[60] = -std::numeric_limits<float>::infinity();
  values[150] = 1e6F;
  values[151] = -70000.0F;
  MatrixView view;
  view.rows = kRows;
  view.cols = kCols;
  view.data = reinterpret_cast<const std::byte*>(values.data());
  for (const Codec* to : codecs()) {
    if (!check.wants(to->format)) continue;
    const encode::Problem problem{Format::kF32, to->format, kRows, kCols};
    check.each<encode::Variant>(
        encode::variants(), "encode", "not_finite", fmt::format("f32_to_{}", to->name), problem,
        [&](const encode::Variant& variant, VerifyResult& r) {
          const Got got = run_encode(variant, problem, view, check.pool);
          judge({difference(static_cast<double>(got.measured.non_finite), 3, "measured"),
                 difference(got.measured.largest, 1e6, "largest magnitude"),
                 difference(static_cast<double>(got.sums.non_finite),
                            to->format == Format::kF16 ? 5 : 3, "encoded")},
                r);
        });
  }
}

}  // namespace moebench::verify
