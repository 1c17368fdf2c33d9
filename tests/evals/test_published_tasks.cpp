// Published tasks: prompts byte for byte, GPQA's 1584 orders, targets, likelihoods. The rows are
// made up, in the schemas of the real files.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <set>

#include "datasets/sha256.h"
#include "evals/extract.h"
#include "evals/math_equivalence.h"
#include "evals/python_random.h"
#include "evals/repeat_scores.h"
#include "evals/run_choices.h"
#include "evals/task_file.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/scripted_model.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// A data folder with one made-up file, in force while it lives.
class DataFolder {
 public:
  DataFolder() { setenv("MOEBENCH_DATA", folder_.path().c_str(), 1); }
  ~DataFolder() { unsetenv("MOEBENCH_DATA"); }
  DataFolder(const DataFolder&) = delete;
  DataFolder& operator=(const DataFolder&) = delete;

  void add(const std::string& dataset, const std::string& file, const std::string& text) {
    std::filesystem::create_directories(folder_.path() / dataset);
    write_file(folder_.path() / dataset / file, text);
  }

 private:
  TemporaryDirectory folder_;
};

std::string gpqa_rows(int count) {
  std::string text =
      "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,"
      "Incorrect Answer 3,High-level domain\n";
  for (int i = 0; i < count; ++i) {
    text += fmt::format("\"Question {}, made up?\",right {},wrong x,wrong y,\"wrong\nz\",Physics\n",
                        i, i);
  }
  return text;
}

}  // namespace

TEST_CASE("gpqa: the orders of Python's random.Random(0), all 1584 of them") {
  PythonRandom random(0);
  std::string orders;
  std::vector<std::string> list;
  for (int i = 0; i < 1584; ++i) {
    std::string order;
    for (const int k : random.permutation(4)) order += std::to_string(k);
    orders += (i == 0 ? "" : " ") + order;
    list.push_back(order);
  }
  // Values from CPython: random.Random(0).sample(range(4), 4), again and again.
  CHECK(orders.substr(0, 119) ==
        "3102 3120 2301 2031 1302 2103 3102 3210 0312 3102 0321 1230 0123 2310 2301 3012 1302 1032 "
        "0321 0312 1032 3120 2301 2031");
  CHECK(list[198] == "2103");
  CHECK(list[1583] == "3021");
  CHECK(sha256_of_text(orders) ==
        "1c4eabbf9df0f653b980ee9712d182b6f7a44b6346efcbd4bdfeb3b094c5a9e0");
}

TEST_CASE("gpqa: 198 questions, 8 repeats: the published letters, whatever the order of asking") {
  DataFolder folder;
  folder.add("gpqa_diamond", "gpqa_diamond.csv", gpqa_rows(198));
  const TaskData data = find_task("gpqa_diamond").load();
  REQUIRE(data.items.size() == 198);
  const TaskItem late = data.item(197, 7);  // number 1583, before any other
  std::map<std::string, int> counts;
  std::string first;
  for (std::int64_t repeat = 0; repeat < 8; ++repeat) {
    for (std::size_t i = 0; i < 198; ++i) {
      const TaskItem item = data.item(i, repeat);
      ++counts[item.expected];
      if (repeat == 0 && i < 24) first += item.expected;
      CHECK(item.choices[static_cast<std::size_t>(item.expected[0] - 'A')] ==
            fmt::format("right {}", i));
      CHECK(item.id == data.items[i].id);
    }
  }
  CHECK(first == "CDCBCCCDACADADCBCBAABDCB");
  CHECK(counts == std::map<std::string, int>{{"A", 414}, {"B", 379}, {"C", 418}, {"D", 373}});
  CHECK(late.user_message == data.item(197, 7).user_message);
  CHECK(data.item(0, 0).user_message ==
        "Question 0, made up?\n\n(A) wrong\nz\n(B) wrong x\n(C) right 0\n(D) wrong y\n\n"
        "Express your final answer as the corresponding option 'A', 'B', 'C', or 'D'.");
  CHECK(data.items[0].category == "Physics");
}

TEST_CASE("gpqa: votes are for an option's text, since its letter changes from repeat to repeat") {
  DataFolder folder;
  folder.add("gpqa_diamond", "gpqa_diamond.csv", gpqa_rows(198));
  const Task task = find_task("gpqa_diamond");
  const VoteOf vote_of = votes_of(task, task.protocol());
  LedgerLine line;
  line.item = task.load().items[0].id;
  // Orders 3102 and, number 198, 2103: (A) and (D) change places.
  const auto vote = [&](std::int64_t repeat, const char* letter) {
    line.repeat = repeat;
    line.answer = letter;
    return vote_of(line);
  };
  CHECK(vote(0, "A") == vote(1, "D"));
  CHECK(vote(0, "D") == vote(1, "A"));
  CHECK(vote(0, "B") == vote(1, "B"));
  CHECK(vote(0, "A") != vote(0, "B"));
  CHECK(vote(0, "T") == "T");  // what the published rule reads from "The answer is C."
  CHECK(vote(0, "").empty());
  // Elsewhere the answer itself.
  const Task nano = find_task("nano");
  CHECK(votes_of(nano, nano.protocol())(line) == "");
}

TEST_CASE("gpqa: simple-evals puts it otherwise, and texts of the set are not public") {
  DataFolder folder;
  folder.add("gpqa_diamond", "gpqa_diamond.csv", gpqa_rows(1));
  const Task task = find_task("gpqa_diamond");
  CHECK_FALSE(task.public_text);
  CHECK(task.protocol().name == "openai");
  CHECK(task.protocol("simple-evals").extraction_rule == "simple_gpqa");
  CHECK(
      task.load("simple-evals").items[0].user_message ==
      "Answer the following multiple choice question. The last line of your response should be of "
      "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think "
      "step by step before answering.\n\nQuestion 0, made up?\n\n"
      "A) wrong\nz\nB) wrong x\nC) right 0\nD) wrong y");
  check_error([&] { task.load("lm-eval"); }, ErrorCode::kInvalidArgument,
              {"protocol of gpqa_diamond", "'lm-eval'", "simple-evals"});
}

TEST_CASE("gpqa: ledgers hold hashes in place of texts, unless asked for") {
  DataFolder folder;
  folder.add("gpqa_main", "gpqa_main.csv", gpqa_rows(2));
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB, 1024);
  ThreadPool pool(2);
  EngineOptions options;
  options.max_batch = 2;
  Engine engine = load_engine(model.path(), Plan{}, options, pool);
  TaskSettings settings;
  settings.max_tokens = 16;
  settings.repeats = 2;
  const auto hidden = run_task(engine, find_task("gpqa_main"), settings, {}, {});
  settings.include_items = true;
  const auto shown = run_task(engine, find_task("gpqa_main"), settings, {}, {});
  REQUIRE(hidden.size() == 4);
  REQUIRE(shown.size() == 4);
  std::set<std::string> asked;
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(hidden[i].final_text.empty());
    CHECK(hidden[i].hidden_text_hash.size() == 16);
    CHECK(to_json(hidden[i]).dump().find("made up") == std::string::npos);
    CHECK(shown[i].final_text == "Answer: B");
    CHECK(shown[i].hidden_text_hash.empty());
    // The tokenizer would read the text from the tokens.
    CHECK(hidden[i].tokens.empty());
    CHECK(hidden[i].token_bytes.empty());
    CHECK(shown[i].tokens.size() == static_cast<std::size_t>(shown[i].output_tokens));
    CHECK(hidden[i].verdict == shown[i].verdict);
    asked.insert(hidden[i].item_hash);
  }
  CHECK(asked.size() == 4);  // repeats shuffle the options: another text, another hash
  const LedgerLine back = ledger_line_from_json(Json(to_json(hidden[0])), "line");
  CHECK(back.hidden_text_hash == hidden[0].hidden_text_hash);
  CHECK(back.item_hash == hidden[0].item_hash);
}

TEST_CASE("aime: the published message, and targets as leading digits") {
  DataFolder folder;
  folder.add(
      "aime_2025", "aime2025-I.jsonl",
      "{\"question\": \"One?\", \"answer\": \"070\"}\n{\"question\": \"Two?\", \"answer\": 5}\n");
  folder.add("aime_2025", "aime2025-II.jsonl",
             "{\"question\": \"Three?\", \"answer\": \"336^\\\\circ\"}\n");
  const TaskData data = find_task("aime_2025").load();
  REQUIRE(data.items.size() == 3);
  CHECK(data.items[0].user_message ==
        "\nOne?\nPlease reason step by step, and put your final answer within \\boxed{}.\n");
  CHECK(data.items[0].expected == "70");
  CHECK(data.items[1].expected == "5");
  CHECK(data.items[2].expected == "336");
  folder.add("aime_2025", "aime2025-II.jsonl", "{\"question\": \"?\", \"answer\": \"x\"}\n");
  check_error([] { find_task("aime_2025").load(); }, ErrorCode::kInvalidArgument,
              {"aime2025-II.jsonl", "line 1"});
}

TEST_CASE("gsm8k: both protocols") {
  DataFolder folder;
  folder.add(
      "gsm8k", "test.jsonl",
      "{\"question\": \"How many?\", \"answer\": \"3 * 411 = <<3*411=1233>>1233\\n#### 1,233\"}\n");
  const Task task = find_task("gsm8k");
  const TaskItem mgsm = task.load().items[0];
  CHECK(mgsm.expected == "1233");
  CHECK(mgsm.user_message ==
        "Solve this math problem. Give the reasoning steps before giving the final answer on the "
        "last line by itself in the format of \"Answer:\". Do not add anything other than the "
        "integer "
        "answer after \"Answer:\".\n\nHow many?");
  CHECK(task.load("lm-eval").items[0].user_message == "Question: How many?\nAnswer:");
}

TEST_CASE("extract: lm-eval's number and letter") {
  const auto number = [](const char* text) { return extract("gsm8k_flexible", text).value; };
  CHECK(number("5 and then $1,233.") == "1233");
  CHECK(number("it is -7") == "-7");
  CHECK(number("12-3") == "-3");
  CHECK(number("3.50") == "3.50");
  CHECK(number("so 8.") == "8");
  CHECK(number("8 ..") == ".");  // the published pattern takes two points for a number
  CHECK_FALSE(number("none").has_value());
  const auto letter = [](const char* text) { return extract("mmlu_pro", text).value; };
  CHECK(letter("the answer is (J).") == "J");
  CHECK(letter("the answer is B") == "B");
  CHECK(letter("the answer is (K), no, the answer is (C)") == "C");
  CHECK_FALSE(letter("The answer is: B").has_value());
}

TEST_CASE("math: spellings of one answer, by the published rule") {
  const Json cases = read_json(golden("math_equivalence.json")).at("cases");
  REQUIRE(cases.size() > 300);
  for (const Json& one : cases) {
    INFO(one.dump());
    CHECK(math_equivalent(one.at("a").get<std::string>(), one.at("b").get<std::string>()) ==
          one.at("equal").get<bool>());
  }
}

TEST_CASE("mmlu and mmlu_pro: prompts, groups, examples of the subject") {
  DataFolder folder;
  folder.add(
      "mmlu", "mmlu.csv",
      "Question,A,B,C,D,Answer,Subject\nWhat?,w,x,y,z,C,anatomy\nWho?,1,2,3,4,A,astronomy\n");
  const TaskData data = find_task("mmlu").load();
  CHECK(data.items[0].category == "other");
  CHECK(data.items[1].category == "stem");
  CHECK(data.items[0].expected == "C");
  CHECK_THAT(data.items[0].user_message, Catch::EndsWith("\n\nWhat?\n\nA) w\nB) x\nC) y\nD) z"));
  folder.add("mmlu", "mmlu.csv", "Question,A,B,C,D,Answer,Subject\nWhat?,w,x,y,z,E,anatomy\n");
  check_error([] { find_task("mmlu").load(); }, ErrorCode::kInvalidArgument, {"row 1", "'E'"});

  for (const std::string split : {"test", "validation"}) {
    folder.add(
        "mmlu_pro", split + ".parquet",
        read_file(source_dir() / "tests/datasets/parquet" / ("mmlu_pro_" + split + ".parquet")));
  }
  CHECK(
      find_task("mmlu_pro").load().items[0].user_message ==
      "The following are multiple choice questions (with answers) about law. Think step by step "
      "and "
      "then finish your answer with \"the answer is (X)\" where X is the correct letter choice.\n"
      "Question:\nV?\nOptions:\nA. p\nB. q\nAnswer: Let's think step by step. p. The answer is (A)."
      "\n\nQuestion:\nQ?\nOptions:\nA. a\nB. b\nC. c\nAnswer: Let's think step by step.");
}

TEST_CASE("log-likelihood tasks: contexts and continuations of lm-eval") {
  DataFolder folder;
  folder.add(
      "arc_easy", "ARC-Easy-Test.jsonl",
      R"({"id": "x", "answerKey": "2", "question": {"stem": "Why?", "choices": [{"text": "so", "label": "1"}, {"text": "thus", "label": "2"}]}})");
  const TaskItem arc = find_task("arc_easy").load().items[0];
  CHECK(arc.expected == "B");
  CHECK(arc.options[1].context == "Question: Why?\nAnswer:");
  CHECK(arc.options[1].continuation == " thus");

  folder.add(
      "hellaswag", "hellaswag_val.jsonl",
      R"({"activity_label": "Baking", "ctx_a": "A [x] cook [title] stirs.", "ctx_b": "then SHE", "endings": ["eats [b]", " waits  now"], "label": 1})");
  const TaskItem hella = find_task("hellaswag").load().items[0];
  CHECK(hella.options[0].context == "Baking: A cook. stirs. Then she");
  CHECK(hella.options[0].continuation == " eats ");
  CHECK(hella.options[1].continuation == " waits now");
  CHECK(hella.expected == "B");

  folder.add(
      "winogrande", "dev.jsonl",
      R"({"sentence": "The cup broke the plate as _ was hard .", "option1": "the cup", "option2": "the plate", "answer": "1"})");
  const TaskItem wino = find_task("winogrande").load().items[0];
  CHECK(wino.options[1].context == "The cup broke the plate as the plate");
  CHECK(wino.options[1].continuation == " was hard .");
  CHECK(wino.expected == "A");

  folder.add("boolq", "val.jsonl",
             R"({"passage": "Ice is cold.", "question": "is ice cold", "label": true})");
  const TaskItem boolq = find_task("boolq").load().items[0];
  CHECK(boolq.options[0].context == "Ice is cold.\nQuestion: is ice cold?\nAnswer:");
  CHECK(boolq.options[0].continuation == " no");
  CHECK(boolq.expected == "B");
}

TEST_CASE("log-likelihood: acc and acc_norm are lm-eval's own, to the last printed digit") {
  // lm-evaluation-harness itself, Hugging Face backend, on the same model and questions
  // (tests/golden/make_lm_eval_golden.py).
  const auto file = [](const char* name) { return golden("lm_eval") / name; };
  DataFolder folder;
  folder.add("arc_easy", "ARC-Easy-Test.jsonl", read_file(file("arc_easy.jsonl")));
  const Json theirs = read_json(file("results_2026-01-31T12-00-00.000000.json"));
  const Json& scores = theirs.at("results").at("nano_arc");
  ThreadPool pool(2);
  Engine engine = load_engine("nano", Plan{}, EngineOptions{}, pool);
  const auto lines = run_task(engine, find_task("arc_easy"), {}, {}, {});
  const TaskScore score = score_lines(lines);
  REQUIRE(score.num_answers == theirs.at("n-samples").at("nano_arc").at("effective"));
  // Four digits are what its table prints; the shares of equal counts are equal in all.
  const auto check = [&](const char* metric, const MeanEstimate& ours) {
    CHECK(ours.mean == scores.at(fmt::format("{},none", metric)).get<double>());
    CHECK(ours.standard_error ==
          Approx(scores.at(fmt::format("{}_stderr,none", metric)).get<double>()).epsilon(1e-12));
  };
  check("acc", score.accuracy);
  check("acc_norm", score.accuracy_by_normalisation.at("characters"));
  check("acc_bytes", score.accuracy_by_normalisation.at("bytes"));

  std::size_t index = 0;
  for_each_json_line(read_file(file("samples_nano_arc_2026-01-31T12-00-00.000000.jsonl")),
                     "samples", 64, [&](const Json& sample, const std::string&) {
                       const LedgerLine& line = lines.at(index++);
                       CHECK(sample.at("acc") == (line.correct() ? 1.0 : 0.0));
                       const Json& options = sample.at("filtered_resps");
                       REQUIRE(options.size() == line.options.size());
                       for (std::size_t i = 0; i < options.size(); ++i) {
                         CHECK(line.options[i].log_probability ==
                               Approx(std::stod(options[i][0].get<std::string>())).margin(1e-4));
                       }
                     });
  CHECK(index == lines.size());
}

TEST_CASE("log-likelihood: nano's are those of transformers in float32, to 1e-4") {
  const Json goldens = read_json(golden("loglikelihood.json"));
  ThreadPool pool(2);
  EngineOptions options;
  options.max_batch = 4;
  Engine engine = load_engine("nano", Plan{}, options, pool);
  for (const Json& one : goldens.at("pairs")) {
    INFO(one.dump());
    const OptionScore score = score_option(
        engine, {one.at("context").get<std::string>(), one.at("continuation").get<std::string>()});
    CHECK(score.log_probability ==
          Approx(one.at("log_probability").get<double>()).margin(1e-4).epsilon(0));
    CHECK(score.tokens == one.at("tokens").get<std::int64_t>());
  }
  // A task of these options, from the text of the items to the four kinds of answers.
  const TaskData nano = find_task("nano").load();
  Task task;
  task.name = "nano by likelihood";
  task.protocols = {{.name = "lm-eval", .source = "test", .extraction_rule = ""}};
  task.load_items = [&](const Protocol&) {
    TaskData data;
    for (std::size_t i = 0; i < 24; ++i) {
      TaskItem item = nano.items[i];
      for (const std::string& choice : item.choices) {
        item.options.push_back({"Question: " + item.question + "\nAnswer:", " " + choice});
      }
      data.items.push_back(std::move(item));
    }
    return data;
  };
  const auto lines = run_task(engine, task, {}, {}, {});
  REQUIRE(lines.size() == 24);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json& item = goldens.at("items").at(i);
    INFO(item.dump());
    REQUIRE(lines[i].item == item.at("id"));
    for (std::size_t c = 0; c < 4; ++c) {
      CHECK(lines[i].options[c].log_probability ==
            Approx(item.at("scores").at(c).at("log_probability").get<double>())
                .margin(1e-4)
                .epsilon(0));
    }
    for (const auto& [normalisation, letter] : item.at("best").items()) {
      CHECK(choice_letter(best_option(lines[i].options, normalisation)) == letter);
    }
    CHECK(lines[i].correct() == (item.at("best").at("none") == nano.items[i].expected));
    const LedgerLine back = ledger_line_from_json(Json(to_json(lines[i])), "line");
    CHECK(back.options.size() == 4);
    CHECK(back.options[3].log_probability == lines[i].options[3].log_probability);
  }
  CHECK(score_lines(lines).accuracy_by_normalisation.size() == 3);
  // Resumed, the rest alone is scored.
  const std::vector<LedgerLine> done(lines.begin(), lines.begin() + 20);
  int fresh = 0;
  TaskHooks hooks;
  hooks.on_line = [&](const LedgerLine&) { ++fresh; };
  CHECK(run_task(engine, task, {}, done, hooks).size() == 24);
  CHECK(fresh == 4);
  TaskSettings twice;
  twice.repeats = 2;
  check_error([&] { run_task(engine, task, twice, {}, {}); }, ErrorCode::kInvalidArgument,
              {"would all be the same"});
}

TEST_CASE("task: without its dataset a task says what to download and where to put it") {
  DataFolder folder;
  check_error([] { find_task("gpqa_diamond").load(); }, ErrorCode::kIo,
              {"moebench data fetch gpqa_diamond", "gpqa_diamond/gpqa_diamond.csv", "https://"});
}

TEST_CASE("task file: the example that ships") {
  const Task task = find_task((source_dir() / "datasets/examples/capitals.json").string());
  CHECK(task.name == "capitals");
  const TaskData data = task.load();
  REQUIRE(data.items.size() == 5);  // the first row is the worked example
  CHECK(data.items[0].id == "japan");
  CHECK(data.items[0].category == "Asia");
  CHECK(data.items[0].expected == "A");
  CHECK(data.items[0].user_message ==
        "What is the capital of France?\n\n(A) Lyon\n(B) Paris\n(C) Marseille\n(D) Nice\n\nAnswer: "
        "B\n\n"
        "What is the capital of Japan?\n\n(A) Tokyo\n(B) Osaka\n(C) Kyoto\n(D) Nagoya\n\n"
        "Express your final answer as the corresponding option 'A', 'B', 'C', or 'D'.");
}

TEST_CASE("task file: fields that cannot work are refused by name") {
  const Json good = read_json(source_dir() / "datasets/examples/capitals.json");
  const auto refused = [&](const char* pointer, const Json& value,
                           std::initializer_list<std::string> words) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    INFO(pointer << " = " << value.dump());
    check_error(
        [&] { parse_task(json.dump(), "t.json", source_dir() / "datasets/examples").load(); },
        ErrorCode::kInvalidArgument, words);
  };
  refused("/schema", "moebench.task/2", {"t.json: schema"});
  refused("/tempLate", "x", {"tempLate"});
  refused("/extraction", "abce", {"'abce'", "did you mean 'abcd'?"});
  refused("/answer_kind", "number", {"answer_kind", "letter"});
  refused("/scorer", "judge", {"scorer", "math"});
  refused("/template", "{question} {", {"single '{'"});
  refused("/template", "{question} }", {"single '}'"});
  refused("/template", "{questoin}", {"row 2", "did you mean 'question'?"});
  refused("/columns/choices", {"a"}, {"columns.choices", "1 columns"});
  refused("/columns/answer", "a", {"row 1", "'Lyon'", "by letter"});
  refused("/columns/id", "region", {"'Africa' stood before"});
  refused("/few_shot/count", 6, {"6 examples"});
  refused("/few_shot/count", 0, {"few_shot.count"});
  refused("/data/dataset", "gsm8k", {"one of dataset and path"});
  refused("/method", "log_likelihood", {"extraction"});
}

TEST_CASE("task file: by likelihood, with a list of choices and an index") {
  const TemporaryDirectory folder;
  write_file(folder.path() / "d.jsonl",
             "{\"q\": \"Sky?\", \"o\": [\"blue\", \"red\"], \"a\": 0}\n"
             "{\"q\": \"Grass {x}?\", \"o\": [\"red\", \"green\", \"grey\"], \"a\": 1}\n");
  const Task task = parse_task(
      R"({"schema": "moebench.task/1", "name": "colours", "data": {"path": "d.jsonl", "public_text": false},
          "columns": {"question": "q", "choices": "o", "answer": "a"}, "answer_kind": "index",
          "template": "{{Q}} {q}\nA:", "method": "log_likelihood"})",
      "t.json", folder.path());
  CHECK_FALSE(task.public_text);
  const TaskData data = task.load();
  CHECK(data.items[1].expected == "B");
  CHECK(data.items[1].id == "colours-00002");
  CHECK(data.items[1].options[2].context == "{Q} Grass {x}?\nA:");
  CHECK(data.items[1].options[2].continuation == " grey");
}

}  // namespace moebench::test
