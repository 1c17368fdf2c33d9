// A trace that opens in ui.perfetto.dev and chrome://tracing: steps and ops as nested slices of one
// track, requests as asynchronous slices with an instant at their first token.
//
// The file is valid JSON after every write, whatever ends the process: each write replaces the
// bracket that closes the list.
// Source: "Trace Event Format" (Google), phases X, b, n, e and M; times in microseconds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "engine/model.h"
#include "engine/scheduler.h"
#include "kernels/core/json_fields.h"

namespace moebench {

class TraceFile {
 public:
  // Creates the file, or (`append`) goes on with one that a trace was written to before: workers of
  // one run share it, one after another. Throws Error(kIo) naming it.
  explicit TraceFile(const std::filesystem::path& path, bool append = false);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // What follows belongs to process track `process` ("nano / fast"): a new track each time.
  void begin_process(std::string_view process);
  // A slice on its own track: a case of a run. Times of steady_clock in ns, here and below.
  void add_case(std::string_view label, std::int64_t begin_ns, std::int64_t end_ns);
  void add(const Model::Span& span);
  void add(const RequestResult& request);
  // Hooks that add all that a model does; `this` must outlive their use.
  Model::Tracer tracer();

  // Writes what is held back. Called now and then, and at the end.
  void flush();

 private:
  void add_event(const OrderedJson& event);

  std::filesystem::path path_;
  int fd_ = -1;
  bool empty_ = true;         // no event in the file yet
  std::int64_t end_ = 0;      // where the closing bracket stands
  std::string pending_;       // events, each after ",\n"
  std::int64_t process_ = 0;  // pid of the track
};

}  // namespace moebench
