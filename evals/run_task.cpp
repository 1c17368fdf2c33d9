// Prompts in, graded answers out.
#include "evals/run_task.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "engine/harmony.h"
#include "engine/scheduler.h"
#include "evals/extract.h"
#include "evals/math_equivalence.h"
#include "evals/run_choices.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

constexpr double kNsPerMs = 1e6;

struct Parsed {
  std::string analysis;
  std::string final_text;
  AnswerForm form = AnswerForm::kWellFormed;
  std::int64_t reasoning_tokens = 0;
  std::vector<std::int32_t> token_bytes;  // as in LedgerLine
};

Parsed parse_answer(const Tokenizer& tokenizer, const std::vector<std::int32_t>& tokens,
                    std::span<const std::int64_t> stop_ids) {
  HarmonyParser parser(tokenizer, Role::kAssistant);
  Parsed parsed;
  parsed.token_bytes.resize(tokens.size());
  std::size_t thought = 0;  // bytes of thinking so far
  std::size_t said = 0;     // and of the final message
  bool in_order = true;     // all of the thinking before the final message
  const auto count = [&](std::size_t token, bool thinks, std::size_t bytes) {
    parsed.token_bytes[token] += static_cast<std::int32_t>(bytes);
    (thinks ? thought : said) += bytes;
    in_order = in_order && (!thinks || bytes == 0 || said == 0);
  };
  const HarmonyTokens special = HarmonyTokens::of(tokenizer);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::int32_t token = tokens[i];
    // <|endoftext|> ends an answer too, but is no part of the message grammar.
    const bool foreign_stop = !special.ends_message(token) &&
                              std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end();
    if (foreign_stop) break;
    const Message* before = parser.current();
    const bool thinks = before != nullptr && before->channel == "analysis";
    const bool answers = before != nullptr && before->channel == "final";
    if (thinks && !special.ends_message(token)) ++parsed.reasoning_tokens;
    parser.push(token);
    if (thinks || answers) count(i, thinks, parser.delta().size());
  }
  const Message* last = parser.current();
  const bool ends_thinking = last != nullptr && last->channel == "analysis";
  parser.finish();  // a character that did not come whole is shown now
  if (!parser.delta().empty()) count(tokens.size() - 1, ends_thinking, parser.delta().size());
  parsed.analysis = reasoning_text(parser.messages());
  parsed.final_text = final_text(parser.messages());
  parsed.form = parser.answer_form();
  // Messages that are joined, or stand where none was expected, leave the lengths without meaning.
  if (!in_order || thought != parsed.analysis.size() || said != parsed.final_text.size()) {
    parsed.token_bytes.clear();
  }
  return parsed;
}

bool is_refusal(std::string_view text) {
  constexpr std::array<std::string_view, 6> kOpenings = {"I'm sorry", "I’m sorry", "I am sorry",
                                                         "I can't",   "I can’t",   "I cannot"};
  return std::any_of(kOpenings.begin(), kOpenings.end(), [&](std::string_view opening) {
    return text.substr(0, opening.size()) == opening;
  });
}

// A final answer is graded whatever ended it; without one, the reason it is missing is the verdict.
Verdict judge(const RequestResult& result, const Parsed& parsed,
              const std::optional<std::string>& answer, const std::string& expected,
              Scorer scorer) {
  if (result.finish == FinishReason::kFailed || result.finish == FinishReason::kCancelled) {
    return Verdict::kFailed;
  }
  if (!parsed.final_text.empty()) {
    if (answer) {
      const bool right =
          *answer == expected || (scorer == Scorer::kMath && math_equivalent(*answer, expected));
      return right ? Verdict::kCorrect : Verdict::kWrong;
    }
    if (is_refusal(parsed.final_text)) return Verdict::kRefused;
  }
  if (result.finish == FinishReason::kLoop) return Verdict::kLooping;
  if (result.finish == FinishReason::kLength) return Verdict::kTruncated;
  if (parsed.form != AnswerForm::kWellFormed || parsed.final_text.empty()) {
    return Verdict::kChannelError;
  }
  return Verdict::kUnparsed;
}

AnswerTiming timing_of(const RequestResult& result) {
  AnswerTiming timing;
  if (result.token_ns.empty()) return timing;
  const auto since_submission = [&](std::int64_t ns) {
    return static_cast<double>(ns - result.submitted_ns) / kNsPerMs;
  };
  timing.ttft_ms = since_submission(result.token_ns.front());
  timing.e2e_ms = since_submission(result.token_ns.back());
  if (result.token_ns.size() > 1) {
    timing.tpot_ms =
        (timing.e2e_ms - timing.ttft_ms) / static_cast<double>(result.token_ns.size() - 1);
  }
  return timing;
}

struct Pending {
  TaskItem item;
  std::int64_t repeat;
  std::uint64_t seed;
};

// How a task is graded, and whether its texts may be written down.
struct Grading {
  const Protocol& protocol;
  bool hides_text;
};

LedgerLine grade(const Engine& engine, const Grading& grading, const Pending& pending,
                 const RequestResult& result) {
  LedgerLine line;
  line.item = pending.item.id;
  line.item_hash = hash_hex(content_hash(pending.item.user_message));
  line.category = pending.item.category;
  line.repeat = pending.repeat;
  line.seed = pending.seed;
  line.expected = pending.item.expected;
  line.finish = finish_reason_name(result.finish);
  line.prompt_tokens = result.prompt_tokens;
  line.cached_tokens = result.cached_tokens;
  line.output_tokens = static_cast<std::int64_t>(result.tokens.size());
  for (const double lp : result.log_probabilities) line.log_probability += lp;
  line.token_digest = hash_hex(content_hash(std::as_bytes(std::span(result.tokens))));
  line.error = result.error;
  line.timing = timing_of(result);
  const Parsed parsed = parse_answer(engine.require_tokenizer(), result.tokens,
                                     engine.model->config().stop_token_ids);
  line.analysis = parsed.analysis;
  line.final_text = parsed.final_text;
  line.reasoning_tokens = parsed.reasoning_tokens;
  line.tokens = result.tokens;
  line.token_bytes = parsed.token_bytes;
  std::optional<std::string> answer;
  if (!parsed.final_text.empty())
    answer = extract(grading.protocol.extraction_rule, parsed.final_text).value;
  line.answer = answer.value_or("");
  line.verdict = judge(result, parsed, answer, line.expected, grading.protocol.scorer);
  if (grading.hides_text) {
    line.hidden_text_hash = hash_hex(content_hash(line.final_text, content_hash(line.analysis)));
    drop_texts(line);
  }
  return line;
}

// What all prompts begin with. Their last tokens are left out: each request must have something to
// compute, also where all ask the same.
std::vector<std::int32_t> common_prefix(const std::vector<Request>& requests) {
  if (requests.size() < 2) return {};
  std::vector<std::int32_t> prefix = requests.front().prompt;
  for (const Request& request : requests) {
    const auto [end, ignored] = std::mismatch(prefix.begin(), prefix.end(), request.prompt.begin(),
                                              request.prompt.end() - 1);
    prefix.erase(end, prefix.end());
  }
  return prefix;
}

// Runs the requests and hands each result over as it arrives. As many are under way as the engine
// decodes at once, and each is submitted when its turn comes: its latencies are those of a server
// under that load, not of a queue as long as the task.
void run_requests(Engine& engine, std::vector<Request> requests,
                  const std::function<void(const RequestResult&)>& on_result,
                  const std::function<bool()>& stop_requested) {
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.share_prefix(common_prefix(requests));
  const auto most_at_once = engine.model->limits().max_logit_rows;
  const auto total = static_cast<std::int64_t>(requests.size());
  std::int64_t submitted = 0;
  while (submitted < total || scheduler.num_unfinished() > 0) {
    require_or(ErrorCode::kInterrupted, !stop_requested || !stop_requested(),
               "answer {} more questions: interrupted",
               total - submitted + scheduler.num_unfinished());
    while (submitted < total && scheduler.num_unfinished() < most_at_once) {
      scheduler.submit(std::move(requests[static_cast<std::size_t>(submitted++)]));
    }
    scheduler.step();
    for (const RequestResult& result : scheduler.take_results()) on_result(result);
  }
}

Request request_for(const Engine& engine, const Task& task, const TaskItem& item,
                    ReasoningEffort effort) {
  Request request;
  request.prompt =
      render(item_conversation(item, effort), RenderOptions{}, engine.require_tokenizer());
  request.stop_tokens = answer_stop_tokens(engine);
  // Before anything is answered, not when its turn comes.
  const std::int64_t context = engine.model->limits().max_context;
  require(static_cast<std::int64_t>(request.prompt.size()) < context,
          "ask item '{}' of {}: its prompt of {} tokens leaves no room in a context of {}", item.id,
          task.name, request.prompt.size(), context);
  return request;
}

// The items to ask, by index: of those that are wanted, this part's.
std::vector<std::size_t> asked_items(const TaskData& data, const TaskSettings& settings) {
  std::vector<std::size_t> items = settings.only;
  if (items.empty()) {
    items.resize(num_asked(data, settings.limit));
    std::iota(items.begin(), items.end(), std::size_t{0});
  }
  for (const std::size_t index : items) {
    require(index < data.items.size(), "run a task: item {} of {}", index, data.items.size());
  }
  std::erase_if(items, [&](std::size_t index) {
    return !settings.shard.takes(static_cast<std::int64_t>(index));
  });
  return items;
}

}  // namespace

std::size_t num_asked(const TaskData& data, std::int64_t limit) {
  const std::size_t all = data.items.size();
  return limit > 0 ? std::min(all, static_cast<std::size_t>(limit)) : all;
}

std::vector<std::int32_t> answer_stop_tokens(const Engine& engine) {
  std::vector<std::int32_t> stops = HarmonyTokens::of(engine.require_tokenizer()).stop_tokens();
  for (const std::int64_t id : engine.model->config().stop_token_ids) {
    stops.push_back(static_cast<std::int32_t>(id));
  }
  return stops;
}

std::uint64_t answer_seed(std::uint64_t seed, std::string_view item, std::int64_t repeat) {
  return content_hash(fmt::format("{}/{}", item, repeat), seed);
}

std::vector<LedgerLine> run_task(Engine& engine, const Task& task, const TaskSettings& settings,
                                 const std::vector<LedgerLine>& done, const TaskHooks& hooks) {
  const Protocol& protocol = task.protocol(settings.protocol);
  const TaskData data = task.load_items(protocol);
  const std::vector<std::size_t> items = asked_items(data, settings);
  if (is_choice_task(data)) return run_choices(engine, task, data, items, settings, done, hooks);
  const Grading grading{protocol, !task.public_text && !settings.include_items};
  std::set<std::pair<std::string, std::int64_t>> finished;
  for (const LedgerLine& line : done) finished.emplace(line.item, line.repeat);

  std::vector<Pending> pending;
  std::vector<Request> requests;
  for (std::int64_t repeat = 0; repeat < settings.repeats; ++repeat) {
    for (const std::size_t i : items) {
      if (finished.contains({data.items[i].id, repeat})) continue;
      TaskItem item = data.item(i, repeat);
      Request request = request_for(engine, task, item, settings.effort);
      request.id = pending.size();
      request.max_tokens = settings.max_tokens > 0 ? settings.max_tokens : task.max_tokens;
      request.sampling = settings.sampling;
      request.sampling.seed = answer_seed(settings.sampling.seed, item.id, repeat);
      pending.push_back({std::move(item), repeat, request.sampling.seed});
      requests.push_back(std::move(request));
    }
  }
  std::vector<LedgerLine> lines = done;
  const auto total = static_cast<std::int64_t>(items.size()) * settings.repeats;
  const auto report = [&] {
    if (hooks.on_progress) hooks.on_progress(static_cast<std::int64_t>(lines.size()), total);
  };
  report();
  const auto on_result = [&](const RequestResult& result) {
    lines.push_back(grade(engine, grading, pending[result.id], result));
    if (hooks.on_line) hooks.on_line(lines.back());
    report();
  };
  run_requests(engine, std::move(requests), on_result, hooks.stop_requested);
  return lines;
}

TaskScore score_lines(const std::vector<LedgerLine>& lines) {
  require(!lines.empty(), "score a task: there are no answers");
  struct Scores {
    std::vector<double> values;
    std::vector<std::int64_t> clusters;
  };
  TaskScore score;
  Scores all;
  std::map<std::string, Scores> by_category;
  std::map<std::string, Scores> by_normalisation;
  std::map<std::string, std::int64_t> item_number;
  double output = 0;
  double reasoning = 0;
  for (const LedgerLine& line : lines) {
    const auto number = static_cast<std::int64_t>(item_number.size());
    const std::int64_t cluster = item_number.try_emplace(line.item, number).first->second;
    for (Scores* scores : {&all, &by_category[line.category]}) {
      scores->values.push_back(line.correct() ? 1 : 0);
      scores->clusters.push_back(cluster);
    }
    for (const char* name : {"bytes", "characters", "tokens"}) {
      if (line.options.empty()) break;
      Scores& scores = by_normalisation[name];
      const bool right = choice_letter(best_option(line.options, name)) == line.expected;
      scores.values.push_back(right ? 1 : 0);
      scores.clusters.push_back(cluster);
    }
    ++score.verdicts[static_cast<std::size_t>(line.verdict)];
    output += static_cast<double>(line.output_tokens);
    reasoning += static_cast<double>(line.reasoning_tokens);
  }
  const auto n = static_cast<double>(lines.size());
  score.num_answers = static_cast<std::int64_t>(lines.size());
  score.accuracy = mean_with_clustered_interval(all.values, all.clusters);
  for (const auto& [category, scores] : by_category) {
    score.accuracy_by_category[category] =
        mean_with_clustered_interval(scores.values, scores.clusters);
  }
  for (const auto& [name, scores] : by_normalisation) {
    score.accuracy_by_normalisation[name] =
        mean_with_clustered_interval(scores.values, scores.clusters);
  }
  score.mean_output_tokens = output / n;
  score.mean_reasoning_tokens = reasoning / n;
  return score;
}

std::vector<Trace> make_traces(Engine& engine, const Task& task, ReasoningEffort effort,
                               std::int64_t items, std::int64_t max_tokens,
                               const std::function<bool()>& stop_requested) {
  const TaskData data = task.load();
  require(!is_choice_task(data),
          "make traces of {}: a log-likelihood task has no answers to follow", task.name);
  const std::span<const TaskItem> chosen(data.items.data(), num_asked(data, items));
  std::vector<Trace> traces;
  std::vector<Request> requests;
  for (const TaskItem& item : chosen) {
    Request request = request_for(engine, task, item, effort);
    request.id = traces.size();
    request.max_tokens = max_tokens > 0 ? max_tokens : task.max_tokens;
    traces.push_back({item.id, request.prompt, static_cast<std::int64_t>(request.prompt.size())});
    requests.push_back(std::move(request));
  }
  const auto on_result = [&](const RequestResult& result) {
    auto& tokens = traces[result.id].tokens;
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
  };
  run_requests(engine, std::move(requests), on_result, stop_requested);
  // A request that failed gives no words to compare on.
  std::erase_if(traces, [](const Trace& trace) {
    return trace.first >= static_cast<std::int64_t>(trace.tokens.size());
  });
  return traces;
}

OrderedJson to_json(const DivergedAnswer& answer) {
  return {{"item", answer.reference.item},     {"token", answer.token},
          {"answer", answer.reference.answer}, {"verdict", verdict_name(answer.reference.verdict)},
          {"plan_answer", answer.plan.answer}, {"plan_verdict", verdict_name(answer.plan.verdict)},
          {"changed", answer.changed}};
}

std::vector<DivergedAnswer> follow_divergences(Engine& plan, const Task& task,
                                               std::span<const Trace> traces,
                                               const FidelityResult& result,
                                               std::int64_t max_tokens,
                                               const std::function<bool()>& stop_requested) {
  require(traces.size() <= result.first_divergence.size(),
          "follow divergences: {} traces, {} were compared", traces.size(),
          result.first_divergence.size());
  const auto divergences = std::span(result.first_divergence).first(traces.size());
  if (std::ranges::all_of(divergences, [](std::int64_t token) { return token < 0; })) return {};
  const Protocol& protocol = task.protocol();
  std::map<std::string, TaskItem> items;
  for (const TaskItem& item : task.load_items(protocol).items) items.emplace(item.id, item);
  const Grading grading{protocol, !task.public_text};
  const std::vector<std::int32_t> stops = answer_stop_tokens(plan);
  const std::int64_t budget = max_tokens > 0 ? max_tokens : task.max_tokens;
  const auto graded = [&](const Trace& trace, RequestResult answer, FinishReason cut) {
    const bool is_stopped =
        !answer.tokens.empty() &&
        std::find(stops.begin(), stops.end(), answer.tokens.back()) != stops.end();
    answer.finish = is_stopped ? FinishReason::kStop : cut;
    answer.prompt_tokens = trace.first;
    return grade(plan, grading, {items.at(trace.id), 0, 0}, answer);
  };

  std::vector<DivergedAnswer> answers;
  std::vector<const Trace*> diverged;  // of each
  std::vector<RequestResult> words;    // of the plan, so far
  std::vector<Request> requests;
  for (std::size_t i = 0; i < traces.size(); ++i) {
    if (result.first_divergence[i] < 0) continue;
    const Trace& trace = traces[i];
    require(items.contains(trace.id), "follow divergences: {} has no item '{}'", task.name,
            trace.id);
    const auto prompt_end = trace.tokens.begin() + trace.first;
    RequestResult whole;
    whole.tokens.assign(prompt_end, trace.tokens.end());
    RequestResult own;
    own.tokens.assign(prompt_end, prompt_end + result.first_divergence[i]);
    own.tokens.push_back(result.diverged_to[i]);
    Request request;
    request.id = answers.size();
    request.prompt.assign(trace.tokens.begin(), prompt_end);
    request.prompt.insert(request.prompt.end(), own.tokens.begin(), own.tokens.end());
    request.stop_tokens = stops;
    request.max_tokens = budget - static_cast<std::int64_t>(own.tokens.size());
    const bool is_over =
        std::find(stops.begin(), stops.end(), own.tokens.back()) != stops.end() ||
        request.max_tokens < 1 ||
        static_cast<std::int64_t>(request.prompt.size()) >= plan.model->limits().max_context;
    if (!is_over) requests.push_back(std::move(request));
    answers.push_back(
        {result.first_divergence[i], graded(trace, whole, FinishReason::kLength), {}});
    diverged.push_back(&trace);
    words.push_back(std::move(own));
    words.back().finish = FinishReason::kLength;
  }
  const auto on_result = [&](const RequestResult& more) {
    auto& tokens = words[more.id].tokens;
    tokens.insert(tokens.end(), more.tokens.begin(), more.tokens.end());
    words[more.id].finish = more.finish;
    words[more.id].error = more.error;
  };
  run_requests(plan, std::move(requests), on_result, stop_requested);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    DivergedAnswer& one = answers[i];
    one.plan = graded(*diverged[i], words[i], words[i].finish);
    const bool is_same =
        one.plan.answer == one.reference.answer ||
        (protocol.scorer == Scorer::kMath && !one.plan.answer.empty() &&
         !one.reference.answer.empty() && math_equivalent(one.plan.answer, one.reference.answer));
    // Where generating failed nobody knows.
    one.changed = !is_same && one.plan.verdict != Verdict::kFailed;
  }
  return answers;
}

}  // namespace moebench
