// Fidelity on the tiny golden checkpoint: zero against itself, and against other plans what plain
// sums over both models' logits give.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>

#include "engine/scoring.h"
#include "evals/fidelity.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/near.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

using Rows = std::vector<std::vector<double>>;

struct Tiny {
  ThreadPool pool{2};
  Engine reference = load({});

  Engine load(const Plan& plan, std::int64_t max_batch = 4) {
    EngineOptions options;
    options.max_batch = max_batch;
    options.max_context = 128;
    return load_engine(golden("gpt-oss-tiny-a"), plan, options, pool);
  }
};

std::vector<Trace> some_traces() {
  return {{"a", {1, 5, 9, 200, 31, 77, 4, 4, 12, 90, 3}, 4},
          {"b", {250, 17, 33, 8}, 1},
          {"c", {6, 6, 6, 6, 6, 6, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50}, 9}};
}

// All logits of one sequence, as doubles.
Rows logits_of(Engine& engine, const std::vector<std::int32_t>& tokens) {
  Rows rows;
  score_sequence(
      *engine.model, *engine.cache, tokens, 0,
      [&](std::int64_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
  return rows;
}

std::vector<double> softmax(const std::vector<double>& logits) {
  double sum = 0;
  for (const double l : logits) sum += std::exp(l);
  std::vector<double> p;
  for (const double l : logits) p.push_back(std::exp(l) / sum);
  return p;
}

// The definitions written out, sharing nothing with the code under test.
struct ByHand {
  std::vector<double> kl;
  double agreement = 0, abs_delta_p = 0, log_p = 0, log_q = 0;
  std::vector<std::int64_t> first_divergence;

  ByHand(Engine& reference, Engine& plan, const std::vector<Trace>& traces) {
    const auto top = [](const std::vector<double>& p) {
      return std::max_element(p.begin(), p.end()) - p.begin();
    };
    for (const Trace& trace : traces) {
      const Rows a = logits_of(reference, trace.tokens);
      const Rows b = logits_of(plan, trace.tokens);
      std::int64_t divergence = -1;
      for (auto t = static_cast<std::size_t>(trace.first); t < trace.tokens.size(); ++t) {
        const auto p = softmax(a[t - 1]);
        const auto q = softmax(b[t - 1]);
        double sum = 0;
        for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
        kl.push_back(sum);
        const bool same = top(p) == top(q);
        agreement += same ? 1 : 0;
        if (!same && divergence < 0) {
          divergence = static_cast<std::int64_t>(t) - trace.first;
        }
        const auto next = static_cast<std::size_t>(trace.tokens[t]);
        abs_delta_p += std::fabs(p[next] - q[next]);
        log_p += std::log(p[next]);
        log_q += std::log(q[next]);
      }
      first_divergence.push_back(divergence);
    }
    const auto n = static_cast<double>(kl.size());
    agreement /= n;
    abs_delta_p /= n;
    log_p /= n;
    log_q /= n;
  }
};

}  // namespace

TEST_CASE("fidelity: a plan agrees with itself wholly") {
  Tiny tiny;
  Engine same = tiny.load({});
  const FidelityResult r = compare_fidelity(tiny.reference, same, some_traces());
  CHECK(r.num_traces == 3);
  CHECK(r.num_positions == 7 + 3 + 8);
  CHECK(r.mean_kl.mean == 0);
  CHECK_FALSE(r.mean_kl.interval);  // an interval for shares would say "up to 0.6 nats"
  CHECK(r.mean_kl.reason == "every position is exactly equal");
  CHECK(r.max_kl == 0);
  CHECK(r.top1_agreement.mean == 1);
  CHECK(r.router_flip_rate == 0);
  CHECK(r.mean_abs_delta_p == 0);
  CHECK(r.plan_perplexity == r.reference_perplexity);
  CHECK(r.first_divergence == std::vector<std::int64_t>{-1, -1, -1});
}

TEST_CASE("fidelity: every number is what plain sums over the logits give") {
  for (const char* name : {"int4", "attention=int4,unembedding=int4,kv=fp8_e4m3"}) {
    INFO(name);
    Tiny tiny;
    Engine plan = tiny.load(parse_plan(name));
    const FidelityResult r = compare_fidelity(tiny.reference, plan, some_traces());
    const ByHand want(tiny.reference, plan, some_traces());
    check_near(r.kl_by_position, want.kl, 1e-9);
    double mean = 0;
    for (const double kl : want.kl) mean += kl / static_cast<double>(want.kl.size());
    CHECK(r.mean_kl.mean == Approx(mean).epsilon(1e-6));
    CHECK(r.mean_kl.mean > 0);
    REQUIRE(r.mean_kl.interval);
    CHECK(r.mean_kl.interval->low >= 0);
    CHECK(r.max_kl == Approx(*std::max_element(want.kl.begin(), want.kl.end())).epsilon(1e-6));
    CHECK(r.median_kl <= r.p90_kl);
    CHECK(r.p90_kl <= r.p99_kl);
    CHECK(r.p99_kl <= r.max_kl);
    CHECK(r.top1_agreement.mean == Approx(want.agreement));
    CHECK(r.mean_abs_delta_p == Approx(want.abs_delta_p).epsilon(1e-6));
    CHECK(r.reference_perplexity == Approx(std::exp(-want.log_p)).epsilon(1e-6));
    CHECK(r.plan_perplexity == Approx(std::exp(-want.log_q)).epsilon(1e-6));
    CHECK(r.first_divergence == want.first_divergence);
    CHECK(r.mean_kl.num_clusters == 3);
  }
}

TEST_CASE("fidelity: router flips are the (position, layer) pairs with another set of experts") {
  Tiny tiny;
  Engine plan = tiny.load(parse_plan("attention=int4,experts=int4"));
  const Trace trace = some_traces()[2];
  const auto sets_of = [&](Engine& engine) {
    std::vector<std::vector<std::set<std::int32_t>>> sets(4);  // [layer][position]
    Observer observer;
    observer.routing = [&](std::int64_t layer, View<const std::int32_t, 2> ids,
                           View<const float, 2>) {
      for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
        const auto row = ids[t].span();
        sets[static_cast<std::size_t>(layer)].emplace_back(row.begin(), row.end());
      }
    };
    score_sequence(
        *engine.model, *engine.cache, trace.tokens, 0, [](std::int64_t, std::span<const float>) {},
        &observer);
    return sets;
  };
  const auto a = sets_of(tiny.reference);
  const auto b = sets_of(plan);
  const FidelityResult r = compare_fidelity(tiny.reference, plan, {trace});
  REQUIRE(r.router_flip_rate_by_layer.size() == 4);
  double total = 0;
  for (std::size_t l = 0; l < 4; ++l) {
    double flips = 0;
    for (auto t = static_cast<std::size_t>(trace.first); t < trace.tokens.size(); ++t) {
      flips += a[l][t - 1] != b[l][t - 1] ? 1 : 0;
    }
    CHECK(r.router_flip_rate_by_layer[l] == Approx(flips / 8));
    total += flips;
  }
  CHECK(r.router_flip_rate == Approx(total / 32));
  CHECK(total > 0);  // else this test shows nothing
}

TEST_CASE("fidelity: gate mass moved is half of what the experts' weights differ by") {
  Tiny tiny;
  Engine plan = tiny.load(parse_plan("attention=int4,experts=int4"));
  const Trace trace = some_traces()[2];
  const auto weights_of = [&](Engine& engine) {
    std::vector<std::vector<std::map<std::int32_t, double>>> all(4);  // [layer][position]
    Observer observer;
    observer.routing = [&](std::int64_t layer, View<const std::int32_t, 2> ids,
                           View<const float, 2> weights) {
      for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
        auto& one = all[static_cast<std::size_t>(layer)].emplace_back();
        for (std::int64_t k = 0; k < ids.shape[1]; ++k) {
          one[ids[t].data[k]] = static_cast<double>(weights[t].data[k]);
        }
      }
    };
    score_sequence(
        *engine.model, *engine.cache, trace.tokens, 0, [](std::int64_t, std::span<const float>) {},
        &observer);
    return all;
  };
  const auto a = weights_of(tiny.reference);
  const auto b = weights_of(plan);
  const FidelityResult r = compare_fidelity(tiny.reference, plan, {trace});
  REQUIRE(r.gate_mass_moved_by_layer.size() == 4);
  double total = 0;
  for (std::size_t l = 0; l < 4; ++l) {
    double moved = 0;
    for (auto t = static_cast<std::size_t>(trace.first); t < trace.tokens.size(); ++t) {
      std::map<std::int32_t, double> change = b[l][t - 1];
      for (const auto& [expert, weight] : a[l][t - 1]) change[expert] -= weight;
      for (const auto& [expert, weight] : change) moved += std::fabs(weight) / 2;
    }
    CHECK(r.gate_mass_moved_by_layer[l] == Approx(moved / 8));
    CHECK(r.gate_mass_moved_by_layer[l] <= 1.000001);
    total += moved / 8;
  }
  CHECK(total > 0);
  CHECK(r.gate_mass_moved.mean == Approx(total / 4));
  Engine same = tiny.load({});
  const FidelityResult none = compare_fidelity(tiny.reference, same, some_traces());
  CHECK(none.gate_mass_moved.mean == 0);
  CHECK_FALSE(none.gate_mass_moved.interval);
  CHECK(none.diverged_to == std::vector<std::int32_t>{-1, -1, -1});
}

TEST_CASE("fidelity: what the plan finds most probable at the first divergence") {
  Tiny tiny;
  Engine plan = tiny.load(parse_plan("int4"));
  const std::vector<Trace> traces = some_traces();
  const FidelityResult r = compare_fidelity(tiny.reference, plan, traces);
  std::size_t diverged = 0;
  for (std::size_t i = 0; i < traces.size(); ++i) {
    if (r.first_divergence[i] < 0) {
      CHECK(r.diverged_to[i] == -1);
      continue;
    }
    ++diverged;
    const Rows logits = logits_of(plan, traces[i].tokens);
    const auto& row = logits[static_cast<std::size_t>(traces[i].first + r.first_divergence[i] - 1)];
    CHECK(r.diverged_to[i] == std::max_element(row.begin(), row.end()) - row.begin());
  }
  CHECK(diverged > 0);
}

TEST_CASE("fidelity: the size of the steps changes nothing") {
  Tiny tiny;
  Engine plan = tiny.load(parse_plan("int4"));
  Engine small = tiny.load({}, 1);
  Engine small_plan = tiny.load(parse_plan("int4"), 1);
  const auto a = compare_fidelity(tiny.reference, plan, some_traces());
  const auto b = compare_fidelity(small, small_plan, some_traces());
  CHECK(a.kl_by_position == b.kl_by_position);
  CHECK(a.router_flip_rate == b.router_flip_rate);
}

TEST_CASE("fidelity: traces that say nothing are refused by name") {
  Tiny tiny;
  Engine plan = tiny.load({});
  const auto error = [&](const std::vector<Trace>& traces,
                         std::initializer_list<std::string> words) {
    check_error([&] { compare_fidelity(tiny.reference, plan, traces); },
                ErrorCode::kInvalidArgument, words);
  };
  error({}, {"no positions"});
  error({{"x", {1, 2, 3}, 3}}, {"trace 'x'", "3 of 3"});
  error({{"x", {1, 2, 3}, 0}}, {"trace 'x'", "0 of 3"});
  error({{"x", {1, 1000000}, 1}}, {"token 1000000", "vocabulary"});
  error({{"x", {1, -1}, 1}}, {"token -1"});
}

TEST_CASE("fidelity: traces survive the way through a file, and broken ones name their line") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "traces.jsonl";
  write_file(path, traces_text(some_traces()));
  CHECK(traces_text(load_traces(path)) == traces_text(some_traces()));
  const auto error = [&](const std::string& text, std::initializer_list<std::string> words) {
    write_file(path, text);
    check_error([&] { load_traces(path); }, ErrorCode::kInvalidArgument, words);
  };
  error("", {"no traces"});
  error("{\"tokens\":[1,2]}\n{\"tokens\":[1]}\n", {"line 2", "at least 2 tokens"});
  error("{\"tokens\":[1,-2]}\n", {"line 1", "tokens", "-2 is out of range"});
  error("{\"tokens\":[1,2],\"first\":2}\n", {"first", "2 is out of range [1, 1]"});
  error("{\"token\":[1,2]}\n", {"'tokens' is missing"});
  error("{\"tokens\":[1,2],\"frist\":1}\n", {"did you mean 'first'?"});
}

}  // namespace moebench::test
