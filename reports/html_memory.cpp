// From load records and run.json to tables.
#include "reports/html_memory.h"

#include "reports/html_text.h"

namespace moebench::page {
namespace {

std::string size_cell(const OrderedJson& row, const char* name) {
  return fmt::format("<td>{}</td>", row.contains(name) && row.at(name).is_number()
                                        ? format_size(row.at(name).get<double>())
                                        : std::string(kNoValue));
}

// One plan's table.
std::string waterfall(const OrderedJson& memory) {
  std::string body;
  for (const OrderedJson& row : memory.value("rows", OrderedJson::array())) {
    body += fmt::format("<tr><th scope=row>{}</th>{}{}{}</tr>",
                        escape_html(row.value("category", "")), size_cell(row, "predicted"),
                        size_cell(row, "taken"), size_cell(row, "measured"));
  }
  body += fmt::format("<tr><th scope=row>together</th>{}<td></td>{}</tr>",
                      size_cell(memory, "predicted_rss"), size_cell(memory, "measured_rss"));
  return table(
      "<tr><th scope=col>category</th><th scope=col>predicted</th><th scope=col>taken</th>"
      "<th scope=col>measured</th></tr>",
      body);
}

}  // namespace

std::string memory_waterfalls(const Report& report) {
  std::string text;
  for (const Row& row : report.rows) {
    const auto loads = report.records(row, "load");
    if (loads.empty()) continue;
    const OrderedJson& details = loads.front()->at("details");
    if (!details.contains("memory")) continue;
    const OrderedJson& memory = details.at("memory");
    std::string verdict = memory.contains("difference")
                              ? fmt::format("prediction {:+.1f} % of what was measured",
                                            100 * memory.at("difference").get<double>())
                              : "not all resident: " + memory.value("not_resident", "");
    text += fmt::format("<details><summary>{}: {}</summary>{}</details>", escape_html(row.label),
                        escape_html(verdict), waterfall(memory));
  }
  if (text.empty()) return "";
  return "<h3>By category</h3><p>Resident memory after every page was touched once. The engine "
         "counts what it takes; the system what is resident.</p>" +
         text;
}

std::string memory_frontiers(const Report& report) {
  std::string text;
  for (const OrderedJson& run : report.json.at("runs")) {
    for (const OrderedJson& plan : run.at("plans")) {
      const OrderedJson models = plan.value("frontier", OrderedJson::object());
      for (const auto& [model, frontier] : models.items()) {
        std::string head = "<tr><th scope=col>memory</th>";
        std::string body;
        for (const OrderedJson& size : frontier.value("memories", OrderedJson::array())) {
          body += fmt::format("<tr><th scope=row>{}</th>", escape_html(size.value("name", "")));
          const bool first = head.ends_with("memory</th>");
          const OrderedJson contexts = size.value("max_context", OrderedJson::object());
          for (const auto& [batch, context] : contexts.items()) {
            if (first) head += fmt::format("<th scope=col>batch {}</th>", escape_html(batch));
            const auto positions = context.is_number_integer() ? context.get<std::int64_t>() : 0;
            body += fmt::format("<td>{}</td>",
                                positions > 0 ? std::to_string(positions) : std::string(kNoValue));
          }
          body += "</tr>";
        }
        if (body.empty()) continue;
        text += fmt::format("<details><summary>{} of {}</summary>{}</details>",
                            escape_html(plan.value("name", "")), escape_html(model),
                            table(head + "</tr>", body));
      }
    }
  }
  if (text.empty()) return "";
  return "<h3>What fits where</h3><p>The longest context of each sequence, by memory and by how "
         "many sequences are decoded at once; predicted, not run.</p>" +
         text;
}

}  // namespace moebench::page
