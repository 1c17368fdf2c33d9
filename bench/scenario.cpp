// Scenarios to JSON and back.
#include "bench/scenario.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/latency.h"
#include "bench/serve.h"
#include "engine/harmony.h"
#include "engine/plan.h"
#include "evals/task.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;
constexpr std::int64_t kMostRepetitions = 100000;

// Names in the order of the variant's alternatives.
constexpr std::array<std::string_view, std::variant_size_v<Scenario>> kKinds = {
    "load", "prefill", "decode", "task", "fidelity", "invariance", "mixed", "serve", "perplexity"};

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

std::int64_t count(JsonFields& fields, std::string_view name, std::int64_t fallback,
                   std::int64_t low, std::int64_t high) {
  return in_range(fields.optional<std::int64_t>(name, fallback), low, high, fields.path(name));
}

// Names are checked where they are read, not when their case comes to run.
Task check_names(JsonFields& fields, const std::string& task, const std::string& effort) {
  effort_from_name(effort, fields.path("effort"));
  return find_task(task, fields.path("task"));
}

void read(JsonFields&, LoadScenario&) {}

void read(JsonFields& fields, PrefillScenario& s) {
  s.tokens = count(fields, "tokens", s.tokens, 1, kMostTokens);
  s.context = count(fields, "context", s.context, 0, kMostTokens);
  s.repetitions = count(fields, "repetitions", s.repetitions, 1, kMostRepetitions);
}

void read(JsonFields& fields, DecodeScenario& s) {
  s.batch = count(fields, "batch", s.batch, 1, 4096);
  s.context = count(fields, "context", s.context, 1, kMostTokens);
  s.tokens = count(fields, "tokens", s.tokens, 1, kMostTokens);
  s.repetitions = count(fields, "repetitions", s.repetitions, 1, kMostRepetitions);
}

void read(JsonFields& fields, TaskScenario& s) {
  s.task = fields.optional<std::string>("task", s.task);
  s.effort = fields.optional<std::string>("effort", s.effort);
  s.limit = count(fields, "limit", s.limit, 0, kMostTokens);
  s.repeats = count(fields, "repeats", s.repeats, 1, kMostRepetitions);
  s.max_tokens = count(fields, "max_tokens", s.max_tokens, 0, kMostTokens);
  const Task task = check_names(fields, s.task, s.effort);
  s.protocol = fields.optional<std::string>("protocol", "");
  // One spelling of the default: a case and its repetition have one id.
  if (task.protocol(s.protocol, fields.path("protocol")).name == task.protocols.front().name) {
    s.protocol.clear();
  }
  s.include_items = fields.optional<bool>("include_items", false);
  s.sampling.temperature = in_range(fields.optional<double>("temperature", s.sampling.temperature),
                                    0.0, 100.0, fields.path("temperature"));
  s.sampling.top_k = count(fields, "top_k", s.sampling.top_k, 0, kMostTokens);
  s.sampling.top_p = fields.optional<double>("top_p", s.sampling.top_p);
  require(s.sampling.top_p > 0 && s.sampling.top_p <= 1, "{}: {} is not in (0, 1]",
          fields.path("top_p"), s.sampling.top_p);
  s.sampling.min_p = fields.optional<double>("min_p", s.sampling.min_p);
  require(s.sampling.min_p >= 0 && s.sampling.min_p < 1, "{}: {} is not in [0, 1)",
          fields.path("min_p"), s.sampling.min_p);
  s.settle = in_range(fields.optional<double>("settle", 0.0), 0.0, 1.0, fields.path("settle"));
  s.settle_against = fields.optional<std::string>("settle_against", s.settle_against);
  require(s.settle > 0 || !fields.has("settle_against"),
          "{}: only a task that has 'settle', a "
          "margin, is compared while it runs",
          fields.path("settle_against"));
  s.sampling.seed = static_cast<std::uint64_t>(
      in_range<std::int64_t>(fields.optional<std::int64_t>("seed", 0), 0,
                             std::numeric_limits<std::int64_t>::max(), fields.path("seed")));
}

void read(JsonFields& fields, FidelityScenario& s) {
  s.against = fields.optional<std::string>("against", s.against);
  parse_plan(s.against);
  s.task = fields.optional<std::string>("task", s.task);
  s.effort = fields.optional<std::string>("effort", s.effort);
  check_names(fields, s.task, s.effort);
  s.items = count(fields, "items", s.items, 1, kMostTokens);
  s.max_tokens = count(fields, "max_tokens", s.max_tokens, 0, kMostTokens);
}

void read(JsonFields& fields, InvarianceScenario& s) {
  s.task = fields.optional<std::string>("task", s.task);
  check_names(fields, s.task, "high");
  s.items = count(fields, "items", s.items, 1, 64);
}

void read(JsonFields& fields, PerplexityScenario& s) {
  s.text = fields.required<std::string>("text");
  require(!s.text.empty(), "{}: expected the path of a text", fields.path("text"));
  s.window = count(fields, "window", s.window, 0, kMostTokens);
  s.stride = count(fields, "stride", s.stride, 0, kMostTokens);
  require(s.window == 0 || s.stride < s.window, "{}: {} is not below the window of {}",
          fields.path("stride"), s.stride, s.window);
}

void read(JsonFields& fields, MixedScenario& s) {
  s.batch = count(fields, "batch", s.batch, 1, 4096);
  s.context = count(fields, "context", s.context, 1, kMostTokens);
  s.prefill = count(fields, "prefill", s.prefill, 1, kMostTokens);
  s.tokens = count(fields, "tokens", s.tokens, 4, kMostTokens);
  s.repetitions = count(fields, "repetitions", s.repetitions, 1, kMostRepetitions);
}

// A length may be written as a plain number.
std::string read_length(JsonFields& fields, std::string_view name, const std::string& fallback) {
  const Json* value = fields.find(name);
  if (value == nullptr) return fallback;
  const std::string text =
      value->is_number_integer() ? value->dump() : fields.required<std::string>(name);
  parse_length(text, fields.path(name));
  return text;
}

void read(JsonFields& fields, ServeScenario& s) {
  Arrivals& a = s.arrivals;
  s.concurrency = count(fields, "concurrency", s.concurrency, 0, 4096);
  s.trace = fields.optional<std::string>("trace", s.trace);
  const Json* rate = fields.find("rate");
  if (rate != nullptr && *rate == "inf") {
    a.rate = std::numeric_limits<double>::infinity();
  } else {
    a.rate =
        in_range<double>(fields.optional<double>("rate", a.rate), 1e-6, 1e9, fields.path("rate"));
  }
  a.burstiness = in_range<double>(fields.optional<double>("burstiness", a.burstiness), 0.01, 1e4,
                                  fields.path("burstiness"));
  // What is said about arrivals tells their kind.
  const auto implied = s.concurrency > 0                     ? ArrivalKind::kClosed
                       : a.burstiness != 1                   ? ArrivalKind::kBurst
                       : !s.trace.empty() && rate == nullptr ? ArrivalKind::kTrace
                                                             : ArrivalKind::kPoisson;
  a.kind = parse_arrival_kind(
      fields.optional<std::string>("arrivals", std::string(arrival_kind_name(implied))),
      fields.path("arrivals"));
  require((a.kind == ArrivalKind::kClosed) == (s.concurrency > 0),
          "{}: a closed loop, and only that, has a concurrency of at least 1 (here: {}, {})",
          fields.path("concurrency"), arrival_kind_name(a.kind), s.concurrency);
  require(a.kind != ArrivalKind::kTrace || !s.trace.empty(), "{}: arrivals 'trace' need one",
          fields.path("trace"));
  require(a.burstiness == 1 || a.kind == ArrivalKind::kBurst,
          "{}: only arrivals 'burst' have one (here: {})", fields.path("burstiness"),
          arrival_kind_name(a.kind));
  a.duration_s = in_range<double>(fields.optional<double>("duration_s", 0.0), 0.0, 1e6,
                                  fields.path("duration_s"));
  a.requests = count(fields, "requests", a.duration_s > 0 ? 0 : a.requests, 0, 1'000'000);
  require(a.requests > 0 || a.duration_s > 0 || a.kind == ArrivalKind::kTrace,
          "{}: 0 requests without a duration_s would never end", fields.path("requests"));
  a.seed = static_cast<std::uint64_t>(
      count(fields, "seed", 0, 0, std::numeric_limits<std::int64_t>::max()));
  s.input = read_length(fields, "input", s.input);
  s.output = read_length(fields, "output", s.output);
  s.prompts = fields.optional<std::string>("prompts", s.prompts);
  static constexpr std::array<std::string_view, 3> kPrompts = {"text", "random", "questions"};
  index_of_name(kPrompts, s.prompts, fields.path("prompts"), "kind of prompts");
  s.slo = fields.optional<std::string>("slo", s.slo);
  parse_slo(s.slo, fields.path("slo"));
  s.sweep = fields.optional<std::string>("sweep", s.sweep);
  parse_sweep(s.sweep, fields.path("sweep"));
  require(s.sweep.empty() ||
              (a.kind != ArrivalKind::kTrace && a.kind != ArrivalKind::kClosed && rate == nullptr),
          "{}: a sweep sets the rate itself, and closed loops and traces have none",
          fields.path("sweep"));
}

// Such tasks have no answers that an effort could bear on.
bool is_by_likelihood(const std::string& task) {
  try {
    return find_task(task).protocols.front().extraction_rule.empty();
  } catch (const Error&) {
    return false;  // a task that is not here
  }
}

std::string serve_label(const ServeScenario& s) {
  const Arrivals& a = s.arrivals;
  std::string label = "serve ";
  switch (a.kind) {
    case ArrivalKind::kClosed:
      label += fmt::format("{} at once", s.concurrency);
      break;
    case ArrivalKind::kTrace:
      label += "trace " + std::filesystem::path(s.trace).filename().string();
      break;
    default:
      label += arrival_kind_name(a.kind);
      if (a.kind == ArrivalKind::kBurst) label += fmt::format(" {}", a.burstiness);
      label += s.sweep.empty() ? fmt::format(" {}/s", a.rate) : fmt::format(" sweep {}", s.sweep);
  }
  if (s.prompts == "questions") return label + fmt::format(", questions, {} out", s.output);
  if (a.kind != ArrivalKind::kTrace) label += fmt::format(", {} in, {} out", s.input, s.output);
  return s.prompts == "random" ? label + ", random ids" : label;
}

}  // namespace

std::string task_title(const std::string& task, const std::string& protocol) {
  const std::string name =
      task.ends_with(".json") ? std::filesystem::path(task).stem().string() : task;
  return protocol.empty() ? name : fmt::format("{} ({})", name, protocol);
}

std::string_view scenario_kind(const Scenario& scenario) { return kKinds[scenario.index()]; }

std::string scenario_label(const Scenario& scenario) {
  return std::visit(
      Overloaded{
          [](const LoadScenario&) { return std::string("load"); },
          [](const PrefillScenario& s) {
            return s.context == 0 ? fmt::format("prefill {}", s.tokens)
                                  : fmt::format("prefill {}, context {}", s.tokens, s.context);
          },
          [](const DecodeScenario& s) {
            return fmt::format("decode batch {}, context {}", s.batch, s.context);
          },
          [](const TaskScenario& s) {
            const std::string title = task_title(s.task, s.protocol);
            return is_by_likelihood(s.task) ? title : fmt::format("{} {}", title, s.effort);
          },
          [](const FidelityScenario& s) { return fmt::format("fidelity to {}", s.against); },
          [](const InvarianceScenario&) { return std::string("invariance"); },
          [](const PerplexityScenario& s) {
            std::string label = "perplexity " + std::filesystem::path(s.text).filename().string();
            if (s.window > 0) label += fmt::format(", window {}", s.window);
            if (s.stride > 0) label += fmt::format(", stride {}", s.stride);
            return label;
          },
          [](const MixedScenario& s) {
            return fmt::format("mixed prefill {}, batch {}", s.prefill, s.batch);
          },
          [](const ServeScenario& s) { return serve_label(s); },
      },
      scenario);
}

OrderedJson scenario_to_json(const Scenario& scenario) {
  OrderedJson json = {{"kind", scenario_kind(scenario)}};
  std::visit(Overloaded{
                 [](const LoadScenario&) {},
                 [&](const PrefillScenario& s) {
                   json["tokens"] = s.tokens;
                   json["context"] = s.context;
                   json["repetitions"] = s.repetitions;
                 },
                 [&](const DecodeScenario& s) {
                   json["batch"] = s.batch;
                   json["context"] = s.context;
                   json["tokens"] = s.tokens;
                   json["repetitions"] = s.repetitions;
                 },
                 [&](const TaskScenario& s) {
                   json["task"] = s.task;
                   json["effort"] = s.effort;
                   if (!s.protocol.empty()) json["protocol"] = s.protocol;
                   if (s.include_items) json["include_items"] = true;
                   json["limit"] = s.limit;
                   json["repeats"] = s.repeats;
                   json["max_tokens"] = s.max_tokens;
                   json["temperature"] = s.sampling.temperature;
                   json["top_k"] = s.sampling.top_k;
                   json["top_p"] = s.sampling.top_p;
                   json["min_p"] = s.sampling.min_p;
                   json["seed"] = s.sampling.seed;
                   if (s.settle > 0) {
                     json["settle"] = s.settle;
                     json["settle_against"] = s.settle_against;
                   }
                 },
                 [&](const FidelityScenario& s) {
                   json["against"] = s.against;
                   json["task"] = s.task;
                   json["effort"] = s.effort;
                   json["items"] = s.items;
                   json["max_tokens"] = s.max_tokens;
                 },
                 [&](const InvarianceScenario& s) {
                   json["task"] = s.task;
                   json["items"] = s.items;
                 },
                 [&](const PerplexityScenario& s) {
                   json["text"] = s.text;
                   json["window"] = s.window;
                   json["stride"] = s.stride;
                 },
                 [&](const MixedScenario& s) {
                   json["batch"] = s.batch;
                   json["context"] = s.context;
                   json["prefill"] = s.prefill;
                   json["tokens"] = s.tokens;
                   json["repetitions"] = s.repetitions;
                 },
                 [&](const ServeScenario& s) {
                   const Arrivals& a = s.arrivals;
                   json["arrivals"] = arrival_kind_name(a.kind);
                   const bool has_rate = s.sweep.empty() && a.kind != ArrivalKind::kClosed &&
                                         a.kind != ArrivalKind::kTrace;
                   if (has_rate) {
                     json["rate"] = std::isinf(a.rate) ? OrderedJson("inf") : OrderedJson(a.rate);
                   }
                   if (a.kind == ArrivalKind::kBurst) json["burstiness"] = a.burstiness;
                   json["concurrency"] = s.concurrency;
                   json["requests"] = a.requests;
                   json["duration_s"] = a.duration_s;
                   json["input"] = s.input;
                   json["output"] = s.output;
                   json["trace"] = s.trace;
                   json["prompts"] = s.prompts;
                   json["slo"] = s.slo;
                   json["sweep"] = s.sweep;
                   json["seed"] = a.seed;
                 },
             },
             scenario);
  return json;
}

Scenario scenario_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  const auto kind = fields.required<std::string>("kind");
  const std::array<Scenario, kKinds.size()> defaults = {
      LoadScenario{},  PrefillScenario{},  DecodeScenario{},
      TaskScenario{},  FidelityScenario{}, InvarianceScenario{},
      MixedScenario{}, ServeScenario{},    PerplexityScenario{}};
  Scenario scenario = defaults[index_of_name(kKinds, kind, fields.path("kind"), "kind")];
  std::visit([&](auto& s) { read(fields, s); }, scenario);
  fields.finish();
  return scenario;
}

}  // namespace moebench
