// A history of runs: the same behaviour on SQLite and on a real PostgreSQL server.
#include <soci/soci.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "reports/compare.h"
#include "reports/history.h"
#include "reports/history_database.h"
#include "reports/trend.h"
#include "tests/support/postgres_server.h"
#include "tests/support/run_folder.h"

namespace moebench::test {
namespace {

namespace fs = std::filesystem;

// A run of one decode case at this speed, as if read from a folder.
RunResults run_of(double rate, const std::string& started, const std::string& suite = "s",
                  const std::string& cpu = "a cpu") {
  RunResults run;
  run.path = "by hand";
  run.description = {
      {"schema", kRunSchema},
      {"suite", suite},
      {"started", started},
      {"threads", 2},
      {"environment", {{"cpu", cpu}, {"build_type", "Release"}, {"git_commit", "c0ffee"}}},
      {"models", OrderedJson::array()},
      {"plans", OrderedJson::array()}};
  Record record;
  record.case_id = "0000000000000001";
  record.label = "fast / decode batch 1";
  record.model = "m";
  record.plan = "fast";
  record.kind = "decode";
  record.scenario = {{"kind", "decode"}, {"batch", 1}};
  Metric metric;
  metric.value = rate;
  metric.unit = "tokens/s";
  metric.better = "higher";
  metric.count = 3;
  metric.samples = {rate, rate * 1.01, rate * 0.99};
  record.metrics[rate_metric("decode")] = metric;
  // As a file gives it: with the fields of the scenario in another order.
  run.records.push_back(record_from_json(Json::parse(json_line(to_json(record))), "by hand"));
  return run;
}

std::string day(int number) { return fmt::format("2026-01-{:02}T12:00:00Z", number); }

HistoryEntry add(History& history, const RunResults& run, const std::string& name = "main",
                 const std::string& commit = "", bool bad = false) {
  bool is_new = false;
  const HistoryEntry entry = history.add(run, {name, commit, bad}, is_new);
  CHECK(is_new);
  return entry;
}

// A connection that our code knows nothing of.
struct RawSession : soci::session {
  explicit RawSession(const std::string& url) { history::connect(*this, history::parse_url(url)); }
};

// --- What both databases must do: each is given the url of an empty one --------------------------

void gives_back_what_was_added(const std::string& url) {
  RunFolder folder;
  LedgerLine wrong = answer("q2", false);
  wrong.analysis = "thinking";
  wrong.tokens = {1, 2};
  wrong.token_bytes = {5, 3};
  wrong.token_digest = "0123456789abcdef";
  const Record task = folder.add_task("reference", {answer("q1", true), wrong});
  const RunResults run = read_run_results(folder.path());
  History history(url, true);
  const HistoryEntry entry = add(history, run, "main", "abc123");
  CHECK(entry.id.size() == 32);
  CHECK(entry.commit == "abc123");
  CHECK(entry.good);
  const RunResults back = history.load(history.find(entry.id.substr(0, 6)));
  REQUIRE(back.records.size() == 1);
  CHECK(json_line(to_json(back.records[0])) == json_line(to_json(run.records[0])));
  CHECK(back.description.at("models") == run.description.at("models"));
  const auto lines = back.answers(task.case_id);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].verdict == Verdict::kCorrect);
  CHECK(lines[1].token_digest == "0123456789abcdef");
  CHECK(lines[1].tokens.empty());
  CHECK(lines[1].analysis == "");  // texts stay where they were written
  CHECK(lines[1].final_text == "");
  // The same run again is the same row, whatever it is called.
  bool is_new = true;
  CHECK(history.add(run, {"other", "", false}, is_new).name == "main");
  CHECK_FALSE(is_new);
  CHECK(history.list().size() == 1);
  CHECK_THROWS_WITH(history.find("ffffffff"), Catch::Contains("there is none"));
  CHECK_THROWS_WITH(history.find("x' OR '1"), Catch::Contains("hexadecimal digits"));
}

void lists_and_removes(const std::string& url) {
  History history(url, true);
  add(history, run_of(1, day(3)));
  add(history, run_of(2, day(1)));
  add(history, run_of(3, day(2)), "branch");
  RunResults broken = run_of(4, day(4));
  broken.records[0].status = Status::kCrashed;
  add(history, broken);
  add(history, run_of(5, day(5)), "main", "", true);
  const auto started = [&](const HistoryFilter& filter) {
    std::vector<std::string> list;
    for (const HistoryEntry& entry : history.list(filter)) list.push_back(entry.started);
    return list;
  };
  CHECK(started({}) == std::vector<std::string>{day(5), day(4), day(3), day(2), day(1)});
  HistoryFilter filter;
  filter.name = "main";
  CHECK(started(filter).size() == 4);
  filter.only_good = true;
  CHECK(started(filter) == std::vector<std::string>{day(3), day(1)});
  filter.last = 1;
  CHECK(started(filter) == std::vector<std::string>{day(3)});
  filter = {};
  filter.suite = "another";
  CHECK(started(filter).empty());
  history.remove(history.list({"branch", "", "", false, 0}));
  CHECK(started({}).size() == 4);
  // Nothing of it stays behind.
  RawSession sql(url);
  for (const char* table : {"runs", "records", "metrics"}) {
    long long rows = 0;
    sql << "SELECT count(*) FROM moebench_" << table, soci::into(rows);
    CHECK(rows == (std::string(table) == "metrics" ? 3 : 4));  // a crashed case has none
  }
}

void takes_values_as_values(const std::string& url) {
  History history(url, true);
  const std::string nasty = "x'); DROP TABLE moebench_runs; --\" :name $1 %s \\";
  RunResults run = run_of(1, day(1), nasty, nasty);
  run.records[0].label = "fast / " + nasty;
  run.records[0].reason = std::string("a\0b \xff\x1b[31m", 11);
  const HistoryEntry entry = add(history, run, nasty, nasty);
  HistoryFilter filter;
  filter.name = nasty;
  filter.suite = nasty;
  REQUIRE(history.list(filter).size() == 1);
  CHECK(history.list(filter)[0].commit == nasty);
  CHECK(history.load(entry).records[0].label == "fast / " + nasty);
  filter.name = "' OR '1'='1";
  CHECK(history.list(filter).empty());
  CHECK(history.series(filter, {"' OR '1'='1"}).empty());
  bool is_new = false;
  for (const std::string& bad : {std::string("a\nb"), std::string("\x1b[2J"), std::string(201, 'x'),
                                 std::string("\xff\xfe"), std::string()}) {
    CHECK_THROWS_AS(history.add(run, {bad, "", false}, is_new), Error);
  }
  // A commit that comes out of the run's own file is made showable.
  run.description["environment"]["git_commit"] = "\x1b[2J\xff";
  CHECK(add(history, run, "main").commit == "?[2J\xEF\xBF\xBD");
}

void refuses_broken_content(const std::string& url) {
  History history(url, true);
  const HistoryEntry entry = add(history, run_of(1, day(1)));
  RawSession sql(url);
  const auto with_record = [&](const std::string& text) {
    sql << "UPDATE moebench_records SET record = :text", soci::use(text);
    history.load(entry);
  };
  CHECK_THROWS_WITH(with_record("{"),
                    Catch::Contains("history:main/") && Catch::Contains("record 0"));
  CHECK_THROWS_WITH(with_record("[]"), Catch::Contains("record 0"));
  CHECK_THROWS_AS(with_record(std::string(100000, '[')), Error);
  CHECK_THROWS_WITH(with_record(R"({"schema": "moebench.record/9"})"),
                    Catch::Contains("moebench.record/9"));
  const std::string escape = "\x1b[2J";
  const std::string list = "[1]";
  sql << "UPDATE moebench_runs SET description = :list, machine = :escape", soci::use(list),
      soci::use(escape);
  CHECK_THROWS_WITH(history.load(entry), Catch::Contains("its description is no object"));
  CHECK(history.list().at(0).machine == "?[2J");  // nothing reaches the terminal as it is
}

void migrates_old_tables(const std::string& url) {
  const history::Place place = history::parse_url(url);
  // Version 1 had no answers.
  {
    history::Database old(place, true, 1);
    old.session() << "INSERT INTO moebench_runs (id, name, commit_id, started, added, suite, "
                     "machine, good, cases, cases_ok, description) VALUES ('0011', 'main', 'c', "
                     "'2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z', 's', 'a cpu, Release, 2 "
                     "threads', 1, 0, 0, '{}')";
  }
  History history(url, false);
  REQUIRE(history.list().size() == 1);
  CHECK(history.list()[0].commit == "c");
  CHECK(history.load(history.list()[0]).records.empty());
  add(history, run_of(1, day(1)));
  CHECK(history.list().size() == 2);
  // What a newer program made is left alone.
  RawSession(url) << "INSERT INTO moebench_schema (version, applied) VALUES (99, 'x')";
  CHECK_THROWS_WITH(History(url, true),
                    Catch::Contains("a newer moebench made it") && Catch::Contains("version 99"));
}

void gives_the_last_good_runs_as_base(const std::string& url) {
  History history(url, true);
  for (int i = 1; i <= 6; ++i) add(history, run_of(100 + i, day(i)));
  add(history, run_of(50, day(7)), "main", "", true);     // failed its gate
  add(history, run_of(51, day(8)), "branch");             // of another name,
  add(history, run_of(52, day(9), "other suite"));        // suite,
  add(history, run_of(53, day(10), "s", "another cpu"));  // and machine
  const RunResults candidate = run_of(104, day(11));
  const auto base = history_base(history, "main", 3, candidate);
  REQUIRE(base.size() == 3);
  CHECK(base[0].description.at("started") == day(6));
  CHECK(base[2].description.at("started") == day(4));
  // Three runs a side would show how much runs differ; one candidate is held against all of them.
  const RunComparison comparison = compare_sides(base, {{candidate}}, {});
  REQUIRE(comparison.metrics.size() == 1);
  CHECK(comparison.metrics[0].base == Approx(105).epsilon(0.001));
  CHECK_THROWS_WITH(
      history_base(history, "nobody", 3, candidate),
      Catch::Contains("no good run of these cases of s on a cpu") && Catch::Contains("0 runs"));
  CHECK_THROWS_WITH(history_base(history, "branch", 3, run_of(1, day(1), "t")),
                    Catch::Contains("s on a cpu, Release, 2 threads"));
}

void shows_a_step_as_a_trend(const std::string& url) {
  History history(url, true);
  // Added in no order: a series is ordered by when its runs started.
  for (const int i : {12, 3, 1, 9, 7, 2, 5, 4, 10, 6, 11, 8}) {
    const double wobble = i % 2 == 0 ? 0.5 : -0.5;
    add(history, run_of((i < 9 ? 100 : 90) + wobble, day(i)), "main", fmt::format("commit{}", i));
  }
  const auto series = history.series({"main", "", "", false, 0}, {rate_metric("decode")});
  REQUIRE(series.size() == 1);
  CHECK(series[0].values.size() == 12);
  CHECK(series[0].values[0] == 99.5);
  const Trend trend = trend_of(series[0]);
  REQUIRE(trend.changes.size() == 1);
  CHECK(trend.changes[0].commit == "commit9");
  CHECK(trend.changes[0].change == Approx(-0.1).margin(0.002));
  CHECK(trend.changes[0].for_the_worse);
  CHECK(trend.level == Approx(90).epsilon(0.001));
  CHECK_FALSE(trend.last_is_odd);
  // Another machine is another series.
  add(history, run_of(10, day(13), "s", "another cpu"));
  CHECK(history.series({}, {rate_metric("decode")}).size() == 2);
}

// Eight processes add a hundred runs each at once; one of them is killed in the middle.
void loses_nothing_of_many_writers(const std::string& url) {
  constexpr int kWriters = 8;
  constexpr int kRuns = 100;
  constexpr int kKilled = 3;
  const TemporaryDirectory folder;
  const auto log_of = [&](int writer) { return folder.path() / fmt::format("{}", writer); };
  const auto acknowledged = [&](int writer) {
    const std::string text = fs::exists(log_of(writer)) ? read_file(log_of(writer)) : "";
    return static_cast<std::int64_t>(std::count(text.begin(), text.end(), '\n'));
  };
  std::vector<pid_t> children;
  for (int writer = 0; writer < kWriters; ++writer) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        LineWriter log(log_of(writer));
        for (int i = 0; i < kRuns; ++i) {
          // A connection for each, as CI jobs have; the first ones race to make the tables.
          History history(url, true);
          bool is_new = false;
          const HistoryEntry entry = history.add(
              run_of(1000 * writer + i + 1,
                     fmt::format("2026-02-{:02}T00:{:02}:{:02}Z", writer + 1, i / 60, i % 60)),
              {fmt::format("writer{}", writer), "", false}, is_new);
          log.append(entry.id);
        }
      } catch (const std::exception& error) {
        LineWriter(folder.path() / "errors").append(error.what());
        _exit(1);
      }
      _exit(0);
    }
    children.push_back(child);
  }
  while (acknowledged(kKilled) < 20) {
    usleep(500);
    int status = 0;
    REQUIRE(waitpid(children[kKilled], &status, WNOHANG) == 0);
  }
  kill(children[kKilled], SIGKILL);
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    const std::string errors =
        fs::exists(folder.path() / "errors") ? read_file(folder.path() / "errors") : "";
    INFO(errors);
    const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    CHECK((child == children[kKilled] ? WIFSIGNALED(status) : ended_well));
  }
  History history(url, false);
  for (int writer = 0; writer < kWriters; ++writer) {
    const auto there = static_cast<std::int64_t>(
        history.list({fmt::format("writer{}", writer), "", "", false, 0}).size());
    if (writer != kKilled) {
      CHECK(there == kRuns);
      continue;
    }
    // What was acknowledged is there; the one under way may be, whole.
    CHECK(there >= acknowledged(writer));
    CHECK(there <= acknowledged(writer) + 1);
  }
  // No run lacks its record, no record its metric.
  RawSession sql(url);
  long long runs = 0;
  long long whole = 0;
  sql << "SELECT count(*) FROM moebench_runs", soci::into(runs);
  sql << "SELECT count(*) FROM moebench_runs r JOIN moebench_records c ON c.run_id = r.id JOIN "
         "moebench_metrics m ON m.run_id = r.id AND m.place = c.place",
      soci::into(whole);
  CHECK(runs == whole);
  CHECK(runs >= 7 * kRuns + 20);
}

using Behaviour = void (*)(const std::string& url);
const std::vector<std::pair<const char*, Behaviour>>& behaviours() {
  static const std::vector<std::pair<const char*, Behaviour>> kAll = {
      {"gives back what was added", gives_back_what_was_added},
      {"lists and removes", lists_and_removes},
      {"takes values as values", takes_values_as_values},
      {"refuses broken content", refuses_broken_content},
      {"migrates old tables", migrates_old_tables},
      {"gives the last good runs as base", gives_the_last_good_runs_as_base},
      {"shows a step as a trend", shows_a_step_as_a_trend},
      {"loses nothing of eight writers, one killed", loses_nothing_of_many_writers},
  };
  return kAll;
}

}  // namespace

TEST_CASE("history on SQLite") {
  for (const auto& [name, behaviour] : behaviours()) {
    DYNAMIC_SECTION(name) {
      const TemporaryDirectory folder;
      behaviour((folder.path() / "a history.db").string());
    }
  }
}

TEST_CASE("history on PostgreSQL") {
  const auto programs = postgres_programs();
  if (!programs) {
    WARN("SKIPPED: there is no PostgreSQL server to start (apt-get install postgresql)");
    return;
  }
  static PostgresServer server(*programs);
  for (const auto& [name, behaviour] : behaviours()) {
    DYNAMIC_SECTION(name) { behaviour(server.new_database()); }
  }
}

TEST_CASE("history: urls are read, and passwords are not told") {
  CHECK(history::parse_url("a.db").shown == "a.db");
  CHECK(history::parse_url("sqlite:b.db").target == (fs::current_path() / "b.db").string());
  CHECK(history::parse_url("sqlite:///tmp/c.db").target == "/tmp/c.db");
  const history::Place place =
      history::parse_url("postgresql://ci:s3cr:t@db.example:5432/moebench?password=pw");
  CHECK(place.kind == history::Kind::kPostgresql);
  CHECK(place.shown == "postgresql://ci:***@db.example:5432/moebench");
  CHECK(history::parse_url("postgres://db/x").shown == "postgres://db/x");
  CHECK(history::parse_url("postgres://u@db:1/x").shown == "postgres://u@db:1/x");
  CHECK(history::parse_url("postgres://u:a/b?c@d@db/x").shown == "postgres://u:***@db/x");
  for (const char* bad : {"", "sqlite:", "mysql://x/y", "a\nb", "a\"b"}) {
    INFO(bad);
    CHECK_THROWS_WITH(history::parse_url(bad), Catch::Contains("read --db"));
  }
}

TEST_CASE("history: what cannot be opened says so") {
  const TemporaryDirectory folder;
  const std::string absent = (folder.path() / "absent.db").string();
  CHECK_THROWS_WITH(History(absent, false), Catch::Contains("there is no such file"));
  CHECK_FALSE(fs::exists(absent));
  write_file(folder.path() / "text.db", "this is no database, and long enough to be looked at");
  CHECK_THROWS_WITH(History((folder.path() / "text.db").string(), true),
                    Catch::Contains("not a database"));
  CHECK_THROWS_WITH(History("/no/such/folder/x.db", true), Catch::Contains("/no/such/folder/x.db"));
  // Port 1 of this machine: nobody listens.
  try {
    History("postgresql://u:hush@127.0.0.1:1/d", true);
    FAIL("it was opened");
  } catch (const Error& error) {
    CHECK_THAT(error.what(),
               Catch::Contains("postgresql://u:***@127.0.0.1:1/d") && !Catch::Contains("hush"));
  }
}

}  // namespace moebench::test
