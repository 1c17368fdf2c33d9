// moebench kernels list|verify|bench: the variants of every op, whether they compute what they
// should, and how fast.
#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "bench/op_benchmarks.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/suggest.h"
#include "kernels/core/thread_pool.h"
#include "kernels/verify/verify.h"

namespace moebench::cli {
namespace {

struct KernelOptions {
  VerifyFilter filter;
  std::uint64_t seed = 1;
  int threads = 0;
  bool verbose = false;
  bool json = false;
};

bool matches(const VariantInfo& info, const VerifyFilter& filter) {
  return (filter.op.empty() || filter.op == info.op) &&
         (filter.variant.empty() || filter.variant == info.variant) &&
         (filter.backend.empty() || filter.backend == info.backend);
}

int run_list(const KernelOptions& options) {
  Table table({"op", "variant", "backend", "how it works", "what it rounds"});
  OrderedJson json = OrderedJson::array();
  for (const VariantInfo& info : list_variants()) {
    if (!matches(info, options.filter)) continue;
    table.add({info.op, info.variant, info.backend, info.summary, info.rounds});
    json.push_back({{"op", info.op},
                    {"variant", info.variant},
                    {"backend", info.backend},
                    {"summary", info.summary},
                    {"rounds", info.rounds}});
  }
  fmt::print("{}", options.json ? json.dump(2) + "\n" : table.text());
  return kExitOk;
}

std::string_view outcome_name(VerifyResult::Outcome outcome) {
  switch (outcome) {
    case VerifyResult::Outcome::kPassed:
      return "pass";
    case VerifyResult::Outcome::kFailed:
      return "FAIL";
    case VerifyResult::Outcome::kSkipped:
      return "skip";
  }
  return "?";
}

int run_verify(const KernelOptions& options) {
  ThreadPool pool(options.threads);
  const std::vector<VerifyResult> results = verify_variants(options.filter, options.seed, pool);
  // One line per variant, and every check that did not pass.
  struct Tally {
    std::int64_t passed = 0, failed = 0, skipped = 0;
    double worst_nmse = 0, bound = 0;
  };
  std::vector<std::pair<std::string, Tally>> tallies;
  Table details({"op", "variant", "shape", "format", "outcome", ">NMSE", ">bound", ">max error"});
  OrderedJson json = OrderedJson::array();
  bool all_passed = true;
  for (const VerifyResult& r : results) {
    const std::string name = fmt::format("{} / {}", r.op, r.variant);
    auto found = std::find_if(tallies.begin(), tallies.end(),
                              [&](const auto& t) { return t.first == name; });
    if (found == tallies.end()) found = tallies.insert(tallies.end(), {name, Tally{}});
    Tally& tally = found->second;
    using Outcome = VerifyResult::Outcome;
    (r.outcome == Outcome::kPassed   ? tally.passed
     : r.outcome == Outcome::kFailed ? tally.failed
                                     : tally.skipped) += 1;
    tally.bound = std::max(tally.bound, r.bound);
    tally.worst_nmse = std::max(tally.worst_nmse, r.nmse);
    all_passed = all_passed && r.outcome != Outcome::kFailed;
    if (options.verbose || r.outcome != Outcome::kPassed) {
      details.add({r.op, r.variant, r.shape, r.format, std::string(outcome_name(r.outcome)),
                   fmt::format("{:.1e}", r.nmse), fmt::format("{:.0e}", r.bound),
                   r.reason.empty() ? fmt::format("{:.1e}", r.max_abs) : r.reason});
    }
    OrderedJson line = {{"op", r.op},           {"variant", r.variant},
                        {"backend", r.backend}, {"shape", r.shape},
                        {"format", r.format},   {"outcome", outcome_name(r.outcome)},
                        {"bound", r.bound}};
    // Infinity has no JSON: a failed comparison says why in words.
    if (std::isfinite(r.nmse)) line["nmse"] = r.nmse;
    if (std::isfinite(r.max_abs)) line["max_abs"] = r.max_abs;
    if (!r.reason.empty()) line["reason"] = r.reason;
    json.push_back(std::move(line));
  }
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
    return all_passed ? kExitOk : kExitFailed;
  }
  if (options.verbose || !all_passed) fmt::print("{}\n", details.text());
  Table summary(
      {"op / variant", ">passed", ">failed", ">skipped", ">worst NMSE", ">loosest bound"});
  for (const auto& [name, t] : tallies) {
    summary.add({name, std::to_string(t.passed), std::to_string(t.failed),
                 std::to_string(t.skipped), fmt::format("{:.1e}", t.worst_nmse),
                 fmt::format("{:.0e}", t.bound)});
  }
  fmt::print("{}{} checks against float64 arithmetic, seed {}: {}\n", summary.text(),
             results.size(), options.seed, all_passed ? "all passed" : "SOME FAILED");
  return all_passed ? kExitOk : kExitFailed;
}

struct KernelBenchOptions {
  KernelOptions common;
  OpBenchmarkOptions bench;
  std::vector<std::string> formats;
  std::string routing;
};

int run_kernel_bench(const KernelBenchOptions& options) {
  OpBenchmarkOptions bench = options.bench;
  bench.op = options.common.filter.op;
  bench.variant = options.common.filter.variant;
  bench.backend = options.common.filter.backend;
  bench.threads = options.common.threads;
  bench.json = options.common.json;
  if (!options.routing.empty()) bench.routing = load_routing(options.routing);
  for (const std::string& name : options.formats) bench.formats.push_back(parse_format(name));
  return run_op_benchmarks(bench) == 0 ? kExitOk : kExitFailed;
}

// The name must stand in that column of the list of variants.
CLI::Validator is_known(std::string VariantInfo::*column) {
  return read_by([column](const std::string& name) {
    std::vector<std::string> known;
    for (const VariantInfo& info : list_variants()) {
      if (std::find(known.begin(), known.end(), info.*column) == known.end()) {
        known.push_back(info.*column);
      }
    }
    require(std::find(known.begin(), known.end(), name) != known.end(), "no '{}'; {}", name,
            suggestion(name, known));
  });
}

void add_filter(CLI::App* command, KernelOptions& options) {
  command->add_option("--op", options.filter.op, "Only this op")
      ->type_name("OP")
      ->check(is_known(&VariantInfo::op));
  command->add_option("--variant", options.filter.variant, "Only this variant")
      ->type_name("V")
      ->check(is_known(&VariantInfo::variant));
  command->add_option("--backend", options.filter.backend, "Only this backend: cpu or cuda")
      ->type_name("B")
      ->check(is_known(&VariantInfo::backend));
  command->add_flag("--json", options.json, "As JSON");
}

}  // namespace

void add_kernels(CLI::App& app, Action& action) {
  CLI::App* kernels =
      app.add_subcommand("kernels", "The variants of every op: list, verify, time them");
  kernels->require_subcommand(1);
  add_examples(kernels, {"moebench kernels list", "moebench kernels verify --op moe_experts"});

  auto list = std::make_shared<KernelOptions>();
  CLI::App* command =
      add_command(*kernels, action, "list", "Every op with its variants", list, run_list);
  add_filter(command, *list);
  add_examples(command, {"moebench kernels list --op linear"});

  auto verify = std::make_shared<KernelOptions>();
  command = add_command(*kernels, action, "verify",
                        "Check every variant against float64 arithmetic", verify, run_verify);
  add_filter(command, *verify);
  command->add_option("--seed", verify->seed, "Seed of the random inputs")
      ->type_name("S")
      ->capture_default_str();
  add_threads_option(command, verify->threads);
  command->add_flag("--small", verify->filter.small,
                    "A few small shapes of each op: for compute-sanitizer");
  command->add_flag("--verbose", verify->verbose, "Every check, not only those that fail");
  add_examples(command,
               {"moebench kernels verify", "moebench kernels verify --op attention --verbose"});

  auto bench = std::make_shared<KernelBenchOptions>();
  OpBenchmarkOptions& b = bench->bench;
  command = add_command(*kernels, action, "bench",
                        "Time linear, moe_experts and attention against this machine's limits",
                        bench, run_kernel_bench);
  add_filter(command, bench->common);
  command->add_option("--shape", b.shape, "Shapes of 20b, 120b (gpt-oss) or nano")
      ->type_name("SHAPE")
      ->check(CLI::IsMember({"20b", "120b", "nano"}))
      ->capture_default_str();
  command->add_option("--format", bench->formats, "Formats of weights and cache; repeatable")
      ->type_name("F")
      ->check(read_by([](const std::string& name) { parse_format(name); }));
  const auto add_list = [&](const char* name, std::vector<std::int64_t>& to, const char* help) {
    command->add_option(name, to, help)
        ->type_name("N,...")
        ->delimiter(',')
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
        ->capture_default_str();
  };
  command
      ->add_option("--routing", bench->routing,
                   "Experts as a model chose them on real text (moebench model routing writes it), "
                   "instead of evenly")
      ->type_name("FILE");
  add_list("--tokens", b.tokens, "Tokens in one call");
  add_list("--context", b.contexts, "Positions that attention sees");
  command->add_flag(
      "--decode", b.decode,
      "Attention of sequences that are decoded together, a token each, instead of one "
      "sequence's last tokens");
  command->add_option("--min-time", b.min_time_s, "Seconds to time each for")
      ->type_name("S")
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  command->add_option("--repetitions", b.repetitions, "Repetitions, for mean, median and deviation")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--out", b.out, "Also write Google Benchmark's JSON to this file")
      ->type_name("FILE");
  add_threads_option(command, bench->common.threads);
  add_examples(command, {"moebench kernels bench --op linear --tokens 1,512",
                         "moebench kernels bench --op moe_experts --variant avx2_int8 --json"});
}

}  // namespace moebench::cli
