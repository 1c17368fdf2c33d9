// Perplexity of a text: against lm-evaluation-harness and torch on nano, and its windows.
#include <catch2/catch.hpp>
#include <cmath>

#include "evals/perplexity.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

struct Nano {
  Engine engine;
  std::optional<std::int32_t> start;

  // `reference` is the exact one; `accurate` is near to it and ten times as fast.
  explicit Nano(ThreadPool& pool, const char* plan = "accurate") {
    EngineOptions options;
    options.max_context = 512;
    engine = load_engine("nano", parse_plan(plan), options, pool);
    start = text_start(engine.require_tokenizer());
  }
  PerplexityResult measure(std::string_view text, std::int64_t window, std::int64_t stride) {
    return measure_perplexity(engine, text, {window, stride, start});
  }
};

Json lm_eval_golden(const char* file) { return read_json(golden("lm_eval") / file); }

}  // namespace

TEST_CASE("perplexity: agrees with torch in every window and stride") {
  const Json file = lm_eval_golden("perplexity.json");
  const auto text = file.at("text").get<std::string>();
  ThreadPool pool(2);
  Nano exact(pool, "reference");
  Nano quick(pool);
  REQUIRE(exact.start == file.at("prefix").get<std::int32_t>());
  for (const Json& one : file.at("cases")) {
    const auto window = one.at("window").get<std::int64_t>();
    // Rounding may choose another expert now and then.
    const bool is_exact = window == 128;
    const double tolerance = is_exact ? 1e-6 : 1e-4;
    const PerplexityResult got =
        (is_exact ? exact : quick).measure(text, window, one.at("stride").get<std::int64_t>());
    CHECK(got.num_tokens == file.at("tokens").get<std::int64_t>());
    CHECK(got.num_bytes == static_cast<std::int64_t>(text.size()));
    CHECK(got.mean_nll * static_cast<double>(got.num_tokens) ==
          Approx(one.at("nll").get<double>()).epsilon(tolerance));
    CHECK(got.perplexity == Approx(one.at("perplexity").get<double>()).epsilon(20 * tolerance));
    CHECK(got.bits_per_byte == Approx(one.at("bits_per_byte").get<double>()).epsilon(tolerance));
    REQUIRE(got.mean_nll_interval);
    CHECK(got.mean_nll_interval->low < got.mean_nll);
    CHECK(got.mean_nll_interval->high > got.mean_nll);
  }
}

TEST_CASE("perplexity: bits per byte are lm-eval's own, where windows do not overlap") {
  const Json results = lm_eval_golden("results_2026-01-31T12-00-00.000000.json").at("results");
  const Json file = lm_eval_golden("perplexity.json");
  ThreadPool pool(2);
  Nano nano(pool, "reference");
  const PerplexityResult got = nano.measure(file.at("text").get<std::string>(), 513, 512);
  const double theirs = results.at("nano_text").at("bits_per_byte,none").get<double>();
  CHECK(got.bits_per_byte == Approx(theirs).epsilon(1e-6));
}

TEST_CASE("perplexity: every token is scored once, whatever the windows") {
  ThreadPool pool(2);
  Nano nano(pool);
  const std::string text = "Today is Sunday. Which day of the week was it 97 days ago?";
  const PerplexityResult whole = nano.measure(text, 0, 0);
  CHECK(whole.window == 513);
  CHECK(whole.stride == 256);
  CHECK(whole.num_windows == 1);
  const PerplexityResult cut = nano.measure(text, 8, 3);
  CHECK(cut.num_tokens == whole.num_tokens);
  CHECK(cut.num_windows == (whole.num_tokens + 1 - 8 + 2) / 3 + 1);
  CHECK(cut.perplexity != Approx(whole.perplexity));
  double sum = 0;
  for (const double nll : cut.nll_by_block) sum += nll;
  CHECK(sum == Approx(cut.mean_nll * static_cast<double>(cut.num_tokens)).epsilon(1e-12));
  CHECK(static_cast<std::int64_t>(cut.nll_by_block.size()) ==
        (cut.num_tokens + cut.block - 1) / cut.block);
  // With a window of the whole text the stride does not matter.
  CHECK(nano.measure(text, 400, 1).mean_nll == Approx(whole.mean_nll).epsilon(1e-9));
  // Without a start the first token has nothing before it.
  const PerplexityResult bare = measure_perplexity(nano.engine, text, {});
  CHECK(bare.num_tokens == whole.num_tokens - 1);
  CHECK(bare.num_bytes == whole.num_bytes - 5);  // "Today"
}

TEST_CASE("perplexity: short texts and impossible windows are refused") {
  ThreadPool pool(2);
  Nano nano(pool);
  check_error([&] { measure_perplexity(nano.engine, "", {}); }, ErrorCode::kInvalidArgument,
              {"at least 2"});
  check_error([&] { nano.measure("", 0, 0); }, ErrorCode::kInvalidArgument, {"at least 2"});
  check_error([&] { nano.measure("a text", 1, 0); }, ErrorCode::kInvalidArgument, {"window of 1"});
  check_error([&] { nano.measure("a text", 514, 0); }, ErrorCode::kInvalidArgument, {"2 to 513"});
  check_error([&] { nano.measure("a text", 8, 8); }, ErrorCode::kInvalidArgument, {"stride of 8"});
  const PerplexityResult one = nano.measure("a", 0, 0);
  CHECK(one.num_tokens == 1);
  CHECK_FALSE(one.mean_nll_interval);
  check_error([&] { measure_perplexity(nano.engine, "a text", {}, {}, [] { return true; }); },
              ErrorCode::kInterrupted, {"interrupted"});
}

TEST_CASE("perplexity: the ratio of two models is of the same blocks") {
  const std::vector<double> base = {30, 20, 25, 28};
  const std::vector<double> candidate = {31, 22, 28, 30};  // 1, 2, 3, 2 more in ten tokens each
  const RatioEstimate ratio = perplexity_ratio(base, candidate, 40, 10);
  CHECK(ratio.ratio == Approx(std::exp(0.2)));
  // By hand: the error of the mean of -1, 0, 1, 0 is sqrt(2/3/4), of a token a tenth of it; t of 3
  // degrees is 3.182446 at 97.5 %, and p has a closed form.
  CHECK(ratio.standard_error == Approx(0.0408248).epsilon(1e-5));
  REQUIRE(ratio.interval);
  CHECK(ratio.interval->low == Approx(1.072591).epsilon(1e-5));
  CHECK(ratio.interval->high == Approx(1.390861).epsilon(1e-5));
  CHECK(*ratio.p_value == Approx(0.0162766).epsilon(1e-4));
  // A last block of half the length, and half the difference.
  const RatioEstimate cut = perplexity_ratio(base, std::vector<double>{31, 22, 28, 29}, 35, 10);
  CHECK(cut.ratio == Approx(std::exp(0.2)));
  CHECK(cut.standard_error == Approx(0.0466569).epsilon(1e-5));

  CHECK(perplexity_ratio(std::vector<double>{3}, std::vector<double>{4}, 5, 10)
            .reason.find("one block") != std::string::npos);
  CHECK_FALSE(perplexity_ratio(base, base, 40, 10).interval);
  const auto bad = [&](std::vector<double> other, std::int64_t tokens, std::int64_t block) {
    check_error([&] { perplexity_ratio(base, other, tokens, block); }, ErrorCode::kInvalidArgument,
                {"compare perplexities"});
  };
  bad({1, 2, 3}, 40, 10);
  bad(candidate, 41, 10);
  bad(candidate, 30, 10);
  bad(candidate, 40, 0);
  bad({1, 2, 3, NAN}, 40, 10);
}

}  // namespace moebench::test
