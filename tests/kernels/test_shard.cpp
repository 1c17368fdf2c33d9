// Which part is ours: said on the command line, or by schedulers' variables.
#include <catch2/catch.hpp>
#include <map>

#include "kernels/core/error.h"
#include "kernels/core/shard.h"

namespace moebench::test {
namespace {

using Variables = std::map<std::string, std::string>;

Environ environ_of(const Variables& variables) {
  return [variables](const char* name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    return it == variables.end() ? std::nullopt : std::optional(it->second);
  };
}

Shard automatic(const Variables& variables) {
  return parse_shard("auto", "read --shard", environ_of(variables));
}

Variables slurm(const char* id, const char* first, const char* last, const char* count) {
  return {{"SLURM_ARRAY_TASK_ID", id},
          {"SLURM_ARRAY_TASK_MIN", first},
          {"SLURM_ARRAY_TASK_MAX", last},
          {"SLURM_ARRAY_TASK_COUNT", count}};
}

}  // namespace

TEST_CASE("shard: I/N is read, and nothing else") {
  CHECK(parse_shard("0/1", "x") == Shard{0, 1});
  CHECK(parse_shard("3/4", "x") == Shard{3, 4});
  for (const char* bad : {"", "/", "1", "4/4", "-1/4", "1/0", "1/4/2", "1 /4", "0x1/4", "1/4 ",
                          "99999999999/100000000000", "1/2000000"}) {
    INFO(bad);
    CHECK_THROWS_WITH(parse_shard(bad, "read --shard"), Catch::Contains("0 <= I < N"));
  }
}

TEST_CASE("shard: pieces are dealt out without loss or overlap") {
  for (const int count : {1, 2, 3, 7}) {
    for (const std::int64_t pieces : {0, 1, 6, 7, 8}) {
      std::int64_t total = 0;
      for (int index = 0; index < count; ++index) {
        const Shard shard{index, count};
        std::int64_t taken = 0;
        for (std::int64_t i = 0; i < pieces; ++i) taken += shard.takes(i) ? 1 : 0;
        CHECK(shard.of(pieces) == taken);
        total += taken;
      }
      CHECK(total == pieces);
    }
  }
}

TEST_CASE("shard: auto reads what each scheduler sets") {
  CHECK(automatic({{"MOEBENCH_SHARD", "2/5"}}) == Shard{2, 5});
  // sbatch --array=0-7, =1-8, and =10-30:10
  CHECK(automatic(slurm("3", "0", "7", "8")) == Shard{3, 8});
  CHECK(automatic(slurm("8", "1", "8", "8")) == Shard{7, 8});
  CHECK(automatic(slurm("20", "10", "30", "3")) == Shard{1, 3});
  CHECK(automatic({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "0"}}) ==
        Shard{1, 4});
  CHECK(automatic({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}}) == Shard{0, 2});
  CHECK(automatic({{"JOB_COMPLETION_INDEX", "4"}, {"MOEBENCH_SHARD_COUNT", "5"}}) == Shard{4, 5});
  CHECK(automatic({{"CI_NODE_INDEX", "1"}, {"CI_NODE_TOTAL", "3"}}) == Shard{0, 3});
}

TEST_CASE("shard: auto says why it cannot tell") {
  const auto complaint = [](const Variables& variables) {
    try {
      automatic(variables);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(complaint({}), Catch::Contains("no scheduler says"));
  CHECK_THAT(complaint({{"JOB_COMPLETION_INDEX", "4"}}),
             Catch::Contains("MOEBENCH_SHARD_COUNT is not set"));
  CHECK_THAT(complaint({{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "2"}}),
             Catch::Contains("part 2 of 2"));
  CHECK_THAT(complaint({{"CI_NODE_INDEX", "0"}, {"CI_NODE_TOTAL", "2"}}),
             Catch::Contains("part -1 of 2"));
  CHECK_THAT(complaint(slurm("two", "0", "1", "2")), Catch::Contains("'two'"));
  // --array=1,2,5: not evenly spaced; and three of many that were submitted again.
  CHECK_THAT(complaint(slurm("2", "1", "5", "3")), Catch::Contains("not evenly spaced"));
  CHECK_THAT(complaint(slurm("0", "0", "0", "0")), Catch::Contains("not evenly spaced"));
}

TEST_CASE("shard: two schedulers at once are an error, unless one has a single task") {
  Variables both = slurm("1", "0", "3", "4");
  both["SLURM_PROCID"] = "0";
  both["SLURM_STEP_ID"] = "0";
  both["SLURM_NTASKS"] = "1";
  CHECK(automatic(both) == Shard{1, 4});
  both["SLURM_NTASKS"] = "2";
  CHECK_THROWS_WITH(automatic(both), Catch::Contains("says 1/4") && Catch::Contains("says 0/2"));
  both["MOEBENCH_SHARD"] = "7/8";
  CHECK(automatic(both) == Shard{7, 8});
  // A batch script has SLURM_PROCID without being one of several processes.
  CHECK_THROWS_WITH(automatic({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}),
                    Catch::Contains("no scheduler says"));
}

}  // namespace moebench::test
