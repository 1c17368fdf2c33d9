// From lm-eval's samples to ledger lines.
#include "reports/import_samples.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "bench/task_record.h"
#include "datasets/manifest.h"
#include "evals/task.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

// Text as it is, whole numbers as JSON writes them, else "".
std::string plain_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_integer() ? value.dump() : "";
}

// Whether a task of another harness is on a dataset whose texts are to be kept back: theirs are
// named for the dataset too, "gpqa_diamond_zeroshot" or "leaderboard_gpqa".
bool is_kept_back(std::string_view task) {
  const auto& datasets = shipped_manifest();
  return std::any_of(datasets.begin(), datasets.end(), [&](const DatasetInfo& info) {
    return !info.public_text &&
           task.find(info.name.substr(0, info.name.find('_'))) != std::string_view::npos;
  });
}

std::optional<double> score_of(const Json& sample, const std::string& place) {
  for (const char* name : {"acc", "exact_match"}) {
    const Json& value = member(sample, name);
    if (value.is_null()) continue;
    const double score = value.is_boolean()  ? (value.get<bool>() ? 1.0 : 0.0)
                         : value.is_number() ? value.get<double>()
                                             : -1.0;
    require(score >= 0 && score <= 1, "{}.{}: expected a share between 0 and 1, got {}", place,
            name, json_excerpt(value));
    return score;
  }
  return std::nullopt;
}

std::optional<double> real_of(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  return is_whole ? std::optional(number) : std::nullopt;
}

// Of a multiple-choice task, [[log-probability, is greedy], ...]; none of another.
std::vector<double> likelihoods_of(const Json& responses) {
  std::vector<double> values;
  if (!responses.is_array() || responses.size() < 2 || responses.size() > 26) return values;
  for (const Json& one : responses) {
    const std::optional<double> value =
        one.is_array() && !one.empty() ? real_of(one.front()) : std::nullopt;
    if (!value) return {};
    values.push_back(*value);
  }
  return values;
}

// The first text within lists: resps are [["..."]], filtered_resps ["..."].
std::string first_text(const Json& value) {
  const Json* inner = &value;
  while (inner->is_array() && !inner->empty()) inner = &inner->front();
  return plain_text(*inner);
}

}  // namespace

const Json& member(const Json& json, const std::string& key) {
  static const Json kNone;
  if (!json.is_object()) return kNone;
  const auto it = json.find(key);
  return it == json.end() ? kNone : *it;
}

bool is_lm_eval_sample(const Json& json) {
  return json.is_object() && json.contains("doc_id") && json.contains("filtered_resps");
}

std::string task_of_samples_file(std::string_view file) {
  constexpr std::string_view kPrefix = "samples_";
  constexpr std::string_view kSuffix = ".jsonl";
  if (!file.starts_with(kPrefix) || !file.ends_with(kSuffix)) return "";
  file.remove_prefix(kPrefix.size());
  file.remove_suffix(std::min(kSuffix.size(), file.size()));
  const std::size_t end = file.rfind('_');
  return end == std::string_view::npos ? "" : std::string(file.substr(0, end));
}

SampleReader::SampleReader(std::string task)
    : task_(std::move(task)), hides_text_(is_kept_back(task_)) {}

void SampleReader::add(const Json& json, const std::string& place) {
  require(is_lm_eval_sample(json), "{}: a sample of lm-eval has doc_id and filtered_resps", place);
  const std::optional<double> score = score_of(json, place);
  if (!score) return;
  const Json& doc = member(json, "doc");
  Sample sample;
  sample.id = plain_text(member(doc, "id"));
  sample.hash = plain_text(member(json, "doc_hash"));
  sample.number = plain_text(member(json, "doc_id"));
  sample.score = *score;
  LedgerLine& line = sample.line;
  line.item_hash = plain_text(member(json, "prompt_hash"));
  line.category = plain_text(member(doc, "category"));
  if (line.category.empty()) line.category = plain_text(member(doc, "subject"));
  line.expected = plain_text(member(json, "target"));
  const Json& filtered = member(json, "filtered_resps");
  const std::vector<double> likelihoods = likelihoods_of(filtered);
  if (likelihoods.empty()) {
    line.answer = first_text(filtered);
    line.final_text = first_text(member(json, "resps"));
  } else {
    const auto best = std::max_element(likelihoods.begin(), likelihoods.end());
    line.answer = choice_letter(static_cast<std::size_t>(best - likelihoods.begin()));
    const std::optional<double> index = real_of(member(json, "target"));
    if (index && *index >= 0 && *index < static_cast<double>(likelihoods.size())) {
      line.expected = choice_letter(static_cast<std::size_t>(*index));
    }
  }
  // What lm-eval's filters give where they find nothing.
  const bool is_unparsed = line.answer == "[invalid]";
  line.verdict = *score == 1   ? Verdict::kCorrect
                 : is_unparsed ? Verdict::kUnparsed
                               : Verdict::kWrong;
  if (is_unparsed) line.answer.clear();
  if (hides_text_ && !line.final_text.empty()) {
    line.hidden_text_hash = hash_hex(content_hash(line.final_text));
    drop_texts(line);
  }
  const std::string filter = plain_text(member(json, "filter"));
  by_filter_[filter.empty() ? "none" : filter].push_back(std::move(sample));
}

std::map<std::string, LoggedAnswers> SampleReader::finish() {
  std::map<std::string, LoggedAnswers> result;
  for (auto& by_name : by_filter_) {
    auto& samples = by_name.second;
    LoggedAnswers& answers = result[by_name.first];
    const auto is_mean = std::find_if(samples.begin(), samples.end(), [](const Sample& sample) {
      return sample.score != 0 && sample.score != 1;
    });
    if (is_mean != samples.end()) {
      answers.reason = fmt::format("{} is the mean of several answers, not one", is_mean->score);
      continue;
    }
    const auto tells_apart = [&](std::string Sample::*name) {
      std::set<std::string_view> seen;
      return std::all_of(samples.begin(), samples.end(), [&](const Sample& sample) {
        return !(sample.*name).empty() && seen.insert(sample.*name).second;
      });
    };
    std::string Sample::*name = nullptr;
    for (auto one : {&Sample::id, &Sample::hash, &Sample::number}) {
      if (name == nullptr && tells_apart(one)) name = one;
    }
    if (name == nullptr) {
      answers.reason = "two samples are of one question";
      continue;
    }
    for (Sample& sample : samples) {
      sample.line.item = sample.*name;
      answers.lines.push_back(std::move(sample.line));
    }
  }
  return result;
}

void add_answer_details(const std::vector<LedgerLine>& lines, Record& record) {
  Record scored;
  add_answer_scores(lines, scored);
  for (const auto& [name, value] : scored.details.items()) record.details[name] = value;
}

void add_answer_scores(const std::vector<LedgerLine>& lines, Record& record) {
  add_scores(lines, {}, record);
  // No tokens were seen.
  record.metrics.erase("output_tokens_mean");
  record.metrics.erase("reasoning_tokens_mean");
}

}  // namespace moebench
