// Folders of runs made by hand, for tests of what reads them: records and ledgers with known
// numbers, without a model.
#pragma once

#include "bench/run.h"
#include "bench/run_folder.h"
#include "evals/ledger.h"
#include "kernels/core/append_file.h"
#include "tests/support/files.h"

namespace moebench::test {

class RunFolder {
 public:
  explicit RunFolder(const std::string& suite = "by hand") {
    const OrderedJson description = {
        {"schema", kRunSchema},
        {"suite", suite},
        {"started", "2026-01-31T12:00:00Z"},
        {"environment",
         {{"cpu", "a cpu"},
          {"logical_cpus", 2},
          {"usable_cpus", 2},
          {"memory_bytes", 1000},
          {"os", "an os"},
          {"compiler", "a compiler"},
          {"build_type", "Release"},
          {"version", "0"},
          {"git_commit", "0"}}},
        {"models",
         {{{"name", "m"}, {"family", "gpt_oss"}, {"hash", "0123456789abcdef"}, {"parameters", 1}}}},
        {"plans",
         {{{"name", "reference"}, {"kv", "f32"}, {"text", "as stored"}, {"canonical", "c"}}}},
        {"cases", OrderedJson::array()}};
    write_file(path() / "run.json", json_line(description));
  }

  const std::filesystem::path& path() const { return folder_.path(); }

  void add(const Record& record) {
    LineWriter(path() / "results.jsonl").append(json_line(to_json(record)));
  }

  // A task case of `plan` with these answers; `setting` is merged into its scenario.
  Record add_task(const std::string& plan, const std::vector<LedgerLine>& answers,
                  const OrderedJson& setting = OrderedJson::object()) {
    Record record;
    record.case_id = fmt::format("{:016x}", ++number_);
    record.label = plan + " / nano low";
    record.model = "m";
    record.plan = plan;
    record.kind = "task";
    record.scenario = {{"kind", "task"}, {"task", "nano"}, {"effort", "low"}};
    record.scenario.update(setting);
    record.started = "2026-01-31T12:00:00Z";
    record.details["dataset_hash"] = "0";
    Metric accuracy;
    accuracy.unit = "share";
    accuracy.value = 0.5;
    accuracy.count = static_cast<std::int64_t>(answers.size());
    record.metrics["accuracy"] = accuracy;
    LineWriter ledger(ledger_path(path(), record.case_id));
    for (const LedgerLine& answer : answers) ledger.append(json_line(to_json(answer)));
    add(record);
    return record;
  }

 private:
  TemporaryDirectory folder_;
  int number_ = 0;
};

inline LedgerLine answer(const std::string& item, bool correct, std::int64_t repeat = 0) {
  LedgerLine line;
  line.item = item;
  line.category = "made up";
  line.repeat = repeat;
  line.expected = "A";
  line.answer = correct ? "A" : "B";
  line.verdict = correct ? Verdict::kCorrect : Verdict::kWrong;
  line.output_tokens = 3;
  line.final_text = "Answer: " + line.answer;
  return line;
}

}  // namespace moebench::test
