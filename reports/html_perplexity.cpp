// How well plans predict a text: a table for each text, with the change against the reference.
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

std::string four_digits(double value) { return fmt::format("{:.4g}", value); }

std::string signed_percent(double part) { return format_signed(100 * part, 2); }

// "+1.3 % [+0.9, +1.7]": block by block, as `moebench compare` judges it; "" where it does not.
std::string change_text(const Report& report, const Row& row, const std::string& title) {
  const auto verdicts = report.json.find("verdicts");
  if (verdicts == report.json.end()) return "";
  for (const OrderedJson& verdict : *verdicts) {
    if (verdict.at("metric") != "perplexity" || verdict.at("model") != row.model ||
        verdict.at("plan") != row.plan || verdict.at("scenario") != title ||
        verdict.at("outcome") == "NOT COMPARABLE") {
      continue;
    }
    std::string text = signed_percent(verdict.at("change").get<double>()) + " %";
    if (const OrderedJson& interval = verdict.at("interval"); interval.is_object()) {
      text += small_text(fmt::format("[{}, {}]", signed_percent(interval.at("low").get<double>()),
                                     signed_percent(interval.at("high").get<double>())));
    }
    return text;
  }
  return "";
}

}  // namespace

std::string perplexity_section(const Report& report) {
  std::string body;
  for (const std::string& title : scenario_titles(report, "perplexity")) {
    std::string rows;
    for (const Row& row : report.rows) {
      const OrderedJson* record = record_of(report, row, "perplexity", title);
      if (record == nullptr) continue;
      const OrderedJson& metric = metric_of(*record, "perplexity");
      const std::string change = change_text(report, row, title);
      rows += fmt::format(
          "<tr>{}<td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", row_head(row),
          metric_cell(metric, four_digits), change.empty() ? std::string(kNoValue) : change,
          metric_cell(metric_of(*record, "bits_per_byte"), four_digits),
          metric.is_object() ? format_number(static_cast<double>(metric.value("count", 0)))
                             : std::string(kNoValue));
    }
    body += fmt::format("<h3>{}</h3>", escape_html(title)) +
            table(
                "<tr><th scope=col>plan</th><th scope=col>perplexity</th><th scope=col>against "
                "the reference</th><th scope=col>bits per byte</th><th scope=col>tokens "
                "scored</th></tr>",
                rows);
  }
  if (body.empty()) return "";
  return section(
      "perplexity", "Perplexity",
      "Of a text, in strided windows. Intervals draw blocks of neighbouring tokens, which are easy "
      "or hard together; the change is of the same blocks under both plans, so it is far sharper "
      "than the two intervals beside it.",
      body);
}

}  // namespace moebench::page
