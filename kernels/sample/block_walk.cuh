// What one block of 1024 threads does with a list together: prefix sums, a walk along them, and a
// radix sort. Every thread of the block calls these functions, with the same arguments.
#pragma once

#include <climits>

#include "kernels/core/gpu.cuh"

namespace moebench::sample {

inline constexpr int kBlockWarps = 32;  // as many as lanes: a warp holds one number of each
inline constexpr int kBlockThreads = kBlockWarps * gpu::kWarp;

template <class T>
struct Prefix {
  T before;  // the sum over the threads before this one
  T total;
};

template <class T>
MOEBENCH_DEVICE T warp_inclusive_scan(T value) {
  MOEBENCH_UNROLL
  for (int offset = 1; offset < gpu::kWarp; offset *= 2) {
    const T other = gpu::shuffle_up(gpu::kAllLanes, value, offset);
    if (gpu::lane_id() >= offset) value += other;
  }
  return value;
}

template <class T>
MOEBENCH_DEVICE Prefix<T> block_scan(T value) {
  MOEBENCH_SHARED(T, totals, [kBlockWarps]);
  const T inclusive = warp_inclusive_scan(value);
  gpu::sync_threads();  // a call before this one may still be reading `totals`
  if (gpu::lane_id() == gpu::kWarp - 1) totals[gpu::warp_id()] = inclusive;
  gpu::sync_threads();
  // Every warp scans the warps' totals for itself.
  const T warps = warp_inclusive_scan(totals[gpu::lane_id()]);
  const int warp = gpu::warp_id();
  const T before_warp = gpu::shuffle(gpu::kAllLanes, warps, warp > 0 ? warp - 1 : 0);
  const T before_lane = gpu::shuffle_up(gpu::kAllLanes, inclusive, 1);
  T before = warp > 0 ? before_warp : T{0};
  if (gpu::lane_id() > 0) before += before_lane;
  return {before, gpu::shuffle(gpu::kAllLanes, warps, gpu::kWarp - 1)};
}

struct Extremes {
  unsigned least, most;
};

// The least `low` and the most `high` of the block.
MOEBENCH_DEVICE Extremes block_extremes(unsigned low, unsigned high) {
  MOEBENCH_SHARED(unsigned, lows, [kBlockWarps]);
  MOEBENCH_SHARED(unsigned, highs, [kBlockWarps]);
  low = gpu::reduce_min(gpu::kAllLanes, low);
  high = gpu::reduce_max(gpu::kAllLanes, high);
  gpu::sync_threads();
  if (gpu::lane_id() == 0) {
    lows[gpu::warp_id()] = low;
    highs[gpu::warp_id()] = high;
  }
  gpu::sync_threads();
  return {gpu::reduce_min(gpu::kAllLanes, lows[gpu::lane_id()]),
          gpu::reduce_max(gpu::kAllLanes, highs[gpu::lane_id()])};
}

struct Walked {
  int count;           // items that were kept
  double sum;          // of their masses
  int last;            // the last of them whose mass is not 0; -1 if there is none
  double before_last;  // the sum of the masses before that one
};

// Walks along items [0, n) in order, to the first for which !keep(sum of the masses before it, its
// mass). Sums are added in an order that depends on n alone.
template <class Mass, class Keep>
MOEBENCH_DEVICE Walked walk(int n, Mass mass_of, Keep keep) {
  MOEBENCH_SHARED(double, found, [2]);  // the sums before the stop, and before the last
  Walked walked{n, 0, -1, 0};
  for (int begin = 0; begin < n; begin += kBlockThreads) {
    const int i = begin + static_cast<int>(threadIdx.x);
    const double mass = i < n ? mass_of(i) : 0.0;
    const Prefix<double> prefix = block_scan(mass);
    const double before = walked.sum + prefix.before;
    const bool stops = i < n && !keep(before, mass);
    const auto place = static_cast<unsigned>(i);
    const unsigned stop = block_extremes(stops ? place : static_cast<unsigned>(INT_MAX), 0U).least;
    // Places count from 1 here: 0 is "none".
    const unsigned last = block_extremes(0U, place < stop && mass > 0 ? place + 1 : 0U).most;
    if (place == stop) found[0] = before;
    if (place + 1 == last) found[1] = before;
    gpu::sync_threads();
    if (last > 0) {
      walked.last = static_cast<int>(last) - 1;
      walked.before_last = found[1];
    }
    if (stop != static_cast<unsigned>(INT_MAX)) {
      walked.count = static_cast<int>(stop);
      walked.sum = found[0];
      return walked;
    }
    walked.sum += prefix.total;
  }
  return walked;
}

// ---- Radix sort --------------------------------------------------------------------------------
inline constexpr int kDigits = 256;  // values of eight bits
inline constexpr std::size_t kSortCounts = kBlockWarps * kDigits;

// The lanes that hold the same digit, in [0, kDigits].
MOEBENCH_DEVICE unsigned lanes_like(unsigned digit) {
  unsigned lanes = gpu::kAllLanes;
  MOEBENCH_UNROLL
  for (int bit = 0; bit < 9; ++bit) {
    const bool set = (digit >> bit & 1U) != 0;
    const unsigned with = gpu::ballot(gpu::kAllLanes, set);
    lanes &= set ? with : ~with;
  }
  return lanes;
}

// From how often each warp holds each digit to where its first goes: digit after digit, and of one
// digit warp after warp.
MOEBENCH_DEVICE void counts_to_places(unsigned* counts) {
  constexpr int kParts = kBlockThreads / kDigits;  // threads of a digit
  constexpr int kWarpsOfPart = kBlockWarps / kParts;
  const int digit = static_cast<int>(threadIdx.x) / kParts;
  const int first_warp = static_cast<int>(threadIdx.x) % kParts * kWarpsOfPart;
  unsigned sum = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarpsOfPart; ++w) sum += counts[(first_warp + w) * kDigits + digit];
  unsigned place = block_scan(sum).before;
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarpsOfPart; ++w) {
    unsigned& count = counts[(first_warp + w) * kDigits + digit];
    const unsigned next = place + count;
    count = place;
    place = next;
  }
}

// Sorts list[0, n) by the upper halves, ascending; equal ones stay in their order. `other` has room
// for n, `counts` for kSortCounts. Each warp moves a part of its own, so that order is kept without
// atomics.
MOEBENCH_DEVICE void sort_by_upper_half(std::uint64_t* list, std::uint64_t* other, int n,
                                        unsigned* counts) {
  const int rounds = (n + kBlockThreads - 1) / kBlockThreads;
  const int begin = min(n, gpu::warp_id() * rounds * gpu::kWarp);
  const int end = min(n, begin + rounds * gpu::kWarp);
  unsigned* mine = counts + gpu::warp_id() * kDigits;
  const unsigned lanes_below = (1U << gpu::lane_id()) - 1;
  for (int shift = 32; shift < 64; shift += 8) {  // four passes: the result is in `list` again
    const auto digit_of = [shift](std::uint64_t item) {
      return static_cast<unsigned>(item >> shift) % kDigits;
    };
    for (int digit = gpu::lane_id(); digit < kDigits; digit += gpu::kWarp) mine[digit] = 0;
    gpu::sync_threads();  // and `list` is as the pass before, or the caller, wrote it
    for (int i = begin; i < end; i += gpu::kWarp) {
      const int place = i + gpu::lane_id();
      const unsigned digit = place < end ? digit_of(list[place]) : kDigits;
      const unsigned like = lanes_like(digit);
      if (place < end && (like & lanes_below) == 0) {
        mine[digit] += static_cast<unsigned>(gpu::count_bits(like));
      }
      gpu::sync_warp();
    }
    gpu::sync_threads();
    counts_to_places(counts);
    gpu::sync_threads();
    for (int i = begin; i < end; i += gpu::kWarp) {
      const int place = i + gpu::lane_id();
      const std::uint64_t item = place < end ? list[place] : 0;
      const unsigned digit = place < end ? digit_of(item) : kDigits;
      const unsigned like = lanes_like(digit);
      const unsigned first = place < end ? mine[digit] : 0;
      gpu::sync_warp();
      if (place < end) {
        other[first + static_cast<unsigned>(gpu::count_bits(like & lanes_below))] = item;
        if ((like & lanes_below) == 0) {
          mine[digit] = first + static_cast<unsigned>(gpu::count_bits(like));
        }
      }
      gpu::sync_warp();
    }
    std::uint64_t* written = other;
    other = list;
    list = written;
  }
  gpu::sync_threads();
}

}  // namespace moebench::sample
