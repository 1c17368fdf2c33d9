// moebench compare: what became better or worse between runs, as a table, a document for CI, and an
// exit code.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/history_options.h"
#include "cli/table.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/compare.h"
#include "reports/history.h"

namespace moebench::cli {
namespace {

// A comment on GitHub holds 65,536 characters.
constexpr std::size_t kMostMarkdown = 65000;

struct CompareCommandOptions {
  std::string base;
  std::vector<std::string> candidates;
  std::string gate;
  std::string format = "text";
  std::string out;
  std::string correction = "holm";
  bool inconclusive_ok = false;
  std::string baseline;  // "history:NAME"; then `base` is a candidate
  std::string db = default_history();
  std::int64_t last = 5;
  CompareOptions compare;
};

std::string value_text(const MetricComparison& m, double value) {
  if (m.unit == "bool") return value != 0 ? "yes" : "no";
  if (m.unit == "bytes") return format_bytes(value);
  if (m.unit == "share") return fmt::format("{:.1f} %", 100 * value);
  return fmt::format("{:.4g} {}", value, m.unit);
}

// "+1.2 % [-0.3, +2.7]"; points where the metric is a share.
std::string change_text(const MetricComparison& m) {
  if (m.outcome == Outcome::kNotComparable || m.unit == "bool") return "-";
  const bool percent = m.rule.relative || m.unit == "share";
  const double scale = percent ? 100 : 1;
  std::string text = fmt::format("{:+.2f}{}", scale * m.change, m.rule.relative ? " %" : "");
  if (!m.rule.relative && m.unit == "share") text += " points";
  if (m.interval) {
    text += fmt::format(" [{:+.2f}, {:+.2f}]", scale * m.interval->low, scale * m.interval->high);
  }
  return text;
}

std::string margin_text(const MetricComparison& m) {
  if (m.unit == "bool") return "-";
  if (m.rule.relative) return fmt::format("{:.3g} %", 100 * m.rule.margin);
  return m.unit == "share" ? fmt::format("{:.3g} points", 100 * m.rule.margin)
                           : fmt::format("{:.3g}", m.rule.margin);
}

// What would make the verdict firmer.
std::string advice(const MetricComparison& m) {
  std::string text = m.reason;
  if (text.empty() && m.count > 1 && m.interval && m.interval->low == 0 && m.interval->high == 0) {
    text = m.method;
  }
  const auto add = [&](const std::string& more) { text += (text.empty() ? "" : "; ") + more; };
  if (m.outcome == Outcome::kInconclusive && m.visible) {
    const bool percent = m.rule.relative || m.unit == "share";
    add(fmt::format("could have seen {:.3g}{}", (percent ? 100 : 1) * *m.visible,
                    m.rule.relative ? " %" : " points"));
  }
  if (m.outcome == Outcome::kInconclusive && m.to_settle) {
    add(*m.to_settle > m.count
            ? fmt::format("about {} {} would settle it, {} more", format_count(*m.to_settle),
                          m.counted, format_count(*m.to_settle - m.count))
            : fmt::format("about {} {} would settle it", format_count(*m.to_settle), m.counted));
  }
  if (!m.lost.empty() || !m.gained.empty()) {
    add(fmt::format("{} lost, {} gained of {}", m.lost.size(), m.gained.size(), m.count));
  }
  if (!m.rule.required) add("not required");
  return text;
}

Table table_of(const RunComparison& comparison, bool changes_only) {
  Table table({"case", "metric", ">base", ">new",
               ">change [" + fmt::format("{:.3g}", 100 * comparison.level) + " %]", ">margin",
               "verdict", "note"});
  for (const MetricComparison& m : comparison.metrics) {
    if (changes_only && m.outcome == Outcome::kSame) continue;
    const bool none = m.outcome == Outcome::kNotComparable;
    table.add({m.label(), m.metric, none ? "-" : value_text(m, m.base),
               none ? "-" : value_text(m, m.candidate), change_text(m), margin_text(m),
               std::string(outcome_name(m.outcome)), advice(m)});
  }
  return table;
}

// "1 REGRESSED, 3 SAME": how often each verdict was given.
std::string counts_text(const RunComparison& comparison) {
  std::string text;
  for (const Outcome outcome : {Outcome::kRegressed, Outcome::kInconclusive, Outcome::kImproved,
                                Outcome::kSame, Outcome::kNotComparable}) {
    const auto count =
        std::count_if(comparison.metrics.begin(), comparison.metrics.end(),
                      [&](const MetricComparison& metric) { return metric.outcome == outcome; });
    if (count == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, outcome_name(outcome));
  }
  return text.empty() ? "nothing to compare" : text;
}

std::string title(const RunComparison& comparison) {
  return comparison.candidates.empty()
             ? fmt::format("plans of {}", comparison.base)
             : fmt::format("{} against {}", fmt::join(comparison.candidates, ", "),
                           comparison.base);
}

std::string text_of(const RunComparison& comparison) {
  std::string text = fmt::format("{}\n\n", title(comparison));
  if (!comparison.metrics.empty()) text += table_of(comparison, false).text() + "\n";
  for (const CaseProblem& problem : comparison.problems) {
    text += fmt::format("{}: {}: {}\n", problem.label, problem.status, problem.reason);
  }
  for (const std::string& note : comparison.notes) text += fmt::format("note: {}\n", note);
  return text +
         fmt::format("\n{}: {}\n", outcome_name(comparison.verdict()), counts_text(comparison));
}

std::string markdown_of(const RunComparison& comparison) {
  const auto document = [&](bool changes_only, std::size_t most_rows) {
    std::string text = fmt::format("### {}: {}\n\n{}\n\n", outcome_name(comparison.verdict()),
                                   title(comparison), counts_text(comparison));
    RunComparison shown = comparison;
    if (shown.metrics.size() > most_rows) shown.metrics.resize(most_rows);
    if (!shown.metrics.empty()) text += table_of(shown, changes_only).markdown() + "\n";
    if (changes_only) text += "Rows that stayed the same are left out.\n";
    if (shown.metrics.size() < comparison.metrics.size()) {
      text += fmt::format("{} more metrics are left out.\n",
                          comparison.metrics.size() - shown.metrics.size());
    }
    for (const CaseProblem& problem : comparison.problems) {
      text += fmt::format("- **{}** {}: {}\n", problem.status, problem.label, problem.reason);
    }
    for (const std::string& note : comparison.notes) text += fmt::format("- {}\n", note);
    return text;
  };
  std::string text = document(false, comparison.metrics.size());
  if (text.size() > kMostMarkdown) text = document(true, comparison.metrics.size());
  for (std::size_t rows = 256; text.size() > kMostMarkdown && rows > 0; rows /= 2) {
    text = document(true, rows);
  }
  return text;
}

int exit_code(const RunComparison& comparison, bool inconclusive_ok) {
  const Outcome verdict = comparison.verdict();
  if (verdict == Outcome::kRegressed) return kExitRegression;
  if (!comparison.problems.empty() || verdict == Outcome::kNotComparable) return kExitFailed;
  if (verdict == Outcome::kInconclusive) return inconclusive_ok ? kExitOk : kExitInconclusive;
  return kExitOk;
}

// "history:main" -> "main"
std::string history_name(const std::string& baseline) {
  constexpr std::string_view kPrefix = "history:";
  require_or(ErrorCode::kUsage, baseline.starts_with(kPrefix) && baseline.size() > kPrefix.size(),
             "read --baseline '{}': expected history:NAME, as in history:main",
             baseline.substr(0, 60));
  return baseline.substr(kPrefix.size());
}

int run_compare(const CompareCommandOptions& options) {
  CompareOptions compare = options.compare;
  if (options.correction == "bh") compare.correction = Correction::kBenjaminiHochberg;
  if (!options.gate.empty()) compare.gate = load_gate(options.gate);
  require_or(ErrorCode::kUsage, !options.base.empty(), "compare runs: give {}",
             options.baseline.empty() ? "BASE, and NEW" : "NEW");
  std::vector<RunResults> base;
  std::vector<std::vector<RunResults>> candidates;
  if (options.baseline.empty()) {
    base = read_runs_in(options.base);
  } else {
    const std::string name = history_name(options.baseline);
    candidates.push_back(read_runs_in(options.base));
    History history(options.db, false);
    base = history_base(history, name, options.last, candidates.front().front());
  }
  for (const std::string& candidate : options.candidates) {
    candidates.push_back(read_runs_in(candidate));
  }
  const RunComparison comparison = compare_sides(base, candidates, compare);
  std::string text;
  if (options.format == "json") {
    text = to_json(comparison).dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  } else if (options.format == "junit") {
    text = junit_xml(comparison, options.inconclusive_ok);
  } else {
    text = options.format == "markdown" ? markdown_of(comparison) : text_of(comparison);
  }
  if (options.out.empty()) {
    fmt::print("{}", text);
  } else {
    write_file_atomically(options.out, text);
    fmt::print("{}: {}; written to {}\n", outcome_name(comparison.verdict()),
               counts_text(comparison), options.out);
  }
  for (const CaseProblem& problem : comparison.problems) {
    fmt::print(stderr, "error: compare {}: {}: {}\n", problem.label, problem.status,
               problem.reason);
  }
  if (comparison.verdict() == Outcome::kNotComparable) {
    fmt::print(stderr,
               "error: compare {}: nothing could be compared (the runs need cases, weights and "
               "datasets in common; --force compares what differs)\n",
               title(comparison));
  }
  return exit_code(comparison, options.inconclusive_ok);
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  auto options = std::make_shared<CompareCommandOptions>();
  CLI::App* command =
      add_command(app, action, "compare",
                  "What became better or worse between runs, or between plans of one run", options,
                  run_compare);
  command
      ->add_option("base", options->base,
                   "A run's folder, a folder that holds several runs of one suite, or results of "
                   "lm-eval or another tool")
      ->type_name("BASE");
  command
      ->add_option("new", options->candidates,
                   "The runs to compare with it (none: plans of BASE with each other)")
      ->type_name("NEW...");
  command
      ->add_option("--gate", options->gate,
                   "Margins, bounds and allowed formats, in JSON (reports/gate.schema.json)")
      ->type_name("FILE");
  command->add_option("--format", options->format, "text, markdown, json or junit")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"text", "markdown", "json", "junit"}))
      ->capture_default_str();
  command->add_option("-o,--out", options->out, "Write it there instead of printing it")
      ->type_name("FILE");
  command
      ->add_option("--base-plan", options->compare.base_plan,
                   "Compare every plan with this one of BASE (default: each with its namesake; "
                   "reference if there is no NEW)")
      ->type_name("NAME");
  command
      ->add_option(
          "--baseline", options->baseline,
          "history:NAME instead of BASE: the last good runs of that name, of the same suite "
          "and machine")
      ->type_name("history:NAME");
  command->add_option("--last", options->last, "How many of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_history_option(command, options->db);
  command->add_option("--plan", options->compare.plans, "Only these plans of NEW; repeatable")
      ->type_name("NAME");
  command
      ->add_option("--correction", options->correction,
                   "Of p-values within a family: holm (the chance of any false alarm) or bh "
                   "(Benjamini-Hochberg: the share of false alarms)")
      ->type_name("NAME")
      ->check(CLI::IsMember({"holm", "bh"}))
      ->capture_default_str();
  command->add_flag("--inconclusive-ok", options->inconclusive_ok,
                    "Exit with 0, not 4, where the data cannot rule out a regression");
  command->add_flag("--force", options->compare.force,
                    "Compare also where weights, datasets or machines differ");
  add_examples(command, {"moebench compare runs/main runs/branch --gate gate.json",
                         "moebench compare demo-run --base-plan fast",
                         "moebench compare --baseline history:main new-run --db history.db",
                         "moebench compare base new --format markdown >> $GITHUB_STEP_SUMMARY",
                         "moebench compare base new --format junit -o compare.xml"});
}

}  // namespace moebench::cli
