// moebench eval: tasks on a model; moebench eval extract: the extraction rules on their own.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/run_summary.h"
#include "engine/mapped_file.h"
#include "evals/extract.h"
#include "evals/task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench::cli {
namespace {

// Not a task with items, but asked for like one.
constexpr std::string_view kPerplexity = "perplexity";

struct EvalOptions {
  std::string model;
  std::vector<std::string> tasks;
  std::vector<std::string> plans;
  std::vector<std::string> efforts;
  TaskScenario scenario;
  PerplexityScenario perplexity;
  std::int64_t seed = 0;
  std::int64_t max_batch = 32;
  std::int64_t max_context = 0;
  int threads = 0;
  bool autotune = false;
  std::string out;
  bool resume = false;
  std::string shard;
};

// Before a model is loaded: the protocol is one of the task's, and its dataset is here. The default
// is left unnamed, as in suites.
void check_task(const std::string& name, std::string& protocol) {
  const Task task = find_task(name);
  const Protocol& chosen = task.protocol(protocol, "read --protocol");
  task.load_items(chosen);
  if (chosen.name == task.protocols.front().name) protocol.clear();
}

int run_eval(const EvalOptions& options) {
  require_or(ErrorCode::kUsage, !options.model.empty(), "evaluate: give --model DIR");
  require_or(ErrorCode::kUsage, !options.tasks.empty(), "evaluate: give --task NAME");
  require_or(ErrorCode::kUsage, options.scenario.settle == 0 || options.plans.size() > 1,
             "settle a comparison: give --plan twice or more, the plan to compare with first");
  require_or(ErrorCode::kUsage, !options.resume || !options.out.empty(),
             "resume an evaluation: give its folder with --out DIR");
  Suite suite;
  suite.name = "eval";
  suite.models = {options.model};
  suite.threads = options.threads;
  suite.engine.max_batch = options.max_batch;
  suite.engine.max_context = options.max_context;
  suite.timeout_s = std::int64_t{30} * 24 * 3600;  // an evaluation of a large model takes days
  const std::vector<std::string> plans =
      options.plans.empty() ? std::vector<std::string>{"accurate"} : options.plans;
  for (const std::string& plan : plans) {
    suite.plans.push_back(read_plan(plan, options.autotune, options.model, options.threads));
  }
  suite.scenarios.emplace_back(LoadScenario{});
  const std::vector<std::string> efforts =
      options.efforts.empty() ? std::vector<std::string>{"medium"} : options.efforts;
  for (const std::string& task : options.tasks) {
    if (task == kPerplexity) {
      require_or(ErrorCode::kUsage, !options.perplexity.text.empty(),
                 "measure perplexity: give the text with --file TEXT");
      suite.scenarios.emplace_back(options.perplexity);
      continue;
    }
    for (const std::string& effort : efforts) {
      TaskScenario scenario = options.scenario;
      scenario.task = task;
      scenario.effort = effort;
      scenario.settle_against = plans.front();
      check_task(task, scenario.protocol);
      scenario.sampling.seed = static_cast<std::uint64_t>(options.seed);
      check_sampling(scenario.sampling);
      suite.scenarios.emplace_back(scenario);
    }
  }
  RunOptions run;
  run.out_dir = options.out.empty() ? default_out_dir("eval") : std::filesystem::path(options.out);
  run.resume = options.resume;
  if (!options.shard.empty()) run.shard = parse_shard(options.shard, "read --shard");
  run.shard_questions = true;
  return run_and_report(suite, run);
}

struct ExtractOptions {
  std::string rule;
  std::string input;
};

int run_extract(const ExtractOptions& options) {
  const std::string text = read_text_file(options.input, std::size_t{4} << 30);
  for_each_json_line(text, options.input, 8, [&](const Json& json, const std::string& place) {
    JsonFields fields(json, place);
    const auto answer = extract(options.rule, fields.required<std::string>("text"),
                                fields.optional<std::string>("lang", "en"));
    OrderedJson line;
    line["answer"] = answer.answer ? OrderedJson(*answer.answer) : OrderedJson();
    fmt::print("{}\n", json_line(line));
  });
  return kExitOk;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      add_command(app, action, "eval", "Score a model on tasks, every answer kept in a ledger",
                  options, run_eval);
  // Not `required`: `eval extract` needs neither.
  command->add_option("--model", options->model, "Model directory, or nano")->type_name("DIR");
  std::string names;
  for (const Task* task : tasks())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", task->name);
  command
      ->add_option("--task", options->tasks,
                   "Task: " + names +
                       ", perplexity (with --file), or a file of your own (.json); repeatable")
      ->type_name("NAME")
      ->check(read_by([](const std::string& name) {
        if (name != kPerplexity) find_task(name);
      }));
  command
      ->add_option("--plan", options->plans,
                   std::string(kPlanHelp) + " (default accurate); repeatable")
      ->type_name("P")
      ->check(is_plan());
  command
      ->add_option("--effort", options->efforts,
                   "Reasoning effort: low, medium or high (default: medium); repeatable")
      ->type_name("E")
      ->check(is_effort());
  command
      ->add_option(
          "--protocol", options->scenario.protocol,
          "How it is put and read: openai, simple-evals, lm-eval (default: the task's first)")
      ->type_name("NAME");
  command->add_flag(
      "--include-items", options->scenario.include_items,
      "Write item texts and transcripts also where the dataset's authors ask that they "
      "are not published (GPQA)");
  command->add_option("--repeats", options->scenario.repeats, "Answers per item")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--limit", options->scenario.limit, "Only the first N items (0: all)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--settle", options->scenario.settle,
                   "Ask a plan no more once it is shown to be worse than the first --plan by this "
                   "share of answers, or not to be (0.02: 2 points; 0: ask all)")
      ->type_name("MARGIN")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--file", options->perplexity.text, "The text whose perplexity is measured")
      ->type_name("TEXT");
  command
      ->add_option("--window", options->perplexity.window,
                   "Tokens read at once for perplexity (0: what the context holds)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--stride", options->perplexity.stride,
                   "Tokens from one window to the next (0: half the window)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--temperature", options->scenario.sampling.temperature, "0: greedy")
      ->type_name("T")
      ->capture_default_str();
  command->add_option("--top-p", options->scenario.sampling.top_p, "1: off")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--top-k", options->scenario.sampling.top_k, "0: off")
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--min-p", options->scenario.sampling.min_p, "0: off")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of all draws")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-tokens", options->scenario.max_tokens,
                   "Output tokens per answer (0: the task's own limit)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--batch", options->max_batch, "Answers under way at once")
      ->type_name("N")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--context", options->max_context,
                   "Positions of prompt and answer (0: up to 4096)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_threads_option(command, options->threads);
  add_autotune_flag(command, options->autotune);
  command->add_option("--out", options->out, "Folder of the run (default: moebench-out/...)")
      ->type_name("DIR");
  command->add_flag("--resume", options->resume, "Continue the evaluation in --out");
  add_shard_option(command, options->shard);
  command->require_subcommand(0, 1);
  add_examples(command,
               {"moebench eval --model nano --task nano --effort low --effort high --limit 200",
                "moebench eval --model DIR --task gpqa_diamond --effort high --repeats 8 "
                "--temperature 1 --context 131072",
                "moebench eval --model DIR --task gsm8k --protocol lm-eval --plan int4",
                "moebench eval --model nano --task datasets/examples/capitals.json",
                "moebench eval --model DIR --task mmlu --shard 3/8 --out part3   # see merge",
                "moebench eval --model nano --task nano --plan fast --plan int4 --settle 0.03",
                "moebench eval --model DIR --task perplexity --file wiki.txt --stride 256",
                "moebench eval extract --rule abcd --input answers.jsonl"});

  auto extract_options = std::make_shared<ExtractOptions>();
  CLI::App* extract_command =
      add_command(*command, action, "extract",
                  "{\"text\"} lines in, {\"answer\"} lines out, by a published rule",
                  extract_options, run_extract);
  std::string rules;
  for (const ExtractionRule& rule : extraction_rules()) {
    rules += fmt::format("{}{}", rules.empty() ? "" : "|", rule.name);
  }
  extract_command->add_option("--rule", extract_options->rule, "Extraction rule")
      ->type_name(rules)
      ->check(read_by([](const std::string& rule) { extract(rule, ""); }))
      ->required();
  extract_command->add_option("--input", extract_options->input, "JSON lines with a field text")
      ->type_name("FILE.jsonl")
      ->required();
  add_examples(extract_command, {"echo '{\"text\": \"Answer: B\"}' > answers.jsonl",
                                 "moebench eval extract --rule abcd --input answers.jsonl"});
}

}  // namespace moebench::cli
