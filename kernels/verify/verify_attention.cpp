// Checks of kv_write and attention over a paged cache whose pages lie in no particular order.
#include <array>
#include <optional>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/verify/compare.h"

namespace moebench::verify {
namespace {

struct Shape {
  std::string_view name;
  std::int64_t heads, kv_heads, head_dim;
  std::int64_t page_size;
  std::int64_t window;
  bool sinks;
  std::vector<std::int64_t> contexts;  // one sequence each; its last tokens are queries
  std::int64_t queries;                // per sequence, at most its context
  std::optional<Format> only = std::nullopt;
};

// Of any length up to 290.
std::vector<std::int64_t> lengths(std::int64_t count) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(1 + i * 37 % 290);
  return all;
}

std::vector<Shape> shapes() {
  return {{"single_position", 2, 1, 32, 4, 0, true, {1}, 1},
          {"page_boundary", 4, 2, 32, 4, 0, true, {4, 5, 8}, 3},
          {"window_edge", 4, 2, 32, 4, 8, true, {7, 8, 9, 30}, 5},
          {"no_sinks", 3, 3, 64, 16, 0, false, {40}, 40},
          {"wide_group", 16, 2, 64, 16, 128, true, {150, 2}, 2},
          // More than 512 positions; lengths around 256.
          {"long_context", 8, 1, 64, 16, 0, true, {600, 1, 257, 256}, 2},
          {"long_context_window", 8, 1, 64, 16, 128, true, {600, 1, 257, 130}, 2},
          // More splits of 128 than a cluster of blocks joins.
          {"past_a_cluster", 8, 1, 64, 16, 0, true, {2100}, 1},
          // Prompts and single tokens side by side; lengths around 64, and a group of three.
          {"prompts_and_tokens", 4, 2, 64, 16, 0, true, {65, 1, 130, 3, 1}, 33},
          {"prompts_with_window", 6, 2, 32, 8, 32, true, {100, 1, 33, 70}, 23},
          // Lengths around 128 and 256, pages of one tile of keys and of more.
          {"long_prompts", 8, 1, 64, 16, 0, true, {290, 129, 256}, 30},
          {"long_prompts_with_window", 16, 2, 64, 128, 128, true, {290, 127, 1}, 25},
          {"large_pages", 4, 2, 64, 256, 0, false, {300, 5}, 5},
          // As gpt-oss: few sequences, for whose contexts a large GPU needs several blocks each;
          // and more than two for each of its SMs.
          {"few_sequences", 64, 8, 64, 16, 0, true, {600, 1, 1100, 257}, 1, Format::kBf16},
          {"many_sequences", 64, 8, 64, 16, 0, true, lengths(34), 1, Format::kBf16},
          {"many_sequences_window", 64, 8, 64, 16, 128, true, lengths(34), 1, Format::kBf16}};
}

// Random keys and values of several sequences, stored in a format through the codec itself.
struct CacheFixture {
  std::int64_t pages_per_sequence;
  std::vector<std::byte> memory;
  KvLayerView view;
  std::vector<std::int32_t> tables;  // [sequence, pages_per_sequence]
  std::vector<float> keys, values;   // [sequence, position, kv_head, head_dim], before encoding
  std::int64_t longest = 0;

  CacheFixture(RandomStream& random, const Shape& s, Format format) {
    for (const std::int64_t context : s.contexts) longest = std::max(longest, context);
    pages_per_sequence = (longest + s.page_size - 1) / s.page_size;
    const auto num_sequences = static_cast<std::int64_t>(s.contexts.size());
    const std::int64_t num_pages = pages_per_sequence * num_sequences;
    view = one_layer(format, s.page_size, s.kv_heads, s.head_dim);
    memory.resize(static_cast<std::size_t>(num_pages) * view.page_stride);
    view.keys = memory.data();
    view.values = memory.data() + half_page_bytes(view);
    for (std::int64_t q = 0; q < num_sequences; ++q) {
      // Last page first, and sequences interleaved: nothing may rely on order.
      for (std::int64_t p = 0; p < pages_per_sequence; ++p) {
        tables.push_back(
            static_cast<std::int32_t>((pages_per_sequence - 1 - p) * num_sequences + q));
      }
    }
    const std::int64_t count = num_sequences * longest * s.kv_heads * s.head_dim;
    keys = random_floats(random, count, 1.0F);
    values = random_floats(random, count, 1.0F);
  }

  // Forgets the pages that no query can see, as caches do: they must not be read.
  void drop_invisible_pages(const Shape& s) {
    for (std::size_t q = 0; q < s.contexts.size(); ++q) {
      const std::int64_t first_query = std::max<std::int64_t>(0, s.contexts[q] - s.queries);
      const std::int64_t first =
          s.window > 0 ? std::max<std::int64_t>(0, first_query - s.window + 1) : 0;
      for (std::int64_t p = 0; p < pages_per_sequence; ++p) {
        if (p < first / s.page_size || p * s.page_size >= s.contexts[q]) {
          tables[q * static_cast<std::size_t>(pages_per_sequence) + static_cast<std::size_t>(p)] =
              -1;
        }
      }
    }
  }

  // The cache where the variant's operands are; what it writes comes back.
  KvLayerView on(Operands& o) {
    KvLayerView there = view;
    there.keys = o.out(memory);
    there.values = there.keys + (view.values - view.keys);
    return there;
  }
  TokenPlaces places(Operands& o, const std::vector<std::int32_t>& positions,
                     const std::vector<std::int32_t>& sequences) const {
    const auto n = static_cast<std::int64_t>(positions.size());
    return {{o.in(positions), {n}},
            {o.in(sequences), {n}},
            {o.in(tables),
             {static_cast<std::int64_t>(tables.size()) / pages_per_sequence, pages_per_sequence}}};
  }

  std::size_t at(const Shape& s, std::int64_t sequence, std::int64_t position,
                 std::int64_t head) const {
    return static_cast<std::size_t>(((sequence * longest + position) * s.kv_heads + head) *
                                    s.head_dim);
  }
};

// Where the fixture keeps one vector.
std::byte* place(const CacheFixture& f, std::byte* base, std::int64_t sequence,
                 std::int64_t position, std::int64_t head) {
  const std::int32_t page = f.tables[static_cast<std::size_t>(sequence * f.pages_per_sequence +
                                                              position / f.view.page_size)];
  return f.view.row(base, page, position % f.view.page_size, head);
}

void check_kv_write(Check& check, const Shape& s) {
  for (const Codec* c : codecs()) {
    if (!check.wants(c->format)) continue;
    RandomStream random(check.seed, 5);
    CacheFixture fixture(random, s, c->format);
    std::vector<std::int32_t> positions;
    std::vector<std::int32_t> sequences;
    std::vector<float> keys, values;
    for (std::int64_t q = 0; q < 2; ++q) {
      for (std::int64_t p = 0; p < s.contexts[static_cast<std::size_t>(q)]; ++p) {
        positions.push_back(static_cast<std::int32_t>(p));
        sequences.push_back(static_cast<std::int32_t>(q));
        const auto from = fixture.at(s, q, p, 0);
        const auto n = static_cast<std::size_t>(s.kv_heads * s.head_dim);
        keys.insert(keys.end(), &fixture.keys[from], &fixture.keys[from] + n);
        values.insert(values.end(), &fixture.values[from], &fixture.values[from] + n);
      }
    }
    const auto n = static_cast<std::int64_t>(positions.size());
    const kv_write::Problem problem{c->format, n, s.kv_heads, s.head_dim};
    check.each<kv_write::Variant>(
        kv_write::variants(), "kv_write", s.name, c->name, problem,
        [&](const kv_write::Variant& variant, VerifyResult& r) {
          std::fill(fixture.memory.begin(), fixture.memory.end(), std::byte{0xff});
          Operands o(variant.backend);
          o.run(variant, problem,
                {{o.in(keys), {n, s.kv_heads, s.head_dim}},
                 {o.in(values), {n, s.kv_heads, s.head_dim}},
                 fixture.on(o),
                 fixture.places(o, positions, sequences)},
                check.pool);
          // What the codec itself makes of each vector is what must come back, exactly.
          std::vector<float> got;
          std::vector<double> want;
          const auto row = static_cast<std::size_t>(s.head_dim);
          std::vector<float> decoded(row);
          std::vector<std::byte> encoded(fixture.view.row_bytes);
          for (std::size_t t = 0; t < positions.size(); ++t) {
            for (std::int64_t h = 0; h < s.kv_heads; ++h) {
              for (const bool is_key : {true, false}) {
                std::byte* base = is_key ? fixture.view.keys : fixture.view.values;
                const std::vector<float>& from = is_key ? keys : values;
                fixture.view.decode(place(fixture, base, sequences[t], positions[t], h),
                                    decoded.data());
                got.insert(got.end(), decoded.begin(), decoded.end());
                fixture.view.encode(
                    encoded.data(),
                    &from[(t * static_cast<std::size_t>(s.kv_heads) + static_cast<std::size_t>(h)) *
                          row]);
                fixture.view.decode(encoded.data(), decoded.data());
                want.insert(want.end(), decoded.begin(), decoded.end());
              }
            }
          }
          compare(got, want, r);
        });
  }
}

}  // namespace

void check_kv_write(Check& check) {
  for (const Shape& s : {Shape{"scattered_pages", 2, 2, 32, 4, 0, true, {9, 6}, 0},
                         Shape{"a_prompt", 2, 2, 64, 4, 0, true, {61, 6}, 0}}) {
    check_kv_write(check, s);
  }
}

void check_attention(Check& check) {
  for (const Shape& s : shapes()) {
    if (!check.wants(s.name)) continue;
    for (const Codec* c : codecs()) {
      if (!check.wants(c->format) || s.only.value_or(c->format) != c->format) continue;
      RandomStream random(check.seed, 6);
      CacheFixture fixture(random, s, c->format);
      std::vector<double> keys(fixture.keys.size());
      std::vector<double> values(fixture.values.size());
      std::vector<float> decoded(static_cast<std::size_t>(s.head_dim));
      std::vector<std::int32_t> positions;
      std::vector<std::int32_t> sequences;
      for (std::size_t q = 0; q < s.contexts.size(); ++q) {
        const auto sequence = static_cast<std::int64_t>(q);
        for (std::int64_t p = 0; p < s.contexts[q]; ++p) {
          for (std::int64_t h = 0; h < s.kv_heads; ++h) {
            const std::size_t at = fixture.at(s, sequence, p, h);
            for (const bool is_key : {true, false}) {
              std::byte* row =
                  place(fixture, is_key ? fixture.view.keys : fixture.view.values, sequence, p, h);
              fixture.view.encode(row, &(is_key ? fixture.keys : fixture.values)[at]);
              fixture.view.decode(row, decoded.data());
              std::copy(decoded.begin(), decoded.end(),
                        (is_key ? keys : values).begin() + static_cast<std::ptrdiff_t>(at));
            }
          }
          if (p >= s.contexts[q] - s.queries) {
            positions.push_back(static_cast<std::int32_t>(p));
            sequences.push_back(static_cast<std::int32_t>(q));
          }
        }
      }
      fixture.drop_invisible_pages(s);
      const auto n = static_cast<std::int64_t>(positions.size());
      const std::vector<float> queries = random_floats(random, n * s.heads * s.head_dim, 2.0F);
      const std::vector<float> sinks = random_floats(random, s.heads, 2.0F);
      const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)));

      std::vector<double> want;
      for (std::size_t t = 0; t < positions.size(); ++t) {
        const std::int64_t last = positions[t];
        const std::int64_t first =
            s.window > 0 ? std::max<std::int64_t>(0, last - s.window + 1) : 0;
        for (std::int64_t head = 0; head < s.heads; ++head) {
          const std::int64_t kv_head = head / (s.heads / s.kv_heads);
          const float* query =
              &queries[(t * static_cast<std::size_t>(s.heads) + static_cast<std::size_t>(head)) *
                       static_cast<std::size_t>(s.head_dim)];
          std::vector<double> out(static_cast<std::size_t>(s.head_dim), 0.0);
          // Scores here stay below 50, so exp needs no shift in float64.
          double sum =
              s.sinks ? std::exp(static_cast<double>(sinks[static_cast<std::size_t>(head)])) : 0.0;
          for (std::int64_t p = first; p <= last; ++p) {
            const std::size_t at = fixture.at(s, sequences[t], p, kv_head);
            double score = 0;
            for (std::size_t d = 0; d < out.size(); ++d) {
              score += static_cast<double>(query[d]) * keys[at + d];
            }
            const double weight = std::exp(score * static_cast<double>(scale));
            sum += weight;
            for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight * values[at + d];
          }
          for (const double v : out) want.push_back(v / sum);
        }
      }
      const attention::Problem problem{c->format,  n,        s.heads,        s.kv_heads,
                                       s.head_dim, s.window, fixture.longest};
      check.each<attention::Variant>(attention::variants(), "attention", s.name, c->name, problem,
                                     [&](const attention::Variant& variant, VerifyResult& r) {
                                       std::vector<float> out(want.size(), std::nanf(""));
                                       attention::Args args;
                                       Operands o(variant.backend);
                                       args.queries = {o.in(queries), {n, s.heads, s.head_dim}};
                                       args.kv = fixture.on(o);
                                       args.places = fixture.places(o, positions, sequences);
                                       if (s.sinks) args.sinks = {o.in(sinks), {s.heads}};
                                       args.scale = scale;
                                       args.window = s.window;
                                       args.max_context = fixture.longest;
                                       args.joins = true;
                                       args.out = {o.out(out), {n, s.heads, s.head_dim}};
                                       o.run(variant, problem, args, check.pool);
                                       compare(out, want, r);
                                     });
    }
  }
}

}  // namespace moebench::verify
