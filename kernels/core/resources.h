// Finding the files that ship with the program: the nano model, its questions, suites.
#pragma once

#include <filesystem>
#include <string_view>

namespace moebench {

// The path of `relative` ("datasets/nano/model", "bench/suites/demo.json") under the first of these
// roots that has it: $MOEBENCH_HOME, share/moebench beside the program's bin folder, the source
// tree the program was built from. Throws Error(kIo) that names the roots if none has it.
std::filesystem::path find_resource(std::string_view relative);

}  // namespace moebench
