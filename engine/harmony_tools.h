// The tools section of a system or developer message: what the model may call, as it was trained
// to read it, in TypeScript-like declarations. Internal to the renderer.
#pragma once

#include <string>

#include "engine/harmony.h"

namespace moebench {

// "# Tools" and its namespaces, without a line break at the end.
// Throws Error(kInvalidArgument) for a schema nested deeper than 64 levels.
std::string tools_section(const ToolNamespaces& namespaces);

}  // namespace moebench
