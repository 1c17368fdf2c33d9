// Fuzz entry for shards: said as text, or by the lines NAME=VALUE of an environment. Whatever the
// bytes, a shard that is accepted is one of its count, and says itself again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "kernels/core/error.h"
#include "kernels/core/shard.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::map<std::string, std::string> variables;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    if (equals != std::string::npos) variables[line.substr(0, equals)] = line.substr(equals + 1);
  }
  const moebench::Environ lookup = [&](const char* name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    return it == variables.end() ? std::nullopt : std::optional(it->second);
  };
  for (const std::string& given : {text, std::string("auto")}) {
    moebench::Shard shard;
    try {
      shard = moebench::parse_shard(given, "fuzz", lookup);
    } catch (const moebench::Error&) {
      continue;
    }
    if (shard.count < 1 || shard.index < 0 || shard.index >= shard.count) std::abort();
    if (moebench::parse_shard(shard.text(), "fuzz") != shard) std::abort();
  }
  return 0;
}
