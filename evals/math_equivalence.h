// Whether two answers to a competition problem are the same number or expression, by their spelling.
#pragma once

#include <string>
#include <string_view>

namespace moebench {

// `text` in the one spelling that equal answers share: no spaces, units, degree, percent or dollar
// signs; \frac for \dfrac, \tfrac and a/b of integers; braces around the arguments of \frac and
// \sqrt; no "x =" in front. What the rule cannot read is returned as it is.
// Source: Hendrycks et al. 2021, MATH, modeling/math_equivalence.py, which also lm-evaluation-harness
// uses (minus its two `assert`s: where they fail, the published rule compares the texts unchanged).
std::string normalized_math(std::string_view text);

// Equality of the normal forms.
bool math_equivalent(std::string_view a, std::string_view b);

}  // namespace moebench
