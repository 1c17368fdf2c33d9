// The emulated device as slow as a device may be: what is enqueued runs when it is waited for, and
// no sooner. Host memory that a copy names must still hold what it held then.
#pragma once

#include <cstdint>

namespace moebench::simt {

// Within its life; then all that is left runs. Of created streams only, not of the default one.
class LateStreams {
 public:
  LateStreams();
  ~LateStreams();
  LateStreams(const LateStreams&) = delete;
  LateStreams& operator=(const LateStreams&) = delete;

  // How often an event was waited for, and how often that left work behind it in the stream: the
  // device had something to go on with.
  std::int64_t waits() const;
  std::int64_t waits_with_work_left() const;
};

}  // namespace moebench::simt
