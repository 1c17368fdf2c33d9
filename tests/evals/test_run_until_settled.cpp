// Stopping when a comparison is decided: on a model that always says B, against answers made up.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "evals/run_until_settled.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/scripted_model.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

struct AlwaysB {
  TemporaryDirectory folder;
  ThreadPool pool{2};
  Engine engine;
  Task task = find_task("nano");

  AlwaysB() {
    write_scripted_checkpoint(folder.path(), "<|channel|>final<|message|>Answer: B<|return|>", 256);
    EngineOptions options;
    options.max_batch = 16;
    engine = load_engine(folder.path(), Plan{}, options, pool);
  }

  SettledRun run(const std::vector<LedgerLine>& base, double margin, std::int64_t limit,
                 const std::vector<LedgerLine>& done = {}, const TaskHooks& hooks = {}) {
    TaskSettings settings;
    settings.limit = limit;
    return run_until_settled(engine, task, settings, base, margin, done, hooks);
  }

  // What a plan would have answered that is right on all items, or says B too.
  std::vector<LedgerLine> answers(std::int64_t limit, bool all_right) const {
    std::vector<LedgerLine> lines;
    const TaskData data = task.load();
    for (std::int64_t i = 0; i < limit; ++i) {
      const TaskItem& item = data.items[static_cast<std::size_t>(i)];
      LedgerLine line;
      line.item = item.id;
      line.verdict = all_right || item.expected == "B" ? Verdict::kCorrect : Verdict::kWrong;
      lines.push_back(line);
    }
    return lines;
  }
};

}  // namespace

TEST_CASE("until settled: a plan that is far worse fails at the first look, on a random subset") {
  AlwaysB model;
  const SettledRun run = model.run(model.answers(200, true), 0.05, 200);
  CHECK(run.outcome() == GateOutcome::kFail);
  REQUIRE(run.looks.size() == 1);
  CHECK(run.looks[0].num_items == 50);
  CHECK(run.planned == 200);
  CHECK(run.lines.size() == 50);
  CHECK(run.looks[0].result.scores.difference < -0.5);
  CHECK(run.level() > 0.99);  // the first look has little of the error to spend
  // Not the first 50 of the file, whose order may mean something.
  std::set<std::string> asked;
  for (const LedgerLine& line : run.lines) asked.insert(line.item);
  const auto first = model.answers(50, true);
  CHECK(std::any_of(first.begin(), first.end(),
                    [&](const LedgerLine& line) { return !asked.contains(line.item); }));
}

TEST_CASE("until settled: equal answers pass when there are enough of them; a resumed run agrees") {
  AlwaysB model;
  const auto base = model.answers(120, false);
  const SettledRun run = model.run(base, 0.12, 120);
  CHECK(run.outcome() == GateOutcome::kPass);
  REQUIRE(run.looks.size() == 2);
  CHECK(run.looks[0].result.outcome == GateOutcome::kInconclusive);
  CHECK(run.lines.size() == 100);

  const std::vector<LedgerLine> done(run.lines.begin(), run.lines.begin() + 70);
  std::int64_t fresh = 0;
  std::int64_t total = 0;
  TaskHooks hooks;
  hooks.on_line = [&](const LedgerLine&) { ++fresh; };
  hooks.on_progress = [&](std::int64_t, std::int64_t of) { total = of; };
  const SettledRun resumed = model.run(base, 0.12, 120, done, hooks);
  CHECK(fresh == 30);
  CHECK(total == 120);
  CHECK(resumed.outcome() == GateOutcome::kPass);
  CHECK(resumed.looks.size() == 2);
}

TEST_CASE("until settled: without the other plan's answers all items are asked") {
  AlwaysB model;
  LedgerLine elsewhere;
  elsewhere.item = "another question";
  const SettledRun run = model.run({elsewhere}, 0.02, 60);
  CHECK(run.lines.size() == 60);
  CHECK(run.looks.empty());
  CHECK(run.outcome() == GateOutcome::kInconclusive);
  CHECK(run.level() == 0.95);
}

}  // namespace moebench::test
