// What the commands print, parsed and compared with values known from elsewhere.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "tests/support/near.h"
#include "tests/support/process.h"
#include "tests/support/schema.h"
#include "tests/support/scripted_model.h"

namespace moebench::test {
namespace {

// The output of a command that must succeed without a word on stderr.
std::string quiet_output_of(const std::string& arguments) {
  const ProcessResult result = run_moebench(arguments);
  INFO("moebench " << arguments << "\n" << result.out << result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(result.err == "");
  return result.out;
}

Json json_of(const std::string& arguments) { return Json::parse(quiet_output_of(arguments)); }

std::vector<Json> json_lines_of(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
  return lines;
}

std::string joined(const Json& ids) {
  std::string text = ids.dump();
  return text.substr(1, text.size() - 2);
}

// A scripted model that outlives the commands of a test.
struct ScriptedModel {
  TemporaryDirectory folder;
  ScriptedModel() { write_scripted_checkpoint(folder.path(), kSaysB); }
  std::string flag() const { return " --model " + folder.path().string(); }
};

}  // namespace

TEST_CASE("cli model logits: agrees with the independent float64 values, in both layouts") {
  const Json expected = read_json(golden("gpt-oss-tiny-a/expected.json"));
  for (const char* layout : {"", "/original"}) {
    for (const Json& one : expected.at("sequences")) {
      const auto tokens = joined(one.at("tokens"));
      const Json last = json_of("model logits --model " + tiny_model() + layout + " --tokens " +
                                tokens + " --json -t 2");
      REQUIRE(last.at("logits").size() == 1);
      check_near(last.at("logits")[0].get<std::vector<double>>(),
                 one.at("logits_last").get<std::vector<double>>(), 1e-4);
    }
  }
}

TEST_CASE("cli model logits: --all gives every position, the last being the last") {
  const Json all =
      json_of("model logits --model " + tiny_model() + " --tokens 3,1,4,1,5 --all --json");
  const Json last = json_of("model logits --model " + tiny_model() + " --tokens 3,1,4,1,5 --json");
  REQUIRE(all.at("logits").size() == 5);
  CHECK(all.at("logits")[4] == last.at("logits")[0]);
  for (const Json& row : all.at("logits")) CHECK(row.size() == 512);
}

TEST_CASE("cli model info: shapes are those of the config, bytes those of the file") {
  const Json info = json_of("model info --model " + tiny_model() + " --json");
  const Json config = read_json(golden("gpt-oss-tiny-a/config.json"));
  CHECK(info.at("num_layers") == config.at("num_hidden_layers"));
  CHECK(info.at("hidden_size") == config.at("hidden_size"));
  CHECK(info.at("num_experts") == config.at("num_local_experts"));
  CHECK(info.at("vocab_size") == config.at("vocab_size"));
  CHECK(info.at("top_k") == config.at("num_experts_per_tok"));
  // As stored, the weights take about the bytes of the file (small vectors are held as f32).
  const auto file = std::filesystem::file_size(golden("gpt-oss-tiny-a/model.safetensors"));
  const auto bytes = info.at("weights_bytes_total").get<double>();
  CHECK(bytes == Approx(static_cast<double>(file)).epsilon(0.05));
  const Json as_f32 = json_of("model info --model " + tiny_model() + " --plan f32 --json");
  CHECK(as_f32.at("weights_bytes").at("experts").get<double>() >
        6 * info.at("weights_bytes").at("experts").get<double>());
  CHECK_THAT(quiet_output_of("model info --model " + tiny_model()),
             Catch::Contains("plan reference"));
}

TEST_CASE("cli model info: the shapes of gpt-oss by name, several plans, memories of any size") {
  const Json list = json_of("model info --model 20b --plan fast --plan kv=bf16 --memory 32 --json");
  REQUIRE(list.size() == 2);
  for (const Json& info : list) {
    CHECK(info.at("num_layers") == 24);
    CHECK(info.at("hash").is_null());
    const Json& memories = info.at("frontier").at("memories");
    REQUIRE(memories.size() == 7);  // the usual five, the wanted one, this machine
    CHECK(memories[5].at("name") == "32 GB");
    CHECK(memories[5].at("max_context").at("1") == 131072);
    CHECK(memories[0].at("weights_fit") == false);  // 13.8 GB in 12
  }
  CHECK_THAT(quiet_output_of("model info --model 120b"),
             Catch::Contains("longest context in") && Catch::Contains("do not fit"));
}

TEST_CASE(
    "cli bench: --trace writes one trace of all plans, and the run's folder has one on request") {
  const TemporaryDirectory folder;
  const std::string path = (folder.path() / "t.json").string();
  quiet_output_of("bench --model " + tiny_model() +
                  " --plan fast --plan reference -p 8 -n 4 -r 1 --no-interleave --trace " + path);
  std::int64_t processes = 0;
  for (const Json& event : read_json(path)) processes += event.at("name") == "process_name" ? 1 : 0;
  CHECK(processes == 2);
  write_file(folder.path() / "s.json",
             Json{{"name", "x"}, {"models", {tiny_model()}}, {"plans", {"fast"}}}.dump());
  quiet_output_of("run " + (folder.path() / "s.json").string() + " --trace --out " +
                  (folder.path() / "out").string());
  CHECK(read_json(folder.path() / "out" / "trace.json").size() >= 5);
  const Json run = read_json(folder.path() / "out" / "run.json");
  CHECK(run.at("plans")[0].at("frontier").at(tiny_model()).at("memories").size() == 5);
  CHECK(run.at("environment").at("libraries").contains("libc"));
  const std::string page = read_file(folder.path() / "out" / "report.html");
  CHECK_THAT(page, Catch::Contains("What fits where") && Catch::Contains("kv_cache") &&
                       Catch::Contains("<th scope=col>batch 128</th>"));
}

TEST_CASE("cli model encode, decode: what is encoded comes back, specials only on request") {
  const ScriptedModel model;
  const std::string text = "What is 17 + 25? <|end|> Gr\xc3\xbc\xc3\x9f\x65";
  const Json ids = json_of("model encode" + model.flag() + " --text '" + text + "'");
  CHECK(quiet_output_of("model decode" + model.flag() + " --tokens " + joined(ids)) == text + "\n");
  const Json special = json_of("model encode" + model.flag() + " --special --text '<|end|>'");
  CHECK(special == Json{765});
  CHECK(json_of("model encode" + model.flag() + " --text '<|end|>'").size() > 1);
  const TemporaryDirectory folder;
  write_file(folder.path() / "t.txt", text);
  CHECK(json_of("model encode --tokenizer " + nano_tokenizer_path().string() + " --file " +
                (folder.path() / "t.txt").string()) == ids);
}

TEST_CASE("cli model render: the prompt as text and as the ids of that text") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const std::string chat = (folder.path() / "chat.json").string();
  write_file(chat, R"([{"role": "user", "content": "Hi"}])");
  const Json rendered =
      json_of("model render" + model.flag() + " --messages " + chat + " --effort low --json");
  const auto text = rendered.at("text").get<std::string>();
  CHECK_THAT(text, Catch::Contains("Reasoning: low") &&
                       Catch::EndsWith("<|start|>user<|message|>Hi<|end|><|start|>assistant"));
  write_file(folder.path() / "t.txt", text);
  CHECK(rendered.at("ids") == json_of("model encode" + model.flag() + " --special --file " +
                                      (folder.path() / "t.txt").string()));
}

TEST_CASE("cli eval extract: the golden answers, line by line") {
  const TemporaryDirectory folder;
  const std::string file = (folder.path() / "in.jsonl").string();
  const Json rules = read_json(golden("answer_cases.json"));
  for (const auto& [rule, cases] : rules.items()) {
    if (!cases.is_array()) continue;
    INFO(rule);
    std::string input;
    for (const Json& one : cases) {
      Json line = {{"text", one.at("text")}};
      if (one.contains("lang")) line["lang"] = one.at("lang");
      input += line.dump() + "\n";
    }
    write_file(file, input);
    const auto lines =
        json_lines_of(quiet_output_of("eval extract --rule " + rule + " --input " + file));
    REQUIRE(lines.size() == cases.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      INFO(cases[i].dump());
      const Json& expected = cases[i].at("expected");
      CHECK(lines[i].at("answer") == (rule == "aime" ? expected.at("extracted") : expected));
    }
  }
}

TEST_CASE("cli kernels list: every op has a reference on the CPU") {
  const Json list = json_of("kernels list --json");
  std::set<std::string> with_reference;
  std::set<std::string> ops;
  for (const Json& one : list) {
    ops.insert(one.at("op"));
    if (one.at("variant") == "reference") {
      CHECK(one.at("backend") == "cpu");
      with_reference.insert(one.at("op"));
    }
  }
  CHECK(ops.size() >= 8);
  CHECK(ops == with_reference);
  for (const Json& one : json_of("kernels list --op router --json"))
    CHECK(one.at("op") == "router");
}

TEST_CASE("cli doctor: every finding has a level, and a problem is exit code 2") {
  const TemporaryDirectory folder;
  const ProcessResult result =
      run_shell("cd " + folder.path().string() + " && " MOEBENCH_PROGRAM " doctor --json");
  bool problem = false;
  std::set<std::string> seen;
  for (const Json& one : Json::parse(result.out)) {
    seen.insert(one.at("what"));
    problem = problem || one.at("level") == "missing";
    CHECK_FALSE(one.at("detail").get<std::string>().empty());
  }
  CHECK(result.exit_code == (problem ? 2 : 0));
  for (const char* what :
       {"processor", "memory", "CUDA kernels", "GPU", "kernels", "model nano", "writing here"}) {
    INFO(what);
    CHECK(seen.contains(what));
  }
  CHECK(std::filesystem::is_empty(folder.path()));  // its probe is gone
}

TEST_CASE("cli roofline: rates by number of threads and where they meet, remembered") {
  const TemporaryDirectory folder;
  const std::string command =
      "XDG_CACHE_HOME=" + folder.path().string() + " " MOEBENCH_PROGRAM " roofline --backend cpu ";
  const ProcessResult first = run_shell(command + "--threads 1 --json");
  REQUIRE(first.exit_code == 0);
  const Json cpu = Json::parse(first.out).at("cpu");
  REQUIRE(cpu.at("rates").size() == 1);
  const Json& rates = cpu.at("rates")[0].at("rates");
  CHECK(rates.at("read_gb_per_s").at("value").get<double>() > 0);
  CHECK(rates.at("f32_gop_per_s").at("samples").size() >= 3);
  CHECK(std::filesystem::exists(folder.path() / "moebench" / "roofline.json"));
  const ProcessResult text = run_shell(command + "--threads 1");
  CHECK(text.exit_code == 0);
  for (const char* part : {"microcode", "read, GB/s", "Ridge", "load", "--refresh"}) {
    CHECK_THAT(text.out, Catch::Contains(part));
  }
  CHECK(run_shell(command + "--backend tpu").exit_code == 3);
}

TEST_CASE("cli generate: the answer with its channel, and raw") {
  const ScriptedModel model;
  CHECK(quiet_output_of("generate" + model.flag() + " --prompt Hi") == "[final] Answer: B\n");
  CHECK(quiet_output_of("generate" + model.flag() + " --raw --prompt '<|start|>assistant'") ==
        std::string(kSaysB) + "\n");
  const ProcessResult stats = run_moebench("generate" + model.flag() + " --stats --prompt Hi");
  CHECK_THAT(stats.err, Catch::Contains("finish: stop") && Catch::Contains("TTFT"));
}

TEST_CASE("cli generate: a prompt longer than the context names both lengths") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const ProcessResult result =
      run_moebench("generate" + model.flag() + " --prompt \"$(seq 1 600)\"");
  CHECK(result.exit_code == 2);
  CHECK(result.out == "");
  CHECK_THAT(result.err, Catch::StartsWith("error: ") && Catch::Contains("prompt of") &&
                             Catch::Contains("context of 512"));
}

TEST_CASE("cli fidelity: a plan against itself is exact, int4 is not, --text and --traces work") {
  const TemporaryDirectory folder;
  const std::string traces = (folder.path() / "traces.jsonl").string();
  write_file(traces, "{\"tokens\":[1,2,3,4,5,6,7,8],\"first\":2}\n{\"tokens\":[9,8,7,6]}\n");
  const std::string base = "fidelity --model " + tiny_model() + " --json --traces " + traces;
  const Json same = json_of(base + " --plan reference");
  CHECK(same.at("positions") == 6 + 3);
  CHECK(same.at("mean_kl").at("value") == 0);
  CHECK(same.at("top1_agreement").at("value") == 1);
  const Json other = json_of(base + " --plan int4");
  CHECK(other.at("mean_kl").at("value").get<double>() > 0);
  CHECK(other.at("max_kl").get<double>() >= other.at("median_kl").get<double>());
  CHECK(other.at("router_flip_rate_by_layer").size() == 4);
  CHECK(other.at("gate_mass_moved").at("value").get<double>() > 0);
  CHECK(other.at("gate_mass_moved_by_layer").size() == 4);
  CHECK(other.at("first_divergence").size() == 2);
  CHECK(other.at("diverged_answers").is_null());  // tokens of no task
  CHECK(json_of(base + " --plan int4 --tokens 4").at("positions") == 4);
  CHECK_THAT(
      quiet_output_of("fidelity --model " + tiny_model() + " --plan int4 --traces " + traces),
      Catch::Contains("9 positions of 2 traces"));

  const ScriptedModel model;
  write_file(folder.path() / "book.txt", "It was the best of times, it was the worst of times.");
  const Json text = json_of("fidelity" + model.flag() + " --plan bf16 --json --text " +
                            (folder.path() / "book.txt").string());
  CHECK(text.at("mean_kl").at("value") == 0);
}

TEST_CASE("cli bench: JSON, JSON lines, CSV and markdown tell the same tests") {
  const std::string base =
      "bench --model " + tiny_model() +
      " --plan reference --plan int4 --no-interleave -p 8 -n 4 -b 1,2 -d 0,6 -r 2 ";
  const std::vector<std::string> tests = {"pp8",      "tg4",      "tg4 b2",
                                          "pp8 @ d6", "tg4 @ d6", "tg4 b2 @ d6"};
  const Json json = json_of(base + "-o json");
  REQUIRE(json.size() == 2 * tests.size());
  for (const Json& row : json) {
    CHECK(row.at("model_type") == "gpt_oss");
    CHECK((row.at("n_prompt") == 8) == (row.at("n_gen") == 0));
    const double tokens =
        row.at("n_prompt") == 8 ? 8.0 : 4.0 * static_cast<double>(row.at("n_parallel").get<int>());
    const auto ns = row.at("samples_ns").get<std::vector<double>>();
    const auto ts = row.at("samples_ts").get<std::vector<double>>();
    REQUIRE(ns.size() == 2);
    REQUIRE(ts.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) CHECK(ts[i] * ns[i] / 1e9 == Approx(tokens).epsilon(1e-3));
    CHECK(row.at("avg_ts").get<double>() == Approx((ts[0] + ts[1]) / 2));
    // The sample standard deviation of two values is their distance over the root of two.
    CHECK(row.at("stddev_ts").get<double>() == Approx(std::fabs(ts[0] - ts[1]) / std::sqrt(2.0)));
  }
  CHECK(json[0].at("model_size").get<double>() > 0);
  CHECK(json_lines_of(quiet_output_of(base + "-o jsonl")).size() == 2 * tests.size());

  const std::string csv = quiet_output_of(base + "-o csv");
  std::istringstream lines(csv);
  std::string header;
  std::getline(lines, header);
  CHECK_THAT(header, Catch::StartsWith("build_commit,") && Catch::Contains(",avg_ts,"));
  std::size_t rows = 0;
  const auto commas = std::count(header.begin(), header.end(), ',');
  for (std::string line; std::getline(lines, line); ++rows) {
    std::int64_t separators = 0;
    for (std::size_t at = 0; (at = line.find("\",\"", at)) != std::string::npos; ++at) ++separators;
    CHECK(separators == commas);
  }
  CHECK(rows == 2 * tests.size());

  const std::string md = quiet_output_of(base + "-o md");
  for (const std::string& test : tests) CHECK_THAT(md, Catch::Contains("| " + test + " |"));
  CHECK_THAT(md, Catch::Contains("| % limit |") && !Catch::Contains("| - |"));
  const Json gbench = json_of(base + "-o gbench");
  CHECK(gbench.at("benchmarks").size() == 2 * tests.size() * 3);  // two repetitions and a median
  CHECK(gbench.at("benchmarks")[0].at("time_unit") == "ms");
}

TEST_CASE("cli bench: serving prints a record, other tools' files, and derives from a kept log") {
  const TemporaryDirectory folder;
  const std::string events = (folder.path() / "events.jsonl").string();
  const std::string base = "bench --model " + tiny_model() +
                           " --plan reference --request-rate 500 --num-prompts 6 --input-len "
                           "uniform:4:9 --output-len 3 --goodput ttft:100000 tpot:100000 ";
  const Json record = json_of(base + "-o json --save-events " + events).at(0);
  CHECK(record.at("status") == "ok");
  CHECK(record.at("kind") == "serve");
  CHECK(record.at("metrics").at("goodput_share").at("value") == 1);
  CHECK(record.at("metrics").at("ttft_ms_p99").at("value").is_null());
  CHECK(json_lines_of(read_file(events)).size() == 6);

  const Json derived = json_of("bench --definitions moebench --events " + events);
  CHECK(derived.at("serve_tokens_per_second") ==
        record.at("metrics").at("serve_tokens_per_second"));
  const Json vllm = json_of("bench -o vllm --events " + events);
  CHECK(vllm.at("completed") == 6);
  CHECK(vllm.at("total_output_tokens") == 18);
  CHECK(vllm.at("output_lens").size() == 6);
  CHECK_THAT(quiet_output_of("bench -o vllm-text --max-concurrency 2 --num-prompts 3 --input-len 5 "
                             "--output-len 2 --model " +
                             tiny_model()),
             Catch::Contains("Maximum request concurrency:             2") &&
                 Catch::Contains("Total generated tokens:                  6"));
  CHECK(json_lines_of(quiet_output_of("bench -o sglang --events " + events)).size() == 1);
  CHECK_THAT(quiet_output_of(base), Catch::Contains("TTFT p50") && Catch::Contains("500/s"));
}

TEST_CASE("cli bench: serving options that contradict each other are usage errors") {
  const auto refused = [](const std::string& arguments, const std::string& words) {
    INFO(arguments);
    const ProcessResult result = run_moebench("bench " + arguments);
    CHECK(result.exit_code == 3);
    CHECK_THAT(result.err, Catch::Contains(words));
  };
  refused("--request-rate 3", "--model is required");
  refused("--model nano --request-rate fast", "'fast' is not a number");
  refused("--model nano --request-rate 3 --max-concurrency 2", "a closed loop has no rate");
  refused("--model nano --request-rate 3 --goodput ttft", "NAME:MILLISECONDS");
  refused("--model nano --request-rate 3 -o csv", "-o csv is a format of batches");
  refused("--model nano -o vllm", "need a load");
  refused("--model nano --request-rate 3 --input-len 0", "input");
  refused("--model nano --request-rate 3 --definitions vlm", "vlm");
}

TEST_CASE("cli bench: a test that cannot run costs its row, exit code 2, and not the others") {
  const ProcessResult result =
      run_moebench("bench --model " + tiny_model() + " -p 8,9000000 -n 0 -r 1 -o json");
  CHECK(result.exit_code == 2);
  CHECK(Json::parse(result.out).size() == 1);
  CHECK_THAT(result.err, Catch::StartsWith("error: benchmark fast pp9000000: unsupported: ") &&
                             Catch::Contains("positions of context"));
}

TEST_CASE("cli model synth: a model of the asked shape that runs, the same for the same seed") {
  const TemporaryDirectory folder;
  const auto make = [&](const std::string& name, const std::string& options) {
    return quiet_output_of("model synth --shape nano --layers 1 --vocab 96 --out " +
                           (folder.path() / name).string() + " " + options);
  };
  CHECK_THAT(make("a", "--seed 3 --gguf bf16 --gguf int8"),
             Catch::Contains("model.safetensors") && Catch::Contains("model-bf16.gguf") &&
                 Catch::Contains("model-int8.gguf"));
  make("b", "--seed 3");
  make("c", "--seed 4");
  const auto weights = [&](const char* name) {
    return read_file(folder.path() / name / "model.safetensors");
  };
  CHECK(weights("a") == weights("b"));
  CHECK(weights("a") != weights("c"));
  const Json logits =
      Json::parse(quiet_output_of("model logits --model " + (folder.path() / "a").string() +
                                  " --tokens 1,2,3 --plan fast --json"));
  CHECK(logits.at("logits")[0].size() == 96);
  const ProcessResult again =
      run_moebench("model synth --shape nano --out " + (folder.path() / "a").string());
  CHECK(again.exit_code == 2);
  CHECK_THAT(again.err, Catch::Contains("holds a model already"));
}

TEST_CASE("cli kernels bench: Google Benchmark's JSON, with rates and parts of the limits") {
  const Json json = Json::parse(
      quiet_output_of("kernels bench --op linear --shape nano --format mxfp4 --tokens 1 --variant "
                      "portable_f32 --min-time 0.001 --json"));
  CHECK(std::stod(json.at("context").at("read_gb_per_s").get<std::string>()) > 0);
  REQUIRE(json.at("benchmarks").size() == 1);
  const Json& one = json.at("benchmarks")[0];
  CHECK_THAT(one.at("name").get<std::string>(),
             Catch::StartsWith("linear/portable_f32/mxfp4/256x128/t1"));
  for (const char* counter : {"GB/s", "Gop/s", "tokens/s", "%_of_read", "%_of_peak"}) {
    CHECK(one.at(counter).get<double>() > 0);
  }
  const ProcessResult none = run_moebench("kernels bench --op rope --min-time 0.001");
  CHECK(none.exit_code == 2);
  CHECK_THAT(none.err, Catch::Contains("no variant fits"));
}

TEST_CASE("cli eval: a folder with ledger and report, and resuming it asks nothing again") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto out = folder.path() / "run";
  const std::string command =
      "eval" + model.flag() + " --task nano --effort low --limit 6 --out " + out.string();
  const std::string text = quiet_output_of(command);
  CHECK_THAT(text, Catch::Contains("2 of 2 cases are ok"));
  CHECK(std::filesystem::exists(out / "report.html"));
  const Json report = read_json(out / "report.json");
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"), report) == "");
  CHECK(report.at("items").size() == 6);
  CHECK_THAT(quiet_output_of(command + " --resume"), Catch::Contains("(2 from before)"));
  const ProcessResult again = run_moebench(command);
  CHECK(again.exit_code == 2);
  CHECK_THAT(again.err, Catch::Contains(out.string()) && Catch::Contains("--resume"));
}

TEST_CASE("cli eval: two runs with one seed write the same ledger but for the times") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto ledger_of = [&](const std::string& name, const std::string& seed) {
    const auto out = folder.path() / name;
    quiet_output_of("eval" + model.flag() + " --task nano --limit 5 --repeats 2 --temperature 6" +
                    " --max-tokens 20 --seed " + seed + " --out " + out.string());
    std::vector<std::string> lines;
    for (const auto& file : std::filesystem::directory_iterator(out / "ledger")) {
      for (Json& line : json_lines_of(read_file(file.path()))) {
        line.erase("timing");
        lines.push_back(line.dump());
      }
    }
    return lines;
  };
  const auto first = ledger_of("a", "7");
  CHECK(first.size() == 10);
  CHECK(ledger_of("b", "7") == first);
  CHECK(ledger_of("c", "8") != first);
}

TEST_CASE("cli run: models of one plan are told apart in the table") {
  const ScriptedModel one;
  const ScriptedModel two;
  const TemporaryDirectory folder;
  const std::string suite = (folder.path() / "suite.json").string();
  write_file(suite, Json{{"name", "two"},
                         {"models", {one.folder.path().string(), two.folder.path().string()}},
                         {"plans", {"reference"}}}
                        .dump());
  const std::string text =
      quiet_output_of("run " + suite + " --out " + (folder.path() / "out").string());
  CHECK_THAT(text, Catch::Contains(one.folder.path().string()));
  CHECK_THAT(text, Catch::Contains(two.folder.path().string()));
}

TEST_CASE("cli report: several runs become one page and one valid document") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto path = [&](const char* name) { return (folder.path() / name).string(); };
  for (const char* plan : {"reference", "int4"}) {
    quiet_output_of("eval" + model.flag() + " --task nano --limit 4 --plan " + plan + " --out " +
                    path(plan));
  }
  quiet_output_of("report " + path("reference") + " " + path("int4") + " -o " + path("both.html") +
                  " --json " + path("both.json") + " --title Both");
  const Json report = read_json(path("both.json"));
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"), report) == "");
  CHECK(report.at("title") == "Both");
  CHECK(report.at("runs").size() == 2);
  CHECK(report.at("comparisons").size() == 1);  // across the runs
  CHECK_THAT(read_file(path("both.html")), Catch::Contains("Both"));
}

}  // namespace moebench::test
