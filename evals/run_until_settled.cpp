// run_task on more and more of the items.
#include "evals/run_until_settled.h"

#include <numeric>
#include <set>

#include "evals/answer_pairs.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

constexpr double kLevel = 0.95;

std::vector<std::size_t> shuffled(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  RandomStream random(0x5e771ed);  // any: the order must not change between runs
  for (std::size_t i = count; i > 1; --i) {
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  }
  return order;
}

}  // namespace

GateOutcome SettledRun::outcome() const {
  return looks.empty() ? GateOutcome::kInconclusive : looks.back().result.outcome;
}

double SettledRun::level() const {
  return looks.empty() || !looks.back().result.scores.interval
             ? kLevel
             : looks.back().result.scores.interval->level;
}

SettledRun run_until_settled(Engine& engine, const Task& task, TaskSettings settings,
                             std::span<const LedgerLine> base, double margin,
                             const std::vector<LedgerLine>& done, const TaskHooks& hooks) {
  const TaskData data = task.load_items(task.protocol(settings.protocol));
  const std::vector<std::size_t> order = shuffled(num_asked(data, settings.limit));
  SettledRun run;
  run.planned = static_cast<std::int64_t>(order.size());
  run.lines = done;
  require(run.planned > 0, "run {}: it has no items", task.name);
  TaskHooks inner = hooks;
  if (hooks.on_progress) {
    inner.on_progress = [&](std::int64_t answered, std::int64_t) {
      hooks.on_progress(answered, run.planned * settings.repeats);
    };
  }
  SequentialGate gate(margin, run.planned, kLevel);
  std::set<std::string> asked;
  for (const std::int64_t at : planned_looks(run.planned)) {
    settings.only.assign(order.begin(), order.begin() + at);
    run.lines = run_task(engine, task, settings, run.lines, inner);
    for (const std::size_t index : settings.only) asked.insert(data.items[index].id);
    std::vector<LedgerLine> now;
    for (const LedgerLine& line : run.lines) {
      if (asked.contains(line.item)) now.push_back(line);
    }
    const AnswerPairs pairs = pair_answers(base, now);
    if (pairs.size() == 0) continue;
    run.looks.push_back(
        {at, gate.look(pairs.base_correct, pairs.candidate_correct, pairs.item_numbers, at)});
    if (run.outcome() != GateOutcome::kInconclusive) break;
  }
  return run;
}

}  // namespace moebench
