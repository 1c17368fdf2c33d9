// Running a task on models whose answers are known: each verdict, resuming, stopping, determinism.
#include <catch2/catch.hpp>
#include <set>

#include "evals/run_task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/scripted_model.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// An engine that says `script` to everything.
struct Scripted {
  TemporaryDirectory folder;
  ThreadPool pool{2};
  Engine engine;

  explicit Scripted(const std::string& script, std::int64_t max_batch = 4,
                    std::int64_t context = 512) {
    write_scripted_checkpoint(folder.path(), script, context);
    EngineOptions options;
    options.max_batch = max_batch;
    engine = load_engine(folder.path(), Plan{}, options, pool);
  }

  std::vector<LedgerLine> run(const TaskSettings& settings,
                              const std::vector<LedgerLine>& done = {},
                              const TaskHooks& hooks = {}) {
    return run_task(engine, find_task("nano"), settings, done, hooks);
  }
};

TaskSettings first(std::int64_t limit, std::int64_t max_tokens = 0) {
  TaskSettings settings;
  settings.limit = limit;
  settings.max_tokens = max_tokens;
  return settings;
}

// The line without its times, which alone may differ between two runs.
std::string untimed(const LedgerLine& line) {
  LedgerLine copy = line;
  copy.timing = {};
  return json_line(to_json(copy));
}

std::vector<std::string> untimed(const std::vector<LedgerLine>& lines) {
  std::vector<std::string> texts;
  for (const LedgerLine& line : lines) texts.push_back(untimed(line));
  return texts;
}

LedgerLine answer_to_first(const std::string& script, std::int64_t max_tokens = 0) {
  Scripted model(script);
  const auto lines = model.run(first(1, max_tokens));
  REQUIRE(lines.size() == 1);
  return lines.front();
}

}  // namespace

TEST_CASE("run_task: an answer is correct or wrong by the file's own key") {
  Scripted says_b(kSaysB);
  const auto lines = says_b.run(first(20));
  REQUIRE(lines.size() == 20);
  const TaskData data = find_task("nano").load();
  std::map<std::string, std::string> keys;
  for (const TaskItem& item : data.items) keys[item.id] = item.expected;
  std::int64_t correct = 0;
  for (const LedgerLine& line : lines) {
    CHECK(line.answer == "B");
    CHECK(line.expected == keys.at(line.item));
    CHECK(line.correct() == (keys.at(line.item) == "B"));
    CHECK(line.verdict == (line.correct() ? Verdict::kCorrect : Verdict::kWrong));
    CHECK(line.final_text == "Answer: B");
    CHECK(line.analysis.empty());
    CHECK(line.reasoning_tokens == 0);
    CHECK(line.finish == "stop");
    correct += line.correct() ? 1 : 0;
  }
  REQUIRE(correct > 0);
  REQUIRE(correct < 20);
  const TaskScore score = score_lines(lines);
  CHECK(score.num_answers == 20);
  CHECK(score.accuracy.mean == Approx(static_cast<double>(correct) / 20));
  CHECK(score.verdicts[static_cast<std::size_t>(Verdict::kCorrect)] == correct);
  CHECK(score.verdicts[static_cast<std::size_t>(Verdict::kWrong)] == 20 - correct);
}

TEST_CASE("run_task: a final message without an option is unparsed") {
  const LedgerLine line = answer_to_first("<|channel|>final<|message|>who knows<|return|>");
  CHECK(line.verdict == Verdict::kUnparsed);
  CHECK(line.final_text == "who knows");
  CHECK(line.answer.empty());
}

TEST_CASE("run_task: an answer whose budget ends while it thinks is truncated") {
  const LedgerLine line =
      answer_to_first("<|channel|>analysis<|message|>one by two for three<|return|>", 6);
  CHECK(line.verdict == Verdict::kTruncated);
  CHECK(line.finish == "length");
  CHECK(line.output_tokens == 6);
  CHECK_FALSE(line.analysis.empty());
}

TEST_CASE("run_task: a model that repeats itself is stopped and called looping") {
  const LedgerLine line = answer_to_first("<|channel|>analysis<|message|>7+7+", 200);
  CHECK(line.verdict == Verdict::kLooping);
  CHECK(line.finish == "loop");
  CHECK(line.output_tokens < 200);
}

TEST_CASE("run_task: thinking without a final message is a channel error") {
  const LedgerLine line = answer_to_first("<|channel|>analysis<|message|>so it is<|return|>");
  CHECK(line.verdict == Verdict::kChannelError);
  CHECK(line.analysis == "so it is");
  CHECK(line.finish == "stop");
  CHECK(
      line.reasoning_tokens ==
      static_cast<std::int64_t>(Tokenizer::load(nano_tokenizer_path()).encode("so it is").size()));
}

TEST_CASE("run_task: declining is refused, not unparsed") {
  CHECK(answer_to_first("<|channel|>final<|message|>I can't do<|return|>").verdict ==
        Verdict::kRefused);
}

TEST_CASE("run_task: the tokens of an answer are kept, with what each adds to its text") {
  const auto tokenizer = Tokenizer::load(nano_tokenizer_path());
  const auto bytes_of = [](const LedgerLine& line) {
    std::int64_t bytes = 0;
    for (const std::int32_t n : line.token_bytes) bytes += n;
    return bytes;
  };
  for (const std::string script : {"<|channel|>analysis<|message|>so it is<|return|>",
                                   "<|channel|>final<|message|>B<|return|>", kSaysB}) {
    INFO(script);
    const LedgerLine line = answer_to_first(script);
    CHECK(line.tokens == tokenizer.encode_with_special(script));
    REQUIRE(line.token_bytes.size() == line.tokens.size());
    std::string text;
    for (std::size_t i = 0; i < line.tokens.size(); ++i) {
      if (line.token_bytes[i] > 0) text += tokenizer.token_bytes(line.tokens[i]);
    }
    CHECK(text == line.analysis + line.final_text);
    CHECK(bytes_of(line) == static_cast<std::int64_t>(text.size()));
  }
  // A character of two tokens, whole and cut in the middle: its bytes come with the last token.
  const std::string start = "<|channel|>final<|message|>caf";
  const auto half = static_cast<std::int64_t>(tokenizer.encode_with_special(start).size()) + 1;
  for (const std::int64_t max_tokens : {half - 1, half, half + 1}) {
    const LedgerLine line = answer_to_first(start + "\u00e9<|return|>", max_tokens);
    CHECK(line.token_bytes.size() == static_cast<std::size_t>(max_tokens));
    CHECK(bytes_of(line) == static_cast<std::int64_t>(line.final_text.size()));
  }
}

TEST_CASE("run_task: timings follow their definitions, and tokens are counted") {
  const LedgerLine line = answer_to_first(kSaysB);
  const auto tokenizer = Tokenizer::load(nano_tokenizer_path());
  CHECK(line.output_tokens ==
        static_cast<std::int64_t>(tokenizer.encode_with_special(kSaysB).size()));
  CHECK(line.timing.ttft_ms > 0);
  CHECK(line.timing.e2e_ms >= line.timing.ttft_ms);
  CHECK(line.timing.tpot_ms == Approx((line.timing.e2e_ms - line.timing.ttft_ms) /
                                      static_cast<double>(line.output_tokens - 1)));
  // A certain model: its tokens have probability 1 to within 768 exp(-20).
  CHECK(line.log_probability <= 0);
  CHECK(line.log_probability > -1e-4);
}

TEST_CASE("run_task: the prompt's common beginning is computed once") {
  Scripted model(kSaysB);
  const auto tokenizer = Tokenizer::load(nano_tokenizer_path());
  const auto system = tokenizer.encode("You are ChatGPT, a large language model").size();
  for (const LedgerLine& line : model.run(first(5))) {
    CHECK(line.cached_tokens >= static_cast<std::int64_t>(system));
    CHECK(line.cached_tokens < line.prompt_tokens);
  }
  // Also where every prompt is the same: only its last token is left to compute.
  TaskSettings settings = first(1);
  settings.repeats = 3;
  for (const LedgerLine& line : model.run(settings)) {
    CHECK(line.cached_tokens == line.prompt_tokens - 1);
  }
}

TEST_CASE("run_task: each repeat has its own seed, and each item") {
  Scripted model(kSaysB);
  TaskSettings settings = first(3);
  settings.repeats = 4;
  settings.sampling.temperature = 1;
  settings.sampling.seed = 5;
  const auto lines = model.run(settings);
  std::set<std::uint64_t> seeds;
  std::set<std::pair<std::string, std::int64_t>> answers;
  for (const LedgerLine& line : lines) {
    CHECK(line.seed == answer_seed(5, line.item, line.repeat));
    seeds.insert(line.seed);
    answers.emplace(line.item, line.repeat);
  }
  CHECK(seeds.size() == 12);
  CHECK(answers.size() == 12);
  CHECK(score_lines(lines).accuracy.num_clusters == 3);
}

TEST_CASE("run_task: no more answers are under way than the engine decodes at once") {
  // So the latency of the last answer is not that of the whole task: all wait about equally long.
  Scripted model(kSaysB, 2);
  std::int64_t finished = 0;
  TaskHooks hooks;
  hooks.on_line = [&](const LedgerLine&) { ++finished; };
  std::vector<std::int64_t> done;
  hooks.on_progress = [&](std::int64_t n, std::int64_t total) {
    CHECK(total == 10);
    done.push_back(n);
  };
  const auto lines = model.run(first(10), {}, hooks);
  CHECK(finished == 10);
  CHECK(done.front() == 0);
  CHECK(done.back() == 10);
  // Finishing order is asking order, for equally long answers.
  const TaskData data = find_task("nano").load();
  for (std::size_t i = 0; i < lines.size(); ++i) CHECK(lines[i].item == data.items[i].id);
}

TEST_CASE("run_task: two runs with one seed give the same ledger but for the times") {
  // Temperature 6 makes a scripted model stray, so that draws matter.
  TaskSettings settings = first(6, 24);
  settings.repeats = 2;
  settings.sampling.temperature = 6;
  settings.sampling.seed = 11;
  const std::string script = "<|channel|>analysis<|message|>one by two for three<|return|>";
  const auto a = untimed(Scripted(script).run(settings));
  const auto b = untimed(Scripted(script).run(settings));
  CHECK(a == b);
  CHECK(std::set<std::string>(a.begin(), a.end()).size() == 12);
  settings.sampling.seed = 12;
  CHECK(untimed(Scripted(script).run(settings)) != a);
}

TEST_CASE("run_task: answers do not depend on the batch they were made in") {
  TaskSettings settings = first(6, 24);
  settings.sampling.temperature = 6;
  const std::string script = "<|channel|>analysis<|message|>one by two for three<|return|>";
  const auto by_item = [&](std::int64_t batch) {
    std::map<std::string, std::string> digests;
    for (const LedgerLine& line : Scripted(script, batch).run(settings)) {
      digests[line.item] = line.token_digest + line.analysis;
    }
    return digests;
  };
  CHECK(by_item(1) == by_item(5));
}

TEST_CASE("run_task: what was answered before is not asked again") {
  Scripted model(kSaysB);
  const auto all = model.run(first(8));
  const std::vector<LedgerLine> before(all.begin(), all.begin() + 5);
  std::vector<std::string> fresh;
  TaskHooks hooks;
  hooks.on_line = [&](const LedgerLine& line) { fresh.push_back(line.item); };
  const auto resumed = model.run(first(8), before, hooks);
  CHECK(fresh == std::vector<std::string>{all[5].item, all[6].item, all[7].item});
  REQUIRE(resumed.size() == 8);
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(resumed[i].item == all[i].item);
    CHECK(resumed[i].token_digest == all[i].token_digest);
  }
  CHECK(model.run(first(8), all).size() == 8);
}

TEST_CASE("run_task: a request to stop keeps what is finished") {
  Scripted model(kSaysB, 1);
  std::vector<LedgerLine> kept;
  TaskHooks hooks;
  hooks.on_line = [&](const LedgerLine& line) { kept.push_back(line); };
  hooks.stop_requested = [&] { return kept.size() >= 3; };
  check_error([&] { model.run(first(8), {}, hooks); }, ErrorCode::kInterrupted,
              {"answer 5 more questions"});
  CHECK(kept.size() == 3);
}

TEST_CASE("run_task: a prompt longer than the context names item, length and limit") {
  Scripted model(kSaysB, 2, 64);
  check_error([&] { model.run(first(4)); }, ErrorCode::kInvalidArgument,
              {"item 'nano-0001' of nano", "tokens", "context of 64"});
}

TEST_CASE("score_lines: every verdict but correct counts as not correct, and nothing is dropped") {
  std::vector<LedgerLine> lines;
  for (int v = 0; v < kNumVerdicts; ++v) {
    LedgerLine line;
    line.item = fmt::format("item {}", v);
    line.category = v % 2 == 0 ? "even" : "odd";
    line.verdict = static_cast<Verdict>(v);
    line.output_tokens = 10 * v;
    line.reasoning_tokens = v;
    lines.push_back(line);
  }
  const TaskScore score = score_lines(lines);
  CHECK(score.accuracy.mean == Approx(1.0 / 8));
  for (const std::int64_t count : score.verdicts) CHECK(count == 1);
  CHECK(score.accuracy_by_category.at("even").mean == Approx(1.0 / 4));
  CHECK(score.accuracy_by_category.at("odd").mean == 0);
  CHECK(score.mean_output_tokens == Approx(35));
  CHECK(score.mean_reasoning_tokens == Approx(3.5));
  CHECK_THROWS_AS(score_lines({}), Error);
}

TEST_CASE("make_traces: a trace is the prompt and the model's own words, counted from there") {
  Scripted model(kSaysB);
  const auto traces = make_traces(model.engine, find_task("nano"), ReasoningEffort::kLow, 3, 0, {});
  const auto words = model.engine.tokenizer->encode_with_special(kSaysB);
  REQUIRE(traces.size() == 3);
  for (const Trace& trace : traces) {
    const auto first_word = trace.tokens.begin() + static_cast<std::ptrdiff_t>(trace.first);
    CHECK(std::vector<std::int32_t>(first_word, trace.tokens.end()) == words);
    CHECK_THAT(model.engine.tokenizer->decode(
                   std::span(trace.tokens).first(static_cast<std::size_t>(trace.first))),
               Catch::EndsWith("<|start|>assistant"));
  }
}

TEST_CASE("follow_divergences: a plan goes on where it would have, to its own answer") {
  const auto follow = [](const char* script, std::int64_t max_tokens = 0) {
    Scripted reference(kSaysB);
    Scripted plan(script);
    const Task task = find_task("nano");
    const auto traces = make_traces(reference.engine, task, ReasoningEffort::kLow, 3, 0, {});
    const FidelityResult result = compare_fidelity(reference.engine, plan.engine, traces);
    return follow_divergences(plan.engine, task, std::span(traces).first(2), result, max_tokens,
                              {});
  };
  const auto words = Scripted(kSaysB).engine.tokenizer->encode_with_special(kSaysB);
  CHECK(follow(kSaysB).empty());

  const auto other = follow("<|channel|>final<|message|>Answer: C<|return|>");
  REQUIRE(other.size() == 2);  // of the first two traces, not of all three
  for (const DivergedAnswer& one : other) {
    CHECK(one.token == static_cast<std::int64_t>(words.size()) - 2);  // the letter
    CHECK(one.reference.answer == "B");
    CHECK(one.reference.finish == "stop");
    CHECK(one.plan.answer == "C");
    CHECK(one.plan.final_text == "Answer: C");
    CHECK(one.plan.finish == "stop");
    CHECK(one.changed);
    CHECK((one.plan.verdict == Verdict::kCorrect) == (one.plan.expected == "C"));
  }
  CHECK(other[0].reference.item != other[1].reference.item);

  // Another way to the same answer.
  const auto same = follow("<|channel|>final<|message|>My Answer: B<|return|>");
  REQUIRE(same.size() == 2);
  CHECK(same[0].token == 3);
  CHECK(same[0].plan.final_text == "My Answer: B");
  CHECK_FALSE(same[0].changed);

  // A budget that ends at the token itself leaves nothing to read.
  const auto cut = follow("<|channel|>final<|message|>My Answer: B<|return|>", 4);
  CHECK(cut[0].plan.output_tokens == 4);
  CHECK(cut[0].plan.finish == "length");
  CHECK(cut[0].plan.answer.empty());
  CHECK(cut[0].changed);
}

}  // namespace moebench::test
