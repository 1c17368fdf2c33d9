// Bytes and operations of a step against hand-computed ones, and against the published arithmetic
// of gpt-oss's shapes.
#include <catch2/catch.hpp>
#include <map>

#include "engine/op_choice.h"
#include "engine/step_cost.h"
#include "engine/synthetic_checkpoint.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// A shape with weights as gpt-oss ships them: dense ones in bf16, experts in MXFP4.
struct Shape {
  ModelConfig config;
  WeightLayout layout;

  explicit Shape(const SyntheticShape& s, Format dense = Format::kBf16) {
    config = parse_model_config(synthetic_config(s), "a synthetic config");
    const auto place = [&](std::int64_t rows, std::int64_t cols, Format format = Format::kBf16,
                           std::int64_t count = 1) {
      WeightPlacement p;
      p.rows = rows;
      p.cols = cols;
      p.format = format;
      p.count = count;
      return p;
    };
    layout.embedding = place(s.vocab_size, s.hidden_size);
    layout.unembedding = place(s.vocab_size, s.hidden_size, dense);
    for (std::int64_t l = 0; l < s.num_layers; ++l) {
      LayerPlacements p;
      p.query = place(s.num_heads * s.head_dim, s.hidden_size, dense);
      p.key = p.value = place(s.num_kv_heads * s.head_dim, s.hidden_size, dense);
      p.attention_out = place(s.hidden_size, s.num_heads * s.head_dim, dense);
      p.router = place(s.num_experts, s.hidden_size);
      p.gate_up = place(2 * s.intermediate_size, s.hidden_size, Format::kMxfp4, s.num_experts);
      p.down = place(s.hidden_size, s.intermediate_size, Format::kMxfp4, s.num_experts);
      layout.layers.push_back(p);
    }
  }

  std::map<std::string, OpCost> cost(StepWork work, double touched, Format kv) const {
    work.touched_experts.assign(static_cast<std::size_t>(config.num_layers), touched);
    std::map<std::string, OpCost> by_op;
    for (const OpCost& one : step_cost(config, layout, kv, work)) by_op[std::string(one.op)] = one;
    return by_op;
  }
};

StepWork decode(std::int64_t batch, std::int64_t context) {
  StepWork work;
  work.parts.assign(static_cast<std::size_t>(batch), {context - 1, 1});
  work.logit_rows = batch;
  return work;
}

// The arithmetic these numbers come from keeps biases in bf16 and leaves out those of dense layers;
// ours are f32: 2 bytes more for each of (2 * 2880 + 2880) numbers of an expert.
constexpr double kExpertBiases = 2.0 * (2 * 2880 + 2880);

}  // namespace

TEST_CASE("step cost: gpt-oss-20b, one sequence, 1K context, as shipped") {
  const Shape shape(gpt_oss_20b_shape());
  const auto cost = shape.cost(decode(1, 1024), 4, Format::kBf16);
  // 24 layers of 2880 * (64 + 2 * 8) * 64 weights of 2 bytes, and as many f32 biases as rows.
  CHECK(cost.at("linear: query, key, value").weight_bytes == 24 * (2.0 * 2880 * 5120 + 4.0 * 5120));
  CHECK(cost.at("linear: attention out").weight_bytes == 24 * (2.0 * 4096 * 2880 + 4.0 * 2880));
  CHECK(cost.at("linear: query, key, value").operations +
            cost.at("linear: attention out").operations ==
        Approx(24 * 2 * 26542080.0));
  // Published sums, in MB: qkv + o 1,274.0, experts 1,270.7, unembedding 1,158.3, KV 28.3, router
  // 4.4.
  CHECK((cost.at("linear: query, key, value").weight_bytes +
         cost.at("linear: attention out").weight_bytes - 24 * 4.0 * (5120 + 2880)) /
            1e6 ==
        Approx(1274.0).epsilon(1e-4));
  CHECK((cost.at("moe_experts").weight_bytes - 24 * 4 * kExpertBiases) / 1e6 ==
        Approx(1270.7).epsilon(1e-4));
  CHECK(cost.at("linear: unembedding").weight_bytes / 1e6 == Approx(1158.3).epsilon(1e-4));
  // 2 * 8 * 64 * 2 = 2,048 bytes a position and layer; 12 layers see 1,024, 12 a window of 128.
  CHECK(cost.at("attention").cache_bytes == 2048.0 * 12 * (1024 + 128));
  CHECK(cost.at("attention").cache_bytes / 1e6 == Approx(28.3).epsilon(2e-3));
  CHECK(cost.at("kv_write").written_bytes == 24 * 2048.0);
  CHECK(cost.at("linear: router").weight_bytes == 24 * (2.0 * 32 * 2880 + 4.0 * 32));
  CHECK(cost.at("embedding").weight_bytes == 2.0 * 2880);
  double operations = 0;
  for (const auto& [op, one] : cost) operations += one.operations;
  CHECK(operations / 1e9 == Approx(7.44).epsilon(2e-3));  // published: 7.44 GFLOP a token
}

TEST_CASE("step cost: gpt-oss-120b, one sequence and many") {
  const Shape shape(gpt_oss_120b_shape());
  const auto one = shape.cost(decode(1, 1024), 4, Format::kBf16);
  CHECK((one.at("moe_experts").weight_bytes - 36 * 4 * kExpertBiases) / 1e6 ==
        Approx(1906.1).epsilon(1e-4));
  CHECK(one.at("attention").cache_bytes / 1e6 == Approx(42.5).epsilon(2e-3));
  CHECK((one.at("linear: router").weight_bytes - 36 * 4 * 128) / 1e6 == Approx(26.5).epsilon(2e-3));
  // 256 sequences that together choose 127.96 experts (128 * (1 - (1 - 4/128)^256)): 14,180 us of
  // bytes at 4.3 TB/s against 2,322 us of operations at 790 TFLOP/s.
  const auto many = shape.cost(decode(256, 1024), 127.9622, Format::kBf16);
  CHECK((many.at("moe_experts").weight_bytes - 36 * 127.9622 * kExpertBiases) / 4.3e12 * 1e6 ==
        Approx(14180).epsilon(1e-4));
  CHECK(many.at("moe_experts").operations / 790e12 * 1e6 == Approx(2322).epsilon(1e-3));
  CHECK(many.at("attention").cache_bytes / 4.3e12 * 1e6 == Approx(2528).epsilon(1e-3));
  CHECK(many.at("attention").operations / 790e12 * 1e6 == Approx(110).epsilon(5e-3));
  CHECK(many.at("linear: unembedding").operations / 790e12 * 1e6 == Approx(375).epsilon(2e-3));
}

TEST_CASE("step cost: prefill of 2,048 tokens of gpt-oss-20b") {
  const Shape shape(gpt_oss_20b_shape());
  const auto cost = shape.cost({{{0, 2048}}, 1, {}}, 32, Format::kBf16);
  // Published, in TFLOP: attention 0.46, dense 2.62, experts 9.78. Attention counts the diagonal
  // here: 12 layers of 2048 * 2049 / 2 pairs, 12 of 128 * 129 / 2 + 1920 * 128.
  CHECK(cost.at("attention").operations ==
        4.0 * 4096 * 12 * (2048 * 2049 / 2 + 128 * 129 / 2 + 1920 * 128));
  CHECK(cost.at("attention").operations / 1e12 == Approx(0.46).epsilon(0.01));
  CHECK((cost.at("linear: query, key, value").operations +
         cost.at("linear: attention out").operations + cost.at("linear: router").operations) /
            1e12 ==
        Approx(2.62).epsilon(2e-3));
  CHECK(cost.at("moe_experts").operations / 1e12 == Approx(9.78).epsilon(1e-3));
  // Logits of one row only: 2 * 201088 * 2880.
  CHECK(cost.at("linear: unembedding").operations == 2.0 * 201088 * 2880);
}

TEST_CASE("step cost: a chunk sees what came before, in sliding layers no more than its windows") {
  SyntheticShape tiny;  // 2 layers, of which one slides with a window of 8; 2 KV heads of 32
  const Shape shape(tiny);
  const double position = 2.0 * 2 * 32 * 4;  // f32 keys and values
  // Tokens 20 .. 23 and 3: full 24 + 4 positions; sliding 23 - 13 + 1 = 11 and 4.
  const auto cost = shape.cost({{{20, 4}, {3, 1}}, 0, {}}, 3, Format::kF32);
  CHECK(cost.at("attention").cache_bytes == position * (24 + 4 + 11 + 4));
  // Pairs: 21 + 22 + 23 + 24 + 4, and 4 * 8 + 4.
  CHECK(cost.at("attention").operations == 4.0 * 4 * 32 * (94 + 36));
  CHECK(cost.at("kv_write").written_bytes == position * 2 * 5);
  CHECK(cost.count("linear: unembedding") == 0);  // nobody wants logits
  // A window that fills up within the chunk: tokens 6 .. 9 see 7, 8, 8, 8.
  const auto filling = shape.cost({{{6, 4}}, 0, {}}, 3, Format::kF32);
  CHECK(filling.at("attention").operations == 4.0 * 4 * 32 * ((7 + 8 + 9 + 10) + 31));
}

TEST_CASE("step cost: narrower weights and caches are fewer bytes, and not fewer operations") {
  const Shape bf16(gpt_oss_20b_shape());
  const Shape fp8(gpt_oss_20b_shape(), Format::kInt8);
  const auto a = bf16.cost(decode(4, 100), 10, Format::kBf16);
  const auto b = fp8.cost(decode(4, 100), 10, Format::kF32);
  CHECK(b.at("attention").cache_bytes == 2 * a.at("attention").cache_bytes);
  CHECK(b.at("linear: unembedding").weight_bytes < 0.6 * a.at("linear: unembedding").weight_bytes);
  for (const auto& [op, one] : a) CHECK(b.at(op).operations == one.operations);
}

TEST_CASE("step cost: work that is not the model's is refused") {
  const Shape shape(SyntheticShape{});
  const auto refused = [&](const StepWork& work, const char* reason) {
    check_error([&] { step_cost(shape.config, shape.layout, Format::kF32, work); },
                ErrorCode::kInvalidArgument, {"count the cost of a step", reason});
  };
  refused({}, "no tokens");
  refused({{{-1, 1}}, 0, {1, 1}}, "position -1");
  refused({{{0, 0}}, 0, {1, 1}}, "0 tokens");
  refused({{{0, 1}}, 0, {1}}, "1 layers");
  refused({{{0, 1}}, 0, {1, 5}}, "5 experts");
  refused({{{0, 1}}, 2, {1, 1}}, "2 rows of logits");
}

TEST_CASE("step cost: a variant multiplies in what it says that it rounds to") {
  // The text a variant states begins with what its inputs are: an independent witness of the name.
  const auto agrees = [](const auto& variants, std::initializer_list<Format> formats) {
    for (const auto* v : variants) {
      for (const Format format : formats) {
        INFO(v->name << ", " << format_name(format) << ": " << v->rounds);
        const Precision p = multiplies_in(v->name, format);
        const auto begins = [&](std::string_view text) { return v->rounds.starts_with(text); };
        CHECK((p == Precision::kBf16) ==
              (begins("activations: bf16") || begins("activations: two float8 digits") ||
               begins("queries, keys, values, weights: bf16")));
        if (begins("activations: f32")) CHECK(p == Precision::kF32);
        if (begins("activations: int8")) CHECK(p == Precision::kInt8);
        if (begins("activations: 15 bits")) CHECK(p == Precision::kInt16);
      }
    }
  };
  agrees(linear::variants(), {Format::kMxfp4, Format::kInt4});
  agrees(moe_experts::variants(), {Format::kMxfp4, Format::kNvfp4});
  agrees(attention::variants(), {Format::kF32, Format::kBf16});
  CHECK(multiplies_in("avx2_int8", Format::kInt8) == Precision::kInt16);
  CHECK(multiplies_in("avx2_int8", Format::kBf16) == Precision::kF32);
  CHECK(multiplies_in("avx2_int15", Format::kF16) == Precision::kF32);
  CHECK(multiplies_in("cuda_cublaslt", Format::kFp8E4m3) == Precision::kFp8);
  CHECK(multiplies_in("cuda_cublaslt", Format::kBf16) == Precision::kBf16);
  CHECK(multiplies_in("cuda_dequantise_cublaslt", Format::kFp8E4m3) == Precision::kBf16);
}

}  // namespace moebench::test
