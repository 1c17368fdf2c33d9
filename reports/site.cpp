// Collecting runs into a site.
#include "reports/site.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/scenario.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/compare.h"
#include "reports/html.h"
#include "reports/published_scores.h"

namespace moebench {
namespace {

std::string started(const RunResults& run) { return run.description.value("started", ""); }

// What numbers of speed belong to.
std::string machine_of(const RunResults& run) {
  const OrderedJson environment = run.description.value("environment", OrderedJson::object());
  std::string text = environment.value("cpu", "");
  if (const auto cpus = environment.value("usable_cpus", 0); cpus > 0) {
    text += fmt::format(", {} CPUs", cpus);
  }
  if (environment.contains("gpu")) text += ", " + environment.at("gpu").value("name", "");
  return text.empty() ? "unknown machine" : text;
}

double parameters_of(const RunResults& run, const std::string& name) {
  for (const OrderedJson& model : run.description.value("models", OrderedJson::array())) {
    if (model.value("name", "") == name) return model.value("parameters", 0.0);
  }
  return 0;
}

// Metrics worth a column, by kind of record.
std::vector<std::string> shown_metrics(const std::string& kind) {
  if (kind == "load") return {"weights_bytes"};
  if (kind == "decode" || kind == "prefill" || kind == "serve") return {rate_metric(kind)};
  if (kind == "task") return {"accuracy"};
  if (kind == "fidelity") return {"mean_kl", "top1_agreement"};
  return {};
}

// Numbers of one run: {machine, model, plan, scenario, metric, value, ...}.
void add_numbers(const RunResults& run, const std::string& name, OrderedJson& numbers) {
  for (const Record& record : run.records) {
    if (record.status != Status::kOk) continue;
    const OrderedJson metrics = to_json(record).at("metrics");
    for (const std::string& metric : shown_metrics(record.kind)) {
      if (!metrics.contains(metric) || !metrics.at(metric).at("value").is_number()) continue;
      const OrderedJson& m = metrics.at(metric);
      OrderedJson number = {{"machine", machine_of(run)},
                            {"model", record.model},
                            {"plan", record.plan},
                            {"kind", record.kind},
                            {"scenario", scenario_of_label(record.label, record.plan)},
                            {"metric", metric},
                            {"unit", m.at("unit")},
                            {"value", m.at("value")},
                            {"low", OrderedJson()},
                            {"high", OrderedJson()},
                            {"run", name},
                            {"started", started(run)}};
      if (m.contains("interval")) {
        number["low"] = m.at("interval").at("low");
        number["high"] = m.at("interval").at("high");
      }
      if (record.kind == "task") {
        const auto* published = published_score(
            task_title(record.scenario.value("task", ""), record.scenario.value("protocol", "")),
            published_model(parameters_of(run, record.model)));
        const double score =
            published == nullptr ? NAN : published->of_effort(record.scenario.value("effort", ""));
        if (std::isfinite(score)) {
          number["published"] = {{"value", score},
                                 {"benchmark", published->benchmark},
                                 {"model", published->model},
                                 {"source", kPublishedSource},
                                 {"url", kPublishedUrl}};
        }
      }
      numbers.push_back(std::move(number));
    }
  }
}

// The newest number of each (machine, model, plan, scenario, metric). `numbers` are in order of
// time.
OrderedJson newest(const OrderedJson& numbers) {
  std::vector<std::vector<std::string>> keys;
  OrderedJson kept = OrderedJson::array();
  for (auto it = numbers.rbegin(); it != numbers.rend(); ++it) {
    std::vector<std::string> key;
    for (const char* name : {"machine", "model", "plan", "scenario", "metric"}) {
      key.push_back(it->at(name).get<std::string>());
    }
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    keys.push_back(std::move(key));
    kept.push_back(*it);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

// A run against the one before it of the same suite; null if they cannot be compared at all.
OrderedJson compare_with_previous(const RunResults& before, const std::string& before_name,
                                  const RunResults& run, const std::string& name,
                                  const SiteOptions& options) {
  OrderedJson json = {{"run", name},
                      {"base", before_name},
                      {"suite", run.description.value("suite", "")},
                      {"started", started(run)}};
  CompareOptions compare;
  compare.gate = options.gate;
  try {
    const OrderedJson comparison = to_json(compare_sides({before}, {{run}}, compare));
    OrderedJson regressions = OrderedJson::array();
    for (const OrderedJson& metric : comparison.at("metrics")) {
      if (metric.at("outcome") != "REGRESSED" || !metric.at("required").get<bool>()) continue;
      OrderedJson one = OrderedJson::object();
      for (const char* field : {"model", "plan", "scenario", "metric", "unit", "base", "candidate",
                                "change", "relative", "margin", "interval"}) {
        one[field] = metric.at(field);
      }
      regressions.push_back(std::move(one));
    }
    json["verdict"] = comparison.at("verdict");
    json["regressions"] = std::move(regressions);
  } catch (const Error& error) {
    json["verdict"] = "NOT COMPARABLE";
    json["regressions"] = OrderedJson::array();
    json["reason"] = error.what();
  }
  return json;
}

OrderedJson describe(const RunResults& run, const std::string& name) {
  std::set<std::string> models;
  std::vector<std::string> plans;
  std::int64_t failed = 0;
  for (const Record& record : run.records) {
    models.insert(record.model);
    if (std::find(plans.begin(), plans.end(), record.plan) == plans.end()) {
      plans.push_back(record.plan);
    }
    failed += record.status != Status::kOk ? 1 : 0;
  }
  const OrderedJson environment = run.description.value("environment", OrderedJson::object());
  return {{"name", name},
          {"suite", run.description.value("suite", "")},
          {"started", started(run)},
          {"machine", machine_of(run)},
          {"version", environment.value("version", "")},
          {"git_commit", environment.value("git_commit", "")},
          {"models", models},
          {"plans", plans},
          {"cases", run.records.size()},
          {"failed_cases", failed},
          {"page", fmt::format("runs/{}/index.html", name)},
          {"json", fmt::format("runs/{}/report.json", name)}};
}

}  // namespace

std::vector<std::string> machines_of(const OrderedJson& list) {
  std::vector<std::string> machines;
  for (const OrderedJson& one : list) {
    const auto machine = one.at("machine").get<std::string>();
    if (std::find(machines.begin(), machines.end(), machine) == machines.end()) {
      machines.push_back(machine);
    }
  }
  return machines;
}

std::vector<std::string> site_names(const std::vector<RunResults>& runs) {
  std::vector<std::string> names;
  for (const RunResults& run : runs) {
    std::string name;
    for (const char c : run.description.value("folder", std::string())) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '_' || (c == '.' && !name.empty());
      if (plain) {
        name += c;
      } else if (!name.empty() && name.back() != '-') {
        name += '-';
      }
    }
    while (!name.empty() && name.back() == '-') name.pop_back();
    if (name.empty()) name = "run";
    std::string free = name;
    for (int i = 2; std::find(names.begin(), names.end(), free) != names.end(); ++i) {
      free = fmt::format("{}-{}", name, i);
    }
    names.push_back(free);
  }
  return names;
}

OrderedJson build_site(const std::vector<RunResults>& runs, const std::vector<std::string>& names,
                       const SiteOptions& options) {
  std::vector<std::size_t> order(runs.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return started(runs[a]) < started(runs[b]);
  });
  OrderedJson numbers = OrderedJson::array();
  OrderedJson descriptions = OrderedJson::array();
  OrderedJson comparisons = OrderedJson::array();
  std::map<std::string, std::size_t> last_of_suite;
  for (const std::size_t i : order) {
    add_numbers(runs[i], names[i], numbers);
    descriptions.push_back(describe(runs[i], names[i]));
    const auto suite = runs[i].description.value("suite", std::string());
    if (const auto last = last_of_suite.find(suite); last != last_of_suite.end()) {
      comparisons.push_back(compare_with_previous(runs[last->second], names[last->second], runs[i],
                                                  names[i], options));
    }
    last_of_suite[suite] = i;
  }
  // Newest first, as people read.
  std::reverse(descriptions.begin(), descriptions.end());
  std::reverse(comparisons.begin(), comparisons.end());
  OrderedJson scores = OrderedJson::array();
  for (const PublishedScore& score : published_scores()) {
    scores.push_back({{"benchmark", score.benchmark},
                      {"task", score.task},
                      {"model", score.model},
                      {"unit", score.is_share ? "share" : "Elo"},
                      {"low", score.low},
                      {"medium", score.medium},
                      {"high", score.high}});
  }
  OrderedJson site = {
      {"schema", kSiteSchema},
      {"title", options.title},
      {"url", options.url},
      {"generated", utc_now()},
      {"generator", {{"version", build_info::kVersion}, {"git_commit", build_info::kGitCommit}}},
      {"leaderboard", newest(numbers)},
      {"comparisons", std::move(comparisons)},
      {"runs", std::move(descriptions)},
      {"published",
       {{"source", kPublishedSource},
        {"url", kPublishedUrl},
        {"note", kPublishedNote},
        {"scores", std::move(scores)}}}};
  if (!options.trends.empty()) site["trends"] = OrderedJson::array();
  for (const Trend& trend : options.trends) site["trends"].push_back(to_json(trend));
  return site;
}

OrderedJson write_site(const std::vector<std::filesystem::path>& paths,
                       const std::filesystem::path& out, const SiteOptions& options) {
  require(!paths.empty(), "publish: no run was given");
  std::vector<RunResults> runs;
  for (const std::filesystem::path& path : paths) {
    for (RunResults& run : read_runs_in(path)) runs.push_back(std::move(run));
  }
  const std::vector<std::string> names = site_names(runs);
  const auto text = [](const OrderedJson& json) {
    return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  };
  ReportOptions report_options;
  report_options.include_items = options.include_items;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::filesystem::path folder = out / "runs" / names[i];
    std::filesystem::create_directories(folder);
    const OrderedJson report = build_report({runs[i].path}, report_options);
    write_file_atomically(folder / "report.json", text(report));
    write_file_atomically(folder / "index.html", render_html(report, "../../index.html"));
  }
  const OrderedJson site = build_site(runs, names, options);
  std::filesystem::create_directories(out / "badges");
  for (const auto& [name, content] : site_badges(site)) {
    write_file_atomically(out / "badges" / name, content);
  }
  write_file_atomically(out / "index.json", text(site));
  write_file_atomically(out / "leaderboard.csv", site_csv(site));
  write_file_atomically(out / "feed.xml", site_feed(site));
  write_file_atomically(out / ".nojekyll", "");
  // Last: who sees the page finds everything it links to.
  write_file_atomically(out / "index.html", site_page(site));
  return site;
}

}  // namespace moebench
