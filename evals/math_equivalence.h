// Whether two answers to a competition problem are the same number or expression, by their
// spelling.
#pragma once

#include <string_view>

namespace moebench {

// Equal after both are brought to one spelling: no spaces, units, degree, percent or dollar signs;
// \frac for \dfrac, \tfrac and a/b of integers; braces around the arguments of \frac and \sqrt; no
// "x =" in front; 1/2 for 0.5. Texts that cannot be read so are compared as they are.
// Source: the rule published with MATH (Hendrycks et al. 2021, modeling/math_equivalence.py), which
// lm-evaluation-harness uses too; tests/golden/math_equivalence.json holds what it says.
bool math_equivalent(std::string_view a, std::string_view b);

}  // namespace moebench
