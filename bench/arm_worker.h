// The child process of an arm, and what it says: the protocol between two builds of moebench.
//
// JSON lines. The child begins with {"event": "hello", "protocol": ...}; the parent answers with
// {"job": ..., "check_outputs": true} (bench/worker.h has the job), the child with {"event":
// "ready", "details": ...}. Then the parent asks, one thing at a time:
//
//   {"do": "warm_up", "test": 0, "seconds": 0.02}  {"event": "warm", "test": 0, "digest": ...}
//   {"do": "block", "test": 0, "seconds": 0.02}    {"event": "block", "test": 0, "rates": [...],
//                                                   "conditions": {...}}
//
// (conditions as bench/disturbance.h writes them; builds that know nothing of them leave them out)
// or gets {"event": "failed", "status": ..., "reason": ...}. The end of its input ends the child.
#pragma once

#include <istream>
#include <string_view>

namespace moebench {

// The hidden command that makes a process an arm: `moebench arm`.
inline constexpr std::string_view kArmCommand = "arm";

// Two programs understand each other if this is the same word: raise the number when a message or
// the job changes.
inline constexpr std::string_view kArmProtocol = "moebench.arm/1";

// Serves until `input` ends. Returns the exit code.
int run_arm(std::istream& input, int output);

}  // namespace moebench
