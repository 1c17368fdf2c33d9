// Other tools' files, whole, with keys missing, and damaged.
#include <catch2/catch.hpp>

#include "reports/html.h"
#include "reports/import_results.h"
#include "reports/report.h"
#include "tests/support/files.h"
#include "tests/support/labels.h"
#include "tests/support/schema.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// Two rows as llama-bench writes them, shortened; the second from an older version.
constexpr const char* kLlamaBench = R"([
  {"build_commit": "abc1234", "build_number": 1, "cpu_info": "a cpu", "model_filename": "d/m.gguf",
   "model_type": "gpt-oss 20B", "n_threads": 8, "type_k": "f16", "n_prompt": 512, "n_gen": 0,
   "n_depth": 0, "test_time": "2026-01-31T12:00:00Z", "avg_ns": 1, "stddev_ns": 0,
   "avg_ts": 101.0, "stddev_ts": 1.0, "samples_ns": [1, 2, 3], "samples_ts": [100.0, 102.0, 101.0],
   "load_mode": "mmap"},
  {"build_commit": "abc1234", "model_filename": "m.gguf", "model_type": "gpt-oss 20B",
   "n_prompt": 0, "n_gen": 128, "avg_ts": 40.5, "use_mmap": true},
  {"build_commit": "abc1234", "n_prompt": 512, "n_gen": 128, "avg_ts": 60.0}
])";

constexpr const char* kVllm = R"({"date": "20260131-120000", "backend": "vllm", "label": null,
  "model_id": "gpt-oss-20b", "num_prompts": 50, "request_rate": 4.0, "burstiness": 1.0,
  "max_concurrency": null, "duration": 12.5, "completed": 50, "failed": 0,
  "total_input_tokens": 25600, "total_output_tokens": 6400, "request_throughput": 4.0,
  "request_goodput": null, "output_throughput": 512.0, "total_token_throughput": 2560.0,
  "input_lens": [512, 512], "output_lens": [100, 156], "mean_ttft_ms": 30.5,
  "median_ttft_ms": 28.0, "std_ttft_ms": 5.0, "p99_ttft_ms": 60.0, "median_itl_ms": 9.0,
  "p99_itl_ms": 22.0, "an_extra_key": {"x": [1]}})";

}  // namespace

TEST_CASE("import: llama-bench's tests stand where ours of the same kind do") {
  const ImportedRun run = import_results_text(kLlamaBench, "results.json");
  REQUIRE(run.records.size() == 2);  // prompt and generation in one has no counterpart
  const Record& prefill = run.records[0];
  CHECK(prefill.kind == "prefill");
  CHECK(prefill.model == "m.gguf");
  CHECK(prefill.plan == "llama.cpp abc1234 gpt-oss 20B");
  CHECK(label_of(prefill) == "prefill 512");
  CHECK(prefill.started == "2026-01-31T12:00:00Z");
  const Metric& rate = prefill.metrics.at("prefill_tokens_per_second");
  CHECK(rate.value == 101);  // the median of 100, 102, 101
  CHECK(rate.samples.size() == 3);
  CHECK(rate.interval);
  const Record& decode = run.records[1];
  CHECK(label_of(decode) == "decode batch 1, context 1");
  CHECK(decode.metrics.at("decode_tokens_per_second").value == 40.5);
  CHECK_FALSE(decode.metrics.at("decode_tokens_per_second").interval);
  CHECK(run.description.at("environment").at("cpu") == "a cpu");
}

TEST_CASE("import: vLLM's percentiles of too few requests are not quoted") {
  const ImportedRun run = import_results_text(kVllm, "v.json");
  REQUIRE(run.records.size() == 1);
  const Record& r = run.records[0];
  CHECK(r.kind == "serve");
  CHECK(r.plan == "vllm (v.json)");
  CHECK(label_of(r) == "serve poisson 4/s, 512 in, mean 128 out");
  CHECK(r.metrics.at("serve_tokens_per_second").value == 512);
  CHECK(r.metrics.at("ttft_ms_p50").value == 28);
  CHECK(r.metrics.at("ttft_ms_p99").absent);  // of 50
  CHECK(r.metrics.at("itl_ms_p99").value == 22);
  CHECK(r.metrics.count("goodput_requests_per_second") == 0);
  CHECK(r.metrics.count("e2e_ms_p50") == 0);
  // Two results, one per line.
  Json closed = Json::parse(kVllm);
  closed["request_rate"] = "inf";
  closed["max_concurrency"] = 8;
  closed["label"] = "tuned";
  const ImportedRun two =
      import_results_text(Json::parse(kVllm).dump() + "\n" + closed.dump() + "\n", "v.jsonl");
  REQUIRE(two.records.size() == 2);
  CHECK(two.records[1].plan == "tuned");
  CHECK(label_of(two.records[1]) == "serve 8 at once, 512 in, mean 128 out");
  CHECK(two.records[0].case_id != two.records[1].case_id);
}

TEST_CASE("import: files go into a report beside runs") {
  const TemporaryDirectory folder;
  write_file(folder.path() / "l.json", kLlamaBench);
  write_file(folder.path() / "v.json", kVllm);
  const OrderedJson report = build_report({folder.path() / "l.json", folder.path() / "v.json"}, {});
  CHECK(report.at("records").size() == 3);
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"),
                      Json::parse(report.dump())) == "");
  const std::string page = render_html(report);
  CHECK(page.find("llama.cpp abc1234 gpt-oss 20B") != std::string::npos);
  CHECK(page.find("serve poisson 4/s, 512 in, mean 128 out") != std::string::npos);
}

TEST_CASE("import: what is no result, or a damaged one, is named") {
  const auto bad = [](std::string_view text, ErrorCode code,
                      std::initializer_list<std::string> words) {
    INFO(text);
    check_error([&] { import_results_text(text, "x.json"); }, code, words);
  };
  bad("", ErrorCode::kInvalidArgument, {"x.json"});
  bad("[]", ErrorCode::kInvalidArgument, {"x.json"});
  bad("{\"a\": 1}", ErrorCode::kInvalidArgument, {"x.json: [0]", "neither"});
  bad("[1]", ErrorCode::kInvalidArgument, {"neither"});
  bad("{\"a\": ", ErrorCode::kParse, {"x.json"});
  bad(R"({"avg_ts": "fast", "n_prompt": 5})", ErrorCode::kInvalidArgument,
      {"avg_ts", "expected a number"});
  bad(R"({"avg_ts": 5})", ErrorCode::kInvalidArgument, {"neither n_prompt nor n_gen"});
  bad(R"({"avg_ts": 5, "n_prompt": -5})", ErrorCode::kInvalidArgument, {"n_prompt"});
  bad(R"({"avg_ts": 5, "n_prompt": 1.5})", ErrorCode::kInvalidArgument, {"n_prompt"});
  bad(R"({"avg_ts": 5, "n_prompt": 5, "samples_ts": [1, "x"]})", ErrorCode::kInvalidArgument,
      {"samples_ts"});
  bad(R"({"duration": 1, "request_throughput": [], "completed": 3})", ErrorCode::kInvalidArgument,
      {"request_throughput", "expected a number"});
}

}  // namespace moebench::test
