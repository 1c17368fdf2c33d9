// Runs into tables and back.
#include "reports/history.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "bench/environment.h"
#include "engine/utf8.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "reports/compare_metrics.h"
#include "reports/history_database.h"

namespace moebench {
namespace {

using comparing::object_at;
using comparing::text_at;
using history::Database;
using soci::into;
using soci::use;

constexpr std::size_t kMostText = 200;

// Names go into tables, terminals and pages.
void check_text(const std::string& text, const char* what) {
  require(text.size() <= kMostText, "add to the history: {} has {} bytes, at most {} work", what,
          text.size(), kMostText);
  for (const char c : text) {
    require(static_cast<unsigned char>(c) >= 32 && c != 127,
            "add to the history: {} holds control characters", what);
  }
  require(to_valid_utf8(text) == text, "add to the history: {} is not UTF-8", what);
}

// A text that both databases take and that may be shown: control characters would reach the
// terminal, and PostgreSQL refuses what is not UTF-8.
std::string shown(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }, '?');
  return to_valid_utf8(text);
}

// Whatever a description holds, as text of bounded length.
std::string field(const OrderedJson& description, const char* name) {
  return shown(text_at(description, name).substr(0, kMostText));
}

std::string answers_text(const RunResults& run, const Record& record) {
  std::string text;
  for (LedgerLine line : run.answers(record.case_id)) {
    drop_texts(line);
    text += json_line(to_json(line)) + "\n";
  }
  return text;
}

// A row of moebench_runs but its description, with the columns' own names.
constexpr const char* kSelectRuns =
    "SELECT id, name, commit_id, started, added, suite, machine, good, cases, cases_ok FROM "
    "moebench_runs ";

struct EntryRow {
  HistoryEntry entry;
  long long good = 0;
  long long cases = 0;
  long long cases_ok = 0;

  HistoryEntry take() const {
    HistoryEntry out = entry;
    for (std::string* text :
         {&out.id, &out.name, &out.commit, &out.started, &out.added, &out.suite, &out.machine}) {
      *text = shown(*text);
    }
    out.good = good != 0;
    out.cases = cases;
    out.cases_ok = cases_ok;
    return out;
  }
};

}  // namespace

std::string machine_text(const OrderedJson& description) {
  const OrderedJson& environment = object_at(description, "environment");
  const std::string gpu = text_at(object_at(environment, "gpu"), "name");
  const OrderedJson& threads = object_at(description, "threads");
  std::string text = text_at(environment, "cpu");
  if (!gpu.empty()) text += ", " + gpu;
  text += fmt::format(", {}", text_at(environment, "build_type"));
  if (threads.is_number_integer() && threads != 0) {
    text += fmt::format(", {} threads", threads.get<std::int64_t>());
  }
  return shown(text.substr(0, kMostText));
}

struct History::State {
  Database database;
};

History::History(const std::string& url, bool may_create)
    : state_(new State{Database(history::parse_url(url), may_create)}) {}

History::~History() = default;

HistoryEntry History::add(const RunResults& run, const HistoryAddition& addition, bool& is_new) {
  HistoryEntry entry;
  entry.name = addition.name;
  entry.commit = addition.commit.empty()
                     ? field(object_at(run.description, "environment"), "git_commit")
                     : addition.commit;
  check_text(entry.name, "the name");
  check_text(entry.commit, "the commit");
  require(!entry.name.empty(), "add to the history: the name is empty");
  require(!run.records.empty(), "add {} to the history: it has no records", run.path.string());
  entry.started = field(run.description, "started");
  entry.added = utc_now();
  entry.suite = field(run.description, "suite");
  entry.machine = machine_text(run.description);
  entry.cases = static_cast<std::int64_t>(run.records.size());
  const std::string description = json_line(run.description);
  std::vector<std::string> records;
  std::string content = description;
  for (const Record& record : run.records) {
    entry.cases_ok += record.status == Status::kOk ? 1 : 0;
    records.push_back(json_line(to_json(record)));
    content += "\n" + records.back();
  }
  entry.good = entry.cases_ok == entry.cases && !addition.bad;
  entry.id = hash_hex(content_hash(content, 1)) + hash_hex(content_hash(content, 2));

  state_->database.write("add a run", [&](soci::session& sql) {
    const long long good = entry.good ? 1 : 0;
    const long long cases = entry.cases;
    const long long cases_ok = entry.cases_ok;
    std::string inserted;
    sql << "INSERT INTO moebench_runs (id, name, commit_id, started, added, suite, machine, good, "
           "cases, cases_ok, description) VALUES (:id, :name, :commit_id, :started, :added, "
           ":suite, :machine, :good, :cases, :cases_ok, :description) ON CONFLICT DO NOTHING "
           "RETURNING id",
        use(entry.id), use(entry.name), use(entry.commit), use(entry.started), use(entry.added),
        use(entry.suite), use(entry.machine), use(good), use(cases), use(cases_ok),
        use(description), into(inserted);
    is_new = sql.got_data();
    if (!is_new) return;
    for (std::size_t i = 0; i < run.records.size(); ++i) {
      const Record& record = run.records[i];
      const auto place = static_cast<long long>(i);
      const std::string model = shown(record.model);
      const std::string plan = shown(record.plan);
      const std::string scenario = shown(scenario_of_label(record.label, record.plan));
      sql << "INSERT INTO moebench_records (run_id, place, model, plan, scenario, record) VALUES "
             "(:run_id, :place, :model, :plan, :scenario, :record)",
          use(entry.id), use(place), use(model), use(plan), use(scenario), use(records[i]);
      for (const auto& [name, metric] : record.metrics) {
        if (metric.absent || record.status != Status::kOk) continue;
        const std::string metric_name = shown(name);
        const std::string unit = shown(metric.unit);
        sql << "INSERT INTO moebench_metrics (run_id, place, metric, unit, better, value) VALUES "
               "(:run_id, :place, :metric, :unit, :better, :value)",
            use(entry.id), use(place), use(metric_name), use(unit), use(metric.better),
            use(metric.value);
      }
      if (record.kind != "task") continue;
      const std::string lines = answers_text(run, record);
      if (lines.empty()) continue;
      const std::string case_id = shown(record.case_id);
      sql << "INSERT INTO moebench_answers (run_id, case_id, lines) VALUES (:run_id, :case_id, "
             ":lines)",
          use(entry.id), use(case_id), use(lines);
    }
  });
  return is_new ? entry : find(entry.id);
}

std::vector<HistoryEntry> History::list(const HistoryFilter& filter) {
  std::vector<HistoryEntry> entries;
  state_->database.read("list runs", [&](soci::session& sql) {
    EntryRow row;
    HistoryEntry& e = row.entry;
    const long long any_quality = filter.only_good ? 0 : 1;
    const long long last = filter.last > 0 ? filter.last : (1LL << 40);
    // Each value is bound once for every place it stands in.
    soci::statement rows =
        (sql.prepare << std::string(kSelectRuns) +
                            "WHERE (:a = '' OR name = :b) AND (:c = '' OR suite = :d) AND (:e = '' "
                            "OR machine = :f) AND (good = 1 OR :g = 1) ORDER BY started DESC, "
                            "added DESC, id DESC LIMIT :h",
         use(filter.name), use(filter.name), use(filter.suite), use(filter.suite),
         use(filter.machine), use(filter.machine), use(any_quality), use(last), into(e.id),
         into(e.name), into(e.commit), into(e.started), into(e.added), into(e.suite),
         into(e.machine), into(row.good), into(row.cases), into(row.cases_ok));
    rows.execute();
    while (rows.fetch()) entries.push_back(row.take());
  });
  return entries;
}

HistoryEntry History::find(const std::string& id) {
  require(id.size() >= 4 && id.size() <= 32 &&
              id.find_first_not_of("0123456789abcdef") == std::string::npos,
          "find the run '{}' in the history: expected 4 to 32 hexadecimal digits, as `moebench "
          "history list` prints them",
          id.substr(0, 40));
  std::vector<HistoryEntry> found;
  state_->database.read("find a run", [&](soci::session& sql) {
    EntryRow row;
    HistoryEntry& e = row.entry;
    // All ids that begin so: a range, since digits and a-f come before 'g'.
    const std::string end = id + "g";
    soci::statement rows =
        (sql.prepare << std::string(kSelectRuns) + "WHERE id >= :low AND id < :high LIMIT 2",
         use(id), use(end), into(e.id), into(e.name), into(e.commit), into(e.started),
         into(e.added), into(e.suite), into(e.machine), into(row.good), into(row.cases),
         into(row.cases_ok));
    rows.execute();
    while (rows.fetch()) found.push_back(row.take());
  });
  require(!found.empty(), "find the run '{}' in the history: there is none", id);
  require(found.size() == 1, "find the run '{}' in the history: several begin so; give more digits",
          id);
  return found.front();
}

RunResults History::load(const HistoryEntry& entry) {
  RunResults run;
  run.path = "history:" + entry.name + "/" + entry.id.substr(0, 8);
  std::string description;
  std::vector<std::string> records;
  std::vector<std::pair<std::string, std::string>> answers;
  state_->database.read("load a run", [&](soci::session& sql) {
    sql << "SELECT description FROM moebench_runs WHERE id = :id", use(entry.id), into(description);
    require(sql.got_data(), "load the run {} from the history: it is gone", entry.id);
    std::string text;
    soci::statement rows = (sql.prepare << "SELECT record FROM moebench_records WHERE run_id = :id "
                                           "ORDER BY place",
                            use(entry.id), into(text));
    rows.execute();
    while (rows.fetch()) records.push_back(text);
    std::string case_id;
    soci::statement more = (sql.prepare << "SELECT case_id, lines FROM moebench_answers WHERE "
                                           "run_id = :id",
                            use(entry.id), into(case_id), into(text));
    more.execute();
    while (more.fetch()) answers.emplace_back(case_id, text);
  });
  const std::string where = run.path.string();
  const Json parsed = parse_json(description, where + ": description");
  require(parsed.is_object(), "{}: its description is no object", where);
  run.description = OrderedJson::parse(parsed.dump());
  run.description["folder"] = where;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::string place = fmt::format("{}: record {}", where, i);
    run.records.push_back(record_from_json(parse_json(records[i], place), place));
  }
  for (const auto& [case_id, text] : answers) {
    std::vector<LedgerLine>& lines = run.kept_answers[case_id];
    for_each_json_line(text, where + ": answers", 8, [&](const Json& json, const std::string& at) {
      lines.push_back(ledger_line_from_json(json, at));
    });
  }
  return run;
}

std::vector<HistorySeries> History::series(const HistoryFilter& filter,
                                           const std::vector<std::string>& metrics) {
  std::set<std::string> wanted;
  HistoryFilter good = filter;
  good.only_good = true;
  for (const HistoryEntry& entry : list(good)) wanted.insert(entry.id);
  using Key = std::vector<std::string>;
  std::map<Key, HistorySeries> found;
  std::vector<Key> order;
  for (const std::string& metric : metrics) {
    state_->database.read("read a metric", [&](soci::session& sql) {
      std::string id, commit, started, machine, model, plan, scenario, unit, better;
      double value = 0;
      soci::statement rows =
          (sql.prepare << "SELECT r.id, r.commit_id, r.started, r.machine, c.model, c.plan, "
                          "c.scenario, m.unit, m.better, m.value FROM moebench_metrics m JOIN "
                          "moebench_records c ON c.run_id = m.run_id AND c.place = m.place JOIN "
                          "moebench_runs r ON r.id = m.run_id WHERE m.metric = :metric AND "
                          "(:name = '' OR r.name = :same_name) ORDER BY r.started, r.added, r.id, "
                          "c.place",
           use(metric), use(filter.name), use(filter.name), into(id), into(commit), into(started),
           into(machine), into(model), into(plan), into(scenario), into(unit), into(better),
           into(value));
      rows.execute();
      while (rows.fetch()) {
        if (!wanted.contains(id) || !std::isfinite(value)) continue;
        const Key key = {machine, model, plan, scenario, metric};
        const auto [it, inserted] = found.try_emplace(key);
        HistorySeries& series = it->second;
        if (inserted) {
          order.push_back(key);
          series = {shown(model),
                    shown(plan),
                    shown(scenario),
                    metric,
                    shown(unit),
                    shown(better),
                    shown(machine),
                    {},
                    {},
                    {},
                    {}};
        }
        series.values.push_back(value);
        series.commits.push_back(shown(commit));
        series.started.push_back(shown(started));
        series.ids.push_back(shown(id));
      }
    });
  }
  std::vector<HistorySeries> list;
  for (const Key& key : order) list.push_back(std::move(found.at(key)));
  return list;
}

void History::remove(const std::vector<HistoryEntry>& entries) {
  state_->database.write("remove runs", [&](soci::session& sql) {
    for (const HistoryEntry& entry : entries) {
      sql << "DELETE FROM moebench_answers WHERE run_id = :id", use(entry.id);
      sql << "DELETE FROM moebench_metrics WHERE run_id = :id", use(entry.id);
      sql << "DELETE FROM moebench_records WHERE run_id = :id", use(entry.id);
      sql << "DELETE FROM moebench_runs WHERE id = :id", use(entry.id);
    }
  });
}

std::vector<RunResults> history_base(History& history, const std::string& name, std::int64_t count,
                                     const RunResults& candidate) {
  HistoryFilter filter;
  filter.name = name;
  filter.suite = field(candidate.description, "suite");
  filter.machine = machine_text(candidate.description);
  filter.only_good = true;
  // A suite of one name may have changed; `eval` is the suite of all evaluations. That both loaded
  // a model makes no base, unless that is all there is.
  std::set<std::string> cases;
  for (const Record& record : candidate.records) {
    if (record.kind != "load") cases.insert(record.case_id);
  }
  const bool only_loads = cases.empty();
  for (const Record& record : candidate.records) {
    if (only_loads) cases.insert(record.case_id);
  }
  std::vector<RunResults> base;
  for (const HistoryEntry& entry : history.list(filter)) {
    RunResults run = history.load(entry);
    const bool related =
        std::any_of(run.records.begin(), run.records.end(),
                    [&](const Record& record) { return cases.contains(record.case_id); });
    if (related) base.push_back(std::move(run));
    if (static_cast<std::int64_t>(base.size()) == count) break;
  }
  if (!base.empty()) return base;
  HistoryFilter any;
  any.name = name;
  const auto there = history.list(any);
  std::set<std::string> kinds;
  for (const HistoryEntry& entry : there) kinds.insert(entry.suite + " on " + entry.machine);
  std::string known;
  for (const std::string& kind : kinds) known += (known.empty() ? "" : "; ") + kind;
  fail(ErrorCode::kInvalidArgument,
       "take the base from history:{}: there is no good run of these cases of {} on {} ({} runs of "
       "that name{}{}; "
       "`moebench history add --name {}` adds one)",
       name, filter.suite, filter.machine, there.size(), known.empty() ? "" : ": ", known, name);
}

}  // namespace moebench
