// What a reader should take away, in a few cards. Every sentence is computed from the report.
#include <algorithm>
#include <cmath>

#include "bench/record.h"
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

constexpr double kSignificant = 0.05;

std::string card(std::string_view label, std::string_view value, std::string_view text) {
  return fmt::format("<div class=card><span>{}</span><b>{}</b><p>{}</p></div>", escape_html(label),
                     value, text);
}

// The row with the best value of a metric, by `better(a, b)`.
template <class Get>
const Row* best_row(const Report& report, Get get, bool higher) {
  const Row* best = nullptr;
  for (const Row& row : report.rows) {
    const auto value = get(row);
    if (!value) continue;
    if (best == nullptr || (higher ? *value > *get(*best) : *value < *get(*best))) best = &row;
  }
  return best;
}

std::string against_reference(const Report& report, const Row& row, double value,
                              std::optional<double> reference) {
  if (report.reference_of(row) == nullptr || row.is_reference || !reference) return "";
  return fmt::format(", {:.2f} times the reference", value / *reference);
}

std::string fastest_card(const Report& report) {
  const auto titles = scenario_titles(report, "decode");
  if (titles.empty()) return "";
  const std::string& title = titles.back();
  const auto rate = [&](const Row& row) {
    return value_of(metric_of(report, row, "decode", title, rate_metric("decode")));
  };
  const Row* best = best_row(report, rate, true);
  if (best == nullptr) return "";
  const Row* reference = report.reference_of(*best);
  return card("fastest, " + title, escape_html(best->label),
              escape_html(format_number(*rate(*best)) + " tokens/s" +
                          against_reference(report, *best, *rate(*best),
                                            reference ? rate(*reference) : std::nullopt)));
}

std::string smallest_card(const Report& report) {
  const auto bytes = [](const Row& row) {
    return value_of(metric_of(*row.summary, "weights_bytes"));
  };
  const Row* best = best_row(report, bytes, false);
  if (best == nullptr) return "";
  const Row* reference = report.reference_of(*best);
  return card("smallest weights", escape_html(best->label),
              escape_html(format_size(*bytes(*best)) +
                          against_reference(report, *best, *bytes(*best),
                                            reference ? bytes(*reference) : std::nullopt)));
}

std::string closest_card(const Report& report) {
  const auto kl = [](const Row& row) -> std::optional<double> {
    const auto value = value_of(metric_of(*row.summary, "mean_kl"));
    return row.is_reference ? std::nullopt : value;
  };
  const Row* best = best_row(report, kl, false);
  const Row* worst = best_row(report, kl, true);
  if (best == nullptr || best == worst) return "";
  return card(
      "closest to the reference", escape_html(best->label),
      fmt::format("mean KL {} nats; furthest is {} with {}", escape_html(format_number(*kl(*best))),
                  escape_html(worst->label), escape_html(format_number(*kl(*worst)))));
}

// Either who lost, or what this run could not have seen.
std::string accuracy_card(const Report& report) {
  const OrderedJson& comparisons = report.json.at("comparisons");
  if (comparisons.empty()) return "";
  double widest = 0;
  std::string found;
  int num_found = 0;
  for (const OrderedJson& c : comparisons) {
    if (c.contains("interval")) {
      const OrderedJson& interval = c.at("interval");
      widest = std::max(widest,
                        (interval.at("high").get<double>() - interval.at("low").get<double>()) / 2);
    }
    if (c.at("p_value_holm").get<double>() >= kSignificant) continue;
    ++num_found;
    found += fmt::format("{}{} {} points on {} {}", found.empty() ? "" : "; ",
                         c.at("plan").get<std::string>(),
                         format_points(c.at("difference").get<double>()),
                         c.at("task").get<std::string>(), c.at("effort").get<std::string>());
  }
  const auto answers = comparisons.front().at("answers").get<std::int64_t>();
  if (num_found > 0) {
    return card("accuracy against the reference",
                fmt::format("{} of {} comparisons differ", num_found, comparisons.size()),
                escape_html(found));
  }
  return card(
      "accuracy against the reference", "no difference shown",
      escape_html(fmt::format("with {} answers per plan and effort, differences up to about "
                              "{:.1f} points stay within the noise",
                              answers, 100 * widest)));
}

std::string effort_card(const Report& report) {
  const auto titles = scenario_titles(report, "task");
  if (titles.size() < 2) return "";
  const auto it = std::find_if(report.rows.begin(), report.rows.end(),
                               [](const Row& row) { return row.is_reference; });
  if (it == report.rows.end()) return "";
  const auto value = [&](const std::string& title, const char* metric) {
    return value_of(metric_of(report, *it, "task", title, metric));
  };
  const auto low = value(titles.front(), "accuracy");
  const auto high = value(titles.back(), "accuracy");
  const auto low_tokens = value(titles.front(), "output_tokens_mean");
  const auto high_tokens = value(titles.back(), "output_tokens_mean");
  if (!low || !high || !low_tokens || !high_tokens) return "";
  return card(
      "what thinking buys",
      escape_html(fmt::format("{} → {}", format_percent(*low), format_percent(*high))),
      escape_html(fmt::format(
          "{} against {} on the reference, for {} instead of {} tokens per answer", titles.back(),
          titles.front(), format_number(*high_tokens), format_number(*low_tokens))));
}

}  // namespace

std::string headline_section(const Report& report) {
  const std::string cards = accuracy_card(report) + fastest_card(report) + smallest_card(report) +
                            closest_card(report) + effort_card(report);
  return verdict_banner(report) + (cards.empty() ? "" : "<div class=cards>" + cards + "</div>\n");
}

}  // namespace moebench::page
