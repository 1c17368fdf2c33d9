// One layer of gpt-oss-20b in its real size, made of random weights on the fly: it loads, it
// computes, and it takes the memory that the plan predicts. Sanitizer builds, ten times slower and
// with a memory of their own, run a narrower layer and look at no memory; they say so.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "engine/engine.h"
#include "kernels/core/random.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/checkpoint_builder.h"

namespace moebench::test {
namespace {

#ifdef MOEBENCH_SANITIZE
constexpr bool kFullSize = false;
#else
constexpr bool kFullSize = true;
#endif

constexpr std::int64_t kVocab = 1024;  // of 201,088: the rest would only make the file large

SyntheticShape layer_shape(std::int64_t num_experts) {
  SyntheticShape shape = gpt_oss_20b_shape(1, kVocab);
  shape.num_experts = num_experts;
  if (!kFullSize) {
    WARN("SHRUNK under the sanitizers: a tenth of the width, and no memory is measured");
    shape.hidden_size = shape.intermediate_size = 288;
    shape.num_heads = 8;
    shape.num_kv_heads = 1;
  }
  return shape;
}

// A number of /proc/self/status, in bytes.
std::int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  throw std::runtime_error("no " + field + " in /proc/self/status");
}

// What resident memory peaks at from here on, above what there was.
class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream("/proc/self/clear_refs") << "5";  // forget the peak so far
    before_ = status_bytes("VmRSS");
    // Some sandboxes do not let a process do that.
    known_ = kFullSize && status_bytes("VmHWM") <= before_ + (4 << 20);
    if (kFullSize && !known_) WARN("SKIPPED: peak memory cannot be reset here");
  }

  // CHECKs that the peak is close to a prediction: at least the share `touched` of it, and no more
  // than 3 % and 12 MB above.
  void check(std::size_t predicted_bytes, double touched) const {
    if (!known_) return;
    const auto predicted = static_cast<double>(predicted_bytes);
    const auto peak = static_cast<double>(status_bytes("VmHWM") - before_);
    INFO("predicted " << predicted / 1e6 << " MB, peak " << peak / 1e6 << " MB");
    CHECK(peak <= 1.03 * predicted + 12e6);
    CHECK(peak >= touched * predicted);
  }

 private:
  std::int64_t before_ = 0;
  bool known_ = false;
};

EngineOptions small_engine() {
  EngineOptions options;
  options.max_batch = 2;
  options.max_context = 256;
  options.step_tokens = 32;
  options.logit_rows = 32;
  return options;
}

// The logits of every token of a step that puts tokens [first, last) of `tokens` into a sequence.
std::vector<std::vector<float>> run(Engine& engine, std::int32_t sequence,
                                    const std::vector<std::int32_t>& tokens, std::int64_t first,
                                    std::int64_t last) {
  engine.cache->trim(sequence, first);
  engine.cache->grow(sequence, last);
  Step step;
  for (std::int64_t p = first; p < last; ++p) {
    step.logit_rows.push_back(static_cast<std::int32_t>(p - first));
    step.tokens.push_back(tokens[static_cast<std::size_t>(p)]);
    step.positions.push_back(p);
    step.sequences.push_back(sequence);
  }
  const auto logits = engine.model->forward(step, *engine.cache);
  std::vector<std::vector<float>> rows;
  for (std::int64_t r = 0; r < logits.shape[0]; ++r) {
    const auto row = logits[r].span();
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

std::vector<std::int32_t> some_tokens(std::int64_t count) {
  RandomStream random(7);
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(kVocab)));
  }
  return tokens;
}

void check_finite(const std::vector<std::vector<float>>& rows) {
  for (const auto& row : rows) {
    REQUIRE(row.size() == static_cast<std::size_t>(kVocab));
    float largest = 0;
    for (const float logit : row) {
      REQUIRE(std::isfinite(logit));
      largest = std::max(largest, std::fabs(logit));
    }
    CHECK(largest > 0.1F);  // and it says something
  }
}

}  // namespace

TEST_CASE("full size: a layer of gpt-oss-20b computes, and decoding gives the bits of prefill") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), layer_shape(32));
  ThreadPool pool(2);
  const std::size_t predicted =
      predict_memory(directory.path(), {}, small_engine(), pool.num_threads()).total();
  if (kFullSize) CHECK(predicted > 450'000'000);  // 0.42 GB of experts and 0.06 GB of attention

  const PeakMemory memory;
  Engine engine = load_engine(directory.path(), {}, small_engine(), pool);
  CHECK(engine.memory().total() == predicted);
  const auto tokens = some_tokens(20);
  const auto whole = run(engine, engine.cache->create(), tokens, 0, 20);
  check_finite(whole);

  const std::int32_t sequence = engine.cache->create();
  auto split = run(engine, sequence, tokens, 0, 16);
  for (std::int64_t p = 16; p < 20; ++p) {
    split.push_back(run(engine, sequence, tokens, p, p + 1).at(0));
  }
  CHECK(split == whole);
  // 20 tokens reach nearly all of 32 experts; one that none reaches stays on the disk.
  memory.check(predicted, 0.5);
}

TEST_CASE("full size: re-encoded weights are held once, also while they are read") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), layer_shape(4));
  const Plan plan = parse_plan("experts=int8,attention=int8,kv=bf16");
  ThreadPool pool(2);
  const std::size_t predicted =
      predict_memory(directory.path(), plan, small_engine(), pool.num_threads()).total();

  const PeakMemory memory;
  Engine engine = load_engine(directory.path(), plan, small_engine(), pool);
  CHECK(engine.memory().total() == predicted);
  CHECK(engine.weights->errors.size() == 6);  // q, k, v, o, gate_up, down
  check_finite(run(engine, engine.cache->create(), some_tokens(2), 0, 2));
  // While the last tensor is re-encoded, its own pages of the file are resident too: half a byte a
  // parameter. The others' have been given back.
  const auto last_source =
      static_cast<std::size_t>(engine.weights->layout.layers[0].down.parameters() / 2);
  memory.check(predicted + last_source, 0.6);
}

}  // namespace moebench::test
