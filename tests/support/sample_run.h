// A run made by hand that holds what a large one holds, so that the whole page can be looked at:
// three plans, two tasks with published scores, transcripts with tokens, speeds with energy,
// fidelity and memory.
#pragma once

#include <cmath>

#include "tests/support/run_folder.h"

namespace moebench::test {

class SampleRun : public RunFolder {
 public:
  SampleRun() : RunFolder("sample") {
    Json description = read_json(path() / "run.json");
    description["models"][0]["parameters"] = 20'910'000'000;  // of gpt-oss-20b, by its size
    description["plans"].push_back(
        {{"name", "fast"}, {"kv", "bf16"}, {"text", "bf16 activations"}, {"canonical", "f"}});
    description["plans"].push_back(
        {{"name", "int4"}, {"kv", "bf16"}, {"text", "int4 experts"}, {"canonical", "i"}});
    write_file(path() / "run.json", description.dump());
    const std::vector<Plan> plans = {{"reference", 13.8e9, 41, 2.9, 0, 0},
                                     {"fast", 13.8e9, 118, 1.2, 0.004, 0.02},
                                     {"int4", 8.1e9, 161, 0.8, 0.06, 0.16}};
    for (const Plan& plan : plans) add_plan(plan);
  }

 private:
  struct Plan {
    const char* name;
    double bytes;
    double speed;
    double joules;
    double kl;
    double flips;  // share of answers that end otherwise
  };

  static Metric metric(double value, const char* unit, const char* better, double spread = 0) {
    Metric m;
    m.value = value;
    m.unit = unit;
    m.better = better;
    m.count = 60;
    if (spread > 0) {
      m.interval = Interval{value - spread, value + spread, 0.95};
      m.interval_method = "by hand";
    }
    return m;
  }

  Record record(const Plan& plan, const char* kind, const std::string& scenario) {
    Record r;
    r.case_id = fmt::format("{:016x}", 0xa000 + ++number_);
    r.label = fmt::format("{} / {}", plan.name, scenario);
    r.model = "m";
    r.plan = plan.name;
    r.kind = kind;
    r.started = "2026-01-31T12:00:00Z";
    r.scenario = {{"kind", kind}};
    return r;
  }

  void add_plan(const Plan& plan) {
    Record load = record(plan, "load", "load");
    load.metrics["weights_bytes"] = metric(plan.bytes, "bytes", "lower");
    load.metrics["predicted_rss_bytes"] = metric(plan.bytes * 1.08, "bytes", "lower");
    load.metrics["peak_rss_bytes"] = metric(plan.bytes * 1.1, "bytes", "lower");
    load.details["memory_taken"] = {
        {"weights", {{"experts", 0.9 * plan.bytes}, {"attention", 0.1 * plan.bytes}}},
        {"kv_cache", 5e8},
        {"activations", 2e8}};
    add(load);
    for (const int batch : {1, 8}) {
      Record decode = record(plan, "decode", fmt::format("decode batch {}, context 1024", batch));
      decode.scenario.update({{"batch", batch}, {"context", 1024}, {"tokens", 64}});
      const double speed = plan.speed * std::sqrt(batch);
      decode.metrics["decode_tokens_per_second"] =
          metric(speed, "tokens/s", "higher", 0.02 * speed);
      decode.metrics["joules_per_token"] =
          metric(plan.joules / std::sqrt(batch), "J/token", "lower", 0.05);
      add(decode);
    }
    Record prefill = record(plan, "prefill", "prefill 2048");
    prefill.scenario.update({{"tokens", 2048}});
    prefill.metrics["prefill_tokens_per_second"] =
        metric(30 * plan.speed, "tokens/s", "higher", plan.speed);
    add(prefill);
    for (const char* effort : {"low", "high"}) add_answers(plan, effort);
    if (plan.kl == 0) return;
    Record fidelity = record(plan, "fidelity", "fidelity nano");
    const auto kl = [&](const char* name, double times) {
      fidelity.metrics[name] = metric(times * plan.kl, "nats", "lower", 0.2 * times * plan.kl);
    };
    kl("mean_kl", 1);
    kl("median_kl", 0.3);
    kl("p90_kl", 2.5);
    kl("p99_kl", 9);
    kl("max_kl", 30);
    fidelity.metrics["top1_agreement"] = metric(1 - plan.kl, "share", "higher", 0.004);
    fidelity.metrics["router_flip_rate"] = metric(2 * plan.kl, "share", "lower", 0.001);
    fidelity.metrics["diverged_traces"] = metric(plan.flips, "share", "lower", 0.05);
    fidelity.metrics["perplexity_ratio"] = metric(1 + plan.kl / 2, "", "lower", 0.002);
    for (int layer = 0; layer < 8; ++layer) {
      fidelity.details["router_flip_rate_by_layer"].push_back(plan.kl * (1 + 0.2 * layer));
    }
    for (std::int64_t from = 0; from < 100; from = 2 * from + 1) {
      fidelity.details["kl_by_position"].push_back(
          {{"from", from},
           {"to", 2 * from + 1},
           {"positions", 60},
           {"mean_kl", plan.kl * (1 + std::log1p(static_cast<double>(from)))}});
    }
    add(fidelity);
  }

  // Sixty questions; the plan's answers leave the reference's at a token where they end otherwise.
  void add_answers(const Plan& plan, const std::string& effort) {
    const std::vector<std::string> words = {
        "The ",   "energy ",       "of ",   "both ", "states ",  "differs ", "by ",
        "a ",     "factor ",       "that ", "does ", "not ",     "depend ",  "on ",
        "the ",   "temperature, ", "so ",   "we ",   "compare ", "the ",     "remaining ",
        "terms ", "one ",          "by ",   "one. "};
    std::vector<LedgerLine> lines;
    int right = 0;
    for (int i = 0; i < 60; ++i) {
      const bool by_nature = (7 * i) % 10 < (effort == "low" ? 6 : 8);
      const bool leaves = plan.flips > 0 && (i * 13 + 5) % 50 < static_cast<int>(50 * plan.flips);
      LedgerLine line = answer(fmt::format("q{:02}", i), by_nature != leaves);
      line.category = i % 3 == 0 ? "physics" : i % 3 == 1 ? "chemistry" : "biology";
      line.final_text.clear();
      const int length = (effort == "low" ? 30 : 90) + i;
      for (int t = 0; t < length; ++t) {
        std::size_t word = static_cast<std::size_t>(t + i) % words.size();
        if (leaves && t > 20) word = (word * 7 + 3) % words.size();
        line.tokens.push_back(static_cast<std::int32_t>(word));
        line.token_bytes.push_back(static_cast<std::int32_t>(words[word].size()));
        line.analysis += words[word];
      }
      line.final_text = "Answer: " + line.answer;
      line.tokens.push_back(100 + line.answer[0]);
      line.token_bytes.push_back(static_cast<std::int32_t>(line.final_text.size()));
      line.output_tokens = static_cast<std::int64_t>(line.tokens.size());
      line.timing.e2e_ms = 1000 * static_cast<double>(length) / plan.speed;
      right += line.correct() ? 1 : 0;
      lines.push_back(line);
    }
    Record task = add_task(plan.name, lines, {{"task", "gpqa_diamond"}, {"effort", effort}});
    task.label = fmt::format("{} / gpqa_diamond {}", plan.name, effort);
    const double share = right / 60.0;
    task.metrics["accuracy"] =
        metric(share, "share", "higher", 1.96 * std::sqrt(share * (1 - share) / 60));
    task.metrics["output_tokens_mean"] = metric(effort == "low" ? 60 : 120, "tokens", "lower", 5);
    task.details["verdicts"] = {{"correct", right}, {"wrong", 60 - right}};
    add(task);  // of two records of one case the last counts
  }

  int number_ = 0;
};

}  // namespace moebench::test
