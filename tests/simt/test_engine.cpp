// The engine on emulated CUDA kernels: whole prompts and decode steps of nano and of the golden
// model, against the CPU engine and against float64.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <map>
#include <span>

#include "engine/engine.h"
#include "engine/scheduler.h"
#include "engine/scoring.h"
#include "kernels/core/thread_pool.h"
#include "tests/simt/machine.h"
#include "tests/simt/support.h"
#include "tests/support/files.h"
#include "tests/support/near.h"

namespace moebench::test {
namespace {

struct Run {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::vector<double>> log_probabilities;
};

// Greedy answers to several prompts at once, which begin with a shared prefix.
Run answer(Engine& engine, std::int64_t max_tokens) {
  const std::vector<std::string> prompts = {"Add 12 and 30.", "Is 17 odd?", "What is 7 times 8?"};
  Scheduler scheduler(*engine.model, *engine.cache);
  const auto prefix = engine.require_tokenizer().encode("You are a helpful assistant. ");
  scheduler.share_prefix(prefix);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request request;
    request.id = i;
    request.prompt = prefix;
    const auto rest = engine.require_tokenizer().encode(prompts[i]);
    request.prompt.insert(request.prompt.end(), rest.begin(), rest.end());
    request.max_tokens = max_tokens;
    scheduler.submit(std::move(request));
  }
  while (scheduler.step()) {
  }
  Run run;
  run.tokens.resize(prompts.size());
  run.log_probabilities.resize(prompts.size());
  for (RequestResult& result : scheduler.take_results()) {
    CHECK(result.error == "");
    run.tokens[result.id] = result.tokens;
    run.log_probabilities[result.id] = result.log_probabilities;
  }
  return run;
}

// Plan `cuda` without what runs several ops at once.
const std::string kFused = "backend=cuda,fuse=yes";

// Tokens of an answer: as many as tell two plans apart.
constexpr std::int64_t kAnswer = kShort ? 5 : 12;

EngineOptions small_options() {
  EngineOptions options;
  options.max_batch = 4;
  options.max_context = 128;
  options.step_tokens = 32;
  return options;
}

}  // namespace

TEST_CASE("nano on emulated CUDA kernels answers as the CPU engine does, token by token") {
  ThreadPool pool(1);
  Engine cpu = load_engine("nano", parse_plan("reference"), small_options(), pool);
  const Run want = answer(cpu, kAnswer);
  const auto plan = GENERATE(
      as<std::string>(), "cuda_reference", "cuda_accurate", "cuda", "cuda_invariant", kFused,
      "backend=cuda,linear=cuda_wgmma_rows_bf16,moe_experts=cuda_grouped_registers_bf16");
  CAPTURE(plan);
  Engine cuda = load_engine("nano", parse_plan(plan), small_options(), pool);
  const Run got = answer(cuda, kAnswer);
  CHECK(cuda.model->num_graphs() > 0);  // decode steps were replayed
  CHECK(got.tokens == want.tokens);
  const double tolerance = plan == "cuda_reference" || plan == "cuda_accurate" ? 1e-4 : 0.1;
  for (std::size_t i = 0; i < want.tokens.size(); ++i) {
    check_near(got.log_probabilities[i], want.log_probabilities[i], tolerance);
  }
}

TEST_CASE("nano: a prompt through cuda_flash_wgmma has the logits of the CPU engine") {
  ThreadPool pool(1);
  const std::string text = "Is 17 odd? What is 7 times 8? Add 12 and 30. ";
  EngineOptions options = small_options();
  options.max_context = 256;
  options.step_tokens = 75;  // more than kFewTokens; chunks that end between pages
  options.logit_rows = 75;   // or steps would be as short as these are few
  const auto logits = [&](const Plan& plan) {
    Engine engine = load_engine("nano", plan, options, pool);
    std::vector<std::int32_t> prompt;
    while (prompt.size() < 150) {
      for (const std::int32_t token : engine.require_tokenizer().encode(text)) {
        prompt.push_back(token);
      }
    }
    prompt.resize(150);
    std::vector<std::vector<double>> rows;  // logarithms of probabilities
    score_sequence(*engine.model, *engine.cache, prompt, 0,
                   [&](std::int64_t, std::span<const float> row) {
                     const double most = *std::max_element(row.begin(), row.end());
                     double sum = 0;
                     for (const float v : row) sum += std::exp(static_cast<double>(v) - most);
                     std::vector<double>& out = rows.emplace_back();
                     for (const float v : row) {
                       out.push_back(static_cast<double>(v) - most - std::log(sum));
                     }
                   });
    return rows;
  };
  const auto kv = GENERATE(as<std::string>(), "bf16", "fp8_e4m3");
  const auto want = logits(parse_plan("ops=reference,kv=" + kv));
  CAPTURE(kv);
  const auto got = logits(plan_from_json({{"name", "many"},
                                          {"backend", "cuda"},
                                          {"kv", kv},
                                          {"ops",
                                           {{"default", "accurate"},
                                            {"attention", "cuda_decode_mma+cuda_flash_wgmma"},
                                            {"moe_experts", "cuda_grouped_fp8"}}}},
                                         "a test"));
  REQUIRE(got.size() == want.size());
  double divergence = 0;
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (std::size_t v = 0; v < want[t].size(); ++v) {
      divergence += std::exp(want[t][v]) * (want[t][v] - got[t][v]);
    }
  }
  CHECK(divergence / static_cast<double>(want.size()) < 5e-3);  // nats; false for NaN
}

TEST_CASE("weights that are re-encoded on the device have the bits of the host's, and its errors") {
  ThreadPool pool(1);
  const auto directory = resolve_model("nano");
  const auto format = GENERATE(as<std::string>(), "int4", "nvfp4", "fp8_e4m3", "mxfp8", "bf16");
  CAPTURE(format);
  if (kShort && (format == "fp8_e4m3" || format == "bf16")) return;  // of one scale a row, of none
  const std::string formats = fmt::format("experts={0},attention={0}", format);
  const auto host = Weights::load(directory, parse_plan(formats + ",ops=reference"), pool);
  const auto device =
      Weights::load(directory, parse_plan(formats + ",ops=reference,backend=cuda"), pool);
  const auto same = [](const MatrixView& a, const MatrixView& b) {
    const Codec& c = codec(a.format);
    const auto rows = static_cast<std::size_t>(a.rows);
    CHECK(a.tensor_scale == b.tensor_scale);
    CHECK(std::memcmp(a.data, b.data, rows * c.row_data_bytes(a.cols)) == 0);
    if (a.scales != nullptr) {
      CHECK(std::memcmp(a.scales, b.scales, rows * c.row_scale_bytes(a.cols)) == 0);
    }
  };
  for (std::size_t l = 0; l < host->layers.size(); ++l) {
    same(host->layers[l].query, device->layers[l].query);
    for (std::int64_t e = 0; e < host->config.num_experts; ++e) {
      same(host->layers[l].gate_up[e], device->layers[l].gate_up[e]);
      same(host->layers[l].down[e], device->layers[l].down[e]);
    }
  }
  REQUIRE(host->errors.size() == device->errors.size());
  for (std::size_t i = 0; i < host->errors.size(); ++i) {
    const EncodingError& a = host->errors[i].error;
    const EncodingError& b = device->errors[i].error;
    CHECK(a.count == b.count);
    CHECK(a.max_abs == b.max_abs);
    CHECK(b.signal == Approx(a.signal).epsilon(1e-12));
    CHECK(b.noise == Approx(a.noise).epsilon(1e-9));
  }
}

TEST_CASE("graphs change nothing") {
  ThreadPool pool(1);
  Engine with = load_engine("nano", parse_plan("cuda"), small_options(), pool);
  Engine without = load_engine("nano", parse_plan("cuda"), small_options(), pool);
  without.model->set_graphs(false);
  const Run a = answer(with, kAnswer);
  const Run b = answer(without, kAnswer);
  CHECK(with.model->num_graphs() > 0);
  CHECK(without.model->num_graphs() == 0);
  CHECK(a.tokens == b.tokens);
  CHECK(a.log_probabilities == b.log_probabilities);
}

TEST_CASE("invariant plans give the same bits however a prompt is cut") {
  ThreadPool pool(1);
  const bool streams = GENERATE(false, true);  // with variants for decoding
  Plan plan = parse_plan("cuda_invariant");
  if (streams) {
    plan.ops["linear"] = "cuda_stream_bf16";
    plan.ops["attention"] = "cuda_decode_mma";
    plan.ops["moe_experts"] = "cuda_direct_bf16";
  }
  CAPTURE(streams);
  EngineOptions options = small_options();
  options.max_context = 512;
  options.step_tokens = 300;
  Engine engine = load_engine("nano", plan, options, pool);
  constexpr std::size_t kPrompt = 280;  // more than a split of attention
  const auto logits_of = [&](const std::vector<std::size_t>& chunks) {
    const std::int32_t sequence = engine.cache->create();
    std::vector<float> last;
    std::size_t done = 0;
    for (const std::size_t chunk : chunks) {
      Step step;
      for (std::size_t i = 0; i < chunk; ++i) {
        step.tokens.push_back(static_cast<std::int32_t>((done + i) * 7 % 100));
        step.positions.push_back(static_cast<std::int64_t>(done + i));
        step.sequences.push_back(sequence);
      }
      step.logit_rows = {static_cast<std::int32_t>(chunk) - 1};
      engine.cache->grow(sequence, static_cast<std::int64_t>(done + chunk));
      const View<const float, 2> logits = engine.model->forward(step, *engine.cache);
      last.assign(logits.data, logits.data + logits.size());
      done += chunk;
    }
    engine.cache->release(sequence);
    CHECK(done == kPrompt);
    return last;
  };
  const std::vector<float> whole = logits_of({kPrompt});
  CHECK(std::all_of(whole.begin(), whole.end(), [](float v) { return std::isfinite(v); }));
  CHECK(logits_of({150, 130}) == whole);
  CHECK(logits_of({253, 17, 7, 1, 1, 1}) == whole);
}

TEST_CASE("the invariant plan gives a token the same bits in batches of every size") {
  ThreadPool pool(1);
  EngineOptions options = small_options();
  options.max_batch = 130;
  options.max_context = 16;
  options.step_tokens = 130;
  Engine engine = load_engine("nano", parse_plan("cuda_invariant"), options, pool);
  // Its second token, with so many others' in the same step; their first tokens are prompts.
  std::vector<float> want;
  for (const std::int32_t company : {1, 3, 8, 33, 130}) {
    std::vector<std::int32_t> sequences;
    std::vector<float> got;
    std::size_t before = 0;  // the last step
    for (std::int32_t t = 0; t < company; ++t) {
      sequences.push_back(engine.cache->create());
      engine.cache->grow(sequences.back(), 2);
    }
    for (std::int32_t position = 0; position < 2; ++position) {
      Step step;
      for (std::int32_t t = 0; t < company; ++t) {
        step.tokens.push_back(7 + 3 * t + position);
        step.positions.push_back(position);
        step.sequences.push_back(sequences[static_cast<std::size_t>(t)]);
      }
      step.logit_rows = {0};
      before = simt::launches().size();
      const auto logits = engine.model->forward(step, *engine.cache);
      got.assign(logits.data, logits.data + logits.size());
    }
    if (want.empty()) want = got;
    INFO(company << " tokens");
    CHECK(std::all_of(got.begin(), got.end(), [](float v) { return std::isfinite(v); }));
    CHECK(got == want);
    // One token's experts are a launch with the router, by a kernel of its own.
    CHECK(std::count(simt::launches().begin() + static_cast<std::ptrdiff_t>(before),
                     simt::launches().end(),
                     "moe_experts/cuda_one_launch_chunks_fp8 (with the router)") ==
          (company == 1 ? engine.model->config().num_layers : 0));
    for (const std::int32_t sequence : sequences) engine.cache->release(sequence);
  }
}

TEST_CASE("graphs of the shapes used last are kept, and steps that decode many are graphs too") {
  ThreadPool pool(1);
  EngineOptions options = small_options();
  options.max_batch = 70;
  options.max_context = 16;
  options.step_tokens = 80;
  Engine engine =
      load_engine(golden("gpt-oss-tiny-a"), parse_plan("cuda_reference"), options, pool);
  std::vector<std::int32_t> sequences;
  for (int i = 0; i < 70; ++i) {
    sequences.push_back(engine.cache->create());
    engine.cache->grow(sequences.back(), 2);
  }
  // The logits of the first token in a step of so many sequences' first tokens, some of which want
  // theirs.
  const auto logits_of = [&](std::size_t count, std::size_t rows) {
    Step step;
    for (std::size_t i = 0; i < count; ++i) {
      step.tokens.push_back(5);
      step.positions.push_back(0);
      step.sequences.push_back(sequences[i]);
      if (i < rows) step.logit_rows.push_back(static_cast<std::int32_t>(i));
    }
    const View<const float, 2> logits = engine.model->forward(step, *engine.cache);
    return std::vector<float>(logits.data, logits.data + logits.shape[1]);
  };
  constexpr auto kMost = static_cast<std::int64_t>(Model::kMostGraphs);
  const std::vector<float> want = logits_of(1, 1);
  std::int64_t shapes = 0;
  for (std::size_t count = 1; shapes < kMost + 3; ++count) {
    for (std::size_t rows = 1; rows <= count; ++rows) {
      ++shapes;
      for (int run = 0; run < 2; ++run) CHECK(logits_of(count, rows) == want);
      CHECK(engine.model->num_graphs() == std::min(shapes, kMost));
    }
  }
  // More than kFewTokens, each of a sequence of its own: the first time not yet, then as a graph.
  logits_of(70, 1);
  CHECK(engine.model->num_graphs() == kMost - 1);
  logits_of(70, 1);
  CHECK(engine.model->num_graphs() == kMost);
  for (const std::int32_t sequence : sequences) engine.cache->release(sequence);
}

TEST_CASE("ops that are fused give the tokens of the same ops one by one in fewer launches") {
  ThreadPool pool(1);
  const auto run = [&](const std::string& plan, bool observes, std::vector<std::string>& launches) {
    Engine engine = load_engine("nano", parse_plan(plan), small_options(), pool);
    const std::int32_t sequence = engine.cache->create();
    engine.cache->grow(sequence, 3);
    engine.model->forward({{5, 6}, {0, 1}, {sequence, sequence}, {1}}, *engine.cache);
    const Observer observer{[](std::string_view, std::int64_t, View<const float, 2>) {}, {}};
    const std::size_t before = simt::launches().size();
    const auto logits = engine.model->forward({{7}, {2}, {sequence}, {0}}, *engine.cache,
                                              observes ? &observer : nullptr);
    launches.assign(simt::launches().begin() + static_cast<std::ptrdiff_t>(before),
                    simt::launches().end());
    return std::vector<float>(logits.data, logits.data + logits.size());
  };
  std::vector<std::string> fused, single, observed;
  // Experts that have the bits of those apart.
  const std::string digits = ",moe_experts=cuda_one_launch_fp8";
  const std::vector<float> logits = run(kFused + digits, false, fused);
  const std::string apart = "backend=cuda,router=cuda_warp,moe_experts=cuda_digits_fp8";
  CHECK(logits == run(apart, false, single));
  CHECK(logits == run(kFused + digits, true, observed));
  // What fast fuses without being asked: router and experts.
  std::vector<std::string> fast;
  CHECK(logits == run("backend=cuda" + digits, false, fast));
  // The experts that it takes stream, and do the same by other arithmetic.
  std::vector<std::string> streams;
  const std::vector<float> near = run("cuda", false, streams);
  CHECK(streams.size() == fast.size());
  CHECK(std::count(streams.begin(), streams.end(),
                   "moe_experts/cuda_one_launch_stream_int8 (with the router)") > 0);
  CHECK(nmse(near, logits) <= 1e-3);
  const auto num_layers =
      static_cast<std::size_t>(load_model_config(resolve_model("nano")).num_layers);
  // Norm, product and choice of the router, and gate and up; the norm before query, key and value;
  // the cache; splits.
  CHECK(single.size() - fused.size() == 7 * num_layers);
  CHECK(single.size() - fast.size() == 4 * num_layers);
  // Queries and keys rotate by themselves; splits are still joined, and experts one launch.
  CHECK(observed.size() == single.size() + (2 - 1 - 1) * num_layers);
  // A layer of the step: query, key and value into the cache; attention; its product; experts with
  // norm and router.
  const auto first =
      std::find(fused.begin(), fused.end(), "linear/cuda_stream_bf16 (into the cache)");
  const auto last = std::find(fused.rbegin(), fused.rend(), "rms_norm/cuda_block").base() - 1;
  CHECK(static_cast<std::size_t>(last - first) == 4 * num_layers);
  CHECK(std::count(fused.begin(), fused.end(), "attention, merge of splits") == 0);
}

TEST_CASE("a prompt has the bits of its ops one by one, with fewer launches") {
  ThreadPool pool(1);
  EngineOptions options = small_options();
  options.step_tokens = 70;
  const auto run = [&](const Plan& plan, bool observes, std::vector<std::string>& launches) {
    Engine engine = load_engine("nano", plan, options, pool);
    const std::int32_t sequence = engine.cache->create();
    engine.cache->grow(sequence, 70);
    Step step;
    for (std::int32_t t = 0; t < 70; ++t) {
      step.tokens.push_back(5 + t % 50);
      step.positions.push_back(t);
      step.sequences.push_back(sequence);
    }
    step.logit_rows = {69};
    const Observer observer{[](std::string_view, std::int64_t, View<const float, 2>) {}, {}};
    const std::size_t before = simt::launches().size();
    const auto logits = engine.model->forward(step, *engine.cache, observes ? &observer : nullptr);
    launches.assign(simt::launches().begin() + static_cast<std::ptrdiff_t>(before),
                    simt::launches().end());
    return std::vector<float>(logits.data, logits.data + logits.size());
  };
  const auto num_layers =
      static_cast<std::ptrdiff_t>(load_model_config(resolve_model("nano")).num_layers);
  const auto with_linear = [](const char* linear) {
    return plan_from_json({{"name", "many"},
                           {"backend", "cuda"},
                           {"kv", "bf16"},
                           {"ops", {{"default", "fast"}, {"linear", linear}}}},
                          "a test");
  };
  std::vector<std::string> at_once, one_by_one;
  // Query, key and value are one product, of what the norm rounds; attention rounds, too.
  const Plan mma = with_linear("cuda_stream_bf16+cuda_mma_bf16");
  CHECK(run(mma, false, at_once) == run(mma, true, one_by_one));
  CHECK(std::count(at_once.begin(), at_once.end(), "linear/cuda_mma_bf16") == 2 * num_layers);
  CHECK(std::count(one_by_one.begin(), one_by_one.end(), "linear/cuda_mma_bf16") == 4 * num_layers);
  CHECK(std::count(at_once.begin(), at_once.end(), "linear/cuda_mma_bf16, inputs") == 0);
  // Experts do the norm behind them: those left are the first one, and the router's.
  CHECK(std::count(at_once.begin(), at_once.end(), "moe_experts (add up slots, norm)") ==
        num_layers);
  CHECK(std::count(at_once.begin(), at_once.end(), "rms_norm/cuda_block") == 1 + num_layers);
  CHECK(std::count(one_by_one.begin(), one_by_one.end(), "rms_norm/cuda_block") ==
        1 + 2 * num_layers);
  // One that does several products anyway.
  const Plan wgmma = with_linear("cuda_stream_bf16+cuda_wgmma_bf16");
  CHECK(run(wgmma, false, at_once) == run(wgmma, true, one_by_one));
  CHECK(std::count(at_once.begin(), at_once.end(), "linear/cuda_wgmma_bf16, inputs") == 0);
}

TEST_CASE("on the GPU query, key and value are one matrix where their format allows it") {
  ThreadPool pool(1);
  for (const std::string format : {"stored", "fp8_e4m3", "nvfp4"}) {
    INFO(format);
    const auto weights =
        Weights::load(resolve_model("nano"), parse_plan("backend=cuda,attention=" + format), pool);
    for (const LayerWeights& w : weights->layers) {
      // A format with a scale of the whole tensor has three of them.
      CHECK((w.query_key_value.data != nullptr) == (format != "nvfp4"));
      CHECK(w.key_bias.data == w.query_key_value_bias.data + w.query.rows);
      CHECK(w.query_key_value_bias.shape[0] == w.query.rows + w.key.rows + w.value.rows);
      if (w.query_key_value.data == nullptr) continue;
      CHECK(w.query_key_value.rows == w.query.rows + w.key.rows + w.value.rows);
      const auto same = [](const MatrixView& a, const MatrixView& b) {
        return a.data == b.data && a.scales == b.scales && a.cols == b.cols;
      };
      const MatrixView& all = w.query_key_value;
      CHECK(same(all.slice(w.query.rows, w.key.rows), w.key));
      CHECK(same(all.slice(w.query.rows + w.key.rows, w.value.rows), w.value));
    }
  }
}

TEST_CASE("a token has the same bits in any company, whichever ops are fused for it") {
  ThreadPool pool(1);
  EngineOptions options = small_options();
  options.max_batch = 17;
  Plan plan = parse_plan("backend=cuda,ops=invariant,fuse=yes");
  plan.ops["linear"] = "cuda_stream_bf16";
  plan.ops["attention"] = "cuda_decode_mma";
  plan.ops["moe_experts"] = "cuda_direct_bf16";
  Engine engine = load_engine("nano", plan, options, pool);
  std::vector<float> want;
  for (const std::int32_t company : {1, 4, 5, 16, 17}) {  // bounds of what is fused
    Step step;
    for (std::int32_t t = 0; t < company; ++t) {
      const std::int32_t sequence = engine.cache->create();
      engine.cache->grow(sequence, 1);
      step.tokens.push_back(7 + t);
      step.positions.push_back(0);
      step.sequences.push_back(sequence);
    }
    step.logit_rows = {0};
    const auto logits = engine.model->forward(step, *engine.cache);
    const std::vector<float> got(logits.data, logits.data + logits.size());
    if (want.empty()) want = got;
    INFO(company << " tokens");
    CHECK(got == want);
    for (const std::int32_t sequence : step.sequences) engine.cache->release(sequence);
  }
}

TEST_CASE("fused or not: whole answers have the same tokens and probabilities") {
  ThreadPool pool(1);
  Engine fused = load_engine("nano", parse_plan(kFused), small_options(), pool);
  Engine single = load_engine("nano", parse_plan("cuda"), small_options(), pool);
  const Run a = answer(fused, kAnswer);
  const Run b = answer(single, kAnswer);
  CHECK(a.tokens == b.tokens);
  CHECK(a.log_probabilities == b.log_probabilities);
}

TEST_CASE("attention's half of a layer in one launch: whole answers have the same tokens") {
  ThreadPool pool(1);
  Engine at_once = load_engine(
      "nano", parse_plan("backend=cuda,kv=bf16,attention=cuda_one_launch_bf16+cuda_flash_mma"),
      small_options(), pool);
  Engine apart = load_engine(
      "nano", parse_plan("backend=cuda,kv=bf16,attention=cuda_decode_stream_mma+cuda_flash_mma"),
      small_options(), pool);
  // One sequence, as a graph from its second step on.
  constexpr std::size_t kMost = kShort ? 12 : 40;
  const auto tokens_of = [](Engine& engine, std::size_t* launches) {
    Scheduler scheduler(*engine.model, *engine.cache);
    Request request;
    request.prompt = engine.require_tokenizer().encode("What is 7 times 8? Think about it first.");
    request.max_tokens = std::int64_t{kMost};
    const std::size_t before = simt::launches().size();
    scheduler.submit(std::move(request));
    while (scheduler.step()) {
    }
    *launches = simt::launches().size() - before;
    return scheduler.take_results().at(0);
  };
  std::size_t few = 0;
  std::size_t many = 0;
  const RequestResult a = tokens_of(at_once, &few);
  const RequestResult b = tokens_of(apart, &many);
  CHECK(a.error == "");
  CHECK(a.tokens.size() == kMost);
  CHECK(a.tokens == b.tokens);
  REQUIRE(a.log_probabilities.size() == b.log_probabilities.size());
  for (std::size_t i = 0; i < a.log_probabilities.size(); ++i) {
    CHECK(a.log_probabilities[i] == Approx(b.log_probabilities[i]).margin(0.02));
  }
  CHECK(few < many);
  // A layer of one token is two launches.
  const std::int32_t sequence = at_once.cache->create();
  at_once.cache->grow(sequence, 1);
  const std::size_t before = simt::launches().size();
  at_once.model->forward({{5}, {0}, {sequence}, {0}}, *at_once.cache);
  const auto count = [&](std::string_view name) {
    return std::count(simt::launches().begin() + static_cast<std::ptrdiff_t>(before),
                      simt::launches().end(), name);
  };
  const std::int64_t layers = at_once.model->config().num_layers;
  CHECK(count("attention/cuda_one_launch_bf16") == layers);
  CHECK(count("moe_experts/cuda_one_launch_stream_int8 (with the router)") == layers);
  CHECK(count("linear/cuda_stream_bf16") == 1);  // the unembedding
  CHECK(count("rms_norm/cuda_block") == 1);      // the last
  at_once.cache->release(sequence);

  // With the router's product at the end of attention's launch.
  Engine routed = load_engine(
      "nano",
      parse_plan("backend=cuda,kv=bf16,attention=cuda_one_launch_routed_bf16+cuda_flash_mma"),
      small_options(), pool);
  std::size_t as_few = 0;
  const std::size_t begin = simt::launches().size();
  const RequestResult c = tokens_of(routed, &as_few);
  CHECK(c.error == "");
  CHECK(c.tokens == a.tokens);
  REQUIRE(c.log_probabilities.size() == a.log_probabilities.size());
  for (std::size_t i = 0; i < a.log_probabilities.size(); ++i) {
    CHECK(c.log_probabilities[i] == Approx(a.log_probabilities[i]).margin(1e-4));
  }
  CHECK(as_few == few);
  CHECK(std::count(simt::launches().begin() + static_cast<std::ptrdiff_t>(begin),
                   simt::launches().end(),
                   "attention/cuda_one_launch_bf16 (with the router)") >= layers);
}

TEST_CASE("attention's half of a layer in one launch: float8 is as near to the CPU as op by op") {
  // Answers of nano are no measure here: a float8 of the cache that is rounded the other way is
  // 6 % more or less.
  const std::string formats =
      GENERATE("kv=fp8_e4m3,attention=fp8_e4m3,unembedding=fp8_e4m3", "kv=bf16,attention=fp8_e4m3");
  CAPTURE(formats);
  ThreadPool pool(1);
  const auto logits_of = [&](const Plan& plan) {
    Engine engine = load_engine("nano", plan, small_options(), pool);
    const std::vector<std::int32_t> tokens = engine.require_tokenizer().encode(
        kShort ? "Is 17 odd?" : "Is 17 odd? What is 7 times 8? Add 12 and 30.");
    const std::int32_t sequence = engine.cache->create();
    std::vector<float> all;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      engine.cache->grow(sequence, static_cast<std::int64_t>(i) + 1);
      const auto logits = engine.model->forward(
          {{tokens[i]}, {static_cast<std::int64_t>(i)}, {sequence}, {0}}, *engine.cache);
      all.insert(all.end(), logits.data, logits.data + logits.size());
    }
    engine.cache->release(sequence);
    return all;
  };
  const std::vector<float> want = logits_of(parse_plan("ops=reference," + formats));
  const auto error_of = [&](const char* attention) {
    Plan plan = parse_plan("backend=cuda," + formats);
    plan.ops["attention"] = attention;
    const std::size_t before = simt::launches().size();
    const std::vector<float> got = logits_of(plan);
    const auto count = std::count(simt::launches().begin() + static_cast<std::ptrdiff_t>(before),
                                  simt::launches().end(), "attention/cuda_one_launch_bf16");
    CHECK((count > 0) == (std::string_view(attention) == "cuda_one_launch_bf16"));
    return nmse(got, want);
  };
  const double at_once = error_of("cuda_one_launch_bf16");
  const double apart = error_of("cuda_decode_stream_mma");
  CAPTURE(at_once, apart);
  CHECK(at_once < 2 * apart);
  CHECK(apart < 1e-2);
}

TEST_CASE("a step is timed by the device's events, as a graph and without") {
  ThreadPool pool(1);
  Engine engine = load_engine("nano", parse_plan("cuda"), small_options(), pool);
  const std::int32_t sequence = engine.cache->create();
  engine.cache->grow(sequence, 1);
  const Step step{{5}, {0}, {sequence}, {0}};
  for (int run = 0; run < 3; ++run) CHECK(engine.model->time_step(step, *engine.cache) > 0);
  CHECK(engine.model->num_graphs() == 1);
  engine.cache->release(sequence);
}

TEST_CASE("goldens on CUDA plans: the residual stream within 2e-2, the same routing") {
  ThreadPool pool(1);
  const Json expected = read_json(golden("gpt-oss-tiny-a/expected.json"));
  // Relative, root of mean squares. The float64 reference is summarised by norms and sums.
  const auto [plan, tolerance] = GENERATE(
      std::pair{"cuda_reference", 1e-5}, std::pair{"cuda_accurate", 1e-5}, std::pair{"cuda", 2e-2});
  CAPTURE(plan);
  const Plan parsed = parse_plan(plan);
  const auto weights = Weights::load(golden("gpt-oss-tiny-a"), parsed, pool);
  Model model(weights, ModelLimits{64, 16, 256}, pool);
  KvCacheOptions options;
  options.format = parsed.kv;
  options.page_size = 4;
  options.max_tokens = 1024;
  options.max_step = 64;
  options.place = parsed.place();
  KvCache cache(weights->config, options);
  for (const Json& sequence : expected.at("sequences")) {
    const auto tokens = sequence.at("tokens").get<std::vector<std::int32_t>>();
    INFO(tokens.size() << " tokens");
    std::map<std::int64_t, std::vector<std::vector<int>>> experts;
    std::map<std::int64_t, double> squares;             // of the residual stream after each layer
    std::map<std::int64_t, std::vector<float>> last_8;  // its last token's first values
    Observer observer;
    observer.tensor = [&](std::string_view name, std::int64_t layer, View<const float, 2> rows) {
      if (name != "resid_mlp") return;
      for (const float v : rows.span()) {
        squares[layer] += static_cast<double>(v) * static_cast<double>(v);
      }
      const auto last = rows[rows.shape[0] - 1].span().first(8);
      last_8[layer].assign(last.begin(), last.end());
    };
    observer.routing = [&](std::int64_t layer, View<const std::int32_t, 2> ids,
                           View<const float, 2>) {
      for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
        experts[layer].emplace_back(ids[t].data, ids[t].data + ids.shape[1]);
      }
    };
    std::vector<float> logits;
    score_sequence(
        model, cache, tokens, 0,
        [&](std::int64_t, std::span<const float> row) { logits.assign(row.begin(), row.end()); },
        &observer);
    const auto close = [&](const std::vector<float>& got, const std::vector<double>& want) {
      double errors = 0;
      double sum = 0;
      for (std::size_t i = 0; i < want.size(); ++i) {
        errors += std::pow(static_cast<double>(got[i]) - want[i], 2);
        sum += want[i] * want[i];
      }
      CHECK(std::sqrt(errors / sum) <= tolerance);  // false for NaN
    };
    close(logits, sequence.at("logits_last").get<std::vector<double>>());
    for (std::size_t l = 0; l < sequence.at("layers").size(); ++l) {
      INFO("layer " << l);
      const Json& layer = sequence.at("layers")[l];
      const auto index = static_cast<std::int64_t>(l);
      const Json& residual = layer.at("resid_mlp");
      const auto l2 = residual.at("l2").get<double>();
      CHECK(std::fabs(std::sqrt(squares[index]) - l2) <= tolerance * l2);
      close(last_8[index], residual.at("last_first8").get<std::vector<double>>());
      const auto routed = layer.at("experts").get<std::vector<std::vector<int>>>();
      REQUIRE(experts[index].size() == routed.size());
      std::size_t flips = 0;
      for (std::size_t t = 0; t < routed.size(); ++t) flips += experts[index][t] != routed[t];
      // Plans that round to bfloat16 may turn over a near tie.
      CHECK(flips <= (std::string(plan) == "cuda" ? routed.size() / 20 : 0));
    }
  }
}

}  // namespace moebench::test
