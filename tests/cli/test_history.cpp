// moebench history, and comparing with it, from the outside.
#include <catch2/catch.hpp>

#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"

namespace moebench::test {
namespace {

// A run of 200 answers, the first `correct` of them right, that started on this day.
struct Day : RunFolder {
  Day(int day, int correct) {
    Json json = read_json(path() / "run.json");
    json["started"] = fmt::format("2026-03-{:02}T12:00:00Z", day);
    write_file(path() / "run.json", json.dump());
    std::vector<LedgerLine> lines;
    for (int i = 0; i < 200; ++i) lines.push_back(answer(fmt::format("q{:03}", i), i < correct));
    Record record = add_task("reference", lines);
    record.metrics.at("accuracy").value = correct / 200.0;
    add(record);  // of two with one id the last counts
  }
  std::string text() const { return path().string(); }
};

struct Command {
  TemporaryDirectory folder;
  std::string db = (folder.path() / "history.db").string();

  ProcessResult run(const std::string& arguments) const {
    return run_moebench(arguments + " --db '" + db + "'");
  }
  std::string output(const std::string& arguments) const {
    const ProcessResult result = run(arguments);
    INFO(arguments << "\n" << result.out << result.err);
    CHECK(result.exit_code == 0);
    CHECK(result.err == "");
    return result.out;
  }
};

std::string errors_of(const char* schema, const Json& json) {
  return schema_errors(read_json(source_dir() / "reports" / schema), json);
}

}  // namespace

TEST_CASE("cli history: add, list, show, prune") {
  const Command history;
  const Day first(1, 100);
  const Day second(2, 101);
  CHECK(history.run("history list").exit_code == 2);  // there is none yet
  CHECK_THAT(history.output("history add " + first.text() + " " + second.text() +
                            " --name main --commit abc"),
             Catch::Contains("added ") && Catch::Contains("main, abc, 1 of 1 cases ok"));
  CHECK_THAT(history.output("history add " + first.text()), Catch::StartsWith("there already"));
  const Json list = Json::parse(history.output("history list --json"));
  REQUIRE(list.size() == 2);
  CHECK(errors_of("history_list.schema.json", list) == "");
  Json damaged = list;
  damaged[0]["good"] = "yes";
  CHECK(errors_of("history_list.schema.json", damaged) != "");
  CHECK(list[0].at("started") == "2026-03-02T12:00:00Z");
  CHECK(list[0].at("good") == true);
  const std::string id = list[1].at("id");
  CHECK_THAT(history.output("history list"), Catch::Contains(id.substr(0, 8)));
  CHECK_THAT(history.output("history show " + id.substr(0, 8)), Catch::Contains("50.0 %"));
  CHECK(Json::parse(history.output("history show " + id + " --json")).at("records").size() == 1);
  CHECK_THAT(history.output("history prune --keep 1 --dry-run"), Catch::Contains("would remove"));
  CHECK_THAT(history.output("history prune --keep 1"), Catch::Contains("1 runs removed"));
  CHECK(Json::parse(history.output("history list --json")).size() == 1);
  CHECK_THAT(history.output("history prune --before 2026-03-03"),
             Catch::Contains("1 runs removed"));
}

TEST_CASE("cli history: a comparison takes the last good runs as its base") {
  const Command history;
  const Day good(1, 150);
  const Day worse(3, 120);
  const Day same(4, 150);
  history.output("history add " + good.text() + " --name main");
  const std::string against = "compare --baseline history:main ";
  CHECK(history.run(against + worse.text()).exit_code == 1);
  CHECK(history.run(against + same.text()).exit_code == 0);
  const ProcessResult lost = history.run(against + worse.text());
  CHECK_THAT(lost.out, Catch::Contains("30 lost, 0 gained of 200"));
  // What failed its gate is never a base: the good one still is.
  history.output("history add " + worse.text() + " --name main --bad");
  CHECK(history.run(against + same.text()).exit_code == 0);
  const ProcessResult nobody = history.run("compare --baseline history:nobody " + same.text());
  CHECK(nobody.exit_code == 2);
  CHECK_THAT(nobody.err, Catch::Contains("there is no good run of these cases of by hand"));
  CHECK(history.run("compare --baseline main " + same.text()).exit_code == 3);
  CHECK(history.run("compare --baseline history:main").exit_code == 3);
}

TEST_CASE("cli history: a level that became worse is found, with the run it began with") {
  const Command history;
  for (int day = 1; day <= 14; ++day) {
    const Day run(day, (day < 11 ? 150 : 130) + day % 2);
    history.output(fmt::format("history add {} --commit commit{}", run.text(), day));
  }
  const std::string trend = history.output("history trend --name main");
  CHECK_THAT(trend, Catch::Contains("reference / nano low") &&
                        Catch::Contains("points since commit11 (worse)"));
  const Json json = Json::parse(history.output("history trend --metric accuracy --json"));
  REQUIRE(json.size() == 1);
  CHECK(errors_of("history_trend.schema.json", json) == "");
  // Also of two runs, of which neither noise nor change is known.
  CHECK(errors_of("history_trend.schema.json",
                  Json::parse(history.output("history trend --json --last 2"))) == "");
  Json damaged = json;
  damaged[0]["points"] = Json::array();
  CHECK(errors_of("history_trend.schema.json", damaged) != "");
  CHECK(json[0].at("points").size() == 14);
  CHECK(json[0].at("changes").size() == 1);
  CHECK(json[0].at("changes")[0].at("index") == 10);
  const ProcessResult failed = history.run("history trend --fail-if-worse 5");
  CHECK(failed.exit_code == 1);
  CHECK_THAT(failed.err, Catch::Contains("accuracy is worse by"));
  CHECK(history.run("history trend --fail-if-worse 3").exit_code == 0);  // longer ago than that
  CHECK(history.run("history trend --metric acuracy").exit_code == 2);
  CHECK_THAT(history.run("history trend --metric acuracy").err,
             Catch::Contains("did you mean 'accuracy'?"));
}

TEST_CASE("cli history: usage") {
  const Command history;
  CHECK(run_moebench("history").exit_code == 3);
  CHECK(history.run("history add").exit_code == 3);
  CHECK(run_moebench("history list --db mysql://x").exit_code == 3);
  CHECK(history.run("history prune").exit_code == 3);
  CHECK(history.run("history prune --keep 1 --before 2026-01-01").exit_code == 3);
  CHECK(history.run("history add /nonexistent").exit_code == 2);
}

}  // namespace moebench::test
