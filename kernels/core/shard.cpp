// Reading what schedulers say.
#include "kernels/core/shard.h"

#include <charconv>
#include <cstdlib>
#include <vector>

#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr int kMostShards = 1'000'000;

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool good = error == std::errc() && end == text.data() + text.size();
  return good && value >= 0 && value <= kMostShards ? std::optional(value) : std::nullopt;
}

// A number that a variable must hold if `what` is to be told.
int number_of(const Environ& environ, const char* name, std::string_view where) {
  const std::optional<std::string> text = environ(name);
  require_or(ErrorCode::kUsage, text.has_value(), "{}: {} is not set (give I/N instead)", where,
             name);
  const std::optional<int> number = whole_number(*text);
  require_or(ErrorCode::kUsage, number.has_value(),
             "{}: {} is '{}', expected a whole number up to {} (give I/N instead)", where, name,
             text->substr(0, 40), kMostShards);
  return *number;
}

Shard checked(Shard shard, std::string_view source, std::string_view where) {
  require_or(ErrorCode::kUsage, shard.count >= 1 && shard.index >= 0 && shard.index < shard.count,
             "{}: {} says part {} of {} (give I/N with 0 <= I < N instead)", where, source,
             shard.index, shard.count);
  return shard;
}

// Array indices may begin anywhere and leave gaps; parts are numbered without.
Shard slurm_array(const Environ& environ, std::string_view where) {
  const int id = number_of(environ, "SLURM_ARRAY_TASK_ID", where);
  const int first = number_of(environ, "SLURM_ARRAY_TASK_MIN", where);
  const int last = number_of(environ, "SLURM_ARRAY_TASK_MAX", where);
  const int count = number_of(environ, "SLURM_ARRAY_TASK_COUNT", where);
  const int step = count > 1 ? (last - first) / (count - 1) : 1;
  const bool even = count >= 1 && step >= 1 && first + step * (count - 1) == last && id >= first &&
                    (id - first) % step == 0;
  require_or(ErrorCode::kUsage, even,
             "{}: the indices of this Slurm array (task {} of {}, {} to {}) are not evenly spaced "
             "(give I/N instead)",
             where, id, count, first, last);
  return {(id - first) / step, count};
}

}  // namespace

std::string Shard::text() const { return fmt::format("{}/{}", index, count); }

std::optional<std::string> process_environ(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::optional<std::string>(value) : std::nullopt;
}

Shard parse_shard(std::string_view text, std::string_view where, const Environ& environ) {
  if (text == "auto") return shard_from_environment(environ, where);
  const std::size_t slash = text.find('/');
  const std::optional<int> index = whole_number(text.substr(0, slash));
  const std::optional<int> count =
      slash == std::string_view::npos ? std::nullopt : whole_number(text.substr(slash + 1));
  require_or(ErrorCode::kUsage, index && count && *count >= 1 && *index < *count,
             "{} '{}': expected I/N with 0 <= I < N, as in 0/4, or auto", where,
             text.substr(0, 40));
  return {*index, *count};
}

Shard shard_from_environment(const Environ& environ, std::string_view where) {
  if (const auto given = environ("MOEBENCH_SHARD"); given && *given != "auto") {
    return parse_shard(*given, fmt::format("{}: MOEBENCH_SHARD", where), environ);
  }
  struct Source {
    std::string_view name;
    Shard shard;
  };
  std::vector<Source> sources;
  const auto add = [&](std::string_view name, Shard shard) {
    sources.push_back({name, checked(shard, name, where)});
  };
  if (environ("SLURM_ARRAY_TASK_ID")) add("the Slurm array", slurm_array(environ, where));
  // A batch script has SLURM_PROCID too; only in a step are there as many processes as it says.
  if (environ("SLURM_PROCID") && environ("SLURM_STEP_ID")) {
    add("the Slurm step",
        {number_of(environ, "SLURM_PROCID", where), number_of(environ, "SLURM_NTASKS", where)});
  }
  if (environ("OMPI_COMM_WORLD_RANK")) {
    add("Open MPI", {number_of(environ, "OMPI_COMM_WORLD_RANK", where),
                     number_of(environ, "OMPI_COMM_WORLD_SIZE", where)});
  }
  if (environ("JOB_COMPLETION_INDEX")) {
    add("the Kubernetes job", {number_of(environ, "JOB_COMPLETION_INDEX", where),
                               number_of(environ, "MOEBENCH_SHARD_COUNT", where)});
  }
  if (environ("CI_NODE_INDEX") && environ("CI_NODE_TOTAL")) {
    add("GitLab's parallel", {number_of(environ, "CI_NODE_INDEX", where) - 1,
                              number_of(environ, "CI_NODE_TOTAL", where)});
  }
  require_or(ErrorCode::kUsage, !sources.empty(),
             "{}: no scheduler says which part this is (set MOEBENCH_SHARD=I/N, or give I/N; read "
             "are Slurm's, Open MPI's, Kubernetes' and GitLab's variables)",
             where);
  Source chosen = sources.front();
  for (const Source& source : sources) {
    if (source.shard.is_whole()) continue;
    require_or(ErrorCode::kUsage, chosen.shard.is_whole() || chosen.shard == source.shard,
               "{}: {} says {}, {} says {} (give I/N instead)", where, chosen.name,
               chosen.shard.text(), source.name, source.shard.text());
    chosen = source;
  }
  return chosen.shard;
}

}  // namespace moebench
