// Choosing variants by measuring them on this machine, and remembering the choice.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "engine/plan.h"

namespace moebench {

// The plan with every op of its family named: the one that ran a prompt's chunk and single decoded
// tokens of this model fastest, with `threads` threads. A choice that was made before for the same
// processor, threads, build, plan and model shape is taken from a file (autotune.json in
// $XDG_CACHE_HOME/moebench or ~/.cache/moebench). The reference comes back as it is. report(line)
// is told what was measured and chosen.
Plan autotune(const Plan& plan, const std::filesystem::path& model, int threads,
              const std::function<void(std::string_view)>& report);

}  // namespace moebench
