// Look-ups and the small building blocks of the tables.
#include "reports/html_page.h"

#include <algorithm>

#include "bench/record.h"
#include "reports/html_definitions.h"
#include "reports/html_text.h"
#include "reports/page_assets.h"

namespace moebench::page {
namespace {}  // namespace

Report::Report(const OrderedJson& report) : json(report) {
  std::vector<std::string> models;
  for (const OrderedJson& row : json.at("summary")) {
    const auto model = row.at("model").get<std::string>();
    if (std::find(models.begin(), models.end(), model) == models.end()) models.push_back(model);
  }
  for (const OrderedJson& summary : json.at("summary")) {
    Row row;
    row.model = summary.at("model").get<std::string>();
    row.plan = summary.at("plan").get<std::string>();
    row.label = models.size() > 1 ? row.model + " / " + row.plan : row.plan;
    row.summary = &summary;
    row.is_reference = row.plan == "reference";
    rows.push_back(std::move(row));
  }
}

const Row* Report::reference_of(const Row& row) const {
  const auto it = std::find_if(rows.begin(), rows.end(), [&](const Row& other) {
    return other.model == row.model && other.is_reference;
  });
  return it == rows.end() ? nullptr : &*it;
}

std::vector<const OrderedJson*> Report::records(const Row& row, std::string_view kind) const {
  std::vector<const OrderedJson*> found;
  for (const OrderedJson& record : json.at("records")) {
    if (record.at("kind") == kind && record.at("status") == "ok" &&
        record.at("model") == row.model && record.at("plan") == row.plan) {
      found.push_back(&record);
    }
  }
  return found;
}

std::optional<double> graphs_bytes(const Row& row) {
  const auto found = row.summary->find("graphs_bytes");
  if (found == row.summary->end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<double> value_of(const OrderedJson& metric) {
  if (!metric.is_object() || !metric.contains("value") || !metric.at("value").is_number()) {
    return std::nullopt;
  }
  return metric.at("value").get<double>();
}

const OrderedJson& metric_of(const OrderedJson& owner, std::string_view name) {
  if (!owner.is_object()) return kNull;
  const OrderedJson& metrics = owner.contains("metrics") ? owner.at("metrics") : owner;
  const auto it = metrics.find(std::string(name));
  return it == metrics.end() ? kNull : *it;
}

namespace {

std::string scenario_title(const OrderedJson& record) {
  return scenario_of_label(record.at("label").get<std::string>(),
                           record.at("plan").get<std::string>());
}

}  // namespace

std::vector<std::string> scenario_titles(const Report& report, std::string_view kind) {
  std::vector<std::string> titles;
  for (const Row& row : report.rows) {
    for (const OrderedJson* record : report.records(row, kind)) {
      const std::string title = scenario_title(*record);
      if (std::find(titles.begin(), titles.end(), title) == titles.end()) titles.push_back(title);
    }
  }
  return titles;
}

const OrderedJson* record_of(const Report& report, const Row& row, std::string_view kind,
                             std::string_view title) {
  for (const OrderedJson* record : report.records(row, kind)) {
    if (scenario_title(*record) == title) return record;
  }
  return nullptr;
}

const OrderedJson& metric_of(const Report& report, const Row& row, std::string_view kind,
                             std::string_view title, std::string_view name) {
  const OrderedJson* record = record_of(report, row, kind, title);
  return record == nullptr ? kNull : metric_of(*record, name);
}

std::optional<double> op_limit_ms(const OrderedJson& time_by_op, const std::string& op) {
  const auto limits = time_by_op.find("limits");
  if (limits == time_by_op.end() || !limits->contains(op)) return std::nullopt;
  return limits->at(op).at("limit_ms").get<double>();
}

std::string metric_cell(const OrderedJson& metric, std::string (*format)(double)) {
  const auto value = value_of(metric);
  if (!value) {
    const std::string why = metric.is_object() ? metric.value("interval_method", "") : "";
    return why.empty() ? std::string(kNoValue)
                       : fmt::format("<span class=none title=\"{}\">–</span>", escape_html(why));
  }
  std::string cell = escape_html(format(*value));
  if (metric.contains("interval") && metric.at("interval").is_object()) {
    const OrderedJson& interval = metric.at("interval");
    cell += fmt::format("<small title=\"{}\">[{}, {}]</small>",
                        escape_html(metric.value("interval_method", "")),
                        escape_html(format(interval.at("low").get<double>())),
                        escape_html(format(interval.at("high").get<double>())));
  }
  return cell;
}

std::string figure(std::string_view id, std::string_view caption, std::string_view kind) {
  return fmt::format(
      "<figure class=\"chart {2}\" data-chart=\"{0}\" hidden><div class=canvas><canvas "
      "role=img aria-label=\"{1}\"></canvas></div><figcaption>{1}</figcaption></figure>",
      id, escape_html(caption), kind);
}

std::string section(std::string_view id, std::string_view title, std::string_view lead,
                    std::string_view body) {
  return fmt::format("<section id={}><h2>{}</h2><p class=lead>{}</p>{}</section>\n", id,
                     escape_html(title), lead, body);
}

namespace {

// Column heads with their definitions, for those that have one.
std::string with_definitions(std::string_view head) {
  constexpr std::string_view kHead = "<th scope=col";
  std::string out;
  while (true) {
    const std::size_t at = head.find(kHead);
    const std::size_t begin = at == head.npos ? at : head.find('>', at);
    const std::size_t end = begin == head.npos ? begin : head.find("</th>", begin);
    if (end == head.npos) return out + std::string(head);
    const auto title = head.substr(begin + 1, end - begin - 1);
    const std::string_view text = definition_of(title);
    out += head.substr(0, begin);
    if (!text.empty()) out += fmt::format(" title=\"{}\"", escape_html(text));
    out += head.substr(begin, end - begin);
    head.remove_prefix(end);
  }
}

}  // namespace

std::string table(std::string_view head, std::string_view body, std::string_view classes) {
  return fmt::format(
      "<div class=scroll><table class=\"{}\"><thead>{}</thead><tbody>{}</tbody></table></div>",
      classes, with_definitions(head), body);
}

std::string page_head(std::string_view title, std::string_view links) {
  return fmt::format(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
      "<meta name=viewport content=\"width=device-width, initial-scale=1\">"
      "<meta name=color-scheme content=\"light dark\">"
      // No request may leave the page, whatever a transcript holds.
      "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
      "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
      "<title>{}</title><style>{}</style></head>\n"
      "<body><a class=skip href=\"#content\">Skip to the numbers</a><nav>{}"
      "<span class=buttons><button id=help type=button hidden aria-label=keys>?</button>"
      "<button id=theme type=button hidden aria-label=\"light or dark\">◐</button></span></nav>"
      "<main id=content>",
      title, kPageStyle, links);
}

std::string row_head(const Row& row) {
  return fmt::format("<th scope=row{}>{}</th>", row.is_reference ? " class=reference" : "",
                     escape_html(row.label));
}

std::string ratio_text(std::optional<double> value, std::optional<double> reference) {
  if (!value || !reference || !(*reference > 0)) return "";
  return fmt::format("×{:.2f}", *value / *reference);
}

std::string small_text(std::string_view text) {
  return text.empty() ? "" : fmt::format("<small>{}</small>", text);
}

std::string bar_cell(std::string_view content, double share) {
  return fmt::format("<td class=bar style=\"--w:{:.1f}%\">{}</td>",
                     100 * std::clamp(share, 0.0, 1.0), content);
}

Column speed_column(const Report& report, std::string_view kind, std::string_view title) {
  const auto metric = [&](const Row& row) -> const OrderedJson& {
    return metric_of(report, row, kind, title, rate_metric(kind));
  };
  double fastest = 0;
  for (const Row& row : report.rows) fastest = std::max(fastest, value_of(metric(row)).value_or(0));
  Column column{fmt::format("{}, tokens/s", title), {}};
  for (const Row& row : report.rows) {
    const auto rate = value_of(metric(row));
    std::string note;
    const Row* reference = report.reference_of(row);
    if (reference != nullptr && reference != &row) {
      note = ratio_text(rate, value_of(metric(*reference)));
    }
    if (const auto percent = value_of(metric_of(report, row, kind, title, "percent_of_limit"))) {
      note += fmt::format("{}{:.0f} % of limit", note.empty() ? "" : " · ", *percent);
    }
    const std::string content = metric_cell(metric(row), format_number) + small_text(note);
    column.cells.push_back(rate ? bar_cell(content, *rate / fastest)
                                : fmt::format("<td>{}</td>", content));
  }
  return column;
}

std::string chart_id(std::string_view kind, std::size_t number) {
  return fmt::format("{}-{}", kind, number);
}

std::string table_of_plans(const Report& report, const std::vector<Column>& columns,
                           std::string_view classes) {
  std::string head = "<tr><th scope=col>plan</th>";
  for (const Column& column : columns) {
    head += fmt::format("<th scope=col>{}</th>", escape_html(column.title));
  }
  std::string body;
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    body += "<tr>" + row_head(report.rows[i]);
    for (const Column& column : columns) body += column.cells[i];
    body += "</tr>";
  }
  return table(head + "</tr>", body, classes);
}

}  // namespace moebench::page
