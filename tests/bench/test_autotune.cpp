// Autotuning names a variant for every op, and remembers.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>

#include "bench/autotune.h"
#include "engine/op_table.h"
#include "kernels/core/append_file.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

// What autotune says, with its memory in a folder of the test's own.
struct Tuning {
  TemporaryDirectory folder;
  std::string said;

  Tuning() { setenv("XDG_CACHE_HOME", folder.path().c_str(), 1); }
  ~Tuning() { unsetenv("XDG_CACHE_HOME"); }

  Plan tune(const char* plan) {
    said.clear();
    return autotune(parse_plan(plan), golden("gpt-oss-tiny-a"), 1,
                    [this](std::string_view line) { said += std::string(line) + "\n"; });
  }
  std::filesystem::path file() const { return folder.path() / "moebench" / "autotune.json"; }
};

}  // namespace

TEST_CASE("autotune: every op gets a variant that its family allows, measured once") {
  Tuning tuning;
  const Plan first = tuning.tune("accurate");
  CHECK_THAT(tuning.said, Catch::Contains("moe_experts") && Catch::Contains("(chosen)"));
  for (const std::string& op : op_names()) CHECK(first.ops.contains(op));
  CHECK(first.variant_of("moe_experts") != "avx2_int8");
  CHECK(first.name == "accurate");

  const Plan again = tuning.tune("accurate");
  CHECK_THAT(tuning.said, Catch::Contains("taken from") && !Catch::Contains("(chosen)"));
  CHECK(again.ops == first.ops);

  tuning.tune("experts=int4");  // another plan is measured for itself
  CHECK_THAT(tuning.said, Catch::Contains("(chosen)"));
}

namespace {

// Milliseconds of a chunk and of a token, by the name of the variant; asks count.
struct Clock {
  std::map<std::string, std::pair<double, double>> times;
  std::map<std::string, int> asked;

  void operator()(const OpTables& tables, StepTimes& out) {
    const std::string few(tables.few.linear->name);
    const std::string many(tables.many.linear->name);
    ++asked[few + "+" + many];
    out.chunk_ms.push_back(times.at(many).first);
    out.token_ms.push_back(times.at(few).second);
  }
};

Plan choose_linear(const char* plan, const std::vector<std::string>& few,
                   const std::vector<std::string>& many, Clock& clock,
                   std::string* said = nullptr) {
  const OpTables first = {with_variant({}, "linear", few.front()),
                          with_variant({}, "linear", many.front())};
  return choose_by_measuring(
      parse_plan(plan), {{{"linear", few}}, {{"linear", many}}}, first,
      [&](const OpTables& tables, StepTimes& out) { clock(tables, out); },
      [&](std::string_view line) {
        if (said != nullptr) *said += std::string(line) + "\n";
      });
}

}  // namespace

// The CPU's variants stand for those of a GPU, which this program does not have.
TEST_CASE("autotune: on the GPU few and many tokens get what is fastest for them") {
  const std::vector<std::string> names = {"portable_f32", "avx2_f32", "avx2_int8"};
  Clock clock{{{"portable_f32", {9, 1}}, {"avx2_f32", {4, 2}}, {"avx2_int8", {5, 1.2}}}, {}};
  std::string said;
  CHECK(choose_linear("cuda", names, names, clock, &said).ops.at("linear") ==
        "portable_f32+avx2_f32");
  CHECK_THAT(said, Catch::Contains("linear (few tokens)") &&
                       Catch::Contains("linear (many tokens)") &&
                       Catch::Contains("avx2_f32 (chosen) 4.00 + 1.00 ms"));
  // One for both is named once; what one step showed to be hopeless was asked once.
  clock = {{{"portable_f32", {1, 1}}, {"avx2_f32", {4, 2}}, {"avx2_int8", {1.2, 1.2}}}, {}};
  CHECK(choose_linear("cuda", names, names, clock).ops.at("linear") == "portable_f32");
  CHECK(clock.asked["portable_f32+avx2_f32"] == 1);
  CHECK(clock.asked["portable_f32+avx2_int8"] == 4);
  // Candidates may differ, and what cannot run takes for ever.
  clock = {{{"portable_f32", {1, kCannotRunMs}}, {"avx2_f32", {4, 2}}, {"avx2_int8", {9, 9}}}, {}};
  CHECK(choose_linear("cuda", {"portable_f32", "avx2_f32"}, {"avx2_int8"}, clock, &said)
            .ops.at("linear") == "avx2_f32+avx2_int8");
  CHECK_THAT(said, Catch::Contains("portable_f32 cannot run here"));
}

TEST_CASE(
    "autotune: on the CPU and if invariant one variant runs both kinds of steps, the best on the "
    "whole") {
  Clock clock{{{"portable_f32", {9, 1}}, {"avx2_f32", {4, 2}}, {"avx2_int8", {3, 4}}}, {}};
  const std::vector<std::string> names = {"portable_f32", "avx2_f32", "avx2_int8"};
  CHECK(choose_linear("fast", names, names, clock).ops.at("linear") == "avx2_f32");
  CHECK(clock.asked.size() == 3);
  // And of a family that keeps a token's bits in any company: two would not be invariant together.
  CHECK(choose_linear("cuda_invariant", names, names, clock).ops.at("linear") == "avx2_f32");
}

TEST_CASE("autotune: the reference and what is named stay as they are") {
  Tuning tuning;
  CHECK(tuning.tune("reference").ops.empty());
  CHECK(tuning.tune("ops=fast,linear=portable_f32").variant_of("linear") == "portable_f32");
}

TEST_CASE("autotune: a damaged memory is measured anew and mended") {
  Tuning tuning;
  const Plan first = tuning.tune("fast");
  for (const char* content : {"", "[1, 2]", "{\"x\": ", "{}"}) {
    write_file(tuning.file(), content);
    tuning.tune("fast");
    CHECK_THAT(tuning.said, Catch::Contains("(chosen)"));
  }
  Json cache = read_json(tuning.file());
  for (auto& [key, entry] : cache.items()) entry["linear"] = "gone_since";
  write_file(tuning.file(), cache.dump());
  tuning.tune("fast");
  CHECK_THAT(tuning.said, Catch::Contains("(chosen)"));
  CHECK(tuning.tune("fast").ops.size() == first.ops.size());
}

}  // namespace moebench::test
