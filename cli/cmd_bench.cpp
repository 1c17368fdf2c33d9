// moebench bench: prefill and decode speed over a grid, in the manner of llama-bench; with a rate
// or a concurrency a load generator (cli/bench_serve.h).
#include <fmt/core.h>

#include <cmath>
#include <memory>
#include <numeric>

#include "bench/build_info.h"
#include "bench/case_runner.h"
#include "bench/environment.h"
#include "bench/interrupt.h"
#include "bench/trace_file.h"
#include "bench/workloads.h"
#include "cli/bench_compare.h"
#include "cli/bench_mixed.h"
#include "cli/bench_serve.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

struct BenchOptions {
  std::string model;
  std::vector<std::string> plans;
  std::vector<std::int64_t> prompt = {512};
  std::vector<std::int64_t> generate = {128};
  std::vector<std::int64_t> batch = {1};
  std::vector<std::int64_t> depth = {0};
  std::int64_t repetitions = 5;
  bool repetitions_given = false;
  int threads = 0;
  std::string output = "text";
  bool autotune = false;
  bool mixed = false;
  BenchCompareOptions compare;

  bool compares() const {
    return !compare.against_program.empty() || (plans.size() > 1 && !compare.no_interleave);
  }
  ServeBenchOptions serve;
  std::string trace;
};

// One measured test, with what the output formats want to know.
struct BenchRow {
  std::string model;
  std::string plan;
  std::string plan_text;
  std::string test;  // "pp512", "tg128", "tg128 b8", "pp512 @ d4096"
  std::int64_t n_prompt = 0, n_gen = 0, n_batch = 1, n_depth = 0;
  std::int64_t model_bytes = 0, parameters = 0;
  int threads = 0;
  std::string kv_format;
  std::string test_time;
  Record record;
  std::vector<double> samples_ts;  // tokens per second

  const Metric& rate() const { return record.metrics.at(rate_metric(record.kind)); }
  double tokens() const { return static_cast<double>(n_prompt > 0 ? n_prompt : n_gen * n_batch); }
  bool ok() const { return record.status == Status::kOk; }
};

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Of a sample, as llama-bench prints it.
double standard_deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double middle = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - middle) * (v - middle);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

struct Test {
  Scenario scenario;
  BenchRow row;
};

std::vector<Test> make_tests(const BenchOptions& o) {
  std::vector<Test> tests;
  const auto at_depth = [](std::int64_t depth) {
    return depth > 0 ? fmt::format(" @ d{}", depth) : std::string();
  };
  for (const std::int64_t depth : o.depth) {
    for (const std::int64_t n : o.prompt) {
      if (n == 0) continue;
      Test test{PrefillScenario{n, depth, o.repetitions}, {}};
      test.row.test = fmt::format("pp{}{}", n, at_depth(depth));
      test.row.n_prompt = n;
      test.row.n_depth = depth;
      tests.push_back(std::move(test));
    }
    for (const std::int64_t n : o.generate) {
      for (const std::int64_t b : o.batch) {
        if (n == 0) continue;
        // Decoding needs something to decode after: one token at depth 0.
        Test test{DecodeScenario{b, std::max<std::int64_t>(1, depth), n, o.repetitions}, {}};
        test.row.test =
            fmt::format("tg{}{}{}", n, b > 1 ? fmt::format(" b{}", b) : "", at_depth(depth));
        test.row.n_gen = n;
        test.row.n_batch = b;
        test.row.n_depth = depth;
        tests.push_back(std::move(test));
      }
    }
  }
  require_or(ErrorCode::kUsage, !tests.empty(),
             "benchmark: -p 0 and -n 0 leave nothing to measure");
  return tests;
}

// What all rows of a plan share.
BenchRow describe(const BenchOptions& o, const Plan& plan) {
  const std::filesystem::path directory = resolve_model(o.model);
  const WeightLayout layout =
      plan_weights(Checkpoint::open(directory), load_model_config(directory), plan);
  std::size_t bytes = 0;
  for (int g = 0; g < kNumWeightGroups; ++g) bytes += layout.bytes(static_cast<WeightGroup>(g));
  BenchRow row;
  row.model = directory.filename() == "model" ? o.model : directory.filename().string();
  row.plan = plan.name;
  row.plan_text = plan.describe();
  row.model_bytes = static_cast<std::int64_t>(bytes);
  row.parameters = layout.parameters();
  row.threads = o.threads == 0 ? available_cpus() : o.threads;
  row.kv_format = format_name(plan.kv);
  return row;
}

BenchRow row_of(const Test& test, const BenchRow& facts) {
  BenchRow row = facts;
  row.test = test.row.test;
  row.n_prompt = test.row.n_prompt;
  row.n_gen = test.row.n_gen;
  row.n_batch = test.row.n_batch;
  row.n_depth = test.row.n_depth;
  row.test_time = utc_now();
  return row;
}

// Adds a row for each test. Throws Error(kInterrupted), with the rows measured so far in place.
void measure(const BenchOptions& o, std::vector<BenchRow>& rows) {
  std::vector<std::string> plans = o.plans;
  if (plans.empty()) plans.push_back("fast");
  for (const std::string& name : plans) {
    const Plan plan = read_plan(name, o.autotune, o.model, o.threads);
    std::vector<Test> tests = make_tests(o);
    std::vector<Case> cases;
    for (const Test& test : tests) cases.push_back({"bench", o.model, plan, test.scenario});
    CaseRunnerOptions options;
    options.engine.max_batch = 1;
    options.threads = o.threads;
    options.stop_requested = interrupted;
    if (plan.backend == PlanBackend::kCpu) options.ceilings = cpu_ceilings(o.threads);
    options.trace = o.trace;
    CaseRunner runner(cases, options);
    const BenchRow facts = describe(o, plan);
    for (std::size_t i = 0; i < tests.size(); ++i) {
      BenchRow row = row_of(tests[i], facts);
      row.record = runner.run(cases[i]);
      if (row.ok()) row.samples_ts = row.rate().samples;
      rows.push_back(std::move(row));
    }
  }
}

// Keys and meanings of llama-bench's JSON, with ours (plan, batch) after them.
OrderedJson llama_bench_json(const BenchRow& row) {
  std::vector<std::int64_t> samples_ns;
  for (const double ts : row.samples_ts) {
    samples_ns.push_back(static_cast<std::int64_t>(row.tokens() / ts * 1e9));
  }
  const std::vector<double> ns(samples_ns.begin(), samples_ns.end());
  return {{"build_commit", build_info::kGitCommit},
          {"cpu_info", read_environment().cpu},
          {"backends", "CPU"},
          {"model_filename", row.model},
          {"model_type", "gpt_oss"},
          {"model_size", row.model_bytes},
          {"model_n_params", row.parameters},
          {"n_threads", row.threads},
          {"type_k", row.kv_format},
          {"type_v", row.kv_format},
          {"n_prompt", row.n_prompt},
          {"n_gen", row.n_gen},
          {"n_depth", row.n_depth},
          {"test_time", row.test_time},
          {"avg_ns", static_cast<std::int64_t>(mean(ns))},
          {"stddev_ns", static_cast<std::int64_t>(standard_deviation(ns))},
          {"avg_ts", mean(row.samples_ts)},
          {"stddev_ts", standard_deviation(row.samples_ts)},
          {"samples_ns", samples_ns},
          {"samples_ts", row.samples_ts},
          {"plan", row.plan},
          {"plan_text", row.plan_text},
          {"n_parallel", row.n_batch}};
}

// Google Benchmark's JSON: one iteration entry per repetition, then mean, median and stddev.
OrderedJson gbench_json(const std::vector<BenchRow>& rows) {
  const Environment e = read_environment();
  OrderedJson benchmarks = OrderedJson::array();
  int family = 0;
  for (const BenchRow& row : rows) {
    if (!row.ok()) {
      benchmarks.push_back({{"name", fmt::format("{}/{}", row.plan, row.test)},
                            {"run_type", "iteration"},
                            {"error_occurred", true},
                            {"error_message", row.record.reason}});
      continue;
    }
    const std::string name = fmt::format("{}/{}", row.plan, row.test);
    const auto entry = [&](double tokens_per_second) {
      const double ms = row.tokens() / tokens_per_second * 1e3;
      return OrderedJson{{"family_index", family}, {"per_family_instance_index", 0},
                         {"run_name", name},       {"repetitions", row.samples_ts.size()},
                         {"threads", row.threads}, {"iterations", 1},
                         {"real_time", ms},        {"cpu_time", ms},
                         {"time_unit", "ms"},      {"items_per_second", tokens_per_second}};
    };
    for (std::size_t i = 0; i < row.samples_ts.size(); ++i) {
      OrderedJson one = {{"name", name}, {"run_type", "iteration"}, {"repetition_index", i}};
      one.update(entry(row.samples_ts[i]));
      benchmarks.push_back(std::move(one));
    }
    OrderedJson aggregate = {{"name", name + "_median"},
                             {"run_type", "aggregate"},
                             {"aggregate_name", "median"},
                             {"aggregate_unit", "time"}};
    aggregate.update(entry(median(row.samples_ts)));
    benchmarks.push_back(std::move(aggregate));
    ++family;
  }
  return {{"context",
           {{"date", utc_now()},
            {"executable", "moebench"},
            {"num_cpus", e.logical_cpus},
            {"library_build_type", e.build_type == "Release" ? "release" : "debug"},
            {"json_schema_version", 1}}},
          {"benchmarks", benchmarks}};
}

std::string percent_of_limit(const Record& record) {
  const auto it = record.metrics.find("percent_of_limit");
  return it == record.metrics.end() ? "-" : fmt::format("{:.0f}", it->second.value);
}

void print_table(const std::vector<BenchRow>& rows, bool markdown) {
  Table table({"model", ">size", ">params", "plan", ">threads", "test", ">t/s", ">median [95 %]",
               ">% limit"});
  for (const BenchRow& row : rows) {
    std::string rate = "-";
    std::string interval = row.record.reason;
    if (row.ok()) {
      rate =
          fmt::format("{:.2f} ± {:.2f}", mean(row.samples_ts), standard_deviation(row.samples_ts));
      const Metric& m = row.rate();
      interval = fmt::format("{:.2f}", m.value);
      if (m.interval)
        interval += fmt::format(" [{:.2f}, {:.2f}]", m.interval->low, m.interval->high);
    }
    table.add({row.model, format_bytes(static_cast<double>(row.model_bytes)),
               fmt::format("{:.2f} M", static_cast<double>(row.parameters) / 1e6), row.plan,
               std::to_string(row.threads), row.test, rate, interval,
               percent_of_limit(row.record)});
  }
  fmt::print("{}\nbuild: {} ({})\n", markdown ? table.markdown() : table.text(),
             std::string(build_info::kGitCommit), std::string(build_info::kVersion));
}

// RFC 4180: quotes around every field, doubled inside.
std::string csv_cell(const OrderedJson& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  std::string cell = "\"";
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell + "\"";
}

void print_csv(const std::vector<BenchRow>& rows) {
  bool header = true;
  for (const BenchRow& row : rows) {
    if (!row.ok()) continue;
    std::string names;
    std::string values;
    const OrderedJson json = llama_bench_json(row);
    for (const auto& [key, value] : json.items()) {
      if (key == "samples_ns" || key == "samples_ts") continue;  // as llama-bench
      names += fmt::format("{}{}", names.empty() ? "" : ",", key);
      values += fmt::format("{}{}", values.empty() ? "" : ",", csv_cell(value));
    }
    if (header) fmt::print("{}\n", names);
    header = false;
    fmt::print("{}\n", values);
  }
}

void print_rows(const BenchOptions& options, const std::vector<BenchRow>& rows) {
  OrderedJson list = OrderedJson::array();
  for (const BenchRow& row : rows) {
    if (row.ok()) list.push_back(llama_bench_json(row));
  }
  if (options.output == "json") {
    fmt::print("{}\n", list.dump(2));
  } else if (options.output == "jsonl") {
    for (const OrderedJson& line : list) fmt::print("{}\n", json_line(line));
  } else if (options.output == "csv") {
    print_csv(rows);
  } else if (options.output == "gbench") {
    fmt::print("{}\n", gbench_json(rows).dump(2));
  } else {
    print_table(rows, options.output == "md");
  }
  std::fflush(stdout);
}

// Prints a line for every row that has no time. False if there is one.
bool report_failures(const std::vector<BenchRow>& rows) {
  bool all_ok = true;
  for (const BenchRow& row : rows) {
    if (row.ok()) continue;
    all_ok = false;
    fmt::print(stderr, "error: benchmark {} {}: {}: {}\n", row.plan, row.test,
               status_name(row.record.status), row.record.reason);
  }
  return all_ok;
}

// Rows as in a run of one plan after another: the samples are blocks.
std::vector<BenchRow> rows_of(const BenchOptions& o, const ComparedTests& compared,
                              const std::vector<Test>& tests, const CompareResult& result) {
  std::vector<BenchRow> rows;
  for (std::size_t arm = 0; arm < compared.arms.size(); ++arm) {
    BenchRow facts = describe(o, compared.arms[arm].plan);
    facts.plan = compared.arms[arm].name;
    for (std::size_t test = 0; test < tests.size(); ++test) {
      BenchRow row = row_of(tests[test], facts);
      row.record.kind = scenario_kind(tests[test].scenario);
      row.samples_ts = block_rates(result.timing, arm, test);
      if (row.samples_ts.empty()) {
        const Trouble trouble = trouble_of(result.timing, arm, test);
        row.record.status = trouble.status;
        row.record.reason = trouble.reason;
      } else {
        row.record.metrics[rate_metric(row.record.kind)] =
            median_metric(row.samples_ts, "tokens/s", "higher");
      }
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

int run_comparison(const BenchOptions& o) {
  std::vector<Plan> plans;
  for (const std::string& name : o.plans) {
    plans.push_back(read_plan(name, o.autotune, o.model, o.threads));
  }
  if (plans.empty()) plans.push_back(read_plan("fast", o.autotune, o.model, o.threads));
  const std::vector<Test> tests = make_tests(o);
  ComparedTests compared;
  compared.model = o.model;
  compared.arms = make_arms(plans, o.compare);
  compared.threads = o.threads;
  compared.rounds = o.repetitions_given ? o.repetitions : 0;
  for (const Test& test : tests) {
    compared.names.push_back(test.row.test);
    compared.scenarios.push_back(test.scenario);
  }
  load_model_config(resolve_model(o.model));  // a wrong model is one error, not one of each arm
  // Written after every session: whatever ends the process, what was measured is there.
  const auto write = [&](const CompareResult& result) {
    if (o.compare.out.empty()) return;
    write_file_atomically(std::filesystem::path(o.compare.out) / "compare.json",
                          comparison_json(compared, o.compare, result).dump(2) + "\n");
  };
  const CompareResult result = compare(compared, o.compare, write);
  write(result);
  const std::vector<BenchRow> rows = rows_of(o, compared, tests, result);
  const bool as_json = o.output == "compare";
  if (as_json) fmt::print("{}\n", comparison_json(compared, o.compare, result).dump(2));
  if (!as_json) print_rows(o, rows);
  if (o.output == "text" || o.output == "md") {
    fmt::print("\n{}", comparison_text(compared, o.compare, result, o.output == "md"));
  }
  const bool all_ok = report_failures(rows);
  require_or(ErrorCode::kInterrupted, !result.timing.interrupted,
             "compare speeds: interrupted; what was measured is shown");
  return all_ok ? comparison_exit_code(o.compare, result.timing) : kExitFailed;
}

int run_bench(const BenchOptions& options) {
  require_or(
      ErrorCode::kUsage,
      options.trace.empty() || !(options.serve.wanted() || options.compares() || options.mixed),
      "benchmark: --trace writes what one process does: it goes with one plan, or "
      "--no-interleave, and without a load");
  require_or(ErrorCode::kUsage, !(options.mixed && options.serve.wanted()),
             "benchmark: --mixed and a load of requests are two different workloads");
  if (options.serve.wanted()) {
    return run_serve_bench(
        {options.model, options.plans, options.threads, options.autotune, options.output},
        options.serve);
  }
  if (options.mixed) {
    require_or(ErrorCode::kUsage, options.compare.against_program.empty(),
               "benchmark: --mixed beside --against-program: only -p and -n are timed in turns");
    return run_mixed_bench({options.model, options.plans, options.prompt, options.generate,
                            options.batch, options.depth, options.repetitions, options.threads,
                            options.autotune, options.output});
  }
  require_or(ErrorCode::kUsage, !options.model.empty(), "benchmark: --model is required");
  require_or(ErrorCode::kUsage,
             options.serve.definitions.empty() && options.output != "vllm" &&
                 options.output != "vllm-text" && options.output != "sglang",
             "benchmark: other tools' serving metrics need a load: give --request-rate, "
             "--max-concurrency or --arrival-trace");
  watch_for_interrupts();
  if (options.compares()) return run_comparison(options);
  require_or(
      ErrorCode::kUsage,
      options.output != "compare" && options.compare.out.empty() && !options.compare.fail_if_slower,
      "benchmark: -o compare, --out and --fail-if-slower need two arms that are timed in "
      "turns (two --plan, or --against-program)");
  if (!options.trace.empty()) TraceFile start(options.trace);  // each plan adds to it
  std::vector<BenchRow> rows;
  try {
    measure(options, rows);
  } catch (const Error&) {
    if (!rows.empty()) print_rows(options, rows);  // what was measured is not lost
    throw;
  }
  print_rows(options, rows);
  return report_failures(rows) ? kExitOk : kExitFailed;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      add_command(app, action, "bench", "Prefill and decode speed, in the manner of llama-bench",
                  options, run_bench);
  command->add_option("--model", options->model, "Model directory, or nano")->type_name("DIR");
  command
      ->add_option("--plan", options->plans, std::string(kPlanHelp) + " (default fast); repeatable")
      ->type_name("P")
      ->check(is_plan());
  const auto add_list = [&](const char* name, std::vector<std::int64_t>& target, const char* help,
                            std::int64_t least = 0) {
    command->add_option(name, target, help)
        ->type_name("N,...")
        ->delimiter(',')
        ->check(CLI::Range(least, std::int64_t{1} << 24))
        ->capture_default_str();
  };
  add_list("-p,--n-prompt", options->prompt, "Prompt tokens to compute (0: none)");
  add_list("-n,--n-gen", options->generate, "Tokens to generate (0: none)");
  add_list("-b,--batch", options->batch, "Sequences decoded at once", 1);
  add_list("-d,--n-depth", options->depth, "Tokens in the cache beforehand");
  command
      ->add_option("-r,--repetitions", options->repetitions,
                   "Measured repetitions; of two arms or more: exactly N rounds")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->each([options](const std::string&) { options->repetitions_given = true; })
      ->capture_default_str();
  command->add_flag("--mixed", options->mixed,
                    "A prompt of -p tokens arrives while -b sequences of -n tokens decode: what "
                    "that does to the gaps between their tokens");
  add_threads_option(command, options->threads);
  add_autotune_flag(command, options->autotune);
  command
      ->add_option("-o,--output", options->output,
                   "text, json, jsonl, csv, md or gbench; compare; serving: text, json, vllm, "
                   "vllm-text or sglang")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"text", "json", "jsonl", "csv", "md", "gbench", "compare", "vllm",
                             "vllm-text", "sglang"}))
      ->capture_default_str();
  command
      ->add_option_function<std::int64_t>(
          "--seed",
          [options](std::int64_t seed) {
            options->compare.seed = static_cast<std::uint64_t>(seed);
            options->serve.seed = seed;
          },
          "Of the random order of arms, and of arrivals and lengths")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber);
  add_compare_options(command, options->compare);
  add_serve_options(command, options->serve);
  add_examples(command, {"moebench bench --model nano -p 128 -n 64 -b 1,8",
                         "moebench bench --model nano --plan fast --plan int4 -o md",
                         "moebench bench --model nano -p 0 --against-program old/moebench "
                         "--fail-if-slower",
                         "moebench bench --model nano --request-rate 20 --input-len 128 "
                         "--output-len 64 --goodput ttft:200 tpot:50",
                         "moebench bench --model nano --max-concurrency 8 -o vllm-text",
                         "moebench bench --model nano --mixed -p 512 -n 64 -b 8",
                         "moebench bench --model nano -p 64 -n 16 -r 2 --trace trace.json"});
  command
      ->add_option("--trace", options->trace,
                   "Also write steps, ops and requests to a file for ui.perfetto.dev")
      ->type_name("FILE");
}

}  // namespace moebench::cli
