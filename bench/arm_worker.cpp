// An arm's life.
#include "bench/arm_worker.h"

#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <new>

#include "bench/build_info.h"
#include "bench/case_runner.h"
#include "bench/disturbance.h"
#include "bench/interrupt.h"
#include "bench/output_check.h"
#include "bench/worker.h"
#include "bench/workloads.h"
#include "kernels/core/clock.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

using Clock = std::chrono::steady_clock;

// Seconds that this thread could run and had to wait for a CPU; negative where /proc does not say.
double seconds_waited() {
  std::ifstream file("/proc/thread-self/schedstat");
  double on_cpu_ns = 0;
  double waited_ns = 0;
  return file >> on_cpu_ns >> waited_ns ? waited_ns * 1e-9 : -1;
}

OrderedJson failure(Status status, std::string_view reason) {
  return {{"event", "failed"}, {"status", status_name(status)}, {"reason", reason}};
}

class Arm {
 public:
  Arm(Job job, bool check)
      : job_(std::move(job)),
        pool_(job_.threads),
        machine_(gpu_address_for(job_.cases.front().plan.backend == PlanBackend::kCuda)) {
    const Case& first = job_.cases.front();
    const auto start = Clock::now();
    const auto context = load_model_config(resolve_model(first.model)).max_context;
    const EngineOptions options = options_for(job_.cases, job_.engine, context);
    engine_ = load_engine(first.model, first.plan, options, pool_);
    details_["load_s"] = seconds_since(start);
    details_["threads"] = pool_.num_threads();
    details_["variants"] = op_variant_names(engine_.weights->layout.ops);
    if (check) {
      const OutputCheck outputs = check_outputs(engine_, options, pool_);
      if (!outputs.passed) wrong_ = fmt::format("outputs are wrong: {}", outputs.reason);
      details_["output_check"] = {{"what", outputs.reason}, {"digest", outputs.digest}};
    }
    tests_.resize(job_.cases.size());
  }

  OrderedJson ready() const {
    if (!wrong_.empty()) return failure(Status::kWrongOutput, wrong_);
    return {{"event", "ready"}, {"details", details_}};
  }

  OrderedJson answer(const Json& question) {
    JsonFields fields(question, "a question to an arm");
    const auto what = fields.required<std::string>("do");
    const auto test = static_cast<std::size_t>(
        in_range<std::int64_t>(fields.required<std::int64_t>("test"), 0,
                               static_cast<std::int64_t>(tests_.size()) - 1, fields.path("test")));
    const double seconds =
        in_range(fields.required<double>("seconds"), 0.0, 3600.0, fields.path("seconds"));
    fields.finish();
    if (what == "warm_up") return warm_up(test, seconds);
    if (what == "block") return block(test, seconds);
    fail(ErrorCode::kInvalidArgument, "{}: '{}' is neither warm_up nor block", fields.path("do"),
         what);
  }

 private:
  struct Test {
    std::unique_ptr<RepeatedWorkload> workload;
    std::string digest;
    double repetition_s = 0;
  };

  // Throws Error(kUnsupported) with `wrong_` set if its tokens are not those of the first time.
  double repeat(Test& test) {
    const auto start = Clock::now();
    const auto repetition = test.workload->run({});
    test.repetition_s = seconds_since(start);
    if (test.digest.empty()) test.digest = repetition.digest;
    if (repetition.digest != test.digest) {
      wrong_ = fmt::format("a repetition gave other tokens than the first one ({} instead of {})",
                           repetition.digest, test.digest);
      fail(ErrorCode::kUnsupported, "{}", wrong_);
    }
    return repetition.tokens_per_second;
  }

  OrderedJson warm_up(std::size_t index, double block_s) {
    // More than caches, huge pages and clocks need on the machines seen so far.
    constexpr double kMostBlocks = 10;
    constexpr double kMostSeconds = 1.5;  // however short blocks are
    const Case& one = job_.cases[index];
    const auto most = engine_.model->config().max_context;
    require_or(ErrorCode::kUnsupported, context_needed(one.scenario) <= most,
               "run {}: it needs {} positions of context, the model has {}",
               scenario_label(one.scenario), context_needed(one.scenario), most);
    Test& test = tests_[index];
    test.workload = std::make_unique<RepeatedWorkload>(engine_, one.scenario);
    const WarmUpResult warm = warm_up_until_steady(
        [&] { return repeat(test); }, {2, block_s, std::max(kMostSeconds, kMostBlocks * block_s)});
    return {{"event", "warm"},
            {"test", index},
            {"digest", test.digest},
            {"repetition_s", test.repetition_s},
            {"repetitions", warm.repetitions},
            {"steady", warm.steady}};
  }

  OrderedJson block(std::size_t index, double block_s) {
    Test& test = tests_[index];
    require(test.workload != nullptr, "run a block of test {}: it was not warmed up", index);
    // The first repetition after a pause finds the caches full of the other arms' data. Where
    // repetitions are short, it is left out.
    if (test.repetition_s * 4 <= block_s) repeat(test);
    std::vector<double> rates;
    const MachineSnapshot before = machine_.read();
    const double waited = seconds_waited();
    const auto start = Clock::now();
    do {
      rates.push_back(repeat(test));
    } while (seconds_since(start) + 0.5 * test.repetition_s < block_s);
    const double seconds = seconds_since(start);
    const double waited_after = seconds_waited();
    const SampleConditions conditions = conditions_between(before, machine_.read());
    const bool known = waited >= 0 && waited_after >= waited;
    return {{"event", "block"},
            {"test", index},
            {"start_ns", start.time_since_epoch().count()},
            {"seconds", seconds},
            {"rates", rates},
            {"wait_share", known ? OrderedJson((waited_after - waited) / seconds) : OrderedJson()},
            {"conditions", to_json(conditions)}};
  }

  Job job_;
  ThreadPool pool_;
  MachineReader machine_;
  Engine engine_;
  OrderedJson details_ = OrderedJson::object();
  std::string wrong_;  // why no time of this process means anything; "" if all is well
  std::vector<Test> tests_;

 public:
  // What `compute` says, or the failure that it ended in.
  template <class Compute>
  static OrderedJson guarded(const Arm* arm, Compute compute) {
    try {
      return compute();
    } catch (const Error& error) {
      if (arm != nullptr && !arm->wrong_.empty()) {
        return failure(Status::kWrongOutput, arm->wrong_);
      }
      switch (error.code()) {
        case ErrorCode::kOutOfMemory:
          return failure(Status::kOutOfMemory, error.what());
        case ErrorCode::kUnsupported:
          return failure(Status::kUnsupported, error.what());
        default:
          return failure(Status::kFailed, error.what());
      }
    } catch (const std::bad_alloc&) {
      return failure(Status::kOutOfMemory, "the system gave no more memory");
    } catch (const std::exception& error) {
      return failure(Status::kFailed, error.what());
    }
  }
};

}  // namespace

int run_arm(std::istream& input, int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // an arm without its parent computes for nobody
  // Ctrl-C reaches the whole group; the parent decides what it means.
  signal(SIGINT, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  send_message(output, {{"event", "hello"},
                        {"protocol", kArmProtocol},
                        {"version", build_info::kVersion},
                        {"commit", build_info::kGitCommit}});
  std::string line;
  if (!std::getline(input, line)) return 0;
  std::unique_ptr<Arm> arm;
  send_message(output, Arm::guarded(nullptr, [&] {
                 const Json order = parse_json(line, "an arm's orders");
                 JsonFields fields(order, "an arm's orders");
                 const Json* job = fields.find("job");
                 require(job != nullptr, "an arm's orders: the job is missing");
                 const bool check = fields.required<bool>("check_outputs");
                 fields.finish();
                 arm = std::make_unique<Arm>(job_from_json(*job, "an arm's job"), check);
                 return arm->ready();
               }));
  while (arm != nullptr && std::getline(input, line)) {
    send_message(output, Arm::guarded(arm.get(), [&] {
                   return arm->answer(parse_json(line, "a question to an arm"));
                 }));
  }
  return 0;
}

}  // namespace moebench
