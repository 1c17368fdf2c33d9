// Memory as the system tells it, and that predictions come close to it.
#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "bench/memory.h"
#include "kernels/core/buffer.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/process.h"

namespace moebench::test {
namespace {

// The load record of a run of one model and plan, by the program itself: a process of its own.
Json load_record(const std::string& model, const std::string& plan) {
  const TemporaryDirectory folder;
  const Json suite = {{"name", "memory"}, {"models", {model}}, {"plans", {plan}}, {"threads", 2}};
  write_file(folder.path() / "suite.json", suite.dump());
  const std::string out = (folder.path() / "out").string();
  const ProcessResult result =
      run_moebench("run " + (folder.path() / "suite.json").string() + " --out " + out);
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  return Json::parse(read_file(folder.path() / "out" / "results.jsonl"));
}

void check_prediction(const Json& record) {
  const Json& memory = record.at("details").at("memory");
  INFO(memory.dump(1));
  if (memory.contains("not_resident")) {
    WARN("SKIPPED: " + memory.at("not_resident").get<std::string>());
    return;
  }
  // The rows add up, to the system's own total.
  std::int64_t predicted = 0;
  std::int64_t measured = 0;
  for (const Json& row : memory.at("rows")) {
    predicted += row.at("predicted").get<std::int64_t>();
    measured += row.at("measured").get<std::int64_t>();
  }
  CHECK(memory.at("predicted_rss") == predicted);
  CHECK(memory.at("measured_rss") == measured);
  CHECK(memory.at("measured_pss").get<std::int64_t>() <= measured);
#ifdef MOEBENCH_SANITIZE
  WARN("SKIPPED under the sanitizers, which have a memory of their own");
#else
  CHECK(std::fabs(memory.at("difference").get<double>()) <= 0.03);
#endif
}

}  // namespace

TEST_CASE("memory: smaps by what is mapped, on a file written by hand") {
  const TemporaryDirectory proc;
  write_file(
      proc.path() / "smaps",
      "55d0c0000000-55d0c0021000 r-xp 00000000 08:01 12   /usr/bin/moebench\n"
      "Size:                132 kB\nRss:                  40 kB\nPss:                  20 kB\n"
      "VmFlags: rd ex mr mw me\n"
      "7f0000000000-7f0000100000 r--p 00000000 08:01 13   /models/a b/model.safetensors\n"
      "Rss:                 100 kB\nPss:                 100 kB\n"
      "7f1000000000-7f1000800000 rw-p 00000000 00:00 0 \n"
      "Rss:                8192 kB\nPss:                8192 kB\nAnonHugePages:      2048 kB\n"
      "7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0    [stack]\n"
      "Rss:                   8 kB\nPss:                   8 kB\n");
  const ProcessMemory memory = read_process_memory(proc.path());
  CHECK(memory.rss == (40 + 100 + 8192 + 8) * 1024);
  CHECK(memory.pss == (20 + 100 + 8192 + 8) * 1024);
  CHECK(memory.code == 40 * 1024);
  CHECK(memory.files == 100 * 1024);
  CHECK(memory.anonymous == (8192 + 8) * 1024);
  CHECK(memory.huge == 2048 * 1024);
  CHECK(read_process_memory(proc.path() / "none").rss == 0);
}

TEST_CASE("memory: a page is resident once it was written to") {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  Buffer buffer(8 * page);
  if (resident_bytes_of(buffer.span()) < 0) {
    WARN("SKIPPED: /proc/self/pagemap does not tell here");
    return;
  }
  CHECK(resident_bytes_of(buffer.span()) == 0);
  buffer.data()[0] = std::byte{1};
  buffer.data()[5 * page + 7] = std::byte{1};
  CHECK(resident_bytes_of(buffer.span()) == static_cast<std::int64_t>(2 * page));
  CHECK(resident_bytes_of({}) == 0);
}

TEST_CASE("memory: an engine made resident has all it took, and keeps its numbers") {
  ThreadPool pool(1);
  EngineOptions options;
  options.max_batch = 2;
  options.max_context = 64;
  Engine engine = load_engine(golden("gpt-oss-tiny-a"), Plan{}, options, pool);
  const auto bytes = [&] {
    std::int64_t sum = 0;
    for (const Engine::Range& range : engine.host_ranges()) {
      sum += static_cast<std::int64_t>(range.bytes.size());
    }
    return sum;
  };
  CHECK(bytes() == static_cast<std::int64_t>(engine.memory().total()));
  const std::string reason = make_resident(engine);
  if (!reason.empty()) {
    WARN("SKIPPED: " + reason);
    return;
  }
  for (const Engine::Range& range : engine.host_ranges()) {
    INFO(range.category);
    CHECK(resident_bytes_of(range.bytes) >= static_cast<std::int64_t>(range.bytes.size()));
  }
}

TEST_CASE("memory: nano takes what was predicted within 3 %") {
  for (const char* plan : {"fast", "int8", "reference"}) {
    INFO(plan);
    check_prediction(load_record("nano", plan));
  }
}

TEST_CASE("memory: a model in the shape of 20b takes what was predicted within 3 %") {
  const TemporaryDirectory model;
  SyntheticShape shape = gpt_oss_20b_shape(1, 1024);
  shape.num_experts = 8;
  write_checkpoint(model.path(), synthetic_config(shape), synthetic_tensors(shape, 1));
  for (const char* plan : {"fast", "int8"}) {
    INFO(plan);
    check_prediction(load_record(model.path().string(), plan));
  }
}

}  // namespace moebench::test
