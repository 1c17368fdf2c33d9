// The statistics of a comparison: llama-perplexity's rows worked out by hand, groups of positions,
// and which part of a plan costs the divergence.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "evals/attribution.h"
#include "evals/fidelity_statistics.h"
#include "evals/run_task.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// Probabilities of the next token under reference and plan, four positions of two traces.
FidelityResult by_hand() {
  FidelityResult result;
  const std::vector<std::pair<double, double>> p = {
      {0.5, 0.25}, {0.25, 0.25}, {0.125, 0.25}, {0.5, 0.5}};
  for (const auto& [base, plan] : p) {
    result.reference_log_probabilities.push_back(std::log(base));
    result.plan_log_probabilities.push_back(std::log(plan));
  }
  result.kl_by_position = {0.4, 0, 0.2, 0};
  result.trace_by_position = {0, 0, 1, 1};
  result.top1_agreement.mean = 0.75;
  return result;
}

const NamedStatistic& row(const std::vector<NamedStatistic>& rows, const std::string& name) {
  for (const NamedStatistic& one : rows) {
    if (one.name == name) return one;
  }
  FAIL("no row " << name);
  throw std::logic_error("unreachable");
}

}  // namespace

TEST_CASE("fidelity statistics: llama-perplexity's rows, worked out by hand") {
  const auto rows = llama_statistics(by_hand());
  // log2 of probabilities: base -1 -2 -3 -1, plan -2 -2 -2 -1: means 7/4 each.
  CHECK(row(rows, "Mean PPL(Q)").value == Approx(std::pow(2, 1.75)));
  CHECK(row(rows, "Mean PPL(base)").value == Approx(std::pow(2, 1.75)));
  CHECK(row(rows, "Mean ln(PPL(Q)/PPL(base))").value == Approx(0).margin(1e-15));
  CHECK(row(rows, "Mean PPL(Q)/PPL(base)").value == Approx(1));
  CHECK(row(rows, "Mean PPL(Q)-PPL(base)").value == Approx(0).margin(1e-12));
  // ln-ratios by trace: (1 + 0) ln 2 and (-1 + 0) ln 2; SE^2 = 2 * 2 (ln 2)^2 / 16.
  CHECK(*row(rows, "Mean ln(PPL(Q)/PPL(base))").standard_error ==
        Approx(std::log(2.0) * std::sqrt(4.0 / 16)));
  CHECK(*row(rows, "Mean PPL(Q)-PPL(base)").standard_error ==
        Approx(std::pow(2, 1.75) * std::log(2.0) * 0.5));
  // Correlation of (1 2 3 1) and (2 2 2 1): covariance 0.75, sums of squares 2.75 and 0.75.
  CHECK(row(rows, "Cor(ln(PPL(Q)), ln(PPL(base)))").value == Approx(0.75 / std::sqrt(2.75 * 0.75)));
  CHECK(row(rows, "Mean    KLD").value == Approx(0.15));
  CHECK(row(rows, "Maximum KLD").value == 0.4);
  CHECK(row(rows, "Median  KLD").value == Approx(0.1));
  CHECK(row(rows, "Minimum KLD").value == 0);
  // Δp: -1/4, 0, 1/8, 0
  CHECK(row(rows, "Mean    Δp").value == Approx(-0.03125));
  CHECK(row(rows, "Minimum Δp").value == Approx(-0.25));
  CHECK(row(rows, "RMS Δp").value == Approx(std::sqrt((1.0 / 16 + 1.0 / 64) / 4)));
  CHECK(row(rows, "Same top p").value == 0.75);
  CHECK(rows.front().name == "Mean PPL(Q)");
  CHECK(rows.back().name == "Same top p");
}

TEST_CASE("fidelity statistics: equal models have no errors to show, and correlate wholly") {
  FidelityResult same = by_hand();
  same.plan_log_probabilities = same.reference_log_probabilities;
  same.kl_by_position = {0, 0, 0, 0};
  const auto rows = llama_statistics(same);
  CHECK(row(rows, "Cor(ln(PPL(Q)), ln(PPL(base)))").value == Approx(1));
  CHECK(row(rows, "RMS Δp").value == 0);
  CHECK_FALSE(row(rows, "RMS Δp").standard_error);
  CHECK_FALSE(row(rows, "Mean    KLD").standard_error);
}

TEST_CASE("mean divergence: by whole traces where there are enough of them") {
  std::vector<double> kl;
  std::vector<std::int64_t> traces;
  for (std::int64_t t = 0; t < 30; ++t) {
    for (int i = 0; i < 4; ++i) {
      kl.push_back(t == 7 && i == 0 ? 3.0 : 0.01);  // one position holds most of it
      traces.push_back(t);
    }
  }
  const MeanEstimate many = mean_kl_estimate(kl, traces);
  CHECK(many.method == "bootstrap_by_trace");
  REQUIRE(many.interval);
  CHECK(many.interval->low == Approx(0.01).epsilon(1e-9));  // draws without trace 7
  CHECK(many.interval->high > many.mean);
  for (std::int64_t& trace : traces) trace %= 5;
  CHECK(mean_kl_estimate(kl, traces).method == "clustered_t");
  CHECK_FALSE(mean_kl_estimate({0, 0, 0}, {0, 1, 2}).interval);
}

TEST_CASE("divergence by label: each group has its own mean, in order of appearance") {
  const auto groups = kl_by_label(by_hand(), {"x", "y", "x", "y"});
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].name == "x");
  CHECK(groups[0].mean_kl.mean == Approx(0.3));
  CHECK(groups[1].mean_kl.mean == 0);
  CHECK_FALSE(groups[1].mean_kl.interval);
  CHECK_THROWS_AS(kl_by_label(by_hand(), {"x"}), Error);
}

TEST_CASE("divergence by stage: stages double from each answer's first token, traces are units") {
  // Answers of five tokens after a prompt of three, and of one.
  const std::vector<Trace> traces = {{"t", std::vector<std::int32_t>(3 + 5), 3}, {"u", {1, 2}, 1}};
  FidelityResult result;
  result.kl_by_position = {1, 2, 4, 8, 16, 5};
  result.trace_by_position = {0, 0, 0, 0, 0, 1};
  const auto stages = kl_by_stage(result, traces);
  REQUIRE(stages.size() == 3);
  const std::int64_t bounds[] = {0, 1, 3, 7};
  const double means[] = {3, 3, 12};  // (1 + 5) / 2, (2 + 4) / 2, (8 + 16) / 2
  const std::int64_t counts[] = {2, 2, 2};
  for (std::size_t s = 0; s < 3; ++s) {
    CHECK(stages[s].from == bounds[s]);
    CHECK(stages[s].to == bounds[s + 1]);
    CHECK(stages[s].mean_kl.mean == Approx(means[s]));
    CHECK(stages[s].mean_kl.num_values == counts[s]);
  }
  CHECK_FALSE(stages[2].mean_kl.interval);  // one trace has no spread
  CHECK(kl_by_stage(FidelityResult{}, {}).empty());
}

TEST_CASE("divergence by channel: contents of analysis and final, and what lies between") {
  const Tokenizer tokenizer = Tokenizer::load(source_dir() / "datasets" / "nano" / "model");
  const auto tokens = tokenizer.encode_with_special(
      "<|start|>assistant<|channel|>analysis<|message|>7+7<|end|><|start|>assistant<|channel|>final"
      "<|message|>14<|return|>");
  const auto prompt = tokenizer.encode_with_special("<|start|>assistant");
  const Trace trace{"t", tokens, static_cast<std::int64_t>(prompt.size())};
  const auto channels = channel_by_position(tokenizer, {trace});
  REQUIRE(channels.size() == tokens.size() - prompt.size());
  const auto count = [&](const char* name) {
    return std::count(channels.begin(), channels.end(), name);
  };
  CHECK(count("analysis") == static_cast<std::ptrdiff_t>(tokenizer.encode("7+7").size()));
  CHECK(count("final") == static_cast<std::ptrdiff_t>(tokenizer.encode("14").size()));
  CHECK(count("markers") + count("analysis") + count("final") ==
        static_cast<std::ptrdiff_t>(channels.size()));
  CHECK(channels.front() == "markers");
  CHECK(channels.back() == "markers");  // <|return|>
}

TEST_CASE("attribution: each part of a plan alone, the costliest first") {
  ThreadPool pool(2);
  EngineOptions options;
  options.max_batch = 4;
  options.max_context = 128;
  const auto model = golden("gpt-oss-tiny-a");
  Engine reference = load_engine(model, Plan{}, options, pool);
  const Plan plan = parse_plan("experts=int4,attention=int8,kv=bf16,ops=reference");
  Engine engine = load_engine(model, plan, options, pool);
  const std::vector<Trace> traces = {{"a", {1, 5, 9, 200, 31, 77, 4, 4, 12, 90, 3}, 4},
                                     {"b", {250, 17, 33, 8}, 1}};
  const auto parts =
      attribute_divergence(model, Plan{}, reference, plan, engine, options, pool, traces);
  REQUIRE(parts.size() == 3);
  std::set<std::string> names;
  for (const Attribution& one : parts) {
    names.insert(one.part);
    CHECK(one.reason.empty());
  }
  CHECK(names == std::set<std::string>{"experts int4", "attention int8", "cache bf16"});
  CHECK(parts[0].mean_kl.mean >= parts[1].mean_kl.mean);
  CHECK(parts[1].mean_kl.mean >= parts[2].mean_kl.mean);
  // One part alone is that plan.
  Engine alone = load_engine(model, parse_plan("experts=int4,ops=reference"), options, pool);
  const double expected = compare_fidelity(reference, alone, traces).mean_kl.mean;
  for (const Attribution& one : parts) {
    if (one.part == "experts int4") CHECK(one.mean_kl.mean == Approx(expected).epsilon(1e-12));
  }
  // A plan has no parts against itself; other ops are parts.
  CHECK(attribute_divergence(model, Plan{}, reference, Plan{}, reference, options, pool, traces)
            .empty());
}

}  // namespace moebench::test
