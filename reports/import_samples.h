// Answers that lm-eval logged (--log_samples): samples_<task>_<time>.jsonl, a line per question and
// answer filter, as ledger lines, so that two runs can be compared question by question.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/record.h"
#include "evals/ledger.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// json[key]; null where there is none, and of what is no object.
const Json& member(const Json& json, const std::string& key);

bool is_lm_eval_sample(const Json& json);

// What a samples file is of: "mmlu_pro_law" of "samples_mmlu_pro_law_2026-01-31T12-00-00.jsonl"; ""
// for other names.
std::string task_of_samples_file(std::string_view file);

// Of one answer filter.
struct LoggedAnswers {
  std::vector<LedgerLine> lines;
  std::string reason;  // why there are none
};

// The answers by filter, from the objects of a samples file. A question goes by its document's
// "id", else by doc_hash, else by doc_id: the first by which all of them differ. Right or wrong is
// what acc or exact_match says. Where that is a mean of several answers, which was right is not
// known, and there are no lines. Texts of datasets whose authors ask that they stay off public
// pages are left out, and their hash is there. Tokens and times are not in the file. Throws Error
// naming the place and the field for scores that are no shares.
class SampleReader {
 public:
  explicit SampleReader(std::string task);
  void add(const Json& sample, const std::string& place);
  std::map<std::string, LoggedAnswers> finish();

 private:
  struct Sample {
    std::string id;
    std::string hash;
    std::string number;
    double score = 0;
    LedgerLine line;
  };

  std::string task_;
  bool hides_text_;
  std::map<std::string, std::vector<Sample>> by_filter_;
};

// What verdicts say beside a score: details verdicts and categories.
void add_answer_details(const std::vector<LedgerLine>& lines, Record& record);

// Metrics and details of a record that has nothing but its answers.
void add_answer_scores(const std::vector<LedgerLine>& lines, Record& record);

}  // namespace moebench
