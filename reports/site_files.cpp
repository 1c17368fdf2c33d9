// The parts of a site that other programs read: feed, table, badges.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <set>

#include "reports/html_text.h"
#include "reports/site.h"

namespace moebench {
namespace {

// "2026-01-31T12:00:00Z" as RSS wants it: "Sat, 31 Jan 2026 12:00:00 GMT"; "" if it is no time.
std::string mail_date(const std::string& utc) {
  int year = 0;
  unsigned month = 0;
  unsigned day = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
  if (std::sscanf(utc.c_str(), "%4d-%2u-%2uT%2d:%2d:%2dZ", &year, &month, &day, &hour, &minute,
                  &second) != 6) {
    return "";
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok()) return "";
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::chrono::weekday weekday{std::chrono::sys_days(date)};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[weekday.c_encoding()], day,
                     kMonths[month - 1], year, hour, minute, second);
}

std::string value_text(const OrderedJson& number, const char* field) {
  const auto value = number.at(field).get<double>();
  const auto unit = number.at("unit").get<std::string>();
  if (unit == "share") return format_percent(value);
  if (unit == "bytes") return format_size(value);
  return format_number(value);
}

// RFC 4180.
std::string csv_cell(const OrderedJson& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const std::string text = visible_text(value.get<std::string>());
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string slug(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    const bool upper = c >= 'A' && c <= 'Z';
    if (plain || upper) {
      out += upper ? static_cast<char>(c - 'A' + 'a') : c;
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out.empty() ? "x" : out;
}

// https://shields.io/badges/endpoint-badge
std::string badge(const std::string& label, const std::string& message, const std::string& color) {
  const OrderedJson json = {{"schemaVersion", 1},
                            {"label", visible_text(label)},
                            {"message", visible_text(message)},
                            {"color", color}};
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace

std::string site_feed(const OrderedJson& site) {
  std::string base = site.at("url").get<std::string>();
  if (!base.empty() && base.back() != '/') base += '/';
  const std::string title = escape_html(site.at("title").get<std::string>());
  std::string items;
  for (const OrderedJson& comparison : site.at("comparisons")) {
    const OrderedJson& regressions = comparison.at("regressions");
    if (regressions.empty()) continue;
    const std::string run = comparison.at("run").get<std::string>();
    std::string text;
    for (const OrderedJson& r : regressions) {
      text += fmt::format("{} {}, {} {}: {} against {}\n", r.at("model").get<std::string>(),
                          r.at("plan").get<std::string>(), r.at("scenario").get<std::string>(),
                          r.at("metric").get<std::string>(), value_text(r, "candidate"),
                          value_text(r, "base"));
    }
    items += fmt::format(
        "<item><title>{} regression{} of {} in {} against {}</title>"
        "<guid isPermaLink=\"false\">{}</guid><pubDate>{}</pubDate><description>{}</description>",
        regressions.size(), regressions.size() == 1 ? "" : "s",
        escape_html(comparison.at("suite").get<std::string>()), escape_html(run),
        escape_html(comparison.at("base").get<std::string>()),
        escape_html(fmt::format("{}/{}/{}", run, comparison.at("base").get<std::string>(),
                                comparison.at("started").get<std::string>())),
        mail_date(comparison.at("started").get<std::string>()), escape_html(text));
    if (!base.empty()) {
      items +=
          fmt::format("<link>{}runs/{}/index.html</link>", escape_html(base), escape_html(run));
    }
    items += "</item>\n";
  }
  const std::string self = base.empty() ? ""
                                        : fmt::format(
                                              "<atom:link href=\"{}feed.xml\" rel=\"self\" "
                                              "type=\"application/rss+xml\"/>",
                                              escape_html(base));
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\" "
      "xmlns:atom=\"http://www.w3.org/2005/Atom\"><channel><title>{}: regressions</title>"
      "<link>{}</link><description>Runs that a gate would not let pass, each against the one "
      "before "
      "it of the same "
      "suite.</description><lastBuildDate>{}</lastBuildDate>{}\n{}</channel></rss>\n",
      title, base.empty() ? "index.html" : escape_html(base),
      mail_date(site.at("generated").get<std::string>()), self, items);
}

std::string site_csv(const OrderedJson& site) {
  static constexpr const char* kFields[] = {"machine", "model", "plan",   "scenario",
                                            "metric",  "unit",  "value",  "low",
                                            "high",    "run",   "started"};
  std::string csv;
  for (const char* field : kFields) csv += fmt::format("{}{}", csv.empty() ? "" : ",", field);
  csv += ",published\r\n";
  for (const OrderedJson& number : site.at("leaderboard")) {
    for (const char* field : kFields) csv += csv_cell(number.at(field)) + ",";
    if (number.contains("published")) csv += number.at("published").at("value").dump();
    csv += "\r\n";
  }
  return csv;
}

std::vector<std::pair<std::string, std::string>> site_badges(const OrderedJson& site) {
  std::vector<std::pair<std::string, std::string>> badges;
  const OrderedJson& comparisons = site.at("comparisons");
  if (!comparisons.empty()) {
    const auto verdict = comparisons.front().at("verdict").get<std::string>();
    const auto count = comparisons.front().at("regressions").size();
    badges.emplace_back(
        "verdict.json",
        count > 0
            ? badge("moebench", fmt::format("{} regression{}", count, count == 1 ? "" : "s"), "red")
        : verdict == "INCONCLUSIVE"   ? badge("moebench", "inconclusive", "yellow")
        : verdict == "NOT COMPARABLE" ? badge("moebench", "not comparable", "lightgrey")
                                      : badge("moebench", "no regression", "brightgreen"));
  }
  std::set<std::string> taken = {"verdict.json"};
  for (const OrderedJson& number : site.at("leaderboard")) {
    const auto text = [&](const char* field) { return number.at(field).get<std::string>(); };
    const std::string stem = slug(
        fmt::format("{} {} {} {}", text("model"), text("plan"), text("scenario"), text("metric")));
    std::string name = stem + ".json";
    for (int i = 2; !taken.insert(name).second; ++i) name = fmt::format("{}-{}.json", stem, i);
    std::string message = value_text(number, "value");
    if (number.at("low").is_number()) {
      message += fmt::format(" [{}, {}]", value_text(number, "low"), value_text(number, "high"));
    }
    const auto unit = text("unit");
    if (unit != "share" && unit != "bytes") message += " " + unit;
    badges.emplace_back(
        name, badge(fmt::format("{}, {}", text("plan"), text("scenario")), message, "blue"));
  }
  return badges;
}

}  // namespace moebench
