// Fuzz entry for tasks of the user's own. Whatever the bytes, an accepted task has a name, a
// protocol and a way to its items; its data path is not followed here.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "evals/task_file.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moebench::Task task = moebench::parse_task(text, "task.json", "/nowhere");
    if (task.name.empty() || task.protocols.size() != 1 || task.max_tokens < 1) std::abort();
    if (!task.load_items) std::abort();
  } catch (const moebench::Error&) {
  }
  try {
    moebench::fill_template(text, "a template", [](std::string_view name) {
      if (name.find_first_of("{}") != std::string_view::npos) std::abort();
      return std::string(name);
    });
  } catch (const moebench::Error&) {
  }
  return 0;
}
