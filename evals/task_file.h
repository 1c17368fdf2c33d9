// Tasks of the user's own, described in a JSON file. datasets/examples/capitals.json is one, and
// datasets/examples/README.md explains every field.
#pragma once

#include <filesystem>
#include <string_view>

#include "evals/task.h"

namespace moebench {

// Throws Error naming the file and the field for what is unknown, missing or cannot work: a column
// in a template that no row has shows when the task is loaded.
Task load_task_file(const std::filesystem::path& path);

// The same from text; a relative data path counts from `folder`.
Task parse_task(std::string_view text, std::string_view where, const std::filesystem::path& folder);

// "{name}" in `text` becomes what `value` gives for the name; "{{" and "}}" are braces. Throws
// Error(kInvalidArgument) naming `where` for a brace without its other.
std::string fill_template(std::string_view text, std::string_view where,
                          const std::function<std::string(std::string_view name)>& value);

}  // namespace moebench
