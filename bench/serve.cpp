// The serving loop, and what its log says.
#include "bench/serve.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <thread>

#include "bench/sample_watch.h"
#include "evals/run_task.h"
#include "evals/statistics.h"
#include "evals/task.h"
#include "kernels/core/clock.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

constexpr double kGoodShare = 0.95;     // of requests that must keep the limits at the knee
constexpr double kWaitingFactor = 3.0;  // of the unloaded TTFT, where there are no limits

// What requests say, and for how long.
class Prompts {
 public:
  Prompts(const Engine& engine, const ServeScenario& scenario) {
    if (scenario.prompts == "questions") {
      const Tokenizer& tokenizer = engine.require_tokenizer();
      for (const TaskItem& item : find_task("nano").load().items) {
        questions_.push_back(
            render(item_conversation(item, ReasoningEffort::kMedium), RenderOptions{}, tokenizer));
      }
      stops_ = answer_stop_tokens(engine);
      description_ = "the nano questions as chats";
      return;
    }
    source_ =
        scenario.prompts == "random" ? random_prompt_source(engine) : make_prompt_source(engine);
    description_ = source_.description;
  }

  const std::string& description() const { return description_; }
  bool is_chat() const { return !questions_.empty(); }

  Request request(std::size_t index, const ScheduledRequest& scheduled) const {
    Request request;
    request.id = index;
    request.max_tokens = scheduled.output_tokens;
    request.detect_loops = false;
    if (is_chat()) {
      request.prompt = questions_[index % questions_.size()];
      request.stop_tokens = stops_;
    } else {  // no stop tokens: the work must not depend on the words
      request.prompt =
          cut_prompt(source_, scheduled.input_tokens, static_cast<std::int64_t>(index));
    }
    return request;
  }

 private:
  PromptSource source_;
  std::vector<std::vector<std::int32_t>> questions_;
  std::vector<std::int32_t> stops_;
  std::string description_;
};

// One load: a schedule, and at most `concurrency` requests under way if that is not 0.
struct Load {
  std::int64_t point = 0;
  std::vector<ScheduledRequest> schedule;
  std::int64_t concurrency = 0;
  double duration_s = 0;  // of a closed loop: when to stop; 0: with the schedule
};

// What a load gave: its log, and a hash of the tokens of each request that succeeded, by id.
struct LoadRun {
  std::vector<RequestEvents> log;
  std::map<std::uint64_t, std::uint64_t> outputs;

  double output_tokens() const {
    double sum = 0;
    for (const RequestEvents& events : log) sum += static_cast<double>(events.output_tokens());
    return sum;
  }
  // The witness of what was computed: all tokens, in the order of requests. The order in which they
  // ended does not matter, so plans whose tokens do not depend on the company of a request have the
  // same one at every load.
  std::string digest() const {
    std::uint64_t hash = 0;
    for (const auto& [id, output] : outputs) {
      const std::array<std::uint64_t, 2> one = {id, output};
      hash = content_hash(std::as_bytes(std::span(one)), hash);
    }
    return hash_hex(hash);
  }
};

// Has the watch look at a load second by second: what disturbs it lasts shorter than a load.
class LoadWatch {
 public:
  explicit LoadWatch(SampleWatch* watch) : watch_(watch), begin_ns_(steady_ns()) {
    if (watch_ != nullptr) watch_->begin();
  }
  void look() {
    constexpr std::int64_t kStretchNs = 1'000'000'000;
    const std::int64_t now = steady_ns();
    if (watch_ == nullptr || now - begin_ns_ < kStretchNs) return;
    watch_->end();
    watch_->begin();
    begin_ns_ = now;
  }
  void finish() {
    if (watch_ != nullptr) watch_->end();
  }

 private:
  SampleWatch* watch_;
  std::int64_t begin_ns_;
};

LoadRun run_load(Engine& engine, const Prompts& prompts, const Load& load,
                 const WorkloadHooks& hooks) {
  // Between looks at the user's wish to stop.
  constexpr std::int64_t kLongestSleepNs = 50'000'000;
  Scheduler scheduler(*engine.model, *engine.cache);
  LoadRun run;
  std::vector<RequestEvents>& log = run.log;
  const std::size_t total = load.schedule.size();
  std::size_t next = 0;
  LoadWatch watch(hooks.watch);
  const std::int64_t origin = steady_ns();
  const bool closed = load.concurrency > 0;
  const auto is_due = [&](std::int64_t now) {
    if (next == total) return false;
    if (!closed) return load.schedule[next].arrival_ns <= now;
    return scheduler.num_unfinished() < load.concurrency;
  };
  while (next < total || scheduler.num_unfinished() > 0) {
    require_or(ErrorCode::kInterrupted, !hooks.stop_requested || !hooks.stop_requested(),
               "serve {} more requests: interrupted", total - log.size());
    watch.look();
    const std::int64_t now = steady_ns() - origin;
    if (closed && load.duration_s > 0 && static_cast<double>(now) >= load.duration_s * 1e9) {
      next = total;
      if (scheduler.num_unfinished() == 0) break;
    }
    while (is_due(steady_ns() - origin)) {
      scheduler.submit(prompts.request(next, load.schedule[next]));
      ++next;
    }
    if (scheduler.num_unfinished() == 0) {
      const std::int64_t wait = std::min(load.schedule[next].arrival_ns - now, kLongestSleepNs);
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::max<std::int64_t>(0, wait)));
      continue;
    }
    scheduler.step();
    for (const RequestResult& result : scheduler.take_results()) {
      RequestEvents events = events_of(result, origin);
      events.point = load.point;
      if (!closed) events.scheduled_ns = load.schedule[result.id].arrival_ns;
      if (prompts.is_chat()) {
        events.channels = token_channels(engine.require_tokenizer(), result.tokens);
      }
      if (events.succeeded()) {
        run.outputs[result.id] = content_hash(std::as_bytes(std::span(result.tokens)));
      }
      if (hooks.on_request) hooks.on_request(events);
      log.push_back(std::move(events));
      if (hooks.on_progress) {
        hooks.on_progress(static_cast<std::int64_t>(log.size()), static_cast<std::int64_t>(total));
      }
    }
  }
  watch.finish();
  return run;
}

// One request, unmeasured: it touches the pages and lets a GPU record its graphs.
void warm_up(Engine& engine, const Prompts& prompts, const Load& load, const WorkloadHooks& hooks) {
  Load one = load;
  one.schedule.resize(1);
  one.schedule.front().arrival_ns = 0;
  WorkloadHooks quiet;
  quiet.stop_requested = hooks.stop_requested;
  run_load(engine, prompts, one, quiet);
}

Metric absent(std::string unit, std::string better, std::string reason) {
  Metric metric;
  metric.unit = std::move(unit);
  metric.better = std::move(better);
  metric.absent = true;
  metric.interval_method = std::move(reason);
  return metric;
}

std::int64_t count_good(std::span<const RequestEvents> log, const Slo& slo) {
  return std::count_if(log.begin(), log.end(),
                       [&](const RequestEvents& events) { return meets(events, slo); });
}

void add_throughput(std::span<const RequestEvents> log, Record& record) {
  const auto n = static_cast<std::int64_t>(log.size());
  const auto add = [&](const std::string& prefix, const std::optional<Window>& window) {
    const auto put = [&](const std::string& name, const char* unit, auto value_of) {
      record.metrics[prefix + name] =
          window ? plain_metric(value_of(throughput_in(log, *window)), unit, "higher", n)
                 : absent(unit, "higher", "no request arrived after the first had finished");
    };
    put("requests_per_second", "requests/s", [](const Throughput& t) { return t.requests; });
    put("input_tokens_per_second", "tokens/s", [](const Throughput& t) { return t.input_tokens; });
    put(prefix.empty() ? rate_metric("serve") : "output_tokens_per_second", "tokens/s",
        [](const Throughput& t) { return t.output_tokens; });
    put("total_tokens_per_second", "tokens/s",
        [](const Throughput& t) { return t.total_tokens(); });
  };
  add("", whole_window(log));
  add("steady_", steady_window(log));
}

// Requests that arrived in the steady window, which ends with the last arrival.
std::vector<RequestEvents> steady_part(std::span<const RequestEvents> log) {
  std::vector<RequestEvents> part;
  const auto window = steady_window(log);
  for (const RequestEvents& events : log) {
    if (window && events.arrived_ns() > window->begin_ns) part.push_back(events);
  }
  return part;
}

constexpr int kQuantiles = 40;  // steps of the distributions that a record keeps

OrderedJson run_details(const LoadRun& run) {
  const std::vector<RequestEvents>& log = run.log;
  std::map<std::string, std::int64_t> finishes;
  for (const RequestEvents& events : log)
    ++finishes[std::string(finish_reason_name(events.finish))];
  OrderedJson details = {
      {"requests", log.size()}, {"finish", finishes}, {"output_digest", run.digest()}};
  const auto whole = whole_window(log);
  if (const auto steady = steady_window(log); steady && whole) {
    details["seconds"] = {{"ramp_up", Window{whole->begin_ns, steady->begin_ns}.seconds()},
                          {"steady", steady->seconds()},
                          {"drain", Window{steady->end_ns, whole->end_ns}.seconds()}};
  }
  if (whole) details["duration_s"] = whole->seconds();
  const LatencySamples samples = latencies_of(log);
  OrderedJson quantiles = OrderedJson::object();
  for (const auto& [name, values] :
       {std::pair{"ttft_ms", &samples.ttft}, std::pair{"itl_ms", &samples.itl},
        std::pair{"e2e_ms", &samples.e2e}}) {
    if (values->size() < 2) continue;
    OrderedJson list = OrderedJson::array();
    for (int i = 0; i <= kQuantiles; ++i) {
      list.push_back(percentile(*values, static_cast<double>(i) / kQuantiles));
    }
    quantiles[name] = std::move(list);
  }
  details["latency_quantiles"] = std::move(quantiles);  // from 0 to 1 in equal steps
  return details;
}

void require_success(std::span<const RequestEvents> log) {
  const bool any = std::any_of(log.begin(), log.end(),
                               [](const RequestEvents& events) { return events.succeeded(); });
  require(any, "serve {} requests: all failed{}", log.size(),
          log.empty() ? "" : ", the first with: " + log.front().error);
}

// --- Sweeps --------------------------------------------------------------------------------------

// One load of a sweep.
struct Point {
  double rate = 0;
  LoadRun run;
  Record record;  // the metrics of this load alone
  bool holds = false;
};

// A metric's value, or null if it cannot be quoted.
OrderedJson value_or_null(const Record& record, const std::string& name) {
  const auto it = record.metrics.find(name);
  return it == record.metrics.end() || it->second.absent ? OrderedJson()
                                                         : OrderedJson(it->second.value);
}

OrderedJson to_json(const Point& point) {
  OrderedJson json = {
      {"point", point.run.log.front().point}, {"rate", point.rate}, {"holds", point.holds}};
  for (const char* name :
       {"requests_per_second", "serve_tokens_per_second", "goodput_share", "ttft_ms_p50",
        "ttft_ms_p99", "tpot_ms_p50", "itl_ms_p99", "e2e_ms_p50", "lateness_ms_p99"}) {
    json[name] = value_or_null(point.record, name);
  }
  json["output_digest"] = point.run.digest();
  return json;
}

void run_sweep(Engine& engine, const ServeScenario& scenario, const Prompts& prompts,
               const WorkloadHooks& hooks, Record& record) {
  const Slo slo = parse_slo(scenario.slo, "slo");
  const Sweep sweep = parse_sweep(scenario.sweep, "sweep");
  const LengthSpec input = parse_length(scenario.input, "input");
  const LengthSpec output = parse_length(scenario.output, "output");
  std::vector<TraceRequest> trace;
  if (!scenario.trace.empty()) trace = read_trace(scenario.trace, false);

  // One request at a time: how long it takes when nobody else is there.
  constexpr std::int64_t kUnloadedRequests = 10;
  Arrivals alone = scenario.arrivals;
  alone.kind = ArrivalKind::kClosed;
  alone.duration_s = 0;
  alone.requests =
      alone.requests == 0 ? kUnloadedRequests : std::min(alone.requests, kUnloadedRequests);
  Load load{0, make_schedule(alone, input, output, trace), 1, 0};
  warm_up(engine, prompts, load, hooks);
  const LoadRun unloaded = run_load(engine, prompts, load, hooks);
  require_success(unloaded.log);
  double tokens = unloaded.output_tokens();
  const LatencySamples base = latencies_of(unloaded.log);
  const double base_ttft = median(base.ttft);

  std::vector<Point> points;
  const auto try_rate = [&](double rate) {
    Arrivals arrivals = scenario.arrivals;
    arrivals.rate = rate;
    Point point;
    point.rate = rate;
    load = {static_cast<std::int64_t>(points.size()) + 1,
            make_schedule(arrivals, input, output, trace), 0, 0};
    point.run = run_load(engine, prompts, load, hooks);
    require_success(point.run.log);
    tokens += point.run.output_tokens();
    add_serve_metrics(point.run.log, slo, point.record);
    if (slo.empty()) {
      point.holds = median(latencies_of(point.run.log).ttft) <= kWaitingFactor * base_ttft;
    } else {
      point.holds = static_cast<double>(count_good(point.run.log, slo)) >=
                    kGoodShare * static_cast<double>(point.run.log.size());
    }
    points.push_back(std::move(point));
    return points.back().holds;
  };
  if (sweep.automatic) {
    find_knee(1e3 / std::max(1e-3, median(base.e2e)), try_rate);
  } else {
    for (const double rate : sweep.rates) try_rate(rate);
  }
  std::sort(points.begin(), points.end(),
            [](const Point& a, const Point& b) { return a.rate < b.rate; });
  const Point* knee = nullptr;
  for (const Point& point : points) {
    if (point.holds) knee = &point;
  }
  record.details["unloaded"] = {{"ttft_ms_p50", base_ttft}, {"e2e_ms_p50", median(base.e2e)}};
  record.details["knee_rule"] =
      slo.empty()
          ? fmt::format("median TTFT at most {} times that of one request alone", kWaitingFactor)
          : fmt::format("at least {:.0f} % of requests keep {}", 100 * kGoodShare, scenario.slo);
  OrderedJson list = OrderedJson::array();
  for (const Point& point : points) list.push_back(to_json(point));
  record.details["points"] = std::move(list);
  if (knee == nullptr) {
    record.metrics["knee_requests_per_second"] =
        absent("requests/s", "higher", "no rate that was tried keeps the rule");
    record.metrics[rate_metric("serve")] =
        absent("tokens/s", "higher", "no rate that was tried keeps the rule");
  } else {
    record.metrics = knee->record.metrics;
    record.metrics["knee_requests_per_second"] =
        plain_metric(knee->rate, "requests/s", "higher", static_cast<std::int64_t>(points.size()));
    record.details.update(run_details(knee->run));
  }
  if (hooks.watch != nullptr) hooks.watch->report_load(tokens, record);
}

}  // namespace

Sweep parse_sweep(std::string_view text, std::string_view where) {
  Sweep sweep;
  sweep.automatic = text == "auto";
  if (sweep.automatic) return sweep;
  constexpr std::size_t kMostRates = 1000;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(" ,"), text.size()));
    if (text.empty()) break;
    const std::string_view one = text.substr(0, text.find_first_of(" ,"));
    text.remove_prefix(one.size());
    double rate = 0;
    const auto [end, error] = std::from_chars(one.data(), one.data() + one.size(), rate);
    require(error == std::errc() && end == one.data() + one.size() && rate >= 1e-6 && rate <= 1e9,
            "{}: '{}' is no rate; '1 2 4' and 'auto' are sweeps", where, one);
    require(sweep.rates.size() < kMostRates, "{}: more than {} rates", where, kMostRates);
    sweep.rates.push_back(rate);
  }
  std::sort(sweep.rates.begin(), sweep.rates.end());
  return sweep;
}

double find_knee(double first, const std::function<bool(double rate)>& holds) {
  constexpr int kMostQuestions = 24;
  constexpr double kClose = 1.1;
  int questions = 0;
  const auto ask = [&](double rate) { return ++questions, holds(rate); };
  double good = 0;
  double bad = 0;
  double rate = first;
  while (questions < kMostQuestions && (good == 0 || bad == 0)) {
    if (ask(rate)) {
      good = rate;
      rate *= 2;
    } else {
      bad = rate;
      rate /= 2;
    }
  }
  while (questions < kMostQuestions && good > 0 && bad > kClose * good) {
    const double middle = std::sqrt(good * bad);
    (ask(middle) ? good : bad) = middle;
  }
  return good;
}

std::int64_t serve_context(const ServeScenario& scenario) {
  if (scenario.prompts == "questions") return 0;
  if (scenario.trace.empty()) {
    return parse_length(scenario.input, "input").most() +
           parse_length(scenario.output, "output").most() + 1;
  }
  std::int64_t longest = 0;
  for (const TraceRequest& request : read_trace(scenario.trace, false)) {
    longest = std::max(longest, request.input_tokens + request.output_tokens);
  }
  return longest + 1;
}

void add_serve_metrics(std::span<const RequestEvents> log, const Slo& slo, Record& record) {
  const auto n = static_cast<std::int64_t>(log.size());
  add_throughput(log, record);
  const LatencySamples samples = latencies_of(log);
  add_latency_metrics("ttft", samples.ttft, record);
  if (!samples.ttff.empty()) add_latency_metrics("ttff", samples.ttff, record);
  add_latency_metrics("tpot", samples.tpot, record);
  add_latency_metrics("itl", samples.itl, record);
  add_latency_metrics("longest_itl", samples.longest_itl, record);
  add_latency_metrics("e2e", samples.e2e, record);
  add_latency_metrics("queue", samples.queue, record);
  if (!samples.lateness.empty()) add_latency_metrics("lateness", samples.lateness, record);
  const LatencySamples steady = latencies_of(steady_part(log));
  add_latency_metrics("steady_ttft", steady.ttft, record);
  add_latency_metrics("steady_itl", steady.itl, record);
  // A user's own reading speed: tokens after the first over the time they took.
  std::vector<double> speeds;
  for (const double tpot : samples.tpot) {
    if (tpot > 0) speeds.push_back(1e3 / tpot);
  }
  record.metrics["user_tokens_per_second"] =
      speeds.empty() ? absent("tokens/s", "higher", "no answer has two tokens")
                     : plain_metric(median(speeds), "tokens/s", "higher",
                                    static_cast<std::int64_t>(speeds.size()));
  record.metrics["peak_concurrency"] =
      plain_metric(static_cast<double>(peak_concurrency(log)), "requests", "", n);
  const auto failed = std::count_if(
      log.begin(), log.end(), [](const RequestEvents& events) { return !events.succeeded(); });
  record.metrics["failed_requests"] =
      plain_metric(static_cast<double>(failed), "requests", "lower", n);
  if (slo.empty() || n == 0) return;
  const std::int64_t good = count_good(log, slo);
  Metric share =
      plain_metric(static_cast<double>(good) / static_cast<double>(n), "share", "higher", n);
  share.interval = wilson_interval(good, n);
  share.interval_method = "Wilson, as if requests were independent";
  record.metrics["goodput_share"] = share;
  const auto whole = whole_window(log);
  record.metrics["goodput_requests_per_second"] =
      whole && whole->seconds() > 0
          ? plain_metric(static_cast<double>(good) / whole->seconds(), "requests/s", "higher", n)
          : absent("requests/s", "higher", "the load took no time");
}

void run_serve(Engine& engine, const ServeScenario& scenario, const WorkloadHooks& hooks,
               Record& record) {
  const Prompts prompts(engine, scenario);
  record.details["prompts"] = prompts.description();
  if (!scenario.sweep.empty()) return run_sweep(engine, scenario, prompts, hooks, record);
  std::vector<TraceRequest> trace;
  if (!scenario.trace.empty()) {
    trace = read_trace(scenario.trace, scenario.arrivals.kind == ArrivalKind::kTrace);
  }
  const Load load{0,
                  make_schedule(scenario.arrivals, parse_length(scenario.input, "input"),
                                parse_length(scenario.output, "output"), trace),
                  scenario.concurrency, scenario.arrivals.duration_s};
  warm_up(engine, prompts, load, hooks);
  const LoadRun run = run_load(engine, prompts, load, hooks);
  require_success(run.log);
  add_serve_metrics(run.log, parse_slo(scenario.slo, "slo"), record);
  record.details.update(run_details(run));
  if (hooks.watch != nullptr) hooks.watch->report_load(run.output_tokens(), record);
}

}  // namespace moebench
