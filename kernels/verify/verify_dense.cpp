// Checks of embedding, rms_norm, linear and rope.
#include <array>

#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/verify/compare.h"

namespace moebench::verify {
namespace {

struct LinearShape {
  std::string_view name;
  std::int64_t num_tokens, rows, cols;
};
// 2880 columns are gpt-oss's: 90 blocks of 32, not a multiple of 64 or 128. The last ones reach
// more than one tile of tokens (of 8 and of 64) and of rows.
constexpr std::array<LinearShape, 9> kLinearShapes = {{{"one_token", 1, 64, 96},
                                                       {"one_row", 5, 1, 32},
                                                       {"odd_counts", 3, 37, 160},
                                                       {"many_tokens", 33, 48, 64},
                                                       {"a_chunk", 21, 24, 128},
                                                       {"h2880", 2, 50, 2880},
                                                       {"nine_tokens", 9, 33, 192},
                                                       {"several_tiles", 70, 136, 160},
                                                       {"past_two_tiles", 130, 130, 96}}};

// A query, key and value that begin with their norm, and end rotated and in the cache.
struct CachedShape {
  std::string_view name;
  std::int64_t num_tokens, heads, kv_heads, head_dim, cols;
  bool adds;  // there is something to add to x
};

void check_cached_linear(Check& check) {
  constexpr float kEpsilon = 1e-5F;
  for (const CachedShape& s : {CachedShape{"normed_one_token", 1, 4, 1, 64, 2880, true},
                               CachedShape{"normed_odd_counts", 3, 3, 2, 32, 160, false}}) {
    if (!check.wants(s.name)) continue;
    for (const Codec* c : codecs()) {
      if (!check.wants(c->format)) continue;
      const std::int64_t q_rows = s.heads * s.head_dim;
      const std::int64_t kv_rows = s.kv_heads * s.head_dim;
      const linear::Problem problem{c->format, s.num_tokens, q_rows,
                                    s.cols,    s.head_dim,   Format::kF32};
      std::vector<const linear::Variant*> variants;
      for (const linear::Variant* v : linear::variants()) {
        if (v->normalises != nullptr && v->unsupported(problem).empty() && v->normalises(problem)) {
          variants.push_back(v);
        }
      }
      if (variants.empty()) continue;
      RandomStream random(check.seed, 12);
      const RandomMatrices query(random, c->format, 1, q_rows, s.cols, check.pool);
      const RandomMatrices key_value(random, c->format, 2, kv_rows, s.cols, check.pool);
      const std::int64_t half = s.head_dim / 2;
      const std::vector<float> x = random_floats(random, s.num_tokens * s.cols, 3.0F);
      const std::vector<float> addend =
          random_floats(random, s.num_tokens * s.cols, s.adds ? 1.0F : 0.0F);
      const std::vector<float> norm = random_floats(random, s.cols, 2.0F);
      const std::vector<float> bias = random_floats(random, q_rows + 2 * kv_rows, 1.0F);
      const std::vector<float> cos = random_floats(random, s.num_tokens * half, 1.3F);
      const std::vector<float> sin = random_floats(random, s.num_tokens * half, 1.3F);

      // Queries, then the cache: a token's keys, and those of the next; values likewise.
      std::vector<double> queries, keys, values;
      std::vector<float> sums;
      for (std::int64_t t = 0; t < s.num_tokens; ++t) {
        std::vector<double> row;
        double squares = 0;
        for (std::int64_t i = 0; i < s.cols; ++i) {
          const auto at = static_cast<std::size_t>(t * s.cols + i);
          row.push_back(static_cast<double>(x[at]) + static_cast<double>(addend[at]));
          squares += row.back() * row.back();
        }
        sums.insert(sums.end(), row.begin(), row.end());
        const double root =
            std::sqrt(squares / static_cast<double>(s.cols) + static_cast<double>(kEpsilon));
        for (std::size_t i = 0; i < row.size(); ++i) {
          row[i] = static_cast<double>(norm[i]) * row[i] / root;
        }
        const auto multiply = [&](const std::vector<double>& weight, std::int64_t first,
                                  std::int64_t rows, std::int64_t first_bias, bool rotates,
                                  std::vector<double>& out) {
          const std::size_t begin = out.size();
          for (std::int64_t r = 0; r < rows; ++r) {
            double sum = static_cast<double>(bias[static_cast<std::size_t>(first_bias + r)]);
            for (std::int64_t i = 0; i < s.cols; ++i) {
              sum += weight[static_cast<std::size_t>((first + r) * s.cols + i)] *
                     row[static_cast<std::size_t>(i)];
            }
            out.push_back(sum);
          }
          for (std::int64_t r = 0; rotates && r < rows; ++r) {
            if (r % s.head_dim >= half) continue;
            double& low = out[begin + static_cast<std::size_t>(r)];
            double& high = out[begin + static_cast<std::size_t>(r + half)];
            const auto angle = static_cast<std::size_t>(t * half + r % s.head_dim);
            const auto cosine = static_cast<double>(cos[angle]);
            const auto sine = static_cast<double>(sin[angle]);
            const double a = low;
            low = a * cosine - high * sine;
            high = high * cosine + a * sine;
          }
        };
        multiply(query.decoded, 0, q_rows, 0, true, queries);
        multiply(key_value.decoded, 0, kv_rows, q_rows, true, keys);
        multiply(key_value.decoded, kv_rows, kv_rows, q_rows + kv_rows, false, values);
      }
      std::vector<double> want = queries;
      want.insert(want.end(), keys.begin(), keys.end());
      want.insert(want.end(), values.begin(), values.end());
      want.push_back(0);

      std::vector<std::int32_t> positions;
      for (std::int32_t t = 0; t < s.num_tokens; ++t) positions.push_back(t);
      const std::vector<std::int32_t> zeros(positions.size(), 0);
      check.each<linear::Variant>(
          variants, "linear", s.name, c->name, problem,
          [&](const linear::Variant& variant, VerifyResult& r) {
            std::vector<float> got_sums(x.size(), std::nanf(""));
            std::vector<float> got(queries.size(), std::nanf(""));
            std::vector<float> cache(keys.size() + values.size(), std::nanf(""));
            Operands o(variant.backend);
            const std::array<std::int64_t, 2> rows = {s.num_tokens, s.cols};
            const float* biases = o.in(bias);
            linear::Args args{{nullptr, rows},
                              o.in(query.view[0]),
                              {biases, {q_rows}},
                              {o.out(got), {s.num_tokens, q_rows}},
                              {}};
            // Keys and values have no other place to go to.
            args.also = {{{o.in(key_value.view[0]), {biases + q_rows, {kv_rows}}, {}},
                          {o.in(key_value.view[1]), {biases + q_rows + kv_rows, {kv_rows}}, {}}}};
            args.norm = {{o.in(x), rows},
                         {s.adds ? o.in(addend) : nullptr, rows},
                         {o.in(norm), {s.cols}},
                         kEpsilon,
                         {o.out(got_sums), rows}};
            KvLayerView& kv = args.cached.kv;  // one page
            kv.page_size = s.num_tokens;
            kv.num_kv_heads = s.kv_heads;
            kv.head_dim = s.head_dim;
            kv.row_bytes = static_cast<std::size_t>(s.head_dim) * sizeof(float);
            kv.page_stride = cache.size() * sizeof(float);
            kv.keys = reinterpret_cast<std::byte*>(o.out(cache));
            kv.values = kv.keys + keys.size() * sizeof(float);
            args.cached.cos = {o.in(cos), {s.num_tokens, half}};
            args.cached.sin = {o.in(sin), {s.num_tokens, half}};
            args.cached.places = {{o.in(positions), {s.num_tokens}},
                                  {o.in(zeros), {s.num_tokens}},
                                  {o.in(zeros), {1, 1}}};
            o.run(variant, problem, args, check.pool);
            got.insert(got.end(), cache.begin(), cache.end());
            // What is exact is: it would hide the error of the rest.
            got.push_back(got_sums == sums ? 0.0F : std::nanf(""));
            compare(got, want, r);
          });
    }
  }
}

}  // namespace

void check_embedding(Check& check) {
  struct Shape {
    std::string_view name;
    std::int64_t rows, cols;
  };
  // The third and the last are drawn[1] and drawn[0].
  const std::vector<std::int32_t> tokens = {0, 18, -2, 7, -1};
  const std::vector<std::int32_t> drawn = {1, 7};
  const auto num_tokens = static_cast<std::int64_t>(tokens.size());
  for (const Codec* c : codecs()) {
    // The last two are gathers of f32 rows, as of a table of angles.
    for (const Shape& s : {Shape{"repeated_tokens", 19, 96}, Shape{"h2880", 19, 2880},
                           Shape{"gather_16", 19, 16}, Shape{"gather_odd", 19, 161}}) {
      if (s.cols % 32 != 0 && c->format != Format::kF32) continue;
      // A gather of f32 rows belongs to every run.
      if (!check.wants(s.name) || !(check.wants(c->format) || s.cols % 32 != 0)) continue;
      RandomStream random(check.seed, 1);
      const RandomMatrices table(random, c->format, 1, s.rows, s.cols, check.pool);
      std::vector<double> want;
      for (const std::int32_t token : {0, 18, 7, 7, 1}) {
        const auto row = table.decoded.begin() + token * s.cols;
        want.insert(want.end(), row, row + s.cols);
      }
      const embedding::Problem problem{c->format, num_tokens, s.rows, s.cols};
      check.each<embedding::Variant>(embedding::variants(), "embedding", s.name, c->name, problem,
                                     [&](const embedding::Variant& variant, VerifyResult& r) {
                                       std::vector<float> out(want.size(), std::nanf(""));
                                       Operands o(variant.backend);
                                       o.run(variant, problem,
                                             {{o.in(tokens), {num_tokens}},
                                              o.in(table.view[0]),
                                              {o.out(out), {num_tokens, s.cols}},
                                              {o.in(drawn), {2}}},
                                             check.pool);
                                       compare(out, want, r);
                                     });
    }
  }
}

void check_rms_norm(Check& check) {
  struct Shape {
    std::int64_t tokens, size;
    bool adds;
  };
  for (const Shape& s :
       {Shape{1, 1, false}, Shape{9, 7, true}, Shape{9, 64, false}, Shape{1, 64, true},
        Shape{2, 2880, false}, Shape{9, 2880, true}, Shape{2, 5003, true}, Shape{2, 8192, true}}) {
    const auto [tokens, size, adds] = s;
    const std::string name = fmt::format("t{}_h{}{}", tokens, size, adds ? "_add" : "");
    if (!check.wants(name)) continue;
    RandomStream random(check.seed, 2);
    const std::vector<float> x = random_floats(random, tokens * size, 3.0F);
    const std::vector<float> addend = random_floats(random, tokens * size, 1.0F);
    const std::vector<float> weight = random_floats(random, size, 2.0F);
    constexpr float kEpsilon = 1e-5F;
    // The residual stream afterwards, then the normalised rows.
    std::vector<double> want = doubles(x);
    for (std::size_t i = 0; i < want.size() && adds; ++i) want[i] += static_cast<double>(addend[i]);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::vector<double> row(want.begin() + t * size, want.begin() + (t + 1) * size);
      double squares = 0;
      for (const double v : row) squares += v * v;
      const double root =
          std::sqrt(squares / static_cast<double>(size) + static_cast<double>(kEpsilon));
      for (std::size_t i = 0; i < row.size(); ++i) {
        want.push_back(static_cast<double>(weight[i]) * row[i] / root);
      }
    }
    const rms_norm::Problem problem{tokens, size};
    check.each<rms_norm::Variant>(rms_norm::variants(), "rms_norm", name, "", problem,
                                  [&, tokens = tokens, size = size, adds = adds](
                                      const rms_norm::Variant& variant, VerifyResult& r) {
                                    std::vector<float> got = x;
                                    std::vector<float> out(x.size(), std::nanf(""));
                                    Operands o(variant.backend);
                                    o.run(variant, problem,
                                          {{o.out(got), {tokens, size}},
                                           {adds ? o.in(addend) : nullptr, {tokens, size}},
                                           {o.in(weight), {size}},
                                           kEpsilon,
                                           {o.out(out), {tokens, size}}},
                                          check.pool);
                                    got.insert(got.end(), out.begin(), out.end());
                                    compare(got, want, r);
                                  });
  }
}

void check_linear(Check& check) {
  check_cached_linear(check);
  for (const LinearShape& s : kLinearShapes) {
    if (!check.wants(s.name)) continue;
    for (const Codec* c : codecs()) {
      if (!check.wants(c->format)) continue;
      RandomStream random(check.seed, 3);
      RandomMatrices weight(random, c->format, 1, s.rows, s.cols, check.pool);
      const std::vector<float> x = random_floats(random, s.num_tokens * s.cols, 2.0F);
      const std::vector<float> bias = random_floats(random, s.rows, 1.0F);
      const std::vector<double> xd = doubles(x);
      std::vector<double> want;
      for (std::int64_t t = 0; t < s.num_tokens; ++t) {
        for (std::int64_t row = 0; row < s.rows; ++row) {
          double sum = static_cast<double>(bias[static_cast<std::size_t>(row)]);
          for (std::int64_t i = 0; i < s.cols; ++i) {
            sum += weight.decoded[static_cast<std::size_t>(row * s.cols + i)] *
                   xd[static_cast<std::size_t>(t * s.cols + i)];
          }
          want.push_back(sum);
        }
      }
      const linear::Problem problem{c->format, s.num_tokens, s.rows, s.cols};
      check.each<linear::Variant>(
          linear::variants(), "linear", s.name, c->name, problem,
          [&](const linear::Variant& variant, VerifyResult& r) {
            std::vector<float> out(want.size(), std::nanf(""));
            Operands o(variant.backend);
            linear::Args args{{o.in(x), {s.num_tokens, s.cols}},
                              o.in(weight.in_layout(variant.weight_layout, check.pool)[0]),
                              {o.in(bias), {s.rows}},
                              {o.out(out), {s.num_tokens, s.rows}},
                              {}};
            // The layer again without its bias, and all but its first row.
            std::vector<float> again(want.size(), std::nanf(""));
            std::vector<float> rest(static_cast<std::size_t>(s.num_tokens * (s.rows - 1)),
                                    std::nanf(""));
            if (variant.runs_several) {
              args.also[0] = {args.weight, {}, {o.out(again), {s.num_tokens, s.rows}}};
              if (s.rows > 1) {
                args.also[1] = {args.weight.slice(1, s.rows - 1),
                                {args.bias.data + 1, {s.rows - 1}},
                                {o.out(rest), {s.num_tokens, s.rows - 1}}};
              }
            }
            o.run(variant, problem, args, check.pool);
            std::vector<double> all = want;
            if (variant.runs_several) {
              for (std::size_t i = 0; i < want.size(); ++i) {
                const auto row = i % static_cast<std::size_t>(s.rows);
                all.push_back(want[i] - static_cast<double>(bias[row]));
              }
              for (std::size_t i = 0; i < want.size(); ++i) {
                if (i % static_cast<std::size_t>(s.rows) > 0) all.push_back(want[i]);
              }
              out.insert(out.end(), again.begin(), again.end());
              out.insert(out.end(), rest.begin(), rest.end());
            }
            compare(out, all, r);
          });
    }
  }
}

void check_rope(Check& check) {
  for (const std::int64_t head_dim : {2, 32, 64}) {
    constexpr std::int64_t kTokens = 3;
    constexpr std::int64_t kHeads = 5;
    const std::string name = fmt::format("d{}", head_dim);
    if (!check.wants(name)) continue;
    const std::int64_t half = head_dim / 2;
    RandomStream random(check.seed, 4);
    const std::vector<float> x = random_floats(random, kTokens * kHeads * head_dim, 2.0F);
    const std::vector<float> cos = random_floats(random, kTokens * half, 1.3F);
    const std::vector<float> sin = random_floats(random, kTokens * half, 1.3F);
    std::vector<double> want(x.size());
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        const std::int64_t base = (t * kHeads + h) * head_dim;
        for (std::int64_t i = 0; i < half; ++i) {
          const auto a = static_cast<double>(x[static_cast<std::size_t>(base + i)]);
          const auto b = static_cast<double>(x[static_cast<std::size_t>(base + i + half)]);
          const auto c = static_cast<double>(cos[static_cast<std::size_t>(t * half + i)]);
          const auto s = static_cast<double>(sin[static_cast<std::size_t>(t * half + i)]);
          want[static_cast<std::size_t>(base + i)] = a * c - b * s;
          want[static_cast<std::size_t>(base + i + half)] = b * c + a * s;
        }
      }
    }
    const rope::Problem problem{kTokens, kHeads, head_dim};
    check.each<rope::Variant>(rope::variants(), "rope", name, "", problem,
                              [&](const rope::Variant& variant, VerifyResult& r) {
                                std::vector<float> out = x;
                                Operands o(variant.backend);
                                o.run(variant, problem,
                                      {{o.out(out), {kTokens, kHeads, head_dim}},
                                       {o.in(cos), {kTokens, half}},
                                       {o.in(sin), {kTokens, half}}},
                                      check.pool);
                                compare(out, want, r);
                              });
  }
}

}  // namespace moebench::verify
