// The serving side of `moebench bench`.
#include "cli/bench_serve.h"

#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "bench/case_runner.h"
#include "bench/definitions.h"
#include "bench/environment.h"
#include "bench/interrupt.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/run_summary.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench::cli {
namespace {

// The scenario that the options describe, by way of JSON: one reader checks suites and options.
ServeScenario scenario_of(const ServeBenchOptions& o) {
  Json json = {{"kind", "serve"},  {"input", o.input},          {"output", o.output},
               {"trace", o.trace}, {"prompts", o.prompts},      {"sweep", o.sweep},
               {"seed", o.seed},   {"duration_s", o.duration_s}};
  const auto number = [](const std::string& text, const char* flag) {
    const Json value = Json::parse(text, nullptr, false);
    require(value.is_number(), "{}: '{}' is not a number", flag, text);
    return value;
  };
  if (o.rate == "inf") {
    // As vLLM: no rate and so many at once is a closed loop.
    if (o.concurrency == 0) json["rate"] = "inf";
  } else if (!o.rate.empty()) {
    json["rate"] = number(o.rate, "--request-rate");
  }
  if (!o.arrivals.empty()) json["arrivals"] = o.arrivals;
  if (!o.burstiness.empty()) json["burstiness"] = number(o.burstiness, "--burstiness");
  if (o.concurrency > 0) json["concurrency"] = o.concurrency;
  if (o.requests >= 0) json["requests"] = o.requests;
  std::string slo;
  for (const std::string& pair : o.slo) slo += (slo.empty() ? "" : " ") + pair;
  json["slo"] = slo;
  require(o.concurrency == 0 || o.rate.empty() || o.rate == "inf",
          "--max-concurrency {} beside --request-rate {}: a closed loop has no rate", o.concurrency,
          o.rate);
  return std::get<ServeScenario>(scenario_from_json(json, "bench"));
}

LoadFacts facts_of(const ServeBench& bench, const ServeScenario& scenario) {
  LoadFacts facts;
  facts.model = bench.model;
  facts.slo = parse_slo(scenario.slo, "--goodput");
  facts.max_concurrency = scenario.concurrency;
  if (bench.model.empty()) return facts;  // a log alone: of its load nothing more is known
  facts.started = utc_now();
  const ArrivalKind kind = scenario.arrivals.kind;
  facts.rate = kind == ArrivalKind::kClosed ? std::numeric_limits<double>::infinity()
                                            : scenario.arrivals.rate;
  if (kind == ArrivalKind::kTrace) facts.rate.reset();
  facts.burstiness = scenario.arrivals.burstiness;
  facts.num_prompts = scenario.arrivals.requests;
  return facts;
}

// A load is a point: of one sweep there are several, and the loads must not be mixed. llama-bench's
// repetitions are the exception: its metrics join them. `details` of the record tells the rates of
// a sweep.
void print_definitions(std::string_view definitions, const std::vector<RequestEvents>& log,
                       LoadFacts facts, const OrderedJson& details, bool console) {
  std::map<std::int64_t, std::vector<RequestEvents>> points;
  const bool joined = definitions == "llama-bench";
  for (const RequestEvents& r : log) points[joined ? 0 : r.point].push_back(r);
  for (const auto& [point, requests] : points) {
    if (facts.num_prompts == 0 || points.size() > 1) {
      facts.num_prompts = static_cast<std::int64_t>(requests.size());
    }
    if (details.contains("points")) {
      facts.rate = std::numeric_limits<double>::infinity();  // point 0: one request at a time
      facts.max_concurrency = point == 0 ? 1 : 0;
      for (const OrderedJson& one : details.at("points")) {
        if (one.at("point") == point) facts.rate = one.at("rate").get<double>();
      }
    }
    const OrderedJson metrics = metrics_by(definitions, requests, facts);
    if (console) {
      fmt::print("{}", vllm_console(metrics, facts));
    } else if (definitions == "sglang") {
      fmt::print("{}\n", json_line(metrics));  // its files are JSON lines
    } else {
      fmt::print("{}\n", metrics.dump(2));
    }
  }
}

std::string cell(const Record& record, const std::string& name, const char* format = "{:.1f}") {
  const auto it = record.metrics.find(name);
  if (it == record.metrics.end() || it->second.absent) return "-";
  return fmt::format(fmt::runtime(format), it->second.value);
}

// What the rows of a table show of a record, or of a point of a sweep.
constexpr std::pair<const char*, const char*> kColumns[] = {
    {"req/s", "requests_per_second"}, {"out tok/s", "serve_tokens_per_second"},
    {"TTFT p50", "ttft_ms_p50"},      {"p99", "ttft_ms_p99"},
    {"TPOT p50", "tpot_ms_p50"},      {"ITL p99", "itl_ms_p99"},
    {"E2E p50", "e2e_ms_p50"},        {"late p50", "lateness_ms_p50"},
    {"good", "goodput_share"},
};

void print_text(const std::vector<Record>& records) {
  std::vector<std::string> columns = {"plan", "load"};
  for (const auto& [title, name] : kColumns) columns.push_back(std::string(">") + title);
  Table table(columns);
  for (const Record& record : records) {
    const std::string load = scenario_of_label(record.label, record.plan);
    std::vector<std::string> cells = {record.plan, load};
    if (record.status != Status::kOk) {
      cells[1] += ": " + std::string(status_name(record.status));
    }
    for (const auto& [title, name] : kColumns) {
      cells.push_back(std::string(name) == "goodput_share" ? cell(record, name, "{:.3f}")
                                                           : cell(record, name));
    }
    table.add(cells);
    if (!record.details.contains("points")) continue;
    for (const OrderedJson& point : record.details.at("points")) {
      std::vector<std::string> row = {"",
                                      fmt::format("  {:.3g}/s{}", point.at("rate").get<double>(),
                                                  point.at("holds") == true ? "" : ", too much")};
      for (const auto& [title, name] : kColumns) {
        const OrderedJson value = point.value(name, OrderedJson());
        row.push_back(value.is_null() ? "-" : fmt::format("{:.3g}", value.get<double>()));
      }
      table.add(row);
    }
  }
  fmt::print(
      "{}\nlatencies in ms, from arrival; a percentile that the requests are too few for is "
      "left out\n",
      table.text());
}

}  // namespace

void add_serve_options(CLI::App* command, ServeBenchOptions& o) {
  const auto add = [&](const char* names, auto& target, const char* help, const char* type) {
    return command->add_option(names, target, help)->type_name(type)->group("Serving");
  };
  add("--request-rate,--rate", o.rate,
      "Requests per second, or inf; makes the command serve instead of timing batches", "R");
  add("--max-concurrency,--concurrency", o.concurrency, "Closed loop: this many requests under way",
      "N")
      ->check(CLI::Range(1, 4096));
  add("--arrivals", o.arrivals, "poisson, constant, burst or trace (by the other options)", "KIND");
  add("--burstiness", o.burstiness, "Shape of gamma gaps: 1 is Poisson, less comes in bursts", "B");
  add("--arrival-trace", o.trace, "JSON lines of timestamp (ms), input_length, output_length",
      "FILE");
  add("--sweep", o.sweep, "Rates one after the other, '1 2 4', or auto: search for the knee",
      "RATES");
  add("--num-prompts", o.requests, "Requests (default 100)", "N")->check(CLI::Range(0, 1'000'000));
  add("--duration", o.duration_s, "Seconds after which no request arrives", "S")
      ->check(CLI::Range(0.0, 1e6));
  add("--input-len", o.input, "Prompt tokens: 512, uniform:256:1024, lognormal:400:0.6[:MOST]",
      "LENGTH")
      ->capture_default_str();
  add("--output-len", o.output, "Output tokens, likewise", "LENGTH")->capture_default_str();
  add("--prompts", o.prompts, "text, questions (chats that end by themselves) or random (ids)",
      "KIND")
      ->capture_default_str();
  add("--goodput", o.slo, "Limits in ms: ttft:200 tpot:50 itl:80 e2e:5000 ttff:900", "NAME:MS")
      ->expected(1, 5);
  add("--max-batch", o.max_batch, "Sequences decoded at once (a closed loop has its own)", "N")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add("--definitions", o.definitions,
      "Print the metrics by this tool's definitions: moebench, vllm, sglang, guidellm, aiperf, "
      "trtllm or llama-bench",
      "TOOL")
      ->check(read_by([](const std::string& name) {
        const auto known = definition_names();
        require(std::find(known.begin(), known.end(), name) != known.end(), "no definitions '{}'",
                name);
      }));
  add("--save-events", o.save_events, "Write the event log here", "FILE");
  add("--events", o.events, "Derive from this event log instead of running a model", "FILE");
}

int run_serve_bench(const ServeBench& bench, const ServeBenchOptions& options) {
  std::string definitions = options.definitions;
  const bool console = bench.output == "vllm-text";
  if (bench.output == "vllm" || console) definitions = "vllm";
  if (bench.output == "sglang") definitions = "sglang";
  require_or(ErrorCode::kUsage,
             bench.output == "text" || bench.output == "json" || !definitions.empty(),
             "benchmark: -o {} is a format of batches; serving has text, json, vllm, vllm-text "
             "and sglang",
             bench.output);
  std::optional<ServeScenario> scenario;
  try {
    scenario = scenario_of(options);
  } catch (const Error& error) {
    throw Error(ErrorCode::kUsage, error.what());
  }
  const LoadFacts facts = facts_of(bench, *scenario);
  if (!options.events.empty()) {
    if (definitions.empty()) definitions = "moebench";
    print_definitions(definitions, read_event_log(options.events), facts, {}, console);
    return kExitOk;
  }
  require_or(ErrorCode::kUsage, !bench.model.empty(), "benchmark: --model is required");
  watch_for_interrupts();
  std::optional<LineWriter> events_file;
  if (!options.save_events.empty()) {
    std::filesystem::remove(options.save_events);
    events_file.emplace(options.save_events);
  }
  std::vector<Record> records;
  for (const std::string& name :
       bench.plans.empty() ? std::vector<std::string>{"fast"} : bench.plans) {
    const Case one{"bench", bench.model,
                   read_plan(name, bench.autotune, bench.model, bench.threads), *scenario};
    std::vector<RequestEvents> log;
    CaseRunnerOptions runner;
    runner.engine.max_batch = options.max_batch;
    runner.threads = bench.threads;
    runner.stop_requested = interrupted;
    runner.on_request = [&](const RequestEvents& request) {
      log.push_back(request);
      if (events_file) events_file->append(json_line(to_json(request)));
    };
    records.push_back(CaseRunner({one}, runner).run(one));
    if (records.back().status == Status::kOk && !definitions.empty()) {
      print_definitions(definitions, log, facts, records.back().details, console);
    }
  }
  if (definitions.empty() && bench.output == "json") {
    print_as_json(records);
  } else if (definitions.empty()) {
    print_text(records);
  }
  return report_failures(records);
}

}  // namespace moebench::cli
