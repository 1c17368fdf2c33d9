// Suites: expansion into cases, stable ids, --set, and errors that name the place.
#include <catch2/catch.hpp>
#include <set>

#include "bench/suite.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Json small_suite() {
  return Json::parse(R"({
    "name": "small", "models": ["nano"], "plans": ["reference", "int4"],
    "workloads": [{"kind": "prefill", "tokens": [16, 32]},
                  {"kind": "decode", "batch": [1, 4], "context": 8, "tokens": 4}],
    "tasks": [{"task": "nano", "effort": ["low", "high"], "limit": 5}],
    "probes": [{"kind": "fidelity", "items": 2}, {"kind": "invariance"}]
  })");
}

std::vector<std::string> labels(const std::vector<Case>& cases) {
  std::vector<std::string> result;
  for (const Case& one : cases) result.push_back(one.label());
  return result;
}

}  // namespace

TEST_CASE("suite: lists multiply, load comes first, fidelity to itself is left out") {
  const auto cases = expand_suite(parse_suite(small_suite(), "suite.json"));
  CHECK(labels(cases) == std::vector<std::string>{
                             "reference / load", "reference / prefill 16", "reference / prefill 32",
                             "reference / decode batch 1, context 8",
                             "reference / decode batch 4, context 8", "reference / nano low",
                             "reference / nano high", "reference / invariance", "int4 / load",
                             "int4 / prefill 16", "int4 / prefill 32",
                             "int4 / decode batch 1, context 8", "int4 / decode batch 4, context 8",
                             "int4 / nano low", "int4 / nano high", "int4 / fidelity to reference",
                             "int4 / invariance"});
  std::set<std::string> ids;
  for (const Case& one : cases) ids.insert(one.id);
  CHECK(ids.size() == cases.size());
}

TEST_CASE("suite: a case keeps its id when the suite around it changes, and loses it with itself") {
  const auto before = expand_suite(parse_suite(small_suite(), "suite.json"));
  Json changed = small_suite();
  changed["name"] = "renamed";
  changed["plans"] = {"int4"};
  changed["tasks"][0]["limit"] = 6;
  const auto after = expand_suite(parse_suite(changed, "suite.json"));
  const auto id_of = [](const std::vector<Case>& cases, const std::string& label) {
    for (const Case& one : cases) {
      if (one.label() == label) return one.id;
    }
    return std::string("none");
  };
  CHECK(id_of(before, "int4 / prefill 16") == id_of(after, "int4 / prefill 16"));
  CHECK(id_of(before, "int4 / nano low") != id_of(after, "int4 / nano low"));
}

TEST_CASE("suite: a scenario survives the way through JSON") {
  for (const Case& one : expand_suite(parse_suite(small_suite(), "suite.json"))) {
    const OrderedJson json = scenario_to_json(one.scenario);
    CHECK(scenario_to_json(scenario_from_json(Json::parse(json.dump()), "x")) == json);
  }
}

TEST_CASE("suite: what is wrong is named with its place and the nearest name") {
  const auto error_of = [](const std::function<void(Json&)>& damage) {
    Json json = small_suite();
    damage(json);
    try {
      parse_suite(json, "suite.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using Catch::Contains;
  CHECK_THAT(error_of([](Json& j) { j["workload"] = 1; }),
             Contains("suite.json: unknown field 'workload'; did you mean 'workloads'?"));
  CHECK_THAT(error_of([](Json& j) { j["workloads"][0]["kind"] = "prefil"; }),
             Contains("suite.json: workloads[0].kind: no kind 'prefil'; did you mean 'prefill'?"));
  CHECK_THAT(error_of([](Json& j) { j["workloads"][1]["batches"] = 2; }),
             Contains("unknown field 'batches'; did you mean 'batch'?"));
  CHECK_THAT(error_of([](Json& j) { j["plans"][1] = "int5"; }), Contains("no plan 'int5'"));
  CHECK_THAT(error_of([](Json& j) { j["plans"][1] = "reference"; }), Contains("stood before"));
  CHECK_THAT(error_of([](Json& j) { j["plans"] = Json::array(); }), Contains("at least one plan"));
  CHECK_THAT(error_of([](Json& j) { j.erase("models"); }), Contains("'models' is missing"));
  CHECK_THAT(error_of([](Json& j) { j["name"] = "a/b"; }), Contains("suite.json: name: 'a/b'"));
  CHECK_THAT(error_of([](Json& j) { j["tasks"][0]["limit"] = -1; }),
             Contains("suite.json: tasks[0].limit: -1 is out of range"));
  CHECK_THAT(error_of([](Json& j) { j["tasks"][0]["temperature"] = -1; }),
             Contains("suite.json: tasks[0].temperature: -1 is out of range [0, 100]"));
  CHECK_THAT(error_of([](Json& j) { j["tasks"][0]["effort"] = Json::array(); }),
             Contains("the list is empty"));
  CHECK_THAT(error_of([](Json& j) { j["timeout_s"] = "long"; }),
             Contains("timeout_s: expected an integer, got \"long\""));
}

TEST_CASE("suite: --set reaches one field, or all elements of a list") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "suite.json";
  write_file(path, small_suite().dump());
  const Suite suite = load_suite(
      path, {"tasks.*.limit=3", "workloads.0.tokens=[64]", "plans.1=nvfp4", "max_batch=2"});
  CHECK(suite.engine.max_batch == 2);
  CHECK(suite.plans[1].name == "nvfp4");
  CHECK(std::get<PrefillScenario>(suite.scenarios[1]).tokens == 64);
  using Catch::Contains;
  CHECK_THROWS_WITH(load_suite(path, {"tasks.*.limt=3"}), Contains("did you mean 'limit'?"));
  CHECK_THROWS_WITH(load_suite(path, {"task.*.limit=3"}), Contains("did you mean 'tasks'?"));
  CHECK_THROWS_WITH(load_suite(path, {"tasks.7.limit=3"}), Contains("'7' is not an index below 1"));
  CHECK_THROWS_WITH(load_suite(path, {"nonsense"}), Contains("expected key=value"));
}

TEST_CASE("suite: the shipped demo is found by its name and compares at least five plans") {
  const Suite demo = load_suite("demo", {});
  CHECK(demo.plans.size() >= 5);
  CHECK_THROWS_WITH(load_suite("no-such-suite", {}), Catch::Contains("no-such-suite.json"));
}

TEST_CASE("suite: a task's protocol is one of its own, and naming the default changes no case id") {
  const auto read = [](const Json& fields) {
    Json json = {{"kind", "task"}, {"task", "gpqa_diamond"}};
    json.update(fields);
    return scenario_from_json(json, "s.json");
  };
  const OrderedJson plain = scenario_to_json(read(Json::object()));
  CHECK_FALSE(plain.contains("protocol"));
  CHECK_FALSE(plain.contains("include_items"));
  CHECK(scenario_to_json(read({{"protocol", "openai"}})) == plain);
  const Scenario simple = read({{"protocol", "simple-evals"}, {"effort", "low"}});
  CHECK(scenario_to_json(simple).at("protocol") == "simple-evals");
  CHECK(scenario_label(simple) == "gpqa_diamond (simple-evals) low");
  CHECK(scenario_to_json(read({{"include_items", true}})).at("include_items") == true);
  check_error(
      [&] {
        read({{"protocol", "simple-eval"}});
      },
      ErrorCode::kInvalidArgument, {"s.json", "protocol", "did you mean 'simple-evals'?"});
}

}  // namespace moebench::test
