// "unknown X 'foo'; did you mean 'fob'?": the nearest of the known names.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

// The known name at the smallest edit distance, or "" if none is near enough to be a slip
// (more than a third of the letters wrong).
std::string nearest_name(std::string_view given, std::span<const std::string> known);

// "did you mean 'fob'? known: a, b, fob": the tail of an error message.
std::string suggestion(std::string_view given, std::span<const std::string> known);

// The place of `given` in `names`. Throws Error(kInvalidArgument) "<where>: no <what> 'given'; "
// and the suggestion.
std::size_t index_of_name(std::span<const std::string_view> names, std::string_view given,
                          std::string_view where, std::string_view what);

}  // namespace moebench
