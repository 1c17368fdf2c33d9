// moebench model logits|encode|decode|render: looking at a model without judging it.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <memory>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "engine/gguf_writer.h"
#include "engine/harmony.h"
#include "engine/mapped_file.h"
#include "engine/scoring.h"
#include "engine/synthetic_checkpoint.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

// "1,2,3" to ids.
std::vector<std::int32_t> parse_ids(const std::string& text) {
  const Json json = parse_json("[" + text + "]", "--tokens", 2);
  std::vector<std::int32_t> ids;
  for (const Json& value : json) {
    require(value.is_number_integer() && value.get<std::int64_t>() >= 0 &&
                value.get<std::int64_t>() < (std::int64_t{1} << 31),
            "read --tokens: {} is not a token id (expected 1,2,3)", json_excerpt(value));
    ids.push_back(value.get<std::int32_t>());
  }
  require(!ids.empty(), "read --tokens: there are no ids in it (expected 1,2,3)");
  return ids;
}

// ---- logits

struct LogitsOptions {
  ModelOptions common;
  std::string tokens;
  bool all = false;
  bool json = false;
};

int run_logits(const LogitsOptions& options) {
  const std::vector<std::int32_t> tokens = parse_ids(options.tokens);
  ThreadPool pool(options.common.threads);
  const auto length = static_cast<std::int64_t>(tokens.size());
  EngineOptions engine_options;
  engine_options.max_batch = 1;
  engine_options.max_context = length;
  engine_options.step_tokens = std::min<std::int64_t>(length, 128);
  engine_options.logit_rows = engine_options.step_tokens;
  Engine engine =
      load_engine(options.common.model, parse_plan(options.common.plan), engine_options, pool);
  Json rows = Json::array();
  score_sequence(*engine.model, *engine.cache, tokens, options.all ? 0 : length - 1,
                 [&](std::int64_t position, std::span<const float> logits) {
                   if (options.json) {
                     rows.push_back(std::vector<float>(logits.begin(), logits.end()));
                     return;
                   }
                   const auto best = std::max_element(logits.begin(), logits.end());
                   fmt::print("position {:>5}: token {:>6} has the largest logit, {:.6f}\n",
                              position, best - logits.begin(), *best);
                 });
  if (options.json) fmt::print("{}\n", Json{{"logits", rows}}.dump());
  return kExitOk;
}

// ---- encode, decode

struct TextOptions {
  std::string tokenizer;
  std::string model;
  std::string text;
  std::string file;
  std::string tokens;
  bool special = false;
};

Tokenizer load_tokenizer(const TextOptions& options) {
  require_or(ErrorCode::kUsage, options.tokenizer.empty() != options.model.empty(),
             "choose a tokenizer: give either --tokenizer FILE or --model DIR");
  return Tokenizer::load(options.model.empty() ? std::filesystem::path(options.tokenizer)
                                               : resolve_model(options.model));
}

int run_encode(const TextOptions& options) {
  require_or(ErrorCode::kUsage, options.text.empty() || options.file.empty(),
             "encode text: give either --text T or --file F");
  const Tokenizer tokenizer = load_tokenizer(options);
  const std::string text = options.file.empty() ? options.text : read_text_file(options.file);
  const auto ids = options.special ? tokenizer.encode_with_special(text) : tokenizer.encode(text);
  fmt::print("[{}]\n", fmt::join(ids, ","));
  return kExitOk;
}

int run_decode(const TextOptions& options) {
  const std::string bytes = load_tokenizer(options).decode(parse_ids(options.tokens));
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  std::fputc('\n', stdout);
  return kExitOk;
}

// ---- render

struct RenderCommandOptions {
  std::string model = "nano";
  std::string messages;
  std::string effort;
  bool json = false;
};

// Sets the effort of the system message, or puts a system message in front.
void set_effort(Conversation& conversation, ReasoningEffort effort) {
  if (conversation.empty() || conversation.front().role != Role::kSystem) {
    Message system;
    system.role = Role::kSystem;
    system.content.emplace_back(SystemContent{});
    conversation.insert(conversation.begin(), std::move(system));
  }
  for (Content& part : conversation.front().content) {
    if (auto* system = std::get_if<SystemContent>(&part)) {
      system->reasoning_effort = effort;
      return;
    }
  }
  fail(ErrorCode::kInvalidArgument,
       "set the effort: the system message is plain text; write its 'Reasoning:' line yourself");
}

int run_render(const RenderCommandOptions& options) {
  const Tokenizer tokenizer = Tokenizer::load(resolve_model(options.model));
  Conversation conversation =
      parse_conversation(read_text_file(options.messages), options.messages);
  if (!options.effort.empty()) {
    set_effort(conversation, effort_from_name(options.effort, "--effort"));
  }
  const std::string text = render_text(conversation, RenderOptions{});
  const auto ids = render(conversation, RenderOptions{}, tokenizer);
  if (options.json) {
    fmt::print("{}\n", json_line({{"text", text}, {"ids", ids}}));
  } else {
    fmt::print("{}\n\n[{}]\n", text, fmt::join(ids, ","));
  }
  return kExitOk;
}

// ---- synth

struct SynthOptions {
  std::string shape = "20b";
  std::int64_t layers = 0;
  std::int64_t vocab = 0;
  std::uint64_t seed = 1;
  std::string out;
  std::vector<std::string> gguf;
};

SyntheticShape shape_of(const SynthOptions& options) {
  SyntheticShape shape = shape_named(options.shape);
  if (options.layers > 0) shape.num_layers = options.layers;
  if (options.vocab > 0) shape.vocab_size = options.vocab;
  return shape;
}

int run_synth(const SynthOptions& options) {
  const std::filesystem::path directory = options.out;
  require(!std::filesystem::exists(directory / "config.json"),
          "make a synthetic model: {} holds a model already (choose another --out)",
          directory.string());
  const SyntheticShape shape = shape_of(options);
  write_checkpoint(directory, synthetic_config(shape), synthetic_tensors(shape, options.seed));
  const auto report = [](const std::filesystem::path& path) {
    fmt::print("{}  {}\n", path.string(),
               format_bytes(static_cast<double>(std::filesystem::file_size(path))));
  };
  report(directory / "model.safetensors");
  for (const std::string& name : options.gguf) {
    const std::filesystem::path path = directory / fmt::format("model-{}.gguf", name);
    write_gguf(directory, path, parse_format(name));
    report(path);
  }
  return kExitOk;
}

void add_synth(CLI::App& model, Action& action) {
  auto synth = std::make_shared<SynthOptions>();
  CLI::App* command = add_command(model, action, "synth",
                                  "A model of random weights in a real shape, to measure speed on",
                                  synth, run_synth);
  command->add_option("--shape", synth->shape, "20b, 120b (gpt-oss) or nano")
      ->type_name("SHAPE")
      ->check(CLI::IsMember({"20b", "120b", "nano"}))
      ->capture_default_str();
  command->add_option("--layers", synth->layers, "Layers (0: as many as the shape has)")
      ->type_name("N")
      ->check(CLI::Range(0, 1000));
  command->add_option("--vocab", synth->vocab, "Vocabulary (0: that of the shape)")
      ->type_name("V")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--seed", synth->seed, "Seed: the same one gives the same bytes")
      ->type_name("S")
      ->capture_default_str();
  command->add_option("--out", synth->out, "Directory to write")->type_name("DIR")->required();
  command
      ->add_option("--gguf", synth->gguf,
                   "Also a GGUF file with the same numbers, for other engines: bf16, or int8 "
                   "(dense matrices as Q8_0); repeatable")
      ->type_name("DENSE")
      ->expected(0, 1)
      ->default_str("bf16")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::IsMember({"bf16", "int8"}));
  add_examples(command,
               {"moebench model synth --shape 20b --layers 4 --vocab 8192 --out synth-20b",
                "moebench model synth --shape nano --out synth-nano --gguf bf16 --gguf int8"});
}

}  // namespace

void add_model(CLI::App& app, Action& action) {
  CLI::App* model =
      app.add_subcommand("model", "Look at a model (sizes, logits, tokens, prompts), or make one");
  model->require_subcommand(1);
  add_examples(model, {"moebench model info --model nano",
                       "moebench model logits --model nano --tokens 1,2,3 --json"});

  add_model_info(*model, action);

  auto logits = std::make_shared<LogitsOptions>();
  CLI::App* command = add_command(*model, action, "logits",
                                  "Logits of the last position, or of all", logits, run_logits);
  add_model_option(command, logits->common.model);
  add_plan_option(command, logits->common.plan);
  add_threads_option(command, logits->common.threads);
  const CLI::Validator are_ids = read_by([](const std::string& text) { parse_ids(text); });
  command->add_option("--tokens", logits->tokens, "Token ids")
      ->type_name("1,2,3")
      ->check(are_ids)
      ->required();
  command->add_flag("--all", logits->all, "Every position, not only the last");
  command->add_flag("--json", logits->json, "{\"logits\": [[...], ...]}");
  add_examples(command, {"moebench model logits --model nano --tokens 1,2,3 --json"});

  auto encode = std::make_shared<TextOptions>();
  command = add_command(*model, action, "encode", "Text to a JSON array of token ids", encode,
                        run_encode);
  command->add_option("--tokenizer", encode->tokenizer, "tokenizer.json or .tiktoken file")
      ->type_name("FILE");
  command->add_option("--model", encode->model, "Model directory, or nano")->type_name("DIR");
  command->add_option("--text", encode->text, "The text")->type_name("T");
  command->add_option("--file", encode->file, "A file with the text")->type_name("F");
  command->add_flag("--special", encode->special, "Special tokens' names become their ids");
  add_examples(command,
               {"moebench model encode --model nano --text 'What is 2 + 2?'",
                "moebench model encode --tokenizer o200k_base.tiktoken --file prompt.txt"});

  auto decode = std::make_shared<TextOptions>();
  command = add_command(*model, action, "decode", "Token ids to text", decode, run_decode);
  command->add_option("--tokenizer", decode->tokenizer, "tokenizer.json or .tiktoken file")
      ->type_name("FILE");
  command->add_option("--model", decode->model, "Model directory, or nano")->type_name("DIR");
  command->add_option("--tokens", decode->tokens, "Token ids")
      ->type_name("1,2,3")
      ->check(are_ids)
      ->required();
  add_examples(command, {"moebench model decode --model nano --tokens 72,105"});

  auto render = std::make_shared<RenderCommandOptions>();
  command =
      add_command(*model, action, "render",
                  "The exact prompt of a conversation, as text and as ids", render, run_render);
  add_model_option(command, render->model);
  command->add_option("--messages", render->messages, "JSON list of messages")
      ->type_name("FILE")
      ->required();
  command->add_option("--effort", render->effort, "Reasoning effort: low, medium or high")
      ->type_name("E")
      ->check(is_effort());
  command->add_flag("--json", render->json, "{\"text\": ..., \"ids\": [...]}");
  add_examples(command, {"echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' > chat.json",
                         "moebench model render --model nano --messages chat.json --effort low"});

  add_synth(*model, action);
  add_model_routing(*model, action);
}

}  // namespace moebench::cli
