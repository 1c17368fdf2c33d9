// moebench model routing: which experts a model chooses on real text, for kernels to be timed on.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/workloads.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "engine/mapped_file.h"
#include "engine/routing_trace.h"
#include "kernels/core/append_file.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

struct RoutingOptions {
  ModelOptions common;
  std::string text;
  std::int64_t tokens = 1024;
  std::string out;
};

// Mean over layers of how many experts `count` neighbouring tokens touch.
double mean_touched(const RoutingTrace& trace, std::int64_t count) {
  double sum = 0;
  double windows = 0;
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    for (std::int64_t first = 0; first + count <= trace.num_tokens; first += count) {
      sum += static_cast<double>(
          distinct_experts(trace.window(static_cast<std::int64_t>(layer), first, count)));
      ++windows;
    }
  }
  return sum / windows;
}

// What even choices would touch: each expert is missed by a token with chance 1 - top_k / n.
double even_touched(const RoutingTrace& trace, std::int64_t count) {
  const auto n = static_cast<double>(trace.num_experts);
  const double missed = 1 - static_cast<double>(trace.top_k) / n;
  return n * (1 - std::pow(missed, static_cast<double>(count)));
}

int run_routing(const RoutingOptions& options) {
  ThreadPool pool(options.common.threads);
  EngineOptions engine_options;
  engine_options.max_context =
      std::min(options.tokens, load_model_config(resolve_model(options.common.model)).max_context);
  Engine engine =
      load_engine(options.common.model, parse_plan(options.common.plan), engine_options, pool);
  PromptSource source = make_prompt_source(engine);
  if (!options.text.empty()) {
    source.tokens = engine.require_tokenizer().encode(read_text_file(options.text));
    source.description = std::filesystem::path(options.text).filename().string();
    require(!source.tokens.empty(), "record a routing: {} is empty", options.text);
  }
  const auto wanted = std::min(static_cast<std::size_t>(options.tokens), source.tokens.size());
  RoutingTrace trace =
      record_routing(engine, std::span(source.tokens).first(wanted), engine_options.max_context);
  trace.model = options.common.model == "nano"
                    ? "nano"
                    : std::filesystem::weakly_canonical(options.common.model).filename().string();
  trace.text = source.description;
  write_file_atomically(options.out, routing_text(trace));
  Table table({">neighbouring tokens", ">experts touched", ">if chosen evenly"});
  for (std::int64_t count = 1; count <= std::min<std::int64_t>(trace.num_tokens, 128); count *= 4) {
    table.add({std::to_string(count), fmt::format("{:.2f}", mean_touched(trace, count)),
               fmt::format("{:.2f}", even_touched(trace, count))});
  }
  fmt::print("{}\n{}: {} tokens of {}, {} layers, {} of {} experts\n", table.text(), options.out,
             trace.num_tokens, trace.text, trace.layers.size(), trace.top_k, trace.num_experts);
  return kExitOk;
}

}  // namespace

void add_model_routing(CLI::App& model, Action& action) {
  auto options = std::make_shared<RoutingOptions>();
  CLI::App* command =
      add_command(model, action, "routing",
                  "Write down which experts each layer chooses, for `kernels bench --routing`",
                  options, run_routing);
  add_model_option(command, options->common.model);
  add_plan_option(command, options->common.plan);
  command
      ->add_option("--text", options->text,
                   "A text to read (default: the questions of the nano task)")
      ->type_name("FILE");
  command->add_option("--tokens", options->tokens, "Tokens to read, at most")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("-o,--out", options->out, "The file to write")->type_name("FILE")->required();
  add_threads_option(command, options->common.threads);
  add_examples(command, {"moebench model routing --model nano --tokens 512 -o routing.jsonl",
                         "moebench kernels bench --op moe_experts --shape nano --routing "
                         "routing.jsonl"});
}

}  // namespace moebench::cli
