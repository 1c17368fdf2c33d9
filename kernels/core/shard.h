// Which part of a piece of work is this process's, where several machines share it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace moebench {

struct Shard {
  int index = 0;  // in [0, count)
  int count = 1;

  // Whether the piece of this number is its own: dealt out like cards.
  bool takes(std::int64_t number) const { return number % count == index; }
  // How many of `n` pieces are its own.
  std::int64_t of(std::int64_t n) const { return (n - index + count - 1) / count; }
  bool is_whole() const { return count == 1; }
  std::string text() const;  // "I/N"

  bool operator==(const Shard&) const = default;
};

// A variable of the environment; nothing if it is not set.
using Environ = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> process_environ(const char* name);

// "I/N", counted from 0; or "auto": as shard_from_environment. Throws Error(kUsage) naming `where`.
Shard parse_shard(std::string_view text, std::string_view where,
                  const Environ& environ = process_environ);

// What the scheduler that started this process says:
//   MOEBENCH_SHARD              "I/N": what a GitHub matrix sets from strategy.job-index and -total
//   SLURM_ARRAY_TASK_ID         with _MIN, _MAX and _COUNT: a job array
//   SLURM_PROCID                with SLURM_NTASKS, in a step (srun)
//   OMPI_COMM_WORLD_RANK        with OMPI_COMM_WORLD_SIZE: Open MPI's mpirun
//   JOB_COMPLETION_INDEX        of a Kubernetes indexed job; the manifest sets MOEBENCH_SHARD_COUNT
//                               to its completions, which Kubernetes does not tell
//   CI_NODE_INDEX               with CI_NODE_TOTAL: GitLab's `parallel`, which counts from 1
// MOEBENCH_SHARD goes before the others. Throws Error(kUsage) if none says it, if two say that
// there are several parts and differ (an array of jobs with several tasks each), or if a value is
// none. Sources: Slurm's sbatch(1) "Job Arrays" and srun(1); Kubernetes "Indexed Job for Parallel
// Processing"; Open MPI's FAQ "running", 19; GitLab's "Predefined CI/CD variables".
Shard shard_from_environment(const Environ& environ, std::string_view where);

}  // namespace moebench
