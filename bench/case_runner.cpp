// One engine per (model, plan), and the cases that run on it.
#include "bench/case_runner.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <numeric>

#include "bench/environment.h"
#include "bench/memory.h"
#include "bench/mixed.h"
#include "bench/output_check.h"
#include "bench/perplexity_case.h"
#include "bench/run_folder.h"
#include "bench/sample_watch.h"
#include "bench/serve.h"
#include "bench/settle_case.h"
#include "bench/task_record.h"
#include "bench/trace_file.h"
#include "bench/workloads.h"
#include "evals/fidelity.h"
#include "evals/fidelity_statistics.h"
#include "evals/invariance.h"
#include "evals/repeat_scores.h"
#include "evals/run_task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/clock.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

OrderedJson budget_json(const MemoryBudget& budget) {
  OrderedJson weights;
  for (int g = 0; g < kNumWeightGroups; ++g) {
    weights[std::string(weight_group_name(static_cast<WeightGroup>(g)))] =
        budget.weights[static_cast<std::size_t>(g)];
  }
  return {{"weights", weights},
          {"kv_cache", budget.kv_cache},
          {"activations", budget.activations},
          {"workspace", budget.workspace},
          {"logits", budget.logits},
          {"graphs", budget.graphs},
          {"total", budget.total()}};
}

// Joined by group, with each tensor below: what re-encoding cost.
OrderedJson encoding_json(const std::vector<TensorError>& errors) {
  std::map<std::string, EncodingError> groups;
  OrderedJson tensors = OrderedJson::array();
  // JSON has no infinity: a lossless re-encoding has no SQNR.
  const auto sqnr = [](const EncodingError& e) {
    return e.noise > 0 ? OrderedJson(e.sqnr_db()) : OrderedJson();
  };
  for (const TensorError& t : errors) {
    groups[std::string(weight_group_name(t.group))].add(t.error);
    tensors.push_back({{"name", t.name},
                       {"from", format_name(t.from)},
                       {"to", format_name(t.to)},
                       {"sqnr_db", sqnr(t.error)},
                       {"max_abs", t.error.max_abs}});
  }
  OrderedJson by_group = OrderedJson::object();
  for (const auto& [name, error] : groups) {
    by_group[name] = {{"sqnr_db", sqnr(error)}, {"max_abs", error.max_abs}};
  }
  return {{"groups", by_group}, {"tensors", tensors}};
}

// Per trace its id, its counted positions and the sum of their divergences: what two runs are
// paired on.
OrderedJson kl_by_trace_json(const std::vector<Trace>& traces, const FidelityResult& result) {
  OrderedJson list = OrderedJson::array();
  auto kl = result.kl_by_position.begin();
  for (const Trace& trace : traces) {
    const auto positions = static_cast<std::int64_t>(trace.tokens.size()) - trace.first;
    const auto end = kl + positions;
    list.push_back(
        {{"id", trace.id}, {"positions", positions}, {"sum_kl", std::accumulate(kl, end, 0.0)}});
    kl = end;
  }
  return list;
}

// {"positions", "mean_kl", "low", "high"} added to what names the positions.
OrderedJson with_mean_kl(OrderedJson json, const MeanEstimate& mean_kl) {
  json["positions"] = mean_kl.num_values;
  json["mean_kl"] = mean_kl.mean;
  if (mean_kl.interval) {
    json["low"] = mean_kl.interval->low;
    json["high"] = mean_kl.interval->high;
  }
  return json;
}

OrderedJson kl_groups_json(const std::vector<KlGroup>& groups) {
  OrderedJson list = OrderedJson::array();
  for (const KlGroup& group : groups) {
    list.push_back(with_mean_kl(OrderedJson::object({{"name", group.name}}), group.mean_kl));
  }
  return list;
}

OrderedJson kl_stages_json(const std::vector<KlStage>& stages) {
  OrderedJson list = OrderedJson::array();
  for (const KlStage& stage : stages) {
    list.push_back(with_mean_kl({{"from", stage.from}, {"to", stage.to}}, stage.mean_kl));
  }
  return list;
}

}  // namespace

std::int64_t context_needed(const Scenario& scenario) {
  if (const auto* prefill = std::get_if<PrefillScenario>(&scenario)) {
    return prefill->context + prefill->tokens + 1;
  }
  if (const auto* decode = std::get_if<DecodeScenario>(&scenario)) {
    return decode->context + decode->tokens + 1;
  }
  if (const auto* mixed = std::get_if<MixedScenario>(&scenario)) {
    return std::max(mixed->context + mixed->tokens, mixed->prefill) + 1;
  }
  if (const auto* serve = std::get_if<ServeScenario>(&scenario)) return serve_context(*serve);
  return 0;
}

namespace {

// Tokens that one repetition computes (prefill) or yields (decode, mixed): what its energy is
// shared by. 0: it has no repetitions (serve reports by itself).
double tokens_of_repetition(const Scenario& scenario) {
  if (const auto* prefill = std::get_if<PrefillScenario>(&scenario)) {
    return static_cast<double>(prefill->tokens);
  }
  if (const auto* decode = std::get_if<DecodeScenario>(&scenario)) {
    return static_cast<double>(decode->batch * (decode->tokens + 1));
  }
  if (const auto* mixed = std::get_if<MixedScenario>(&scenario)) {
    return static_cast<double>(mixed->batch * mixed->tokens + 1);
  }
  return 0;
}

}  // namespace

EngineOptions options_for(const std::vector<Case>& cases, EngineOptions options,
                          std::int64_t model_context) {
  // Sequences that a workload has under way; 0: as many as there may be.
  const auto sequences_of = [](const Scenario& scenario) -> std::int64_t {
    if (std::holds_alternative<LoadScenario>(scenario)) return 1;
    // The second one holds what is in the cache already.
    if (std::holds_alternative<PrefillScenario>(scenario)) return 2;
    if (const auto* decode = std::get_if<DecodeScenario>(&scenario)) return decode->batch;
    if (const auto* mixed = std::get_if<MixedScenario>(&scenario)) return mixed->batch + 1;
    if (const auto* serve = std::get_if<ServeScenario>(&scenario)) return serve->concurrency;
    return 0;
  };
  std::vector<const Scenario*> possible;
  std::int64_t context = options.max_context;
  bool default_context = false;
  for (const Case& one : cases) {
    const std::int64_t needed = context_needed(one.scenario);
    if (needed > model_context) continue;
    possible.push_back(&one.scenario);
    context = std::max(context, needed);
    if (!std::holds_alternative<PrefillScenario>(one.scenario)) {
      options.max_batch = std::max(options.max_batch, sequences_of(one.scenario));
    }
    default_context = default_context || (needed == 0 && options.max_context == 0);
  }
  if (default_context) context = std::max(context, std::min<std::int64_t>(model_context, 4096));
  options.max_context = context;
  if (options.kv_tokens > 0) return options;
  // Few long sequences beside many short ones need not have room for many long ones.
  for (const Scenario* scenario : possible) {
    const std::int64_t needed = context_needed(*scenario);
    const std::int64_t sequences = sequences_of(*scenario);
    options.kv_tokens =
        std::max(options.kv_tokens, kv_tokens_for(needed > 0 ? needed : context,
                                                  sequences > 0 ? sequences : options.max_batch));
  }
  return options;
}

namespace {

// Of a task: energy by its output tokens, and by its correct answers.
void add_energy_metrics(const SampleWatch& watch, std::span<const LedgerLine> answers,
                        double output_tokens, Record& record) {
  watch.report(output_tokens, record);
  const auto correct = std::count_if(answers.begin(), answers.end(),
                                     [](const LedgerLine& line) { return line.correct(); });
  Metric metric = plain_metric(0, "J/correct answer", "lower", correct);
  metric.absent = correct == 0 || !watch.joules();
  if (!metric.absent) {
    metric.value = *watch.joules() / static_cast<double>(correct);
  } else if (!watch.joules()) {
    metric.interval_method = "not available: " + watch.energy_source();
  } else {
    metric.interval_method = "no answer was correct";
  }
  record.metrics["joules_per_correct_answer"] = metric;
}

}  // namespace

struct CaseRunner::State {
  ThreadPool pool;
  EngineOptions options;
  Engine engine;
  std::string broken;            // why nothing may be timed; "" if all is well
  bool held_two_models = false;  // so that this process's peak memory is not the plan's
  std::optional<TraceFile> trace;
  std::string weights_hash;

  explicit State(int threads) : pool(threads) {}
};

CaseRunner::CaseRunner(std::vector<Case> cases, CaseRunnerOptions options)
    : cases_(std::move(cases)), options_(std::move(options)) {}

CaseRunner::~CaseRunner() = default;

bool is_timed(const Case& one) {
  return std::holds_alternative<PrefillScenario>(one.scenario) ||
         std::holds_alternative<DecodeScenario>(one.scenario);
}

Record begin_record(const Case& one) {
  Record record;
  record.case_id = one.id;
  record.label = one.label();
  record.model = one.model;
  record.plan = one.plan.name;
  record.kind = scenario_kind(one.scenario);
  record.scenario = scenario_to_json(one.scenario);
  record.started = utc_now();
  return record;
}

Record CaseRunner::run(const Case& one) {
  Record record = begin_record(one);
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t start_ns = steady_ns();
  SampleWatch watch(gpu_address_for(one.plan.backend == PlanBackend::kCuda));
  std::optional<LineWriter> events;
  WorkloadHooks hooks;
  hooks.on_progress = options_.on_progress;
  hooks.stop_requested = options_.stop_requested;
  hooks.watch = &watch;
  hooks.on_request = [&](const RequestEvents& request) {
    if (options_.on_request) options_.on_request(request);
    if (options_.out_dir.empty()) return;
    if (!events) {
      const std::filesystem::path path = event_log_path(options_.out_dir, one.id);
      std::filesystem::remove(path);  // of an earlier try that was cut off
      events.emplace(path);
      record.details["event_log"] = std::filesystem::relative(path, options_.out_dir).string();
    }
    events->append(json_line(to_json(request)));
  };
  const auto failed = [&](Status status, std::string reason) {
    record.status = status;
    record.reason = std::move(reason);
    record.metrics.clear();
  };
  try {
    // The first case loads, whichever it is: a resumed run may begin in the middle.
    if (!state_) load(one, record);
    if (options_.ceilings) hooks.ceilings = &*options_.ceilings;
    if (!std::holds_alternative<LoadScenario>(one.scenario)) {
      require_or(ErrorCode::kUnsupported, state_->broken.empty(), "{}", state_->broken);
      record.metrics.clear();
      record.details = OrderedJson::object();
      record.status = Status::kOk;
      record.reason.clear();
    }
    const std::int64_t most = state_->engine.model->config().max_context;
    require_or(ErrorCode::kUnsupported, context_needed(one.scenario) <= most,
               "run {}: it needs {} positions of context, the model has {}", record.label,
               context_needed(one.scenario), most);
    if (const auto* prefill = std::get_if<PrefillScenario>(&one.scenario)) {
      run_prefill(state_->engine, *prefill, hooks, record);
    } else if (const auto* decode = std::get_if<DecodeScenario>(&one.scenario)) {
      run_decode(state_->engine, *decode, hooks, record);
    } else if (const auto* mixed = std::get_if<MixedScenario>(&one.scenario)) {
      run_mixed(state_->engine, *mixed, hooks, record);
    } else if (const auto* serve = std::get_if<ServeScenario>(&one.scenario)) {
      run_serve(state_->engine, *serve, hooks, record);
    } else if (const auto* task = std::get_if<TaskScenario>(&one.scenario)) {
      run_task_case(one, *task, watch, record);
    } else if (const auto* fidelity = std::get_if<FidelityScenario>(&one.scenario)) {
      run_fidelity_case(one, *fidelity, record);
    } else if (const auto* perplexity = std::get_if<PerplexityScenario>(&one.scenario)) {
      run_perplexity(state_->engine, *perplexity, hooks, record);
    } else if (const auto* invariance = std::get_if<InvarianceScenario>(&one.scenario)) {
      run_invariance_case(*invariance, record);
    }
    if (one.plan.backend == PlanBackend::kCuda) {
      record.details["graphs"] = {{"count", state_->engine.model->num_graphs()},
                                  {"bytes", state_->engine.model->memory().graphs}};
    }
    const double tokens = tokens_of_repetition(one.scenario);
    if (record.status == Status::kOk && tokens > 0) watch.report(tokens, record);
    record.details["content_hashes"]["weights"] = state_->weights_hash;
    record.details["content_hashes"]["plan"] = hash_hex(content_hash(one.plan.canonical_text()));
    if (!state_->held_two_models || std::holds_alternative<FidelityScenario>(one.scenario)) {
      record.metrics["peak_rss_bytes"] =
          plain_metric(static_cast<double>(peak_resident_bytes()), "bytes", "lower");
    }
  } catch (const Error& error) {
    switch (error.code()) {
      case ErrorCode::kInterrupted:
        throw;
      case ErrorCode::kOutOfMemory:
        failed(Status::kOutOfMemory, error.what());
        break;
      case ErrorCode::kUnsupported:
        failed(state_ && !state_->broken.empty() ? Status::kWrongOutput : Status::kUnsupported,
               error.what());
        break;
      default:
        failed(Status::kFailed, error.what());
    }
  } catch (const std::bad_alloc&) {
    failed(Status::kOutOfMemory, "the system gave no more memory");
  } catch (const std::exception& error) {
    failed(Status::kFailed, error.what());
  }
  if (state_ && state_->trace) state_->trace->add_case(record.label, start_ns, steady_ns());
  record.duration_s = seconds_since(start);
  return record;
}

void CaseRunner::load(const Case& one, Record& record) {
  const ProcessMemory before = read_process_memory();
  auto state = std::make_unique<State>(options_.threads);
  state->weights_hash = checkpoint_hash(resolve_model(one.model));
  const auto start = std::chrono::steady_clock::now();
  const ModelConfig config = load_model_config(resolve_model(one.model));
  state->options = options_for(cases_, options_.engine, config.max_context);
  const MemoryBudget predicted =
      predict_memory(one.model, one.plan, state->options, state->pool.num_threads());
  const bool on_gpu = one.plan.backend == PlanBackend::kCuda;
  if (on_gpu) {
    const bool timed = std::any_of(cases_.begin(), cases_.end(), is_timed);
    options_.ceilings = timed ? gpu_ceilings() : std::nullopt;
  }
  const std::size_t free_before = on_gpu ? gpu::device().free_bytes() : 0;
  state->engine = load_engine(one.model, one.plan, state->options, state->pool);
  const double load_s = seconds_since(start);
  const MemoryBudget taken = state->engine.memory();
  const ProcessPrediction process = predict_process(before, state->engine.directory, config);

  const OutputCheck check = check_outputs(state->engine, state->options, state->pool);
  if (!check.passed) {
    state->broken = fmt::format("outputs are wrong: {}", check.reason);
    record.status = Status::kWrongOutput;
    record.reason = state->broken;
  }
  record.metrics["load_seconds"] = plain_metric(load_s, "s", "lower");
  record.metrics["weights_bytes"] =
      plain_metric(static_cast<double>(taken.total_weights()), "bytes", "lower");
  if (on_gpu) {
    record.metrics["predicted_device_bytes"] =
        plain_metric(static_cast<double>(predicted.total()), "bytes", "lower");
    record.metrics["device_bytes"] = plain_metric(
        static_cast<double>(free_before) - static_cast<double>(gpu::device().free_bytes()), "bytes",
        "lower");
  } else {
    const std::string not_resident = make_resident(state->engine);
    const ProcessMemory now = read_process_memory();
    const OrderedJson memory =
        memory_waterfall(state->engine, predicted, process, now, not_resident);
    record.metrics["predicted_rss_bytes"] =
        plain_metric(memory.at("predicted_rss").get<double>(), "bytes", "lower");
    if (now.rss > 0) {
      record.metrics["rss_bytes"] = plain_metric(static_cast<double>(now.rss), "bytes", "lower");
      record.metrics["pss_bytes"] = plain_metric(static_cast<double>(now.pss), "bytes", "lower");
    }
    record.details["memory"] = memory;
  }
  record.details["threads"] = state->pool.num_threads();
  record.details["max_batch"] = state->options.max_batch;
  record.details["step_tokens"] = state->engine.model->limits().max_step_tokens;
  record.details["max_context"] = state->options.max_context;
  record.details["plan"] = OrderedJson(plan_to_json(one.plan));
  record.details["plan_text"] = one.plan.describe();
  record.details["variants"] = op_variant_names(state->engine.weights->layout.ops);
  record.details["variants_for_many_tokens"] =
      op_variant_names(state->engine.weights->layout.many_ops);
  record.details["baseline_rss_bytes"] = before.rss;
  record.details["memory_predicted"] = budget_json(predicted);
  record.details["memory_taken"] = budget_json(taken);
  record.details["encoding"] = encoding_json(state->engine.weights->errors);
  record.details["output_check"] = {
      {"passed", check.passed},   {"what", check.reason},
      {"nmse", check.nmse},       {"total_nmse", check.total_nmse},
      {"max_abs", check.max_abs}, {"against_reference", check.against_reference},
      {"digest", check.digest}};
  if (!options_.trace.empty()) {
    state->trace.emplace(options_.trace, true);
    state->trace->begin_process(fmt::format("{} / {}", one.model, one.plan.name));
    state->engine.model->set_tracer(state->trace->tracer());
  }
  state_ = std::move(state);
}

void CaseRunner::run_task_case(const Case& one, const TaskScenario& scenario, SampleWatch& watch,
                               Record& record) {
  const Task task = find_task(scenario.task);
  const Protocol& protocol = task.protocol(scenario.protocol);
  TaskSettings settings;
  settings.protocol = scenario.protocol;
  settings.include_items = scenario.include_items;
  settings.effort = effort_from_name(scenario.effort, one.label());
  settings.limit = scenario.limit;
  settings.repeats = scenario.repeats;
  settings.max_tokens = scenario.max_tokens;
  settings.sampling = scenario.sampling;
  settings.shard = options_.question_shard;
  const std::filesystem::path path = ledger_path(options_.out_dir, one.id);
  const std::vector<LedgerLine> done = read_ledger(path);
  LineWriter ledger(path);
  const TaskHooks hooks{[&](const LedgerLine& line) { ledger.append(json_line(to_json(line))); },
                        options_.on_progress, options_.stop_requested};
  const auto start = std::chrono::steady_clock::now();
  watch.begin();
  const SettleBase base = find_settle_base(options_.out_dir, one, scenario);
  std::vector<LedgerLine> lines;
  if (base.lines.empty()) {
    lines = run_task(state_->engine, task, settings, done, hooks);
    if (!base.reason.empty()) record.details["settled"] = {{"reason", base.reason}};
  } else {
    SettledRun run =
        run_until_settled(state_->engine, task, settings, base.lines, scenario.settle, done, hooks);
    record.details["settled"] = settled_json(run, scenario);
    lines = std::move(run.lines);
  }
  watch.end();
  const double elapsed = seconds_since(start);

  // A part of the questions may be none of them.
  if (!lines.empty() || options_.question_shard.is_whole()) {
    add_scores(lines, votes_of(task, protocol), record);
  }
  // Times of this process only: lines from before a resume were measured in another.
  const auto fresh = std::span(lines).subspan(done.size());
  if (!fresh.empty()) {
    double output = 0;
    for (const LedgerLine& line : fresh) output += static_cast<double>(line.output_tokens);
    const auto n = static_cast<std::int64_t>(fresh.size());
    record.metrics["answers_per_second"] =
        plain_metric(static_cast<double>(n) / elapsed, "answers/s", "higher", n);
    if (fresh.front().options.empty()) {
      record.metrics["output_tokens_per_second"] =
          plain_metric(output / elapsed, "tokens/s", "higher", n);
    }
    add_answer_latencies(fresh, record);
    add_energy_metrics(watch, fresh, output, record);
  }
  record.details["dataset_hash"] = task.load(scenario.protocol).hash;
  record.details["protocol"] = {{"name", protocol.name}, {"source", protocol.source}};
  if (!protocol.extraction_rule.empty()) {
    record.details["protocol"]["extraction"] = protocol.extraction_rule;
    record.details["protocol"]["scorer"] = protocol.scorer == Scorer::kMath ? "math" : "equal";
  }
  record.details["public_text"] = task.public_text;
  record.details["content_hashes"]["dataset"] = record.details["dataset_hash"];
  record.details["resumed_answers"] = done.size();
  if (!settings.shard.is_whole()) record.details["question_shard"] = settings.shard.text();
  record.details["ledger"] = std::filesystem::relative(path, options_.out_dir).string();
}

namespace {

// Whether an answer that left the reference's path came to another end.
void add_diverged_answers(const std::vector<DivergedAnswer>& answers, const FidelityResult& result,
                          Record& record) {
  std::vector<double> changed(static_cast<std::size_t>(result.num_traces), 0.0);
  std::vector<std::int64_t> traces(changed.size());
  std::iota(traces.begin(), traces.end(), std::int64_t{0});
  OrderedJson list = OrderedJson::array();
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const DivergedAnswer& one = answers[i];
    changed[i] = one.changed ? 1 : 0;  // which of the traces does not matter to the share
    list.push_back(to_json(one));
  }
  record.metrics["changed_answers"] =
      estimate_metric(mean_with_clustered_interval(changed, traces), "share", "lower");
  record.details["diverged_answers"] = std::move(list);
}

}  // namespace

void CaseRunner::run_fidelity_case(const Case& one, const FidelityScenario& scenario,
                                   Record& record) {
  const Task task = find_task(scenario.task);
  const ReasoningEffort effort = effort_from_name(scenario.effort, one.label());
  const Plan against = parse_plan(scenario.against);
  state_->held_two_models = true;
  Engine reference = load_engine(one.model, against, state_->options, state_->pool);
  // The reference's answers are the same for every plan of a run: the first child writes them down.
  const std::string key = hash_hex(content_hash(
      fmt::format("{} {} {}", one.model, against.canonical_text(), json_line(record.scenario))));
  const std::filesystem::path path = options_.out_dir / "traces" / fmt::format("{}.jsonl", key);
  std::vector<Trace> traces;
  if (std::filesystem::exists(path)) {
    traces = load_traces(path);
  } else {
    traces = make_traces(reference, task, effort, scenario.items, scenario.max_tokens,
                         options_.stop_requested);
    write_file_atomically(path, traces_text(traces));
  }
  const FidelityResult result = compare_fidelity(reference, state_->engine, traces);

  const auto positions = result.num_positions;
  record.metrics["mean_kl"] = estimate_metric(result.mean_kl, "nats", "lower");
  record.metrics["median_kl"] = plain_metric(result.median_kl, "nats", "lower", positions);
  record.metrics["p90_kl"] = plain_metric(result.p90_kl, "nats", "lower", positions);
  record.metrics["p99_kl"] = plain_metric(result.p99_kl, "nats", "lower", positions);
  record.metrics["max_kl"] = plain_metric(result.max_kl, "nats", "lower", positions);
  record.metrics["top1_agreement"] = estimate_metric(result.top1_agreement, "share", "higher");
  record.metrics["router_flip_rate"] =
      plain_metric(result.router_flip_rate, "share", "lower", positions);
  record.metrics["gate_mass_moved"] = estimate_metric(result.gate_mass_moved, "share", "lower");
  record.metrics["mean_abs_delta_p"] =
      plain_metric(result.mean_abs_delta_p, "probability", "lower", positions);
  record.metrics["perplexity_ratio"] = plain_metric(
      result.plan_perplexity / result.reference_perplexity, "ratio", "lower", positions);
  const auto diverged =
      std::count_if(result.first_divergence.begin(), result.first_divergence.end(),
                    [](std::int64_t token) { return token >= 0; });
  record.metrics["diverged_traces"] =
      plain_metric(static_cast<double>(diverged) / static_cast<double>(result.num_traces), "share",
                   "lower", result.num_traces);
  record.details["against"] = scenario.against;
  record.details["traces"] = result.num_traces;
  record.details["positions"] = positions;
  record.details["kl_by_trace"] = kl_by_trace_json(traces, result);
  record.details["kl_by_position"] = kl_stages_json(kl_by_stage(result, traces));
  record.details["kl_by_channel"] = kl_groups_json(
      kl_by_label(result, channel_by_position(state_->engine.require_tokenizer(), traces)));
  record.details["traces_hash"] = hash_hex(content_hash(traces_text(traces)));
  record.details["router_flip_rate_by_layer"] = result.router_flip_rate_by_layer;
  record.details["gate_mass_moved_by_layer"] = result.gate_mass_moved_by_layer;
  record.details["first_divergence"] = result.first_divergence;
  add_diverged_answers(follow_divergences(state_->engine, task, traces, result, scenario.max_tokens,
                                          options_.stop_requested),
                       result, record);
}

void CaseRunner::run_invariance_case(const InvarianceScenario& scenario, Record& record) {
  // Prompts alone are enough: what is compared is logits at every position.
  const TaskData data = find_task(scenario.task).load();
  std::vector<Trace> traces;
  for (const TaskItem& item : data.items) {
    if (static_cast<std::int64_t>(traces.size()) == scenario.items) break;
    const auto prompt = render(item_conversation(item, ReasoningEffort::kHigh), RenderOptions{},
                               state_->engine.require_tokenizer());
    traces.push_back({item.id, prompt, 1});
  }
  const InvarianceResult result = measure_invariance(state_->engine, traces);
  const auto positions = result.again.num_positions;
  record.metrics["deterministic"] =
      plain_metric(result.deterministic() ? 1 : 0, "bool", "higher", positions);
  record.metrics["batch_invariant"] =
      plain_metric(result.batch_invariant() ? 1 : 0, "bool", "higher", positions);
  OrderedJson arrangements = OrderedJson::array();
  const auto add = [&](const ArrangementResult& a) {
    // Infinity (a logit that is not finite) has no JSON.
    OrderedJson largest;
    if (std::isfinite(a.max_abs_difference)) largest = a.max_abs_difference;
    arrangements.push_back({{"name", a.name},
                            {"positions", a.num_positions},
                            {"different", a.num_different},
                            {"max_abs_difference", largest}});
  };
  add(result.again);
  for (const ArrangementResult& a : result.arrangements) add(a);
  record.details["arrangements"] = arrangements;
  record.details["digest"] = result.digest;
}

}  // namespace moebench
