// What the parts of the page share: the report they read, and look-ups in it. Internal to reports/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench::page {

struct PackedItems;  // item_data.h

// A plan of a model: one row of most tables.
struct Row {
  std::string model;
  std::string plan;
  std::string label;  // the plan, with the model before it if there are several
  const OrderedJson* summary = nullptr;
  bool is_reference = false;
};

struct Report {
  explicit Report(const OrderedJson& json);

  const OrderedJson& json;
  std::vector<Row> rows;

  // The reference row of the same model; nullptr if there is none.
  const Row* reference_of(const Row& row) const;
  // Good records of a kind, in the order of the run.
  std::vector<const OrderedJson*> records(const Row& row, std::string_view kind) const;
};

// The most that CUDA graphs of the row's cases took on the device, by its free memory; nothing
// without any.
std::optional<double> graphs_bytes(const Row& row);

// What is not there.
inline const OrderedJson kNull;

// A metric's value, nothing if it is absent, null or null-valued.
std::optional<double> value_of(const OrderedJson& metric);
// The metric `name` of a record or of a summary; a null JSON if absent.
const OrderedJson& metric_of(const OrderedJson& owner, std::string_view name);

// What a scenario measures, the same for every plan, is its title: "decode batch 1, context 128".
// The different titles of good records of `kind`, in order.
std::vector<std::string> scenario_titles(const Report& report, std::string_view kind);
// The record of `row` with that title, or nullptr.
const OrderedJson* record_of(const Report& report, const Row& row, std::string_view kind,
                             std::string_view title);

// The metric of that record; a null JSON if there is no record or no metric.
const OrderedJson& metric_of(const Report& report, const Row& row, std::string_view kind,
                             std::string_view title, std::string_view name);

// The floor under an op's time in details.time_by_op; nothing in records from before there were
// any.
std::optional<double> op_limit_ms(const OrderedJson& time_by_op, const std::string& op);

// Cells: value with its interval below it.
std::string metric_cell(const OrderedJson& metric, std::string (*format)(double));
inline constexpr std::string_view kNoValue = "<span class=none>–</span>";

std::string row_head(const Row& row);
// "×1.24" of the reference's value; "" where there is none.
std::string ratio_text(std::optional<double> value, std::optional<double> reference);
// A smaller line below a value; "" if there is nothing to say.
std::string small_text(std::string_view text);
// A cell with a bar below its content, `share` of its width.
std::string bar_cell(std::string_view content, double share);

// The id of the chart of the `number`th title of a kind, for its <figure> and its specification.
std::string chart_id(std::string_view kind, std::size_t number);

// A table of one row per plan: a column is its title and a cell for every row of the report.
struct Column {
  std::string title;
  std::vector<std::string> cells;
};
// The speeds of one scenario, with their ratios to the reference.
Column speed_column(const Report& report, std::string_view kind, std::string_view title);
std::string table_of_plans(const Report& report, const std::vector<Column>& columns,
                           std::string_view classes = "");

// Frames. `head` and `body` are rows; the chart with this id is drawn by page.js.
std::string table(std::string_view head, std::string_view body, std::string_view classes = "");
std::string figure(std::string_view id, std::string_view caption, std::string_view kind = "");
std::string section(std::string_view id, std::string_view title, std::string_view lead,
                    std::string_view body);

// One picture of what a plan costs against what it gives; `front` marks the plans no other beats.
struct TradeOff {
  std::string id;
  std::string title;
  std::string x_title;
  std::string y_title;
  bool x_higher_is_better = true;
  bool y_higher_is_better = true;
  bool y_is_share = false;
  bool y_is_logarithmic = false;
  std::vector<OrderedJson> x;  // metric of each row of the report, or null
  std::vector<OrderedJson> y;
  std::vector<bool> front;
  OrderedJson published = OrderedJson::array();  // of y: [{"value", "text"}...]
};
std::vector<TradeOff> trade_offs(const Report& report);

// From the doctype to <main>: a page that asks nobody for anything, with `links` to its sections.
// `title` is escaped.
std::string page_head(std::string_view title, std::string_view links);

// Sections, each a whole <section>, or "" if the report holds nothing for it.
std::string headline_section(const Report& report);
// Of the plans against the reference: a sentence, and what stands behind it.
std::string verdict_banner(const Report& report);
std::string verdict_table(const Report& report);
std::string failures_section(const Report& report);
std::string summary_section(const Report& report);
std::string accuracy_section(const Report& report);
std::string speed_section(const Report& report);
std::string serve_section(const Report& report);
std::string trade_off_section(const Report& report);
std::string perplexity_section(const Report& report);
std::string fidelity_section(const Report& report);
std::string memory_section(const Report& report);
std::string items_section(const Report& report, const PackedItems& packed);
std::string environment_section(const Report& report);

// Charts of accuracy and fidelity, added to those of chart_specifications().
void add_quality_charts(const Report& report, OrderedJson& charts);

// The specifications of all charts, by the id of their <figure>: what page.js draws.
OrderedJson chart_specifications(const Report& report);

}  // namespace moebench::page
