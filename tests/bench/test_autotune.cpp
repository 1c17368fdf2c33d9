// Autotuning names a variant for every op, and remembers.
#include <catch2/catch.hpp>
#include <cstdlib>

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
