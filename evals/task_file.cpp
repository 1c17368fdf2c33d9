// From the JSON file to a Task, and from its rows to items.
#include "evals/task_file.h"

#include <algorithm>
#include <array>
#include <set>

#include "datasets/store.h"
#include "engine/mapped_file.h"
#include "evals/extract.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::string_view kSchema = "moebench.task/1";
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;

enum class AnswerKind {
  kText,    // as it stands
  kLetter,  // of a choice
  kIndex,   // of a choice, from 0
  kChoice,  // the text of a choice
};
constexpr std::array<std::string_view, 4> kAnswerKinds = {"text", "letter", "index", "choice"};
constexpr std::array<std::string_view, 2> kMethods = {"generate", "log_likelihood"};
constexpr std::array<std::string_view, 2> kScorers = {"equal", "math"};

struct Definition {
  std::string name;
  std::string summary;
  std::string source;
  std::string dataset;         // of the manifest; or
  std::filesystem::path path;  // a file
  DataFormat format = DataFormat::kJsonl;
  bool public_text = true;
  std::string id_column;  // "": numbered
  std::string category_column;
  std::string question_column;
  std::vector<std::string> choice_columns;  // one list column, or one column per choice
  bool choices_are_a_list = false;
  std::string answer_column;
  AnswerKind answer_kind = AnswerKind::kText;
  std::string prompt;         // template
  std::string choice_format;  // template of one line of {choices}
  std::int64_t num_examples = 0;
  std::string example;  // template
  bool by_likelihood = false;
  std::string extraction;
  Scorer scorer = Scorer::kEqual;
  std::int64_t max_tokens = 0;
};

void read_data(JsonFields& outer, const std::filesystem::path& folder, Definition& task) {
  const Json* data = outer.find("data");
  require(data != nullptr, "{}: it is missing", outer.path("data"));
  JsonFields fields(*data, outer.path("data"));
  task.dataset = fields.optional<std::string>("dataset", "");
  const auto path = fields.optional<std::string>("path", "");
  require(task.dataset.empty() != path.empty(), "{}: give one of dataset and path",
          outer.path("data"));
  if (task.dataset.empty()) {
    task.path = folder / path;
    const auto format = fields.optional<std::string>("format", "");
    task.format = format.empty() ? data_format_of_file(path)
                                 : data_format_from_name(format, fields.path("format"));
    task.public_text = fields.optional<bool>("public_text", true);
  } else {
    task.public_text = find_dataset(task.dataset, fields.path("dataset")).public_text;
  }
  fields.finish();
}

void read_columns(JsonFields& outer, Definition& task) {
  const Json* columns = outer.find("columns");
  require(columns != nullptr, "{}: it is missing", outer.path("columns"));
  JsonFields fields(*columns, outer.path("columns"));
  task.id_column = fields.optional<std::string>("id", "");
  task.category_column = fields.optional<std::string>("category", "");
  task.question_column = fields.required<std::string>("question");
  if (const Json* choices = fields.find("choices"); choices != nullptr && !choices->is_null()) {
    task.choices_are_a_list = choices->is_string();
    task.choice_columns = task.choices_are_a_list
                              ? std::vector{fields.required<std::string>("choices")}
                              : fields.required<std::vector<std::string>>("choices");
    const std::size_t count = task.choice_columns.size();
    require(task.choices_are_a_list || (count >= 2 && count <= 26),
            "{}: {} columns (2 to 26, or the name of one that holds a list)",
            fields.path("choices"), count);
  }
  task.answer_column = fields.required<std::string>("answer");
  fields.finish();
}

void read_few_shot(JsonFields& outer, Definition& task) {
  const Json* few_shot = outer.find("few_shot");
  if (few_shot == nullptr || few_shot->is_null()) return;
  JsonFields fields(*few_shot, outer.path("few_shot"));
  task.num_examples =
      in_range<std::int64_t>(fields.required<std::int64_t>("count"), 1, 64, fields.path("count"));
  task.example = fields.required<std::string>("template");
  fields.finish();
}

Definition read_definition(std::string_view text, const std::string& where,
                           const std::filesystem::path& folder) {
  const Json json = parse_json(text, where, 6);
  JsonFields fields(json, where);
  const auto schema = fields.required<std::string>("schema");
  require(schema == kSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kSchema);
  Definition task;
  task.name = fields.required<std::string>("name");
  require(!task.name.empty() && task.name.size() <= 100, "{}: give a name of at most 100 bytes",
          fields.path("name"));
  task.summary = fields.optional<std::string>("summary", "");
  task.source = fields.optional<std::string>("source", where);
  read_data(fields, folder, task);
  read_columns(fields, task);
  read_few_shot(fields, task);
  task.answer_kind = static_cast<AnswerKind>(
      index_of_name(kAnswerKinds, fields.optional<std::string>("answer_kind", "text"),
                    fields.path("answer_kind"), "kind of answer"));
  task.prompt = fields.required<std::string>("template");
  task.choice_format = fields.optional<std::string>("choice_template", "({letter}) {choice}\n");
  task.by_likelihood = index_of_name(kMethods, fields.optional<std::string>("method", "generate"),
                                     fields.path("method"), "method") == 1;
  const bool has_choices = !task.choice_columns.empty();
  require(has_choices || task.answer_kind == AnswerKind::kText,
          "{}: '{}' needs choices (columns.choices)", fields.path("answer_kind"),
          kAnswerKinds[static_cast<std::size_t>(task.answer_kind)]);
  if (task.by_likelihood) {
    require(
        has_choices && task.answer_kind != AnswerKind::kText,
        "{}: log_likelihood needs columns.choices and an answer_kind of letter, index or choice",
        fields.path("method"));
  } else {
    task.extraction = fields.required<std::string>("extraction");
    extract(task.extraction, "");  // throws for an unknown rule
    task.scorer =
        static_cast<Scorer>(index_of_name(kScorers, fields.optional<std::string>("scorer", "equal"),
                                          fields.path("scorer"), "scorer"));
    task.max_tokens = in_range<std::int64_t>(fields.optional<std::int64_t>("max_tokens", 4096), 1,
                                             std::int64_t{1} << 24, fields.path("max_tokens"));
  }
  fields.finish();
  // Braces are looked at now, columns when there are rows.
  for (const std::string* each : {&task.prompt, &task.choice_format, &task.example}) {
    fill_template(*each, where, [](std::string_view) { return std::string(); });
  }
  return task;
}

std::vector<std::string> choices_of(const Definition& task, const DataRow& row) {
  if (task.choice_columns.empty()) return {};
  std::vector<std::string> choices;
  if (task.choices_are_a_list) {
    choices = list_field(row, task.choice_columns.front());
  } else {
    for (const std::string& column : task.choice_columns) {
      choices.push_back(text_field(row, column));
    }
  }
  require(choices.size() >= 2 && choices.size() <= 26, "{}: {} choices (2 to 26 are accepted)",
          row.where, choices.size());
  return choices;
}

std::string expected_of(const Definition& task, const DataRow& row,
                        const std::vector<std::string>& choices) {
  const std::string answer = text_field(row, task.answer_column);
  if (task.answer_kind == AnswerKind::kText) return answer;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string letter = choice_letter(i);
    const std::string& name = task.answer_kind == AnswerKind::kLetter  ? letter
                              : task.answer_kind == AnswerKind::kIndex ? std::to_string(i)
                                                                       : choices[i];
    if (answer == name) return letter;
  }
  fail(ErrorCode::kInvalidArgument, "{}: the answer '{}' is none of the {} choices by {}",
       row.where, answer.substr(0, 40), choices.size(),
       kAnswerKinds[static_cast<std::size_t>(task.answer_kind)]);
}

std::string filled(const Definition& task, const std::string& text, const DataRow& row,
                   const std::vector<std::string>& choices, const std::string& expected) {
  return fill_template(text, row.where, [&](std::string_view name) {
    if (name == "expected") return expected;
    if (name != "choices" || choices.empty()) return text_field(row, name);
    std::string lines;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      lines += fill_template(task.choice_format, row.where, [&](std::string_view inner) {
        return inner == "letter"   ? choice_letter(i)
               : inner == "choice" ? choices[i]
                                   : text_field(row, inner);
      });
    }
    return lines;
  });
}

TaskItem make_item(const Definition& task, const DataRow& row, std::size_t number,
                   const std::string& examples) {
  TaskItem item;
  item.id = task.id_column.empty() ? fmt::format("{}-{:05d}", task.name, number)
                                   : text_field(row, task.id_column);
  if (!task.category_column.empty()) item.category = text_field(row, task.category_column);
  item.question = text_field(row, task.question_column);
  item.choices = choices_of(task, row);
  item.expected = expected_of(task, row, item.choices);
  const std::string prompt = examples + filled(task, task.prompt, row, item.choices, item.expected);
  if (task.by_likelihood) {
    for (const std::string& choice : item.choices) item.options.push_back({prompt, " " + choice});
  } else {
    item.user_message = prompt;
  }
  return item;
}

TaskData load_items(const Definition& task) {
  DataRows read = task.dataset.empty() ? load_rows(task.path, task.format, {})
                                       : load_dataset(find_dataset(task.dataset));
  const auto num_examples = static_cast<std::size_t>(task.num_examples);
  require(read.rows.size() > num_examples, "load {}: {} rows are no more than its {} examples",
          task.name, read.rows.size(), num_examples);
  std::string examples;
  for (std::size_t i = 0; i < num_examples; ++i) {
    const std::vector<std::string> choices = choices_of(task, read.rows[i]);
    examples +=
        filled(task, task.example, read.rows[i], choices, expected_of(task, read.rows[i], choices));
  }
  TaskData data;
  data.hash = read.hash;
  std::set<std::string> ids;
  for (std::size_t i = num_examples; i < read.rows.size(); ++i) {
    data.items.push_back(make_item(task, read.rows[i], i + 1, examples));
    require(ids.insert(data.items.back().id).second, "{}: the id '{}' stood before",
            read.rows[i].where, data.items.back().id.substr(0, 80));
  }
  return data;
}

}  // namespace

std::string fill_template(std::string_view text, std::string_view where,
                          const std::function<std::string(std::string_view name)>& value) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      result += c;
      ++at;
    } else if (at + 1 < text.size() && text[at + 1] == c) {
      result += c;
      at += 2;
    } else {
      const std::size_t end = c == '{' ? text.find_first_of("{}", at + 1) : std::string_view::npos;
      require(
          end != std::string_view::npos && text[end] == '}',
          "{}: a template has a single '{}' at byte {} ({{column}}, or {{{{ and }}}} for braces)",
          where, c, at);
      result += value(text.substr(at + 1, end - at - 1));
      at = end + 1;
    }
  }
  return result;
}

Task parse_task(std::string_view text, std::string_view where,
                const std::filesystem::path& folder) {
  const Definition definition = read_definition(text, std::string(where), folder);
  return {.name = definition.name,
          .summary = definition.summary,
          .protocols = {{.name = "own",
                         .source = definition.source,
                         .extraction_rule = definition.extraction,
                         .scorer = definition.scorer}},
          .max_tokens = std::max<std::int64_t>(definition.max_tokens, 1),
          .public_text = definition.public_text,
          .load_items = [definition](const Protocol&) { return load_items(definition); }};
}

Task load_task_file(const std::filesystem::path& path) {
  return parse_task(read_text_file(path, kMaxFileBytes), path.string(), path.parent_path());
}

}  // namespace moebench
