// Scenarios: what a case does. Each kind is a struct of its parameters.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "bench/arrivals.h"
#include "engine/sampling.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// Loads the model: time, memory, encoding errors, and the check of outputs that everything timed
// afterwards rests on.
struct LoadScenario {};

// Speed of computing `tokens` of prompt, after `context` tokens that are in the cache already.
struct PrefillScenario {
  std::int64_t tokens = 512;
  std::int64_t context = 0;
  std::int64_t repetitions = 5;
};

// Speed of `batch` sequences that each produce `tokens`, after `context` tokens of prompt.
struct DecodeScenario {
  std::int64_t batch = 1;
  std::int64_t context = 64;
  std::int64_t tokens = 64;
  std::int64_t repetitions = 5;
};

// A prompt of `prefill` tokens that arrives while `batch` sequences decode: what it does to the
// gaps between their tokens. Each of them has `context` tokens of prompt and produces `tokens`.
struct MixedScenario {
  std::int64_t batch = 8;
  std::int64_t context = 64;
  std::int64_t prefill = 512;
  std::int64_t tokens = 64;
  std::int64_t repetitions = 5;
};

// Requests that come and go as they do at a server.
struct ServeScenario {
  Arrivals arrivals;
  std::int64_t concurrency = 0;  // requests under way in a closed loop
  std::string input = "512";     // tokens of a prompt, as parse_length reads them
  std::string output = "128";    // tokens of an answer
  std::string trace;             // file of lengths, and of times for arrivals "trace"; "": none
  std::string prompts = "text";  // cut from text; "random": ids; "questions": chats, with their own
                                 // lengths and ends, whose reasoning and final tokens are known
  std::string slo;               // as parse_slo reads it; "": none
  std::string sweep;             // rates to go through, "1 2 4", or "auto"; "": the one rate
};

// Accuracy on a task.
struct TaskScenario {
  std::string task = "nano";
  std::string effort = "medium";
  std::string protocol;        // of the task; "": its default
  bool include_items = false;  // texts also of datasets whose authors ask to keep them back
  std::int64_t limit = 0;      // items; 0: all
  std::int64_t repeats = 1;
  std::int64_t max_tokens = 0;  // of one answer; 0: the task's own
  SamplingParams sampling;      // the seed is combined with item and repeat
  // Once the accuracy is shown to be worse than that of the plan `settle_against` by this share, or
  // not to be, no more is asked (evals/run_until_settled.h); 0: all items are asked.
  double settle = 0;
  std::string settle_against = "reference";
};

// Closeness to another plan on that plan's own answers to `items` questions of a task.
struct FidelityScenario {
  std::string against = "reference";
  std::string task = "nano";
  std::string effort = "high";
  std::int64_t items = 24;
  std::int64_t max_tokens = 0;
};

// Determinism and batch invariance on `items` prompts of a task.
struct InvarianceScenario {
  std::string task = "nano";
  std::int64_t items = 4;
};

// How well a text is predicted.
struct PerplexityScenario {
  std::string text;         // file
  std::int64_t window = 0;  // tokens; 0: what the context holds
  std::int64_t stride = 0;  // 0: half the window
};

using Scenario =
    std::variant<LoadScenario, PrefillScenario, DecodeScenario, TaskScenario, FidelityScenario,
                 InvarianceScenario, MixedScenario, ServeScenario, PerplexityScenario>;

// What people call a task: its name, or that of its file, and the protocol if it is not the
// default.
std::string task_title(const std::string& task, const std::string& protocol);
// "load", "prefill", "decode", "task", "fidelity", "invariance", "mixed", "serve",
// "perplexity"
std::string_view scenario_kind(const Scenario& scenario);
// "prefill 512", "decode batch 8, context 64", "nano high", ...
std::string scenario_label(const Scenario& scenario);
// All parameters, defaults included: what a case id is made from.
OrderedJson scenario_to_json(const Scenario& scenario);
// The inverse of scenario_to_json with the kind in field "kind".
Scenario scenario_from_json(const Json& json, const std::string& where);

}  // namespace moebench
