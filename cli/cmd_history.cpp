// moebench history: runs of the past in a database, and what became of their metrics.
#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <memory>

#include "cli/command.h"
#include "cli/history_options.h"
#include "cli/run_summary.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"
#include "reports/gate.h"
#include "reports/history.h"
#include "reports/trend.h"

namespace moebench::cli {
namespace {

struct HistoryOptions {
  std::string db = default_history();
  std::vector<std::string> runs;
  HistoryAddition addition;
  HistoryFilter filter;
  std::string id;
  bool json = false;
  std::int64_t keep = 0;
  std::string before;
  bool dry_run = false;
  std::vector<std::string> metrics;
  std::vector<std::string> plans;
  std::string scenario;
  std::int64_t fail_if_worse = 0;
};

std::string short_id(const std::string& id) { return id.substr(0, 8); }

OrderedJson to_json(const HistoryEntry& entry) {
  return {{"id", entry.id},           {"name", entry.name},
          {"commit", entry.commit},   {"started", entry.started},
          {"added", entry.added},     {"suite", entry.suite},
          {"machine", entry.machine}, {"good", entry.good},
          {"cases", entry.cases},     {"cases_ok", entry.cases_ok}};
}

void print_json(const OrderedJson& json) {
  fmt::print("{}\n", json.dump(1, ' ', false, OrderedJson::error_handler_t::replace));
}

int run_add(const HistoryOptions& options) {
  // Read before anything is written: all of them, or none.
  std::vector<RunResults> runs;
  for (const std::string& path : options.runs) {
    for (RunResults& run : read_runs_in(path)) runs.push_back(std::move(run));
  }
  History history(options.db, true);
  for (const RunResults& run : runs) {
    bool is_new = false;
    const HistoryEntry entry = history.add(run, options.addition, is_new);
    fmt::print("{} {}: {}, {}, {} of {} cases ok{}\n", is_new ? "added" : "there already",
               short_id(entry.id), entry.name, entry.commit, entry.cases_ok, entry.cases,
               entry.good ? "" : "; no base of comparisons");
  }
  return kExitOk;
}

int run_list(const HistoryOptions& options) {
  History history(options.db, false);
  const std::vector<HistoryEntry> entries = history.list(options.filter);
  if (options.json) {
    OrderedJson list = OrderedJson::array();
    for (const HistoryEntry& entry : entries) list.push_back(to_json(entry));
    print_json(list);
    return kExitOk;
  }
  Table table({"id", "name", "commit", "started", "suite", ">ok", "good", "machine"});
  for (const HistoryEntry& entry : entries) {
    table.add({short_id(entry.id), entry.name, entry.commit, entry.started, entry.suite,
               fmt::format("{}/{}", entry.cases_ok, entry.cases), entry.good ? "yes" : "no",
               entry.machine});
  }
  fmt::print("{}", table.text());
  return kExitOk;
}

int run_show(const HistoryOptions& options) {
  History history(options.db, false);
  const HistoryEntry entry = history.find(options.id);
  const RunResults run = history.load(entry);
  if (options.json) {
    OrderedJson records = OrderedJson::array();
    for (const Record& record : run.records) records.push_back(to_json(record));
    print_json({{"entry", to_json(entry)}, {"run", run.description}, {"records", records}});
    return kExitOk;
  }
  fmt::print("{} ({}): {}, commit {}\nsuite {}, started {}, added {}\n{}\n\n{}", entry.id,
             entry.good ? "good" : "not good", entry.name, entry.commit, entry.suite, entry.started,
             entry.added, entry.machine, summary_table(run.records));
  return kExitOk;
}

int run_prune(const HistoryOptions& options) {
  require_or(ErrorCode::kUsage, (options.keep > 0) != !options.before.empty(),
             "prune a history: give either --keep N or --before DATE");
  require_or(ErrorCode::kUsage,
             options.before.empty() ||
                 options.before.find_first_not_of("0123456789-T:Z") == std::string::npos,
             "prune a history: --before '{}' is no date (2026-01-31 or 2026-01-31T12:00:00Z)",
             options.before);
  History history(options.db, false);
  std::vector<HistoryEntry> old;
  std::map<std::string, std::int64_t> seen;  // runs of each name, newest first
  for (const HistoryEntry& entry : history.list(options.filter)) {
    const bool too_old = !options.before.empty() && entry.started < options.before;
    const bool too_many = options.keep > 0 && ++seen[entry.name] > options.keep;
    if (too_old || too_many) old.push_back(entry);
  }
  if (!options.dry_run) history.remove(old);
  for (const HistoryEntry& entry : old) {
    fmt::print("{} {}: {}, {}\n", options.dry_run ? "would remove" : "removed", short_id(entry.id),
               entry.name, entry.started);
  }
  fmt::print("{} runs {}\n", old.size(), options.dry_run ? "would be removed" : "removed");
  return kExitOk;
}

std::string percent_or_value(const Trend& trend, double change) {
  if (trend.relative) return fmt::format("{:+.2f} %", 100 * change);
  return trend.series.unit == "share" ? fmt::format("{:+.2f} points", 100 * change)
                                      : fmt::format("{:+.4g} {}", change, trend.series.unit);
}

std::string noise_text(const Trend& trend) {
  return trend.noise ? percent_or_value(trend, *trend.noise).substr(1) : "-";
}

std::string level_text(const Trend& trend) {
  if (trend.series.unit == "share") return fmt::format("{:.1f} %", 100 * trend.level);
  if (trend.series.unit == "bytes") return format_bytes(trend.level);
  return fmt::format("{:.4g} {}", trend.level, trend.series.unit);
}

Table trend_table(const std::vector<Trend>& trends) {
  Table table({"case", "metric", ">runs", ">now", ">noise", ">visible", "changes"});
  for (const Trend& trend : trends) {
    std::string changes;
    for (const TrendChange& change : trend.changes) {
      changes += fmt::format("{}{} since {} ({})", changes.empty() ? "" : "; ",
                             percent_or_value(trend, change.change), change.commit,
                             change.for_the_worse ? "worse" : "better");
    }
    if (trend.last_is_odd) {
      changes += fmt::format("{}the last run alone: {}", changes.empty() ? "" : "; ",
                             percent_or_value(trend, trend.last_change));
    }
    table.add({fmt::format("{} / {}", trend.series.plan, trend.series.scenario),
               trend.series.metric, fmt::format("{}", trend.series.values.size()),
               level_text(trend), noise_text(trend),
               trend.visible ? percent_or_value(trend, *trend.visible).substr(1) : "-",
               changes.empty() ? "none" : changes});
  }
  return table;
}

int run_trend(const HistoryOptions& options) {
  std::vector<std::string> known;
  for (const auto& [name, rule] : default_gate().metrics) known.push_back(name);
  for (const std::string& metric : options.metrics) {
    require_or(ErrorCode::kUsage, !metric.empty(), "read --metric: it is empty");
  }
  History history(options.db, false);
  const auto wanted = [&](const HistorySeries& series) {
    const auto& plans = options.plans;
    const bool of_plan =
        plans.empty() || std::find(plans.begin(), plans.end(), series.plan) != plans.end();
    return of_plan && series.scenario.find(options.scenario) != std::string::npos;
  };
  const std::vector<Trend> trends = read_trends(history, options.filter, options.metrics, wanted);
  require(!trends.empty(),
          "show the trend: no good run has such a metric (see `moebench history list`; {})",
          options.metrics.empty() ? "nothing was measured"
                                  : suggestion(options.metrics.front(), known));
  if (options.json) {
    OrderedJson list = OrderedJson::array();
    for (const Trend& trend : trends) list.push_back(to_json(trend));
    print_json(list);
  } else {
    fmt::print("{}", trend_table(trends).text());
  }
  bool worse = false;
  for (const Trend& trend : trends) {
    if (options.fail_if_worse == 0 || trend.changes.empty()) continue;
    const TrendChange& last = trend.changes.back();
    const auto runs_since = static_cast<std::int64_t>(trend.series.values.size() - last.index);
    if (!last.for_the_worse || runs_since > options.fail_if_worse) continue;
    worse = true;
    fmt::print(stderr, "error: {} / {}: {} is worse by {} since {}\n", trend.series.plan,
               trend.series.scenario, trend.series.metric, percent_or_value(trend, last.change),
               last.commit);
  }
  return worse ? kExitRegression : kExitOk;
}

CLI::App* add_sub(CLI::App* parent, Action& action, const char* name, const char* description,
                  std::shared_ptr<HistoryOptions> options, int (*run)(const HistoryOptions&)) {
  CLI::App* command = add_command(*parent, action, name, description, options, run);
  add_history_option(command, options->db);
  return command;
}

void add_filter(CLI::App* command, HistoryOptions& options) {
  command->add_option("--name", options.filter.name, "Only runs of this name")->type_name("NAME");
  command->add_option("--suite", options.filter.suite, "Only runs of this suite")
      ->type_name("NAME");
}

}  // namespace

void add_history(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("history", "Keep runs in a database, and see their trends");
  command->require_subcommand(1);

  auto add = std::make_shared<HistoryOptions>();
  CLI::App* add_app = add_sub(command, action, "add", "Add runs", add, run_add);
  add_app->add_option("runs", add->runs, "Folders of runs, or folders that hold some")
      ->type_name("RUN...")
      ->required();
  add_app->add_option("--name", add->addition.name, "What they are runs of: a branch")
      ->type_name("NAME")
      ->capture_default_str();
  add_app
      ->add_option("--commit", add->addition.commit,
                   "What was measured (default: the commit of the program that ran it)")
      ->type_name("TEXT");
  add_app->add_flag("--bad", add->addition.bad,
                    "They failed their gate: in no trend, and no base of comparisons");
  add_examples(add_app, {"moebench history add run --name main --commit $(git rev-parse HEAD)",
                         "moebench history add run --db postgresql://ci@db.example/moebench"});

  auto list = std::make_shared<HistoryOptions>();
  CLI::App* list_app = add_sub(command, action, "list", "List runs, newest first", list, run_list);
  add_filter(list_app, *list);
  list_app->add_flag("--good", list->filter.only_good, "Only those that may be a base");
  list_app->add_option("--last", list->filter.last, "Only the newest N")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  list_app->add_flag("--json", list->json, "As JSON");

  auto show = std::make_shared<HistoryOptions>();
  CLI::App* show_app = add_sub(command, action, "show", "Show one run", show, run_show);
  show_app->add_option("id", show->id, "Its id, or the beginning of it")
      ->type_name("ID")
      ->required();
  show_app->add_flag("--json", show->json, "Description and records, as JSON");

  auto trend = std::make_shared<HistoryOptions>();
  CLI::App* trend_app =
      add_sub(command, action, "trend",
              "How metrics went over time, and where their level changed beyond their own noise",
              trend, run_trend);
  add_filter(trend_app, *trend);
  trend_app->add_option("--last", trend->filter.last, "Only the newest N runs")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  trend_app
      ->add_option("--metric", trend->metrics,
                   "Only this metric of records; repeatable (default: those that are compared)")
      ->type_name("NAME");
  trend_app->add_option("--plan", trend->plans, "Only this plan; repeatable")->type_name("NAME");
  trend_app->add_option("--case", trend->scenario, "Only scenarios that hold this text")
      ->type_name("TEXT");
  trend_app
      ->add_option("--fail-if-worse", trend->fail_if_worse,
                   "Exit with 1 if a level became worse within the last N runs")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  trend_app->add_flag("--json", trend->json, "With every value, as JSON");
  add_examples(trend_app, {"moebench history trend --name main",
                           "moebench history trend --metric accuracy --plan int4 --json",
                           "moebench history trend --name main --fail-if-worse 3"});

  auto prune = std::make_shared<HistoryOptions>();
  CLI::App* prune_app = add_sub(command, action, "prune", "Remove old runs", prune, run_prune);
  add_filter(prune_app, *prune);
  prune_app->add_option("--keep", prune->keep, "Keep the newest N of each name")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  prune_app->add_option("--before", prune->before, "Remove what started before this time (UTC)")
      ->type_name("DATE");
  prune_app->add_flag("--dry-run", prune->dry_run, "Say what would be removed");
  add_examples(command,
               {"moebench history add run --name main", "moebench history trend --name main",
                "moebench compare --baseline history:main new-run --gate gate.json"});
}

}  // namespace moebench::cli
