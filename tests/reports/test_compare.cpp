// Comparing folders of runs made by hand: each verdict, and what must not be compared.
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/core/random.h"
#include "reports/compare.h"
#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Record record_of(const std::string& plan, const std::string& kind, const OrderedJson& scenario) {
  Record record;
  record.case_id = fmt::format("{:016x}", std::hash<std::string>{}(plan + kind));
  record.label = fmt::format("{} / {}", plan, kind);
  record.model = "m";
  record.plan = plan;
  record.kind = kind;
  record.scenario = scenario;
  record.scenario["kind"] = kind;
  record.started = "2026-01-31T12:00:00Z";
  return record;
}

Record decode_record(const std::vector<double>& rates, const std::string& plan = "fast") {
  Record record = record_of(plan, "decode", {{"batch", 1}, {"context", 8}, {"tokens", 4}});
  Metric rate;
  rate.value = rates.empty() ? 1 : median(rates);
  rate.unit = "tokens/s";
  rate.better = "higher";
  rate.count = static_cast<std::int64_t>(rates.size());
  rate.samples = rates;
  record.metrics[rate_metric("decode")] = rate;
  return record;
}

Record memory_record(double bytes, const std::string& plan = "fast") {
  Record record = record_of(plan, "load", OrderedJson::object());
  Metric weights;
  weights.value = bytes;
  weights.unit = "bytes";
  weights.better = "lower";
  weights.count = 1;
  record.metrics["weights_bytes"] = weights;
  return record;
}

Record fidelity_record(const std::vector<double>& sums, const std::string& traces_hash = "0") {
  Record record = record_of("fast", "fidelity", {{"against", "reference"}});
  Metric kl;
  kl.unit = "nats";
  kl.better = "lower";
  OrderedJson traces = OrderedJson::array();
  for (std::size_t i = 0; i < sums.size(); ++i) {
    kl.value += sums[i] / (10 * static_cast<double>(sums.size()));
    traces.push_back({{"id", fmt::format("t{}", i)}, {"positions", 10}, {"sum_kl", sums[i]}});
  }
  kl.count = static_cast<std::int64_t>(sums.size());
  record.metrics["mean_kl"] = kl;
  record.details["kl_by_trace"] = traces;
  record.details["traces_hash"] = traces_hash;
  return record;
}

// A text of 400 tokens in 20 blocks, which cost `per_block` nats each, and a little more or less.
Record perplexity_record(double per_block, double spread = 0.5, const std::string& text = "0") {
  Record record = record_of("fast", "perplexity", {{"text", "a.txt"}, {"window", 0}});
  OrderedJson blocks = OrderedJson::array();
  double sum = 0;
  for (int i = 0; i < 20; ++i) {
    // Hard and easy passages, the same for everyone; then what is this record's own.
    const double nats = per_block + 20 * (i % 5) + (i % 2 == 0 ? spread : -spread);
    blocks.push_back(nats);
    sum += nats;
  }
  Metric perplexity;
  perplexity.value = std::exp(sum / 400);
  perplexity.unit = "per token";
  perplexity.better = "lower";
  perplexity.count = 400;
  perplexity.interval = Interval{perplexity.value / 2, perplexity.value * 2};
  record.metrics["perplexity"] = perplexity;
  record.metrics["bits_per_byte"] = perplexity;
  record.details = {{"content_hashes", {{"text", text}}},
                    {"window", 128},
                    {"stride", 64},
                    {"tokens", 400},
                    {"prefix_token", nullptr},
                    {"block_tokens", 20},
                    {"nll_by_block", blocks}};
  return record;
}

// Both folders as sides, with the margins as they are.
RunComparison compare(const RunFolder& base, const RunFolder& candidate,
                      const CompareOptions& options = {}) {
  return compare_sides(read_runs_in(base.path()), {read_runs_in(candidate.path())}, options);
}

const MetricComparison& only_metric(const RunComparison& comparison) {
  REQUIRE(comparison.metrics.size() == 1);
  return comparison.metrics.front();
}

CompareOptions told_between_run_sd(double sd) {
  CompareOptions options;
  for (auto& [name, rule] : options.gate.metrics) rule.between_run_sd = sd;
  return options;
}

Outcome speed_outcome(const std::vector<double>& before, const std::vector<double>& after,
                      double between_run_sd = 0.001) {
  RunFolder base;
  RunFolder candidate;
  base.add(decode_record(before));
  candidate.add(decode_record(after));
  return only_metric(compare(base, candidate, told_between_run_sd(between_run_sd))).outcome;
}

}  // namespace

TEST_CASE("compare: speed gets each verdict") {
  // The default margin is 3 %.
  CHECK(speed_outcome({100, 101, 99, 100}, {94, 95, 93, 94}) == Outcome::kRegressed);
  CHECK(speed_outcome({100, 101, 99, 100}, {106, 107, 105, 106}) == Outcome::kImproved);
  CHECK(speed_outcome({100, 101, 99, 100}, {100, 99, 101, 100}) == Outcome::kSame);
  CHECK(speed_outcome({100, 130, 70, 100}, {95, 125, 65, 95}) == Outcome::kInconclusive);
  // Slower for sure, but by less than 3 %, for sure too.
  CHECK(speed_outcome({100, 100.1, 99.9, 100}, {98.3, 98.2, 98.1, 98.2}) == Outcome::kSame);
  // What runs differ by on their own hides it.
  CHECK(speed_outcome({100, 101, 99, 100}, {94, 95, 93, 94}, 0.05) == Outcome::kInconclusive);
  CHECK(speed_outcome({100}, {50}) == Outcome::kInconclusive);
}

TEST_CASE("compare: accuracy is paired by question, and says which answers flipped") {
  RunFolder base;
  RunFolder candidate;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  // 200 questions, 100 right; 20 of those become wrong, none right: McNemar p = 2 * 0.5^20.
  for (int i = 0; i < 200; ++i) {
    const std::string item = fmt::format("q{:03}", i);
    before.push_back(answer(item, i < 100));
    after.push_back(answer(item, i >= 20 && i < 100));
  }
  base.add_task("fast", before);
  candidate.add_task("fast", after);
  const RunComparison result = compare(base, candidate);
  REQUIRE(result.metrics.size() == 1);  // output_tokens_mean is not in these records
  const MetricComparison& m = result.metrics.front();
  CHECK(m.metric == "accuracy");
  CHECK(m.base == Approx(0.5));
  CHECK(m.candidate == Approx(0.4));
  CHECK(m.change == Approx(-0.1));
  CHECK(m.outcome == Outcome::kRegressed);
  CHECK(m.count == 200);
  CHECK(m.lost.size() == 20);
  CHECK(m.lost.front() == "q000");
  CHECK(m.gained.empty());
  CHECK(*m.p_value == Approx(2 * std::pow(0.5, 20)));
  CHECK(result.verdict() == Outcome::kRegressed);
  CHECK(m.gate() == GateOutcome::kFail);
  // The other way round it is an improvement.
  CHECK(compare(candidate, base).verdict() == Outcome::kImproved);
}

TEST_CASE("compare: answers that are the same token for token leave nothing to doubt") {
  RunFolder base;
  std::vector<LedgerLine> answers = {answer("a", true), answer("b", false)};
  for (LedgerLine& line : answers) line.token_digest = "0123456789abcdef";
  base.add_task("fast", answers);
  CHECK(only_metric(compare(base, base)).outcome == Outcome::kSame);
  // One other token in one answer, and two answers say nothing again.
  RunFolder other;
  answers[0].token_digest = "fedcba9876543210";
  other.add_task("fast", answers);
  CHECK(only_metric(compare(base, other)).outcome == Outcome::kInconclusive);
}

TEST_CASE("compare: too few answers are inconclusive, and it says how many would do") {
  RunFolder base;
  RunFolder candidate;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  for (int i = 0; i < 20; ++i) {
    before.push_back(answer(fmt::format("q{}", i), i % 2 == 0));
    after.push_back(answer(fmt::format("q{}", i), i % 2 == 0 ? i != 0 : i == 1));
  }
  base.add_task("fast", before);
  candidate.add_task("fast", after);
  const RunComparison result = compare(base, candidate);
  const MetricComparison& m = only_metric(result);
  CHECK(m.outcome == Outcome::kInconclusive);
  CHECK_FALSE(m.not_worse);
  REQUIRE(m.to_settle);
  const double half = (m.interval->high - m.interval->low) / 2;
  // 80 % power: 2.801585 standard errors, of which the interval has 1.959964 on each side.
  const double reach = half * 2.801585 / 1.959964;
  CHECK(static_cast<double>(*m.to_settle) ==
        Approx(20 * (reach / 0.02) * (reach / 0.02)).epsilon(1e-3));
  CHECK(m.gate() == GateOutcome::kInconclusive);
  CHECK(*m.visible > 0.02);
  CHECK(result.verdict() == Outcome::kInconclusive);
}

TEST_CASE("compare: answers that ended at a look are judged at that look's level") {
  RunFolder base;
  RunFolder candidate;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  for (int i = 0; i < 100; ++i) {
    before.push_back(answer(fmt::format("q{:03}", i), true));
    after.push_back(answer(fmt::format("q{:03}", i), i >= 7));
  }
  base.add_task("fast", before);
  Record record = candidate.add_task("fast", after);
  const RunComparison fixed = compare(base, candidate);
  CHECK(only_metric(fixed).outcome == Outcome::kRegressed);  // p = 2/128
  // The same answers, had the plan been stopped after them because they looked bad.
  RunFolder stopped;
  record = stopped.add_task("fast", after, {{"settle", 0.02}, {"settle_against", "reference"}});
  record.details["settled"] = {{"outcome", "FAIL"}, {"level", 0.999}};
  write_file(stopped.path() / "results.jsonl", json_line(to_json(record)) + "\n");
  const RunComparison looked = compare(base, stopped);
  const MetricComparison& m = only_metric(looked);
  CHECK(m.interval->level == 0.999);
  CHECK(*m.p_value == Approx(2.0 / 128 * 0.05 / 0.001));
  CHECK(m.outcome == Outcome::kInconclusive);
}

TEST_CASE("compare: Benjamini and Hochberg's correction sees what Holm's does not") {
  RunFolder base;
  RunFolder candidate;
  // 4 efforts, each with 6 of 60 answers lost: p = 2/64 each; Holm makes it 4/32, BH 1/32.
  for (const char* effort : {"low", "medium", "high", "none"}) {
    std::vector<LedgerLine> before;
    std::vector<LedgerLine> after;
    for (int i = 0; i < 60; ++i) {
      before.push_back(answer(fmt::format("q{:03}", i), true));
      after.push_back(answer(fmt::format("q{:03}", i), i >= 6));
    }
    base.add_task("fast", before, {{"effort", effort}});
    candidate.add_task("fast", after, {{"effort", effort}});
  }
  const RunComparison holm = compare(base, candidate);
  CompareOptions options;
  options.correction = Correction::kBenjaminiHochberg;
  const RunComparison bh = compare(base, candidate, options);
  REQUIRE(holm.metrics.size() == 4);
  CHECK(*holm.metrics[0].p_value_adjusted == Approx(4.0 / 32));
  CHECK(holm.verdict() == Outcome::kInconclusive);
  CHECK(*bh.metrics[0].p_value_adjusted == Approx(1.0 / 32));
  CHECK(bh.verdict() == Outcome::kRegressed);
  CHECK(to_json(bh).at("correction") == "benjamini_hochberg");
}

TEST_CASE("compare: divergence is paired by trace") {
  RunFolder base;
  RunFolder worse;
  RunFolder other;
  base.add(fidelity_record({1, 2, 3, 4, 5, 6}));
  worse.add(fidelity_record({1.5, 2.9, 4.4, 6.1, 7.6, 9.0}));
  other.add(fidelity_record({1, 2, 3, 4, 5, 6}, "1"));
  const RunComparison result = compare(base, worse);
  CHECK(only_metric(result).outcome == Outcome::kRegressed);
  CHECK(only_metric(result).change == Approx(31.5 / 21 - 1));
  CHECK(only_metric(result).counted == "traces");
  const RunComparison different = compare(base, other);
  CHECK(only_metric(different).outcome == Outcome::kNotComparable);
  CHECK(only_metric(different).reason.find("traces differ") != std::string::npos);
  CHECK(different.verdict() == Outcome::kNotComparable);
}

TEST_CASE("compare: divergences below the floor are the same whatever their ratio") {
  RunFolder base;
  RunFolder candidate;
  base.add(fidelity_record({1e-9, 2e-9, 1e-9}));
  candidate.add(fidelity_record({1e-7, 3e-7, 2e-7}));
  CHECK(only_metric(compare(base, candidate)).outcome == Outcome::kSame);
  CHECK(compare(base, candidate).verdict() == Outcome::kSame);
}

TEST_CASE("compare: perplexity is paired by block of the text") {
  RunFolder base;
  base.add(perplexity_record(20));
  const auto verdict = [&](const Record& record) {
    RunFolder candidate;
    candidate.add(record);
    return only_metric(compare(base, candidate));  // and not of bits per byte as well
  };
  // Two nats more in 20 tokens: a tenth per token.
  const MetricComparison worse = verdict(perplexity_record(22, 0.6));
  CHECK(worse.metric == "perplexity");
  CHECK(worse.outcome == Outcome::kRegressed);
  CHECK(worse.change == Approx(std::exp(0.1) - 1));
  CHECK(worse.candidate / worse.base == Approx(std::exp(0.1)));
  CHECK(worse.count == 400);
  CHECK(worse.counted == "tokens");
  REQUIRE(worse.interval);
  // Differences are 2.1 and 1.9 in turns: far sharper than the texts' own intervals.
  CHECK(worse.interval->low > std::exp(0.097) - 1);
  CHECK(worse.interval->high < std::exp(0.103) - 1);
  CHECK(verdict(perplexity_record(18, 0.6)).outcome == Outcome::kImproved);
  CHECK(verdict(perplexity_record(20.05, 0.6)).outcome == Outcome::kSame);
  CHECK(verdict(perplexity_record(20, 0.5)).method == "equal in every block");
  CHECK(verdict(perplexity_record(20.3, 9)).outcome == Outcome::kInconclusive);

  CHECK(verdict(perplexity_record(22, 0.6, "1")).reason.find("texts differ") != std::string::npos);
  Record other = perplexity_record(22);
  other.details["stride"] = 32;
  CHECK(verdict(other).reason == "its stride is 64 and 32");
  other = perplexity_record(22);
  other.details["nll_by_block"] = OrderedJson::array({1, "x"});
  CHECK(verdict(other).outcome == Outcome::kNotComparable);
  other.details["nll_by_block"] = OrderedJson::array({1, 2});
  CHECK(verdict(other).reason.find("by block") != std::string::npos);
}

TEST_CASE("compare: sides that are equal in every pair are the same, not without a spread") {
  RunFolder base;
  base.add(fidelity_record({1, 2, 3}));
  const RunComparison result = compare(base, base);
  CHECK(only_metric(result).outcome == Outcome::kSame);
  CHECK(only_metric(result).interval->low == 0);
  CHECK(result.verdict() == Outcome::kSame);
}

TEST_CASE("compare: a run description of another making is read with care") {
  RunFolder base;
  base.add(decode_record({100, 101, 99}));
  RunFolder odd;
  odd.add(decode_record({100, 101, 99}));
  write_file(odd.path() / "run.json",
             R"({"schema": "moebench.run/1", "models": 3, "plans": [1, {"name": 7}],
                 "environment": [], "threads": "x"})");
  CHECK(compare(base, odd).metrics.size() == 1);
  CHECK(compare(odd, base).metrics.size() == 1);
  write_file(odd.path() / "run.json", R"({"schema": "moebench.run/0"})");
  check_error([&] { read_runs_in(odd.path()); }, ErrorCode::kInvalidArgument, {"moebench.run/0"});
  write_file(odd.path() / "run.json", R"({"schema": )");
  check_error([&] { read_runs_in(odd.path()); }, ErrorCode::kParse, {"run.json"});
  check_error([&] { read_runs_in(odd.path() / "none"); }, ErrorCode::kIo, {"none"});
}

TEST_CASE("compare: speeds on other prompts are not compared") {
  RunFolder base;
  RunFolder other;
  Record record = decode_record({100, 101, 99});
  record.details["content_hashes"] = {{"prompts", "0123456789abcdef"}};
  base.add(record);
  record.details["content_hashes"] = {{"prompts", "fedcba9876543210"}};
  other.add(record);
  CHECK(only_metric(compare(base, other)).outcome == Outcome::kNotComparable);
  CHECK(only_metric(compare(base, other)).reason.find("prompts differ") == 0);
  CHECK(only_metric(compare(base, base)).outcome != Outcome::kNotComparable);
}

TEST_CASE("compare: bytes have no spread") {
  RunFolder base;
  RunFolder same;
  RunFolder more;
  base.add(memory_record(1000));
  same.add(memory_record(1001));
  more.add(memory_record(1002));
  CHECK(only_metric(compare(base, same)).outcome == Outcome::kSame);
  CHECK(only_metric(compare(base, more)).outcome == Outcome::kRegressed);
  CHECK(only_metric(compare(more, base)).outcome == Outcome::kImproved);
}

TEST_CASE("compare: a bound of the gate is a regression, a metric may be not required") {
  RunFolder base;
  RunFolder candidate;
  base.add(memory_record(1000));
  candidate.add(memory_record(1000));
  CompareOptions options;
  options.gate = gate_from_json(
      {{"schema", kGateSchema}, {"metrics", {{"weights_bytes", {{"maximum", 900}}}}}}, "gate");
  CHECK(compare(base, candidate, options).verdict() == Outcome::kRegressed);
  options.gate.metrics.find("weights_bytes")->second.required = false;
  CHECK(compare(base, candidate, options).verdict() == Outcome::kNotComparable);
}

TEST_CASE("compare: a case that failed or is missing in the new run is a problem") {
  RunFolder base;
  RunFolder candidate;
  base.add(decode_record({100, 101, 99}));
  base.add(memory_record(1000));
  Record failed = decode_record({});
  failed.status = Status::kCrashed;
  failed.reason = "its worker was killed by signal 11";
  failed.metrics.clear();
  candidate.add(failed);
  const RunComparison result = compare(base, candidate);
  REQUIRE(result.problems.size() == 2);
  CHECK(result.problems[0].status == "crashed");
  CHECK(result.problems[0].reason == failed.reason);
  CHECK(result.problems[1].status == "missing");
  // The other way round there is nothing to hold the case against, and that is said.
  CHECK(compare(candidate, base).problems.empty());
  CHECK_FALSE(compare(candidate, base).notes.empty());
}

TEST_CASE("compare: other weights, plans and machines are not compared unless forced") {
  RunFolder base;
  RunFolder candidate;
  base.add(decode_record({100, 101, 99}));
  candidate.add(decode_record({100, 101, 99}));
  Json description = read_json(candidate.path() / "run.json");
  const auto changed = [&](const std::string& pointer, const Json& value) {
    Json json = description;
    json[Json::json_pointer(pointer)] = value;
    write_file(candidate.path() / "run.json", json.dump());
    return compare(base, candidate);
  };
  CHECK(changed("/models/0/hash", "fedcba9876543210").metrics.front().reason.find("weights") !=
        std::string::npos);
  CHECK(changed("/environment/cpu", "another").metrics.front().reason.find("processors") !=
        std::string::npos);
  CHECK(changed("/threads", 7).metrics.front().outcome == Outcome::kNotComparable);
  CompareOptions force = told_between_run_sd(0.001);
  force.force = true;
  CHECK(only_metric(compare(base, candidate, force)).outcome == Outcome::kSame);
}

TEST_CASE("compare: plans of one run, and several runs on a side") {
  RunFolder one;
  one.add(decode_record({100, 101, 99}, "reference"));
  one.add(decode_record({200, 201, 199}, "int4"));
  const RunComparison within =
      compare_sides(read_runs_in(one.path()), {}, told_between_run_sd(0.01));
  CHECK(only_metric(within).outcome == Outcome::kImproved);
  CHECK(only_metric(within).label() == "reference → int4 / decode");

  const TemporaryDirectory side;
  for (int run = 0; run < 3; ++run) {
    RunFolder folder;
    folder.add(decode_record({100.0 + 4 * run, 101.0 + 4 * run}));
    std::filesystem::copy(folder.path(), side.path() / fmt::format("run{}", run),
                          std::filesystem::copy_options::recursive);
  }
  const auto runs = read_runs_in(side.path());
  REQUIRE(runs.size() == 3);
  const RunComparison several = compare_sides(runs, {runs}, {});
  CHECK(only_metric(several).method == "t_on_runs");
  CHECK(only_metric(several).change == Approx(0).margin(1e-12));
  CHECK(only_metric(several).outcome == Outcome::kInconclusive);
}

TEST_CASE("compare: alarms are corrected for the number of metrics in a family") {
  // Sixty equal cases whose noise alone would raise three alarms.
  RunFolder base;
  RunFolder candidate;
  RandomStream random(3);
  const auto noisy = [&] {
    std::vector<double> rates;
    for (int i = 0; i < 5; ++i) rates.push_back(100 * std::exp(0.2 * (random.uniform() - 0.5)));
    return rates;
  };
  for (int i = 0; i < 60; ++i) {
    for (RunFolder* folder : {&base, &candidate}) {
      Record record = decode_record(noisy());
      record.scenario["batch"] = i + 1;
      record.case_id = fmt::format("{:016x}", i);
      folder->add(record);
    }
  }
  int raw = 0;
  int regressed = 0;
  const RunComparison result = compare(base, candidate, told_between_run_sd(0));
  REQUIRE(result.metrics.size() == 60);
  for (const MetricComparison& m : result.metrics) {
    raw += *m.p_value <= 0.05 ? 1 : 0;
    regressed += m.outcome == Outcome::kRegressed ? 1 : 0;
    CHECK(*m.p_value_adjusted >= *m.p_value);
  }
  CHECK(raw > 0);
  CHECK(regressed == 0);
}

TEST_CASE("compare: forbidden formats are a problem") {
  RunFolder base;
  base.add(decode_record({1, 2, 3}, "reference"));
  CompareOptions options;
  options.gate.allowed_formats = {"stored", "bf16"};
  const RunComparison result = compare(base, base, options);
  REQUIRE(result.problems.size() == 1);
  CHECK(result.problems.front().reason.find("kv f32") != std::string::npos);
}

TEST_CASE("compare: JSON validates, JUnit counts what it holds and escapes") {
  RunFolder base;
  RunFolder candidate;
  base.add(decode_record({100, 101, 99, 100}));
  base.add(memory_record(1000));
  candidate.add(decode_record({94, 95, 93, 94}));
  Record failed = memory_record(1);
  failed.status = Status::kFailed;
  failed.reason = "a <tag> & a \"quote\"\x01";
  failed.metrics.clear();
  candidate.add(failed);
  const RunComparison result = compare(base, candidate, told_between_run_sd(0.001));
  const Json json = Json::parse(to_json(result).dump());
  CHECK(schema_errors(read_json(source_dir() / "reports" / "comparison.schema.json"), json) == "");
  CHECK(json.at("verdict") == "REGRESSED");
  const std::string xml = junit_xml(result, false);
  CHECK(xml.find("tests=\"2\" failures=\"1\" errors=\"1\" time=\"0\"") != std::string::npos);
  CHECK(xml.find("<tag>") == std::string::npos);
  CHECK(xml.find("&lt;tag&gt; &amp; a") != std::string::npos);
  CHECK(xml.find('\x01') == std::string::npos);
}

TEST_CASE("gate: unknown metrics, formats and fields are refused with the nearest name") {
  const auto read = [](const Json& json) { return gate_from_json(json, "gate.json"); };
  const Json schema = kGateSchema;
  CHECK(read({{"schema", schema}}).metrics.size() == default_gate().metrics.size());
  check_error(
      [&] {
        read({{"schema", "moebench.gate/9"}});
      },
      ErrorCode::kInvalidArgument, {"gate.json", "moebench.gate/9"});
  check_error(
      [&] {
        read({{"schema", schema}, {"metrics", {{"acuracy", Json::object()}}}});
      },
      ErrorCode::kInvalidArgument, {"acuracy", "accuracy"});
  check_error(
      [&] {
        read({{"schema", schema}, {"metrics", {{"accuracy", {{"margn", 0.1}}}}}});
      },
      ErrorCode::kInvalidArgument, {"margn", "margin"});
  check_error(
      [&] {
        read({{"schema", schema}, {"metrics", {{"accuracy", {{"margin", -1}}}}}});
      },
      ErrorCode::kInvalidArgument, {"margin", "-1"});
  check_error(
      [&] {
        read({{"schema", schema}, {"allowed_formats", {"mxpf4"}}});
      },
      ErrorCode::kInvalidArgument, {"mxpf4", "mxfp4"});
  check_error(
      [&] {
        read({{"schema", schema},
              {"metrics", {{"accuracy", {{"minimum", 0.9}, {"maximum", 0.1}}}}}});
      },
      ErrorCode::kInvalidArgument, {"minimum"});
  check_error([&] { read(Json::array()); }, ErrorCode::kInvalidArgument, {"gate.json"});
}

}  // namespace moebench::test
