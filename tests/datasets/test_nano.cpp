// The model that ships, against transformers and tokenizers: ids, logits, greedy replies
// (tests/golden/nano_*.json, made by datasets/nano/train/make_goldens.py).
#include <catch2/catch.hpp>

#include "engine/engine.h"
#include "engine/harmony.h"
#include "engine/scheduler.h"
#include "engine/scoring.h"
#include "evals/task.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/near.h"

namespace moebench::test {
namespace {

std::filesystem::path nano_dir() { return source_dir() / "datasets" / "nano" / "model"; }

struct Nano {
  ThreadPool pool{2};
  Engine engine;

  Nano() {
    EngineOptions options;
    options.max_batch = 2;
    engine = load_engine(nano_dir(), Plan{}, options, pool);
  }
};

ReasoningEffort effort_of(const Json& one) {
  return effort_from_name(one.at("effort").get<std::string>(), "golden");
}

}  // namespace

TEST_CASE("nano: the checkpoint is there, fits in git, and has every feature of gpt-oss in use") {
  REQUIRE(std::filesystem::exists(nano_dir() / "model.safetensors"));
  std::uintmax_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(nano_dir()))
    bytes += file.file_size();
  CHECK(bytes <= 6'000'000);
  const ModelConfig config = load_model_config(nano_dir());
  CHECK(config.num_experts > config.top_k);
  CHECK(config.top_k >= 2);
  CHECK(config.num_sliding_layers() > 0);
  CHECK(config.num_sliding_layers() < config.num_layers);
  const Checkpoint checkpoint = Checkpoint::open(nano_dir());
  CHECK(checkpoint.tensors().contains("model.layers.0.self_attn.sinks"));
  CHECK(checkpoint.tensors().contains("model.layers.0.mlp.experts.gate_up_proj_blocks"));
}

TEST_CASE("nano: texts become the ids that `tokenizers` gives, and come back") {
  const Tokenizer tokenizer = Tokenizer::load(nano_dir());
  const Json cases = read_json(golden("nano_encode.json")).at("cases");
  CHECK(cases.size() >= 50);
  for (const Json& one : cases) {
    const auto text = one.at("text").get<std::string>();
    INFO(text);
    const auto ids = tokenizer.encode(text);
    CHECK(ids == one.at("ids").get<std::vector<std::int32_t>>());
    CHECK(tokenizer.decode(ids) == text);
  }
}

TEST_CASE("nano: the prompt of a golden question is rendered to the ids it was trained on") {
  Nano nano;
  const TaskData data = find_task("nano").load();
  const Json cases = read_json(golden("nano_logits.json")).at("cases");
  for (const Json& one : cases) {
    INFO(one.at("id") << " " << one.at("effort"));
    const auto item = std::find_if(data.items.begin(), data.items.end(), [&](const TaskItem& i) {
      return i.id == one.at("id").get<std::string>();
    });
    REQUIRE(item != data.items.end());
    const auto ids =
        render(item_conversation(*item, effort_of(one)), RenderOptions{}, *nano.engine.tokenizer);
    CHECK(ids == one.at("prompt_ids").get<std::vector<std::int32_t>>());
  }
}

TEST_CASE("nano: logits agree with transformers to 1e-3") {
  Nano nano;
  const Json cases = read_json(golden("nano_logits.json")).at("cases");
  CHECK(cases.size() >= 3);
  for (const Json& one : cases) {
    INFO(one.at("id") << " " << one.at("effort"));
    const auto ids = one.at("prompt_ids").get<std::vector<std::int32_t>>();
    std::vector<float> last;
    score_sequence(
        *nano.engine.model, *nano.engine.cache, ids, static_cast<std::int64_t>(ids.size()) - 1,
        [&](std::int64_t, std::span<const float> row) { last.assign(row.begin(), row.end()); });
    check_near(last, one.at("logits_last").get<std::vector<double>>(), 1e-3);
  }
}

TEST_CASE("nano: greedy replies are those of transformers, token by token") {
  Nano nano;
  const Json cases = read_json(golden("nano_logits.json")).at("cases");
  for (const Json& one : cases) {
    INFO(one.at("id") << " " << one.at("effort"));
    const auto want = one.at("greedy_ids").get<std::vector<std::int32_t>>();
    Request request;
    request.prompt = one.at("prompt_ids").get<std::vector<std::int32_t>>();
    request.max_tokens = static_cast<std::int64_t>(want.size());
    request.detect_loops = false;
    Scheduler scheduler(*nano.engine.model, *nano.engine.cache);
    scheduler.submit(request);
    while (scheduler.step()) {
    }
    const RequestResult result = scheduler.take_results().front();
    CHECK(result.tokens == want);
    CHECK(nano.engine.tokenizer->decode(result.tokens) == one.at("greedy_text").get<std::string>());
  }
}

}  // namespace moebench::test
