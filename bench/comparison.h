// From the samples of interleaved arms to a verdict: how much faster or slower an arm is than the
// base, with an interval, or that this cannot be told. bench/README.md explains the model.
//
// The unit is the session: fresh processes of every arm. Within one, each pair of rounds gives a
// log ratio of arm to base in which what slows the machine for longer than a block cancels; the
// session's value is the median of its pairs. What differs between two starts of the very same
// program (where its pages came to lie, which addresses share a cache set) does not cancel within a
// session, so sessions, not blocks, are what the interval counts.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/arm_host.h"
#include "evals/group_sequential.h"
#include "kernels/core/json_fields.h"

namespace moebench {

struct TimedSample {
  ArmId id;
  std::size_t test = 0;
  std::int64_t session = 0;  // from 0
  std::int64_t round = 0;    // within the session; rounds 2k and 2k+1 are a pair, in mirrored order
  std::int64_t order = 0;    // place within the round
  Block block;
  // Rules of bench/disturbance.h that mark it, and "waited": it stood in the queue for a CPU for
  // more than 5 % of its time. Marked samples count like all others.
  std::vector<std::string> marks;

  double value() const;  // tokens per second: the median of the block's repetitions
};

enum class SpeedVerdict {
  kFaster,
  kSlower,
  kSame,          // the whole interval lies within the practical threshold
  kInconclusive,  // none of these can be said
};
std::string_view verdict_name(SpeedVerdict verdict);  // "FASTER", ...

// `interval` is of the log ratio; `threshold` the share (0.02) up to which a difference does not
// matter. SAME goes before FASTER and SLOWER: a sure difference of 0.1 % is no difference.
SpeedVerdict judge_speed(const Interval& interval, double threshold);

// The log ratio of arm to base of each session that has both, in the order of sessions. `bases` are
// the processes that together are the base. Sessions without a round of both are left out.
struct SessionRatios {
  std::vector<double> values;
  std::vector<std::vector<double>> pairs;  // what each value is the median of
};
SessionRatios session_ratios(std::span<const TimedSample> samples, std::size_t test, ArmId arm,
                             std::span<const ArmId> bases);

// The part of the variance of session values that comes from the sessions themselves, in [0, 1]:
// 1 - (variance within sessions, of a mean of their pairs) / (variance between them); nullopt
// without two sessions of two pairs. Source: one-way analysis of variance, as ICC(1,k).
std::optional<double> session_effect(const SessionRatios& ratios);

// Fills the marks of all samples of one machine.
void mark_disturbed(std::vector<TimedSample>& samples);

struct Comparison {
  std::size_t arm = 0;
  std::size_t test = 0;
  Status status = Status::kOk;  // else there is no ratio, and the reason says why
  SpeedVerdict verdict = SpeedVerdict::kInconclusive;
  std::string reason;              // of a status, or of INCONCLUSIVE
  std::optional<double> ratio;     // tokens per second of the arm over the base's
  std::optional<Interval> ratios;  // of the ratio; its level is that of all looks together
  double look_level = 0;           // the level that the last look's interval has by itself
  // The difference (as a share) that would have been told from none in 80 % of cases, with the
  // sessions there are.
  std::optional<double> smallest_visible;
  std::int64_t looks = 0;
  SessionRatios sessions;
  std::int64_t rounds = 0;
  std::int64_t blocks = 0;                           // of the arm and its base
  std::int64_t disturbed_blocks = 0;                 // that have a mark
  std::map<std::string, std::int64_t> disturbances;  // by mark
  std::vector<std::string> notes;                    // drift, dependence, disturbance
};

// Brings `comparison` up to date with its sessions: the estimate, and with `level` (of this look
// alone, in (0, 1)) the interval and the verdict. At least two sessions.
void look(Comparison& comparison, double level, double overall_level, double threshold);

OrderedJson to_json(const TimedSample& sample);
OrderedJson to_json(const Comparison& comparison);

}  // namespace moebench
