// A test of equal sides for pairs whose values are skewed.
#pragma once

#include <cstdint>
#include <span>

namespace moebench {

// Two-sided p-value of the hypothesis that it does not matter which side of a pair is which: the
// share of random swaps of sides, all values of one item together, after which the ratio of the
// sides' sums is at least as far from 1 (as a logarithm) as the one seen: (1 + count) / (1 +
// swaps). Holds whatever the distribution, where a t test of few skewed values does not. Values are
// not negative; item_ids[i] is the item of pair i. Throws Error(kInvalidArgument) for values that
// are negative or not finite, for sums of zero, and for spans of different lengths. Source: Fisher
// 1935, "The Design of Experiments", section 21; Phipson and Smyth 2010.
double paired_swap_test(std::span<const double> base, std::span<const double> candidate,
                        std::span<const std::int64_t> item_ids, std::int64_t swaps,
                        std::uint64_t seed);

}  // namespace moebench
