// Options, arms, and how a comparison is shown.
#include "cli/bench_compare.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "bench/case_runner.h"
#include "bench/environment.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

constexpr double kBudgetPerTestS = 90;

double budget_of(const ComparedTests& tests, const BenchCompareOptions& options) {
  return options.budget_s > 0 ? options.budget_s
                              : kBudgetPerTestS * static_cast<double>(tests.names.size());
}

// Standard error of the arms; removed again if none of them came to grief.
class ArmLog {
 public:
  explicit ArmLog(const std::string& out_dir)
      : path_(out_dir.empty() ? std::filesystem::temp_directory_path() /
                                    fmt::format("moebench-arms-{}.log", getpid())
                              : std::filesystem::path(out_dir) / "arms.log"),
        keep_(!out_dir.empty()) {
    if (!out_dir.empty()) std::filesystem::create_directories(out_dir);
  }
  ~ArmLog() {
    std::error_code ignored;
    if (!keep_) std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  // What the arms wrote last, at most a few lines.
  std::string tail() const {
    std::string text;
    try {
      text = read_text_file(path_);
    } catch (const Error&) {
      return "";
    }
    constexpr std::size_t kMost = 500;
    if (text.size() > kMost) text.erase(0, text.size() - kMost);
    return text;
  }

 private:
  std::filesystem::path path_;
  bool keep_;
};

// CLI11's Range lets NaN pass.
CLI::Validator within(double low, double high) {
  return {[low, high](const std::string& text) {
            double value = std::nan("");
            CLI::detail::lexical_cast(text, value);
            return value >= low && value <= high
                       ? std::string()
                       : fmt::format("'{}' is not a number from {} to {}", text, low, high);
          },
          ""};
}

// What the system would give without swapping; infinite where it does not say.
double available_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    double kilobytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %lf kB", &kilobytes) == 1) return kilobytes * 1024;
  }
  return std::numeric_limits<double>::infinity();
}

// Whether a second process of the base fits beside the arms. Throws Error(kOutOfMemory) if not even
// the arms do: each holds the model while the others are timed.
bool self_test_fits(const ComparedTests& tests, const ArmProcessOptions& process) {
  std::vector<Case> cases;
  for (const Scenario& test : tests.scenarios) cases.push_back({"bench", tests.model, {}, test});
  const auto context = load_model_config(resolve_model(tests.model)).max_context;
  const EngineOptions engine = options_for(cases, process.engine, context);
  const int threads = tests.threads > 0 ? tests.threads : available_cpus();
  double arms = 0;
  double base = 0;
  for (const ArmSpec& arm : tests.arms) {
    if (arm.plan.backend == PlanBackend::kCuda) continue;  // not this memory
    const MemoryBudget budget = predict_memory(tests.model, arm.plan, engine, threads);
    if (&arm == &tests.arms.front()) base = static_cast<double>(budget.total());
    arms += static_cast<double>(budget.total());
  }
  const double available = available_bytes();
  require_or(ErrorCode::kOutOfMemory, arms <= available,
             "compare speeds: {} arms at once need {}, and {} are available (--no-interleave holds "
             "one at a time)",
             tests.arms.size(), format_bytes(arms), format_bytes(available));
  return arms + base <= available;
}

std::string percent(double share) { return fmt::format("{:+.2f} %", share * 100); }

std::string interval_text(const Comparison& c) {
  if (!c.ratios) return "";
  return fmt::format("[{}, {}]", percent(c.ratios->low - 1), percent(c.ratios->high - 1));
}

}  // namespace

void add_compare_options(CLI::App* command, BenchCompareOptions& o) {
  const std::string group = "Comparing two arms or more";
  const auto number = [&](const char* name, double& target, const char* type, const char* help) {
    return command->add_option(name, target, help)->type_name(type)->group(group);
  };
  command->add_flag("--no-interleave", o.no_interleave, "Time one plan after another instead")
      ->group(group);
  command
      ->add_option("--against-program", o.against_program,
                   "Another build of moebench that runs the same plan: the base")
      ->type_name("PATH")
      ->group(group);
  number("--budget", o.budget_s, "SECONDS", "Wall time for all tests together (default: 90 each)")
      ->check(within(1.0, 1e6));
  number("--precision", o.precision_percent, "PERCENT",
         "Stop when the interval of a ratio is this narrow")
      ->check(within(0.01, 100.0))
      ->capture_default_str();
  number("--threshold", o.threshold_percent, "PERCENT", "Differences up to this are SAME")
      ->check(within(0.01, 90.0))
      ->capture_default_str();
  number("--block", o.block_s, "SECONDS", "Length of one sample")
      ->check(within(0.001, 60.0))
      ->capture_default_str();
  command
      ->add_flag("--fail-if-slower", o.fail_if_slower,
                 "Exit code 1 if an arm is SLOWER, 4 if it is INCONCLUSIVE")
      ->group(group);
  command->add_flag("--inconclusive-ok", o.inconclusive_ok, "Exit code 0 instead of 4")
      ->group(group);
  command
      ->add_option("--out", o.out, "Folder for compare.json, with every sample; grows by sessions")
      ->type_name("DIR")
      ->group(group);
}

std::vector<ArmSpec> make_arms(const std::vector<Plan>& plans, const BenchCompareOptions& options) {
  std::vector<ArmSpec> arms;
  if (!options.against_program.empty()) {
    require_or(ErrorCode::kUsage, plans.size() == 1,
               "compare with program {}: {} plans given; both programs run the same one",
               options.against_program, plans.size());
    const std::filesystem::path program = std::filesystem::absolute(options.against_program);
    require_or(ErrorCode::kUsage,
               std::filesystem::is_regular_file(program) && access(program.c_str(), X_OK) == 0,
               "compare with program {}: there is no such program that may be run",
               options.against_program);
    arms.push_back(
        {fmt::format("{} by {}", plans[0].name, program.filename().string()), plans[0], program});
  }
  for (const Plan& plan : plans) {
    // The same plan twice is a fair question: is the method right?
    const auto same = std::ranges::count_if(arms, [&](const ArmSpec& arm) {
      return arm.plan.name == plan.name && arm.program.empty();
    });
    arms.push_back({same == 0 ? plan.name : fmt::format("{} #{}", plan.name, same + 1), plan, {}});
  }
  return arms;
}

CompareResult compare(const ComparedTests& tests, const BenchCompareOptions& options,
                      const std::function<void(const CompareResult&)>& on_session) {
  const ArmLog log(options.out);
  ArmProcessOptions process;
  process.model = tests.model;
  process.tests = tests.scenarios;
  process.engine.max_batch = 1;
  process.threads = tests.threads;
  process.block_s = options.block_s;
  process.log = log.path();
  ArmProcesses host(tests.arms, process);

  PairedOptions paired;
  paired.num_arms = tests.arms.size();
  paired.num_tests = tests.names.size();
  paired.budget_s = budget_of(tests, options);
  paired.precision = options.precision_percent / 100;
  paired.threshold = options.threshold_percent / 100;
  paired.seed = options.seed;
  paired.rounds = tests.rounds;
  paired.self_test = self_test_fits(tests, process);
  const auto result_of = [&](PairedTiming timing) {
    CompareResult result{std::move(timing), {}};
    for (std::size_t arm = 0; arm < tests.arms.size(); ++arm) {
      result.arm_details.push_back(host.details(arm));
    }
    for (Comparison& c : result.timing.comparisons) {
      if (c.status != Status::kCrashed) continue;
      if (const std::string tail = log.tail(); !tail.empty()) {
        c.reason += fmt::format("; the arms' errors end with: {}", tail);
      }
    }
    return result;
  };
  ProgressLine line;
  paired.on_session = [&](const PairedTiming& timing) {
    if (on_session) on_session(result_of(timing));
    RunProgress progress;
    progress.current =
        fmt::format("comparing {} arms, session {}", tests.arms.size(), timing.sessions);
    progress.eta_s = std::max(0.0, paired.budget_s - timing.elapsed_s);
    line.show(progress);
  };
  return result_of(run_paired(host, paired));
}

// reports/bench_comparison.schema.json describes it.
OrderedJson comparison_json(const ComparedTests& tests, const BenchCompareOptions& options,
                            const CompareResult& result) {
  const PairedTiming& timing = result.timing;
  OrderedJson arms = OrderedJson::array();
  for (std::size_t i = 0; i < tests.arms.size(); ++i) {
    const ArmSpec& arm = tests.arms[i];
    arms.push_back({{"name", arm.name},
                    {"base", i == 0},
                    {"plan", OrderedJson(plan_to_json(arm.plan))},
                    {"plan_text", arm.plan.describe()},
                    {"program", arm.program.empty() ? "this program" : arm.program.string()},
                    {"details", result.arm_details[i]}});
  }
  OrderedJson test_list = OrderedJson::array();
  for (std::size_t i = 0; i < tests.names.size(); ++i) {
    test_list.push_back(
        {{"name", tests.names[i]}, {"scenario", scenario_to_json(tests.scenarios[i])}});
  }
  const auto listed = [&](const std::vector<Comparison>& comparisons) {
    OrderedJson list = OrderedJson::array();
    for (const Comparison& c : comparisons) {
      OrderedJson one = {{"arm", tests.arms[c.arm].name},
                         {"base", tests.arms[0].name},
                         {"test", tests.names[c.test]}};
      one.update(to_json(c));
      list.push_back(std::move(one));
    }
    return list;
  };
  OrderedJson samples = OrderedJson::array();
  for (const TimedSample& sample : timing.samples) samples.push_back(to_json(sample));
  return {{"schema", "moebench.bench_comparison/1"},
          {"model", tests.model},
          {"environment", to_json(read_environment())},
          {"budget_s", budget_of(tests, options)},
          {"precision", options.precision_percent / 100},
          {"threshold", options.threshold_percent / 100},
          {"block_s", options.block_s},
          {"seed", options.seed},
          {"rounds_wanted", tests.rounds},
          {"elapsed_s", timing.elapsed_s},
          {"sessions", timing.sessions},
          {"complete", timing.complete},
          {"interrupted", timing.interrupted},
          {"unsteady_warm_ups", timing.unsteady_warm_ups},
          {"disturbance_rules",
           fmt::format("{}; waited: ready to run and without a CPU for more than 5 % of the block",
                       kDisturbanceRules)},
          {"arms", arms},
          {"tests", test_list},
          {"comparisons", listed(timing.comparisons)},
          {"self_tests", listed(timing.self_tests)},
          {"samples", samples}};
}

std::string comparison_text(const ComparedTests& tests, const BenchCompareOptions& options,
                            const CompareResult& result, bool markdown) {
  const PairedTiming& timing = result.timing;
  Table table({"test", "arm", ">against " + tests.arms[0].name, ">95 % interval", "verdict",
               ">visible", ">sessions", ">rounds"});
  const auto add = [&](const Comparison& c, const std::string& arm, const std::string& verdict) {
    table.add({tests.names[c.test], arm, c.ratio ? percent(*c.ratio - 1) : "-", interval_text(c),
               verdict,
               c.smallest_visible ? fmt::format("{:.2f} %", *c.smallest_visible * 100) : "-",
               std::to_string(c.sessions.values.size()), std::to_string(c.rounds)});
  };
  for (const Comparison& c : timing.comparisons) {
    add(c, tests.arms[c.arm].name,
        std::string(c.status == Status::kOk ? verdict_name(c.verdict) : status_name(c.status)));
  }
  for (const Comparison& c : timing.self_tests) {
    const bool differs = c.verdict == SpeedVerdict::kFaster || c.verdict == SpeedVerdict::kSlower;
    add(c, tests.arms[0].name + " again",
        !c.ratios ? "self-test: too short"
        : differs ? "self-test: differs"
                  : "self-test: no difference");
  }
  std::string text = markdown ? table.markdown() : table.text();
  text += fmt::format(
      "{} s of {:.0f} s used, {} sessions of fresh processes, blocks of {} s, differences up to {} "
      "% are SAME\n",
      std::lround(timing.elapsed_s), budget_of(tests, options), timing.sessions, options.block_s,
      options.threshold_percent);
  if (timing.self_tests.empty()) {
    text += "no self-test: there is no memory for a second process of the base\n";
  }
  for (const Comparison& c : timing.self_tests) {
    if (!c.ratios) continue;
    text += fmt::format(
        "noise floor, {}: on this machine now, two processes of one program differ by {:.2f} % at "
        "most (95 %)\n",
        tests.names[c.test],
        std::max(std::abs(c.ratios->low - 1), std::abs(c.ratios->high - 1)) * 100);
  }
  for (const Comparison& c : timing.comparisons) {
    const std::string what = fmt::format("{}, {}", tests.names[c.test], tests.arms[c.arm].name);
    if (!c.reason.empty()) text += fmt::format("{}: {}\n", what, c.reason);
    if (c.status == Status::kOk && c.verdict == SpeedVerdict::kInconclusive && c.smallest_visible) {
      text += fmt::format("{}: a difference of {:.2f} % would have been seen in 4 of 5 such runs\n",
                          what, *c.smallest_visible * 100);
    }
    for (const std::string& note : c.notes) text += fmt::format("{}: {}\n", what, note);
  }
  if (timing.unsteady_warm_ups > 0) {
    text += fmt::format("{} warm-ups were still getting faster when their time was over\n",
                        timing.unsteady_warm_ups);
  }
  return text;
}

std::vector<double> block_rates(const PairedTiming& timing, std::size_t arm, std::size_t test) {
  std::vector<double> rates;
  for (const TimedSample& sample : timing.samples) {
    if (sample.id.arm == arm && sample.id.copy == 0 && sample.test == test) {
      rates.push_back(sample.value());
    }
  }
  return rates;
}

int comparison_exit_code(const BenchCompareOptions& options, const PairedTiming& timing) {
  if (!options.fail_if_slower) return kExitOk;
  const auto any = [&](SpeedVerdict verdict) {
    return std::ranges::any_of(timing.comparisons,
                               [&](const Comparison& c) { return c.verdict == verdict; });
  };
  if (any(SpeedVerdict::kSlower)) return kExitRegression;
  if (any(SpeedVerdict::kInconclusive) && !options.inconclusive_ok) return kExitInconclusive;
  return kExitOk;
}

}  // namespace moebench::cli
