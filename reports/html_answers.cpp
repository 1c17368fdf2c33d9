// Walking over answers.
#include "reports/html_answers.h"

#include <map>

namespace moebench::page {

void for_each_answer(
    const Report& report,
    const std::function<void(const std::string&, std::size_t, const OrderedJson&)>& visit) {
  std::map<std::pair<std::string, std::string>, std::size_t> row_of;
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    row_of[{report.rows[i].model, report.rows[i].plan}] = i;
  }
  for (const OrderedJson& item : report.json.at("items")) {
    for (const OrderedJson& answer : item.at("answers")) {
      const auto row = row_of.find(
          {answer.at("model").get<std::string>(), answer.at("plan").get<std::string>()});
      if (row == row_of.end()) continue;
      visit(fmt::format("{} {}", item.at("task").get<std::string>(),
                        answer.at("effort").get<std::string>()),
            row->second, answer);
    }
  }
}

}  // namespace moebench::page
