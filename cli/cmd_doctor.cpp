// moebench doctor: what this machine can do, and what is missing.
#include <fmt/core.h>

#include <memory>

#include "bench/environment.h"
#include "cli/command.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "evals/task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/verify/verify.h"

namespace moebench::cli {
namespace {

struct DoctorOptions {
  bool json = false;
};

struct Finding {
  enum class Level { kGood, kNote, kProblem } level;
  std::string what;
  std::string detail;  // the value, and for notes and problems what would help
};

// Runs `check` and turns an Error into a problem.
template <class Check>
Finding attempt(const std::string& what, Check check) {
  try {
    return {Finding::Level::kGood, what, check()};
  } catch (const Error& error) {
    return {Finding::Level::kProblem, what, error.what()};
  }
}

std::vector<Finding> examine(const Environment& e) {
  using Level = Finding::Level;
  std::vector<Finding> findings;
  findings.push_back({Level::kGood, "processor", e.cpu});
  findings.push_back(
      {e.cpu_features.find("avx2") != std::string::npos ? Level::kGood : Level::kNote,
       "instructions", e.cpu_features.empty() ? "none of AVX2 and later" : e.cpu_features});
  findings.push_back({e.usable_cpus == e.logical_cpus ? Level::kGood : Level::kNote, "CPUs",
                      fmt::format("{} usable of {}", e.usable_cpus, e.logical_cpus)});
  findings.push_back({Level::kGood, "memory", format_bytes(static_cast<double>(e.memory_bytes))});
  findings.push_back({Level::kGood, "system", e.os});
  findings.push_back(
      {e.build_type == "Release" ? Level::kGood : Level::kNote, "build",
       fmt::format(
           "moebench {}, {}, {}, commit {}{}", e.version, e.compiler, e.build_type, e.git_commit,
           e.build_type == "Release" ? "" : " (times mean little: build with --preset release)")});
  findings.push_back(
      {e.governor == "performance" || e.governor == "not available" ? Level::kGood : Level::kNote,
       "frequency governor",
       e.governor == "performance" || e.governor == "not available"
           ? e.governor
           : e.governor + " (times vary less under 'performance')"});
  findings.push_back(
      {e.load_average < 0.5 ? Level::kGood : Level::kNote, "load",
       fmt::format("{:.2f}{}", e.load_average,
                   e.load_average < 0.5 ? "" : " (others are using the CPUs; times will vary)")});
  findings.push_back({Level::kNote, "GPU", "this build runs CPU plans only"});
  findings.push_back(attempt("model nano", [] {
    const std::filesystem::path directory = resolve_model("nano");
    const WeightLayout layout =
        plan_weights(Checkpoint::open(directory), load_model_config(directory), Plan{});
    return fmt::format("{} parameters in {}", format_count(layout.parameters()),
                       directory.string());
  }));
  findings.push_back(attempt("questions of nano", [] {
    return fmt::format("{} items", find_task("nano").load().items.size());
  }));
  findings.push_back(attempt("kernels", [] {
    ThreadPool pool(0);
    const auto results = verify_variants({}, 1, pool);
    std::int64_t failed = 0;
    for (const VerifyResult& r : results) {
      failed += r.outcome == VerifyResult::Outcome::kFailed ? 1 : 0;
    }
    require(failed == 0, "{} of {} checks failed (see moebench kernels verify)", failed,
            results.size());
    return fmt::format("all {} checks passed", results.size());
  }));
  findings.push_back(attempt("writing here", [] {
    const std::filesystem::path probe = "moebench-doctor-probe";
    write_file_atomically(probe, "probe");
    std::filesystem::remove(probe);
    const auto space = std::filesystem::space(".");
    return fmt::format("{} free", format_bytes(static_cast<double>(space.available)));
  }));
  return findings;
}

int run_doctor(const DoctorOptions& options) {
  const std::vector<Finding> findings = examine(read_environment());
  bool healthy = true;
  OrderedJson json = OrderedJson::array();
  for (const Finding& f : findings) {
    const bool problem = f.level == Finding::Level::kProblem;
    const char* mark = problem ? "missing" : f.level == Finding::Level::kNote ? "note" : "ok";
    healthy = healthy && !problem;
    if (options.json) {
      json.push_back({{"what", f.what}, {"level", mark}, {"detail", f.detail}});
    } else {
      fmt::print("{:<8} {:<20} {}\n", mark, f.what, f.detail);
    }
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return healthy ? kExitOk : kExitFailed;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = add_command(
      app, action, "doctor", "What this machine can do, and what is missing", options, run_doctor);
  command->add_flag("--json", options->json, "As JSON");
  add_examples(command, {"moebench doctor"});
}

}  // namespace moebench::cli
