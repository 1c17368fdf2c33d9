// Weights and cache under plans: every format can hold every group, what it takes is what was
// predicted, and what it costs in accuracy is what its bits allow.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "engine/engine.h"
#include "engine/scoring.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

const std::vector<std::int32_t> kTokens = {5, 170, 99, 3, 3, 64, 412, 1, 17, 42, 8, 31, 77, 300};

std::filesystem::path tiny() { return golden("gpt-oss-tiny-a"); }

EngineOptions options() {
  return {.max_batch = 2, .max_context = 64, .step_tokens = 16, .logit_rows = 16};
}

std::vector<double> logits_of(Engine& engine) {
  std::vector<double> all;
  score_sequence(*engine.model, *engine.cache, kTokens, 0,
                 [&](std::int64_t, std::span<const float> row) {
                   all.insert(all.end(), row.begin(), row.end());
                 });
  return all;
}

std::vector<double> logits_under(const std::string& plan) {
  ThreadPool pool(2);
  Engine engine = load_engine(tiny(), parse_plan(plan), options(), pool);
  return logits_of(engine);
}

// The root of sum (got - want)^2 / sum want^2. Infinite where a number is not finite.
double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  double errors = 0, squares = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    errors += (got[i] - want[i]) * (got[i] - want[i]);
    squares += want[i] * want[i];
  }
  return std::sqrt(errors / squares);
}

std::string everywhere(std::string_view format) {
  return fmt::format("experts={0},attention={0},embedding={0},unembedding={0},kv={0}", format);
}

}  // namespace

TEST_CASE("weights: formats that can hold the stored numbers exactly change no logit") {
  const auto want = logits_under("reference");
  // MXFP4 products of a 2-bit number and a power of two, and bf16, are float32 numbers too.
  CHECK(logits_under("experts=f32,ops=reference") == want);
  CHECK(logits_under(everywhere("f32") + ",ops=reference") == want);
  CHECK(logits_under("experts=bf16,attention=bf16,embedding=bf16,unembedding=bf16,ops=reference") ==
        want);
  CHECK(logits_under("experts=mxfp4,ops=reference") == want);  // as stored
}

TEST_CASE("weights: each format everywhere, the cache too, costs what its bits allow") {
  const auto want = logits_under("reference");
  // Significant bits: 8, 11, 4, 7, 3, 4, 2, 2. Sixteen layers of rounding add up to a few steps.
  const std::map<std::string, double> most = {{"f32", 0},        {"bf16", 0.02}, {"f16", 0.005},
                                              {"fp8_e4m3", 0.2}, {"int8", 0.1},  {"int4", 0.8},
                                              {"mxfp8", 0.2},    {"mxfp4", 1.0}, {"nvfp4", 0.8}};
  std::map<std::string, double> errors;
  for (const Codec* c : codecs()) {
    const std::string name(c->name);
    INFO(name);
    errors[name] = relative_error(logits_under(everywhere(name) + ",ops=reference"), want);
    REQUIRE(most.contains(name));
    CHECK(errors[name] <= most.at(name));
    if (name != "f32") CHECK(errors[name] > 0);
  }
  CHECK(errors["f16"] < errors["bf16"]);
  CHECK(errors["bf16"] < errors["fp8_e4m3"]);
  CHECK(errors["int8"] < errors["int4"]);
  CHECK(errors["mxfp8"] < errors["mxfp4"]);
  CHECK(errors["nvfp4"] < errors["mxfp4"]);  // blocks of 16 with finer scales
}

TEST_CASE("weights: prediction and engine agree on every byte, and the experts on their formula") {
  const ModelConfig config = load_model_config(tiny());
  for (const Codec* c : codecs()) {
    for (const std::string& text : {std::string(c->name), everywhere(c->name)}) {
      INFO(text);
      const Plan plan = parse_plan(text);
      ThreadPool pool(2);
      const MemoryBudget predicted = predict_memory(tiny(), plan, options(), 2);
      const Engine engine = load_engine(tiny(), plan, options(), pool);
      const MemoryBudget got = engine.memory();
      CHECK(predicted.weights == got.weights);
      CHECK(predicted.kv_cache == got.kv_cache);
      CHECK(predicted.activations == got.activations);
      CHECK(predicted.workspace == got.workspace);
      CHECK(predicted.logits == got.logits);
      CHECK(predicted.total() == got.total());
      // 4 layers of 8 experts: gate and up [2 * 96, 64], down [64, 96].
      const std::size_t expert = 192 * row_bytes(c->format, 64) + 64 * row_bytes(c->format, 96);
      CHECK(got.weights[static_cast<std::size_t>(WeightGroup::kExperts)] == 4 * 8 * expert);
    }
  }
  // MXFP4 by hand: a byte for two numbers, and one for each 32.
  const MemoryBudget stored = predict_memory(tiny(), {}, options(), 1);
  CHECK(stored.weights[static_cast<std::size_t>(WeightGroup::kExperts)] ==
        4 * 8 * (192 * 64 + 64 * 96) * 17 / 32);
  CHECK(stored.weights[static_cast<std::size_t>(WeightGroup::kEmbedding)] == 512 * 64 * 2);
}

TEST_CASE("weights: what re-encoding did is reported for each tensor, and only for those") {
  ThreadPool pool(2);
  const auto stored = Weights::load(tiny(), {}, pool);
  CHECK(stored->errors.empty());
  const auto coarse = Weights::load(tiny(), parse_plan(everywhere("int4")), pool);
  // q, k, v, o, gate_up and down of 4 layers, embedding and unembedding; never the router.
  CHECK(coarse->errors.size() == 4 * 6 + 2);
  for (const TensorError& error : coarse->errors) {
    INFO(error.name);
    CHECK(error.to == Format::kInt4);
    CHECK(error.group != WeightGroup::kRouter);
  }
  const auto exact = Weights::load(tiny(), parse_plan("experts=f32"), pool);
  CHECK(exact->errors.size() == 4 * 2);
}

TEST_CASE("engine: settings that cannot be are refused with their values") {
  ThreadPool pool(1);
  const auto refused = [&](EngineOptions wrong, std::initializer_list<std::string> words) {
    check_error([&] { load_engine(tiny(), {}, wrong, pool); }, ErrorCode::kInvalidArgument, words);
    check_error([&] { predict_memory(tiny(), {}, wrong, 1); }, ErrorCode::kInvalidArgument, words);
  };
  refused({.max_context = 257}, {"257", "256"});
  refused({.max_batch = 0}, {"max_batch 0"});
  refused({.step_tokens = -1}, {"step_tokens -1"});
}

TEST_CASE("engine: steps have 512 tokens on a CPU, or as many as asked for, or the batch needs") {
  ThreadPool pool(1);
  const auto steps = [&](const EngineOptions& chosen) {
    return load_engine(tiny(), {}, chosen, pool).model->limits().max_step_tokens;
  };
  CHECK(steps({.max_batch = 2, .max_context = 64}) == 512);
  CHECK(steps({.max_batch = 2, .max_context = 64, .step_tokens = 24}) == 24);
  CHECK(steps({.max_batch = 5, .max_context = 64, .step_tokens = 3}) == 5);
}

TEST_CASE("engine: a model without a tokenizer computes, and says so when text is wanted") {
  ThreadPool pool(1);
  const Engine engine = load_engine(tiny(), {}, options(), pool);
  check_error([&] { engine.require_tokenizer(); }, ErrorCode::kUnsupported,
              {tiny().string(), "tokenizer.json"});
}

}  // namespace moebench::test
