// Reading the other plan's record and ledger.
#include "bench/settle_case.h"

#include "bench/run_folder.h"

namespace moebench {

SettleBase find_settle_base(const std::filesystem::path& out_dir, const Case& one,
                            const TaskScenario& scenario) {
  if (scenario.settle <= 0 || one.plan.name == scenario.settle_against) return {};
  const Json wanted = scenario_to_json(scenario);  // what is read has its keys in another order
  for (const Record& record : read_records(out_dir)) {
    if (record.model != one.model || record.plan != scenario.settle_against ||
        record.status != Status::kOk || Json(record.scenario) != wanted) {
      continue;
    }
    SettleBase base{read_ledger(ledger_path(out_dir, record.case_id)), ""};
    if (base.lines.empty()) base.reason = "the answers of " + scenario.settle_against + " are gone";
    return base;
  }
  return {{},
          fmt::format("all items were asked: '{}' has not answered them before",
                      scenario.settle_against)};
}

OrderedJson settled_json(const SettledRun& run, const TaskScenario& scenario) {
  OrderedJson looks = OrderedJson::array();
  for (const SettleLook& look : run.looks) {
    const ScoreDifference& scores = look.result.scores;
    OrderedJson json = {{"items", look.num_items},
                        {"difference", scores.difference},
                        {"outcome", gate_outcome_name(look.result.outcome)}};
    if (scores.interval) json["interval"] = to_json(*scores.interval);
    looks.push_back(std::move(json));
  }
  OrderedJson json = {{"against", scenario.settle_against},
                      {"margin", scenario.settle},
                      {"outcome", gate_outcome_name(run.outcome())},
                      {"planned", run.planned},
                      {"asked", run.looks.empty() ? run.planned : run.looks.back().num_items},
                      {"level", run.level()},
                      {"looks", std::move(looks)}};
  if (!run.looks.empty() && run.looks.back().result.to_settle) {
    json["to_settle"] = *run.looks.back().result.to_settle;
  }
  return json;
}

}  // namespace moebench
