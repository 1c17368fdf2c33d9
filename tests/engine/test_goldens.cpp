// The forward pass against an independent float64 implementation (tests/golden/gpt-oss-tiny-a, made
// by make_gpt_oss_golden.py): every layer, the routing, greedy continuations, both file layouts.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>

#include "engine/model.h"
#include "engine/rope_table.h"
#include "engine/scheduler.h"
#include "engine/scoring.h"
#include "kernels/core/cpu_features.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/near.h"

namespace moebench::test {
namespace {

// What the issue asks of float32 activations; a plain implementation reaches 1e-5.
constexpr double kTolerance = 1e-4;

struct Fixture {
  explicit Fixture(const std::string& layout, const Plan& plan = {}, std::int64_t step_tokens = 64,
                   int threads = 2)
      : pool(threads), expected(read_json(golden("gpt-oss-tiny-a/expected.json"))) {
    const auto weights = Weights::load(golden("gpt-oss-tiny-a") / layout, plan, pool);
    model = std::make_unique<Model>(weights, ModelLimits{step_tokens, 16, 256}, pool);
    KvCacheOptions options;
    options.format = plan.kv;
    options.page_size = 4;  // small pages: every boundary is crossed
    options.max_tokens = 1024;
    options.max_step = step_tokens;
    cache = std::make_unique<KvCache>(weights->config, options);
  }

  std::vector<std::vector<float>> logits(const std::vector<std::int32_t>& tokens,
                                         const Observer* observer = nullptr) {
    std::vector<std::vector<float>> rows;
    score_sequence(
        *model, *cache, tokens, 0,
        [&](std::int64_t, std::span<const float> row) {
          rows.emplace_back(row.begin(), row.end());
        },
        observer);
    return rows;
  }

  ThreadPool pool;
  Json expected;
  std::unique_ptr<Model> model;
  std::unique_ptr<KvCache> cache;
};

// Sums over all positions and keeps the last row, as the golden file summarises tensors.
struct Summary {
  std::vector<float> last_first8;
  double sum = 0;
  double squares = 0;

  void add(View<const float, 2> rows) {
    for (const float v : rows.span()) {
      sum += static_cast<double>(v);
      squares += static_cast<double>(v) * static_cast<double>(v);
    }
    const auto last = rows[rows.shape[0] - 1].span().first(8);
    last_first8.assign(last.begin(), last.end());
  }

  void check(const Json& want) const {
    check_near(last_first8, want.at("last_first8").get<std::vector<double>>(), kTolerance);
    const auto l2 = want.at("l2").get<double>();
    CHECK(std::fabs(std::sqrt(squares) - l2) <= 1e-5 * l2 + kTolerance);
    // A sum of n values of size l2/sqrt(n) collects errors of that size.
    CHECK(std::fabs(sum - want.at("sum").get<double>()) <= 1e-4 * l2 + kTolerance);
  }
};

}  // namespace

TEST_CASE("model: logits and every layer agree with the float64 reference, in both layouts") {
  const std::string layout = GENERATE("", "original");
  Fixture fixture(layout);
  for (const Json& sequence : fixture.expected.at("sequences")) {
    const auto tokens = sequence.at("tokens").get<std::vector<std::int32_t>>();
    DYNAMIC_SECTION(layout << " layout, " << tokens.size() << " tokens, "
                           << sequence.at("kind").get<std::string>()) {
      std::map<std::pair<std::string, std::int64_t>, Summary> seen;
      std::map<std::int64_t, std::vector<std::vector<int>>> experts;
      std::map<std::int64_t, std::vector<float>> last_weights;
      std::map<std::int64_t, std::vector<float>> last_router_logits;
      Observer observer;
      observer.tensor = [&](std::string_view name, std::int64_t layer, View<const float, 2> rows) {
        seen[{std::string(name), layer}].add(rows);
        if (name == "router_logits") {
          const auto last = rows[rows.shape[0] - 1].span();
          last_router_logits[layer].assign(last.begin(), last.end());
        }
      };
      observer.routing = [&](std::int64_t layer, View<const std::int32_t, 2> ids,
                             View<const float, 2> weights) {
        for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
          experts[layer].emplace_back(ids[t].data, ids[t].data + ids.shape[1]);
        }
        const auto last = weights[weights.shape[0] - 1].span();
        last_weights[layer].assign(last.begin(), last.end());
      };
      const auto logits = fixture.logits(tokens, &observer);

      check_near(logits.back(), sequence.at("logits_last").get<std::vector<double>>(), kTolerance);
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        const auto ids = sequence.at("top5_ids")[t].get<std::vector<std::size_t>>();
        const auto values = sequence.at("top5_values")[t].get<std::vector<double>>();
        std::vector<float> got;
        for (const std::size_t id : ids) got.push_back(logits[t][id]);
        check_near(got, values, kTolerance);
      }
      seen.at({"embed", -1}).check(sequence.at("embed"));
      seen.at({"final_norm", -1}).check(sequence.at("final_norm"));
      for (std::size_t l = 0; l < sequence.at("layers").size(); ++l) {
        const Json& layer = sequence.at("layers")[l];
        const auto index = static_cast<std::int64_t>(l);
        INFO("layer " << l);
        for (const char* name :
             {"attn_norm", "q", "k", "v", "attn_heads", "resid_attn", "resid_mlp"}) {
          INFO("tensor " << name);
          if (layer.contains(name)) seen.at({name, index}).check(layer.at(name));
        }
        CHECK(experts[index] == layer.at("experts").get<std::vector<std::vector<int>>>());
        check_near(last_weights[index], layer.at("expert_weights_last").get<std::vector<double>>(),
                   kTolerance);
        check_near(last_router_logits[index],
                   layer.at("router_logits_last").get<std::vector<double>>(), kTolerance);
      }
    }
  }
}

TEST_CASE("model: the variants of a family stay near the float64 reference") {
  // Largest error of a logit; logits here have a deviation of about 2.
  const auto [plan, tolerance] = GENERATE(
      std::pair{"ops=accurate", 2e-3}, std::pair{"ops=fast", 0.3},
      std::pair{"linear=portable_f32,moe_experts=portable_f32,rms_norm=portable_f32", 1e-4},
      std::pair{"linear=avx2_f32,moe_experts=avx2_f32", 1e-4});
  if (std::string(plan).find("avx2") != std::string::npos && !cpu_has_avx2()) return;
  INFO(plan);
  Fixture fixture("", parse_plan(plan));
  for (const Json& sequence : fixture.expected.at("sequences")) {
    const auto logits = fixture.logits(sequence.at("tokens").get<std::vector<std::int32_t>>());
    check_near(logits.back(), sequence.at("logits_last").get<std::vector<double>>(), tolerance);
  }
}

TEST_CASE("model: greedy continuations equal the reference's") {
  const std::string plan = GENERATE("reference", "accurate");
  INFO(plan);
  Fixture fixture(GENERATE("", "original"), parse_plan(plan));
  for (const Json& generation : fixture.expected.at("generate")) {
    Scheduler scheduler(*fixture.model, *fixture.cache);
    Request request;
    request.prompt = generation.at("prompt").get<std::vector<std::int32_t>>();
    const auto want = generation.at("greedy").get<std::vector<std::int32_t>>();
    request.max_tokens = static_cast<std::int64_t>(want.size());
    request.detect_loops = false;
    scheduler.submit(request);
    while (scheduler.step()) {
    }
    const auto results = scheduler.take_results();
    REQUIRE(results.size() == 1);
    CHECK(results[0].tokens == want);
    CHECK(results[0].finish == FinishReason::kLength);
  }
}

TEST_CASE("model: decoding token by token gives the bits of prefill, with any number of threads") {
  const Plan plan = parse_plan(GENERATE("reference", "accurate", "fast"));
  INFO(plan.name);
  Fixture whole("", plan, 64, 1);
  Fixture single("", plan, 1, 3);
  Fixture odd("", plan, 7, 2);
  for (const Json& sequence : whole.expected.at("sequences")) {
    const auto tokens = sequence.at("tokens").get<std::vector<std::int32_t>>();
    const auto want = whole.logits(tokens);
    CHECK(single.logits(tokens) == want);
    CHECK(odd.logits(tokens) == want);
  }
}

TEST_CASE("model: a sequence's logits do not depend on the others in its batch, bit for bit") {
  const Plan plan = parse_plan(GENERATE("reference", "accurate", "fast"));
  INFO(plan.name);
  Fixture fixture("", plan);
  std::vector<std::vector<std::int32_t>> sequences;
  for (const Json& sequence : fixture.expected.at("sequences")) {
    sequences.push_back(sequence.at("tokens").get<std::vector<std::int32_t>>());
  }
  std::vector<std::vector<std::vector<float>>> alone;
  for (const auto& tokens : sequences) alone.push_back(fixture.logits(tokens));

  // All together, each one position further per step, each starting at another step.
  std::vector<std::int32_t> handles;
  for (std::size_t s = 0; s < sequences.size(); ++s) handles.push_back(fixture.cache->create());
  std::size_t compared = 0;
  for (std::int64_t step_number = 0; step_number < 128; ++step_number) {
    Step step;
    std::vector<std::size_t> owner;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::int64_t position = step_number - static_cast<std::int64_t>(s);
      if (position < 0 || position >= static_cast<std::int64_t>(sequences[s].size())) continue;
      fixture.cache->trim(handles[s], position);
      fixture.cache->grow(handles[s], position + 1);
      step.logit_rows.push_back(static_cast<std::int32_t>(step.tokens.size()));
      step.tokens.push_back(sequences[s][static_cast<std::size_t>(position)]);
      step.positions.push_back(position);
      step.sequences.push_back(handles[s]);
      owner.push_back(s);
    }
    if (step.tokens.empty()) continue;
    const auto logits = fixture.model->forward(step, *fixture.cache);
    for (std::size_t row = 0; row < owner.size(); ++row) {
      const auto got = logits[static_cast<std::int64_t>(row)].span();
      const auto& want = alone[owner[row]][static_cast<std::size_t>(step.positions[row])];
      REQUIRE(std::memcmp(got.data(), want.data(), got.size_bytes()) == 0);
      ++compared;
    }
  }
  const std::size_t total =
      std::accumulate(sequences.begin(), sequences.end(), std::size_t{0},
                      [](std::size_t sum, const auto& tokens) { return sum + tokens.size(); });
  CHECK(compared == total);
}

TEST_CASE("rope: frequencies and concentration agree with the reference") {
  const Json expected = read_json(golden("gpt-oss-tiny-a/expected.json"));
  const std::string layout = GENERATE("", "original");
  const ModelConfig config = load_model_config(golden("gpt-oss-tiny-a") / layout);
  const RopeTable table = make_rope_table(config.rope, config.head_dim);
  const Json& yarn = expected.at("yarn");
  CHECK(std::fabs(table.concentration - yarn.at("concentration").get<double>()) <= 1e-6);
  const auto want = yarn.at("inv_freq").get<std::vector<double>>();
  REQUIRE(table.frequencies.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(std::fabs(table.frequencies[i] - want[i]) <= 1e-11 * want[i]);
  }
}

TEST_CASE("rope: the released models' values of spec section 4.2") {
  // gpt-oss-20b and -120b: theta 150000, factor 32, betas 32 and 1, original context 4096.
  const RopeTable table = make_rope_table({150000, 32, 32, 1, 4096, false}, 64);
  CHECK(std::fabs(table.concentration - 1.3465735902799727) <= 1e-15);
  const std::map<std::size_t, double> want = {{0, 1},
                                              {1, 0.689044306},
                                              {8, 0.0508132748},
                                              {9, 0.0317056962},
                                              {10, 0.0193350011},
                                              {12, 0.00679495949},
                                              {14, 0.00209379238},
                                              {16, 4.56483919e-4},
                                              {17, 1.29318701e-4},
                                              {18, 3.83088124e-5},
                                              {24, 4.09997848e-6},
                                              {31, 3.02351143e-7}};
  for (const auto& [i, value] : want) {
    CHECK(std::fabs(table.frequencies[i] - value) <= 2e-9 * value);
  }
}

TEST_CASE("mxfp4: stored blocks decode to the reference's values") {
  const Json expected = read_json(golden("gpt-oss-tiny-a/expected.json"));
  for (const Json& sample : expected.at("dequant_samples")) {
    const auto hex = sample.at("bytes_hex").get<std::string>();
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    const auto scale = static_cast<std::byte>(sample.at("scale").get<int>());
    std::vector<float> values(32);
    codec(Format::kMxfp4).decode_row(bytes.data(), &scale, 1.0F, 32, values.data());
    CHECK(values == sample.at("values").get<std::vector<float>>());
  }
}

}  // namespace moebench::test
