// moebench fidelity: how far a plan's distributions are from the reference's.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "engine/mapped_file.h"
#include "evals/attribution.h"
#include "evals/fidelity.h"
#include "evals/fidelity_statistics.h"
#include "evals/run_task.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

struct FidelityOptions {
  ModelOptions common;
  std::string against = "reference";
  std::string text;
  std::string traces;
  std::int64_t tokens = 2048;
  std::string effort = "high";
  bool attribute = false;
  bool json = false;
};

// Plain text cut into sequences; each starts afresh, and every token after its first counts.
std::vector<Trace> traces_of_text(const Engine& engine, const std::string& path) {
  const std::vector<std::int32_t> ids = engine.require_tokenizer().encode(read_text_file(path));
  const auto length =
      static_cast<std::size_t>(std::min<std::int64_t>(engine.model->limits().max_context, 512));
  std::vector<Trace> traces;
  for (std::size_t begin = 0; begin + 1 < ids.size(); begin += length) {
    const std::size_t end = std::min(ids.size(), begin + length);
    if (end - begin < 2) break;
    traces.push_back({fmt::format("{}:{}", path, begin),
                      {ids.begin() + static_cast<std::ptrdiff_t>(begin),
                       ids.begin() + static_cast<std::ptrdiff_t>(end)},
                      1});
  }
  require(!traces.empty(), "compare fidelity: {} holds fewer than two tokens", path);
  return traces;
}

// Keeps whole traces until `tokens` counted positions are reached; the last one is cut.
// Returns how many are whole.
std::int64_t limit_positions(std::vector<Trace>& traces, std::int64_t tokens) {
  std::int64_t left = tokens;
  for (std::size_t i = 0; i < traces.size(); ++i) {
    const auto counted = static_cast<std::int64_t>(traces[i].tokens.size()) - traces[i].first;
    if (counted >= left) {
      traces[i].tokens.resize(static_cast<std::size_t>(traces[i].first + left));
      traces.resize(i + 1);
      return static_cast<std::int64_t>(i) + (counted == left ? 1 : 0);
    }
    left -= counted;
  }
  return static_cast<std::int64_t>(traces.size());
}

OrderedJson estimate_json(const MeanEstimate& e) {
  OrderedJson json = {{"value", e.mean}};
  if (e.interval) {
    json["low"] = e.interval->low;
    json["high"] = e.interval->high;
  } else {
    json["no_interval"] = e.reason;
  }
  return json;
}

OrderedJson result_json(const FidelityOptions& options, const FidelityResult& r) {
  return {{"model", options.common.model},
          {"plan", options.common.plan},
          {"against", options.against},
          {"traces", r.num_traces},
          {"positions", r.num_positions},
          {"mean_kl", estimate_json(r.mean_kl)},
          {"median_kl", r.median_kl},
          {"p90_kl", r.p90_kl},
          {"p99_kl", r.p99_kl},
          {"max_kl", r.max_kl},
          {"top1_agreement", estimate_json(r.top1_agreement)},
          {"mean_abs_delta_p", r.mean_abs_delta_p},
          {"reference_perplexity", r.reference_perplexity},
          {"plan_perplexity", r.plan_perplexity},
          {"router_flip_rate", r.router_flip_rate},
          {"router_flip_rate_by_layer", r.router_flip_rate_by_layer},
          {"gate_mass_moved", estimate_json(r.gate_mass_moved)},
          {"gate_mass_moved_by_layer", r.gate_mass_moved_by_layer},
          {"first_divergence", r.first_divergence}};
}

// The divergence's parts, as the options ask for them.
struct Parts {
  // Of traces that are whole answers to a task's questions; nothing for others.
  std::optional<std::vector<DivergedAnswer>> answers;
  std::int64_t whole_answers = 0;
  std::vector<KlGroup> by_channel;  // empty for plain text
  std::vector<KlStage> by_stage;
  std::vector<Attribution> attribution;
};

OrderedJson groups_json(const std::vector<KlGroup>& groups) {
  OrderedJson list = OrderedJson::array();
  for (const KlGroup& group : groups) {
    OrderedJson json = {{"name", group.name}, {"positions", group.mean_kl.num_values}};
    json.update(estimate_json(group.mean_kl));
    list.push_back(std::move(json));
  }
  return list;
}

OrderedJson stages_json(const std::vector<KlStage>& stages) {
  OrderedJson list = OrderedJson::array();
  for (const KlStage& stage : stages) {
    OrderedJson json = {
        {"from", stage.from}, {"to", stage.to}, {"positions", stage.mean_kl.num_values}};
    json.update(estimate_json(stage.mean_kl));
    list.push_back(std::move(json));
  }
  return list;
}

OrderedJson parts_json(const Parts& parts) {
  OrderedJson attribution = OrderedJson::array();
  for (const Attribution& one : parts.attribution) {
    OrderedJson json = {{"part", one.part}};
    if (one.reason.empty()) {
      json["mean_kl"] = estimate_json(one.mean_kl);
      json["top1_agreement"] = one.top1_agreement;
      json["router_flip_rate"] = one.router_flip_rate;
    } else {
      json["reason"] = one.reason;
    }
    attribution.push_back(std::move(json));
  }
  OrderedJson answers;
  if (parts.answers) {
    answers = OrderedJson::array();
    for (const DivergedAnswer& one : *parts.answers) answers.push_back(to_json(one));
  }
  return {{"diverged_answers", std::move(answers)},
          {"kl_by_channel", groups_json(parts.by_channel)},
          {"kl_by_position", stages_json(parts.by_stage)},
          {"attribution", std::move(attribution)}};
}

std::string kl_text(const MeanEstimate& e) {
  std::string text = fmt::format("{:.3e}", e.mean);
  if (e.interval) text += fmt::format(" [{:.3e}, {:.3e}]", e.interval->low, e.interval->high);
  return text;
}

void print_groups(const char* title, const std::vector<KlGroup>& groups) {
  if (groups.size() < 2) return;
  Table table({title, ">positions", ">mean KLD, nats [95 %]"});
  for (const KlGroup& group : groups) {
    table.add({group.name, fmt::format("{}", group.mean_kl.num_values), kl_text(group.mean_kl)});
  }
  fmt::print("\n{}\n", table.text());
}

void print_answers(const Parts& parts) {
  if (!parts.answers) return;
  const auto changed = std::count_if(parts.answers->begin(), parts.answers->end(),
                                     [](const DivergedAnswer& one) { return one.changed; });
  fmt::print("whole answers that came to another result from there: {} of {}\n", changed,
             parts.whole_answers);
}

void print_attribution(const std::vector<Attribution>& parts) {
  if (parts.empty()) return;
  Table table({"this part of the plan alone", ">mean KLD, nats [95 %]", ">same top p, %",
               ">router flips, %"});
  for (const Attribution& one : parts) {
    if (!one.reason.empty()) {
      table.add({one.part, "cannot run alone: " + one.reason, "-", "-"});
      continue;
    }
    table.add({one.part, kl_text(one.mean_kl), fmt::format("{:.2f}", 100 * one.top1_agreement),
               fmt::format("{:.3f}", 100 * one.router_flip_rate)});
  }
  fmt::print("\n{}\n", table.text());
}

// Names and order of llama-perplexity; its "±" is one standard error.
void print_result(const FidelityOptions& options, const FidelityResult& r) {
  fmt::print("{} against {}: {} positions of {} traces\n\n", options.common.plan, options.against,
             r.num_positions, r.num_traces);
  Table table({"statistic", ">value", "± standard error, by trace"});
  for (const NamedStatistic& row : llama_statistics(r)) {
    const bool is_share = row.name.ends_with("Δp") || row.name == "Same top p";
    const bool is_kl = row.name.ends_with("KLD");
    const auto number = [&](double value) {
      return is_share ? fmt::format("{:.3f} %", 100 * value)
             : is_kl  ? fmt::format("{:.3e}", value)
                      : fmt::format("{:.6f}", value);
    };
    table.add({row.name, number(row.value),
               row.standard_error ? "± " + number(*row.standard_error) : ""});
  }
  table.add({"Mean KLD, 95 % interval", kl_text(r.mean_kl), r.mean_kl.method});
  table.add({"Mean |Δp|", fmt::format("{:.3f} %", 100 * r.mean_abs_delta_p), ""});
  table.add(
      {"Router flips of (token, layer)", fmt::format("{:.3f} %", 100 * r.router_flip_rate), ""});
  table.add({"Gate mass moved", fmt::format("{:.3f} %", 100 * r.gate_mass_moved.mean), ""});
  fmt::print("{}\n", table.text());
  for (std::size_t l = 0; l < r.router_flip_rate_by_layer.size(); ++l) {
    fmt::print("router flips in layer {:>3}: {:.3f} %, gate mass moved {:.3f} %\n", l,
               100 * r.router_flip_rate_by_layer[l], 100 * r.gate_mass_moved_by_layer[l]);
  }
  std::int64_t diverged = 0;
  for (const std::int64_t token : r.first_divergence) diverged += token >= 0 ? 1 : 0;
  fmt::print("traces on which the most probable token ever differs: {} of {}\n", diverged,
             r.num_traces);
}

int run_fidelity(const FidelityOptions& options) {
  require_or(ErrorCode::kUsage, options.text.empty() || options.traces.empty(),
             "compare fidelity: give --text or --traces, not both");
  ThreadPool pool(options.common.threads);
  EngineOptions engine_options;
  engine_options.max_batch = 16;
  engine_options.logit_rows = 32;
  engine_options.step_tokens = 256;
  Engine reference =
      load_engine(options.common.model, parse_plan(options.against), engine_options, pool);
  std::vector<Trace> traces;
  if (!options.text.empty()) {
    traces = traces_of_text(reference, options.text);
  } else if (!options.traces.empty()) {
    traces = load_traces(options.traces);
  } else {
    // The reference's own answers: about 64 tokens each at the very least.
    const std::int64_t items = std::max<std::int64_t>(1, options.tokens / 32);
    traces = make_traces(reference, find_task("nano"), effort_from_name(options.effort, "--effort"),
                         std::min<std::int64_t>(items, 512), 0, {});
  }
  const std::int64_t whole = limit_positions(traces, options.tokens);
  Engine plan =
      load_engine(options.common.model, parse_plan(options.common.plan), engine_options, pool);
  const FidelityResult result = compare_fidelity(reference, plan, traces);
  Parts parts;
  // Traces of others may be no answers: their channels are not read.
  if (options.text.empty() && options.traces.empty()) {
    parts.by_channel =
        kl_by_label(result, channel_by_position(reference.require_tokenizer(), traces));
    parts.whole_answers = whole;
    parts.answers =
        follow_divergences(plan, find_task("nano"),
                           std::span(traces).first(static_cast<std::size_t>(whole)), result, 0, {});
  }
  parts.by_stage = kl_by_stage(result, traces);
  if (options.attribute) {
    parts.attribution =
        attribute_divergence(options.common.model, parse_plan(options.against), reference,
                             parse_plan(options.common.plan), plan, engine_options, pool, traces);
  }
  if (options.json) {
    OrderedJson json = result_json(options, result);
    json.update(parts_json(parts));
    fmt::print("{}\n", json.dump(2));
  } else {
    print_result(options, result);
    print_answers(parts);
    print_groups("channel", parts.by_channel);
    std::vector<KlGroup> stages;
    for (const KlStage& stage : parts.by_stage) {
      stages.push_back({stage.to == stage.from + 1
                            ? fmt::format("{}", stage.from)
                            : fmt::format("{} to {}", stage.from, stage.to - 1),
                        stage.mean_kl});
    }
    print_groups("token of the answer", stages);
    print_attribution(parts.attribution);
  }
  return kExitOk;
}

}  // namespace

void add_fidelity(CLI::App& app, Action& action) {
  auto options = std::make_shared<FidelityOptions>();
  CLI::App* command =
      add_command(app, action, "fidelity",
                  "How far a plan's output distribution is from the reference's, token by token",
                  options, run_fidelity);
  add_model_option(command, options->common.model);
  command->add_option("--plan", options->common.plan, kPlanHelp)
      ->type_name("P")
      ->check(is_plan())
      ->required();
  command->add_option("--against", options->against, "The plan to compare with")
      ->type_name("P")
      ->check(is_plan())
      ->capture_default_str();
  command
      ->add_option("--text", options->text,
                   "Compare on this text (default: the reference's own answers to nano's "
                   "questions)")
      ->type_name("FILE");
  command
      ->add_option("--traces", options->traces,
                   "Compare on these: JSON lines {\"tokens\": [...], \"first\": n}")
      ->type_name("FILE");
  command->add_option("--tokens", options->tokens, "Positions to compare, at most")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--effort", options->effort, "Reasoning effort of the reference's answers")
      ->type_name("E")
      ->check(is_effort())
      ->capture_default_str();
  add_threads_option(command, options->common.threads);
  command->add_flag("--attribute", options->attribute,
                    "Also which part of the plan costs it: one weight group, the cache or one op "
                    "at a time in the plan compared with");
  command->add_flag("--json", options->json, "As JSON");
  add_examples(command, {"moebench fidelity --model nano --plan int4",
                         "moebench fidelity --model nano --plan int4 --attribute",
                         "moebench fidelity --model DIR --plan experts=nvfp4,kv=fp8_e4m3 "
                         "--text book.txt --tokens 4096 --json"});
}

}  // namespace moebench::cli
