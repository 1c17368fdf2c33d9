// JUnit XML, as CI servers read it: testsuites > testsuite > testcase > failure | error | skipped.
// Jenkins keeps one failure per test case, so each gets one message.
#include <map>

#include "bench/environment.h"
#include "reports/compare.h"
#include "reports/html_text.h"

namespace moebench {
namespace {

// XML has no place for control characters; escape_html leaves only newline and tab.
std::string attribute(std::string_view name, std::string_view value) {
  return fmt::format(" {}=\"{}\"", name, escape_html(value));
}

struct JunitSuite {
  std::string cases;
  int tests = 0;
  int failures = 0;
  int errors = 0;
  int skipped = 0;

  void add(std::string_view suite, std::string_view name, std::string_view kind,
           std::string_view type, std::string_view message) {
    ++tests;
    failures += kind == "failure" ? 1 : 0;
    errors += kind == "error" ? 1 : 0;
    skipped += kind == "skipped" ? 1 : 0;
    cases += fmt::format("    <testcase{}{} time=\"0\"", attribute("name", name),
                         attribute("classname", suite));
    if (kind.empty()) {
      cases += "/>\n";
      return;
    }
    cases += fmt::format(">\n      <{}{}", kind, attribute("message", message));
    if (kind != "skipped") cases += attribute("type", type);
    cases += "/>\n    </testcase>\n";
  }
};

std::string sentence(const MetricComparison& m) {
  std::string text =
      fmt::format("{}: {:.6g} → {:.6g} {}", outcome_name(m.outcome), m.base, m.candidate, m.unit);
  const double scale = m.rule.relative ? 100 : 1;
  const char* unit = m.rule.relative ? " %" : "";
  if (m.outcome != Outcome::kNotComparable) {
    text += fmt::format(", change {:+.4g}{}", scale * m.change, unit);
    if (m.interval) {
      text += fmt::format(" [{:+.4g}, {:+.4g}]", scale * m.interval->low, scale * m.interval->high);
    }
    text += fmt::format(", margin {:.4g}{}", scale * m.rule.margin, unit);
  }
  if (!m.reason.empty()) text += "; " + m.reason;
  return text;
}

}  // namespace

std::string junit_xml(const RunComparison& comparison, bool inconclusive_ok) {
  std::vector<std::string> order;
  std::map<std::string, JunitSuite> suites;
  const auto suite_of = [&](const std::string& name) -> JunitSuite& {
    if (!suites.contains(name)) order.push_back(name);
    return suites[name];
  };
  for (const MetricComparison& m : comparison.metrics) {
    const std::string suite = m.base_plan == m.plan ? m.plan : m.base_plan + " to " + m.plan;
    const std::string name = m.scenario + ": " + m.metric;
    std::string_view kind;
    if (m.outcome == Outcome::kNotComparable || (!m.not_worse && !m.rule.required)) {
      kind = "skipped";
    } else if (m.outcome == Outcome::kRegressed) {
      kind = "failure";
    } else if (!m.not_worse) {
      kind = inconclusive_ok ? "skipped" : "failure";
    }
    suite_of(suite).add(suite, name, kind, outcome_name(m.outcome), sentence(m));
  }
  for (const CaseProblem& problem : comparison.problems) {
    suite_of("cases").add("cases", problem.label, "error", problem.status,
                          fmt::format("{}: {}", problem.status, problem.reason));
  }
  JunitSuite total;
  std::string body;
  for (const std::string& name : order) {
    const JunitSuite& suite = suites.at(name);
    total.tests += suite.tests;
    total.failures += suite.failures;
    total.errors += suite.errors;
    // The schema wants a local time without a zone; ours is UTC.
    body += fmt::format(
        "  <testsuite{} tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"0\"{}>\n"
        "{}  </testsuite>\n",
        attribute("name", name), suite.tests, suite.failures, suite.errors, suite.skipped,
        attribute("timestamp", utc_now().substr(0, 19)), suite.cases);
  }
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuites name=\"moebench compare\" tests=\"{}\" failures=\"{}\" errors=\"{}\" "
      "time=\"0\">\n{}</testsuites>\n",
      total.tests, total.failures, total.errors, body);
}

}  // namespace moebench
