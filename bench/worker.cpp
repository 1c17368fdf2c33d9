// A worker's life.
#include "bench/worker.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>

#include "bench/case_runner.h"
#include "bench/interrupt.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench {

void send_message(int output, const OrderedJson& message) {
  std::string line = json_line(message) + "\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(output, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    require_or(ErrorCode::kIo, written > 0, "send a message to the parent process: {}",
               std::strerror(errno));
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

OrderedJson to_json(const Job& job) {
  OrderedJson cases = OrderedJson::array();
  for (const Case& one : job.cases) {
    cases.push_back({{"id", one.id}, {"scenario", scenario_to_json(one.scenario)}});
  }
  return {{"model", job.cases.front().model},
          {"plan", OrderedJson(plan_to_json(job.cases.front().plan))},
          {"cases", cases},
          {"threads", job.threads},
          {"max_batch", job.engine.max_batch},
          {"max_context", job.engine.max_context},
          {"step_tokens", job.engine.step_tokens},
          {"out_dir", job.out_dir.string()},
          {"ceilings", job.ceilings ? to_json(*job.ceilings) : OrderedJson()},
          {"trace", job.trace},
          {"question_shard", job.question_shard.text()}};
}

Job job_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Job job;
  const auto model = fields.required<std::string>("model");
  const Json* plan_json = fields.find("plan");
  require(plan_json != nullptr, "{}: the plan is missing", where);
  const Plan plan = plan_from_json(*plan_json, fields.path("plan"));
  job.threads = fields.required<int>("threads");
  job.engine.max_batch = fields.required<std::int64_t>("max_batch");
  job.engine.max_context = fields.required<std::int64_t>("max_context");
  job.engine.step_tokens = fields.required<std::int64_t>("step_tokens");
  job.out_dir = fields.required<std::string>("out_dir");
  const Json* ceilings = fields.find("ceilings");
  if (ceilings != nullptr && !ceilings->is_null()) {
    job.ceilings = ceilings_from_json(*ceilings, fields.path("ceilings"));
  }
  job.trace = fields.optional<bool>("trace", false);
  job.question_shard = parse_shard(fields.optional<std::string>("question_shard", "0/1"),
                                   fields.path("question_shard"));
  const Json* cases = fields.find("cases");
  require(cases != nullptr && cases->is_array() && !cases->empty(), "{}: the cases are missing",
          where);
  for (const Json& item : *cases) {
    JsonFields one(item, fields.path("cases"));
    const auto id = one.required<std::string>("id");
    const Json* scenario = one.find("scenario");
    require(scenario != nullptr, "{}: the scenario of case {} is missing", where, id);
    job.cases.push_back({id, model, plan, scenario_from_json(*scenario, where)});
  }
  fields.finish();
  return job;
}

int run_worker(std::istream& input, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a worker without its parent computes for nobody
  watch_for_interrupts();
  const std::string text{std::istreambuf_iterator<char>(input), {}};
  const Job job = job_from_json(parse_json(text, "the worker's job"), "the worker's job");

  // A progress message per answer would be more talk than work on a small model.
  constexpr std::chrono::milliseconds kBetweenMessages{100};
  auto last_message = std::chrono::steady_clock::now();
  CaseRunnerOptions options;
  options.engine = job.engine;
  options.threads = job.threads;
  options.out_dir = job.out_dir;
  options.ceilings = job.ceilings;
  options.question_shard = job.question_shard;
  if (job.trace) options.trace = job.out_dir / "trace.json";
  options.stop_requested = interrupted;
  options.on_progress = [&](std::int64_t done, std::int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_message < kBetweenMessages) return;
    last_message = now;
    send_message(output, {{"event", "progress"}, {"done", done}, {"total", total}});
  };
  CaseRunner runner(job.cases, options);
  try {
    for (const Case& one : job.cases) {
      send_message(output, {{"event", "start"}, {"case", one.id}});
      send_message(output, {{"event", "record"}, {"record", to_json(runner.run(one))}});
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInterrupted) throw;
    return 2;
  }
  return 0;
}

}  // namespace moebench
