// moebench generate: one answer, printed as it is made.
#include <fmt/core.h>
#include <unistd.h>

#include <memory>

#include "bench/interrupt.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "engine/engine.h"
#include "engine/harmony.h"
#include "engine/scheduler.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

struct GenerateOptions {
  ModelOptions common;
  std::string prompt;
  std::string system;
  std::string effort = "medium";
  std::int64_t max_tokens = 512;
  SamplingParams sampling;
  bool raw = false;
  bool autotune = false;
  bool stats = false;
};

// Shows channels as they arrive: thoughts dimmed on a terminal, the answer plain.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(const Tokenizer& tokenizer)
      : parser_(tokenizer, Role::kAssistant), color_(isatty(STDOUT_FILENO) != 0) {}

  void push(TokenId token) {
    parser_.push(token);
    show();
  }
  void finish() {
    parser_.finish();
    show();
    close();
    if (!parser_.error().empty()) fmt::print(stderr, "note: {}\n", parser_.error());
  }

 private:
  void show() {
    if (parser_.delta().empty()) return;
    const Message* message = parser_.current();
    if (message == nullptr) message = &parser_.messages().back();
    const std::size_t number = parser_.messages().size();
    if (!open_ || number != shown_message_) {
      close();
      const bool dim = message->channel == "analysis";
      fmt::print("{}[{}] ", color_ && dim ? "\x1b[2m" : "",
                 message->channel.empty() ? "answer" : message->channel);
      open_ = true;
      shown_message_ = number;
    }
    fmt::print("{}", parser_.delta());
    std::fflush(stdout);
  }
  void close() {
    if (open_) fmt::print("{}\n", color_ ? "\x1b[0m" : "");
    open_ = false;
  }

  HarmonyParser parser_;
  bool color_;
  bool open_ = false;
  std::size_t shown_message_ = 0;
};

Conversation conversation_of(const GenerateOptions& options) {
  Conversation conversation = {system_message(effort_from_name(options.effort, "--effort"))};
  if (!options.system.empty()) {
    // What APIs call the system prompt is harmony's developer message.
    Message developer;
    developer.role = Role::kDeveloper;
    developer.content.emplace_back(DeveloperContent{options.system, {}});
    conversation.push_back(std::move(developer));
  }
  conversation.push_back(text_message(Role::kUser, options.prompt));
  return conversation;
}

int run_generate(const GenerateOptions& options) {
  watch_for_interrupts();
  ThreadPool pool(options.common.threads);
  EngineOptions engine_options;
  engine_options.max_batch = 1;
  Engine engine = load_engine(options.common.model,
                              read_plan(options.common.plan, options.autotune, options.common.model,
                                        options.common.threads),
                              engine_options, pool);
  const Tokenizer& tokenizer = engine.require_tokenizer();
  Request request;
  request.sampling = options.sampling;
  request.max_tokens = options.max_tokens;
  for (const std::int64_t id : engine.model->config().stop_token_ids) {
    request.stop_tokens.push_back(static_cast<std::int32_t>(id));
  }
  Utf8Stream raw_text;
  std::unique_ptr<AnswerPrinter> printer;
  if (options.raw) {
    request.prompt = tokenizer.encode_with_special(options.prompt);
    request.on_token = [&](std::int32_t token) {
      // A model may have more rows than its tokenizer has tokens.
      const std::string_view bytes =
          tokenizer.contains(token) ? tokenizer.token_bytes(token) : kReplacementCharacter;
      fmt::print("{}", raw_text.push(bytes));
      std::fflush(stdout);
    };
  } else {
    request.prompt = render(conversation_of(options), RenderOptions{}, tokenizer);
    for (const TokenId id : HarmonyTokens::of(tokenizer).stop_tokens()) {
      request.stop_tokens.push_back(id);
    }
    printer = std::make_unique<AnswerPrinter>(tokenizer);
    request.on_token = [&](std::int32_t token) { printer->push(token); };
  }
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.submit(std::move(request));
  while (scheduler.step()) {
    if (interrupted()) scheduler.cancel_all();
  }
  const RequestResult result = scheduler.take_results().front();
  if (printer) {
    printer->finish();
  } else {
    fmt::print("{}\n", raw_text.flush());
  }
  std::fflush(stdout);
  if (options.stats && !result.token_ns.empty()) {
    const double seconds =
        static_cast<double>(result.token_ns.back() - result.token_ns.front()) / 1e9;
    const double ttft_ms = static_cast<double>(result.token_ns.front() - result.submitted_ns) / 1e6;
    const auto gaps = static_cast<double>(result.token_ns.size() - 1);
    fmt::print(stderr, "{} prompt tokens, {} output tokens, TTFT {:.1f} ms{}, finish: {}\n",
               result.prompt_tokens, result.tokens.size(), ttft_ms,
               seconds > 0 ? fmt::format(", {:.1f} tokens/s", gaps / seconds) : "",
               finish_reason_name(result.finish));
  }
  require(result.finish != FinishReason::kFailed, "generate: {}", result.error);
  require_or(ErrorCode::kInterrupted, result.finish != FinishReason::kCancelled,
             "generate: interrupted after {} tokens", result.tokens.size());
  return kExitOk;
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command =
      add_command(app, action, "generate", "Ask a model one thing", options, run_generate);
  add_model_option(command, options->common.model);
  command->add_option("--prompt", options->prompt, "What to ask")->type_name("TEXT")->required();
  command->add_option("--system", options->system, "Instructions (harmony's developer message)")
      ->type_name("TEXT");
  command->add_option("--effort", options->effort, "Reasoning effort: low, medium or high")
      ->type_name("E")
      ->check(is_effort())
      ->capture_default_str();
  options->common.plan = "accurate";
  add_plan_option(command, options->common.plan);
  command->add_option("--max-tokens", options->max_tokens, "Output tokens, at most")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--temperature", options->sampling.temperature, "0: greedy")
      ->type_name("T")
      ->capture_default_str();
  command->add_option("--top-p", options->sampling.top_p, "1: off")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--top-k", options->sampling.top_k, "0: off")
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--min-p", options->sampling.min_p, "0: off")
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--seed", options->sampling.seed, "Seed of the draws")
      ->type_name("S")
      ->capture_default_str();
  add_threads_option(command, options->common.threads);
  add_autotune_flag(command, options->autotune);
  command->add_flag("--raw", options->raw,
                    "The prompt as it is (special tokens by name), the output unparsed");
  command->add_flag("--stats", options->stats, "Tokens and times on standard error");
  add_examples(
      command,
      {"moebench generate --model nano --effort high \\\n"
       "      --prompt $'What is 478 + 256?\\n\\n(A) 733\\n(B) 734\\n(C) 744\\n(D) 743'",
       "moebench generate --model DIR --plan int4 --temperature 1 --seed 7 --prompt Hi",
       "moebench generate --model nano --raw --prompt '<|start|>user<|message|>Hi<|end|>'"});
}

}  // namespace moebench::cli
