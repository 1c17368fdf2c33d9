// What was measured before: runs in a database, for trends and as the base of comparisons.
//
// A file of SQLite for one person or one CI cache, PostgreSQL for a team; the same tables and the
// same commands for both. Several jobs may write at once: a run is one transaction. What comes out
// of a database is as little trusted as any other file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reports/run_results.h"

namespace moebench {

struct HistoryEntry {
  std::string id;  // 32 hexadecimal digits, from the run's content
  std::string name;
  std::string commit;
  std::string started;  // UTC
  std::string added;    // UTC
  std::string suite;
  std::string machine;  // processor, GPU, build and threads, as people read them
  bool good = false;    // every case is ok, and nobody said otherwise
  std::int64_t cases = 0;
  std::int64_t cases_ok = 0;
};

struct HistoryAddition {
  std::string name = "main";  // of the line of runs it belongs to: a branch
  std::string commit;         // "": the commit of the program that ran it
  bool bad = false;           // it failed its gate: never a base of comparisons
};

// "" or 0: any.
struct HistoryFilter {
  std::string name;
  std::string suite;
  std::string machine;
  bool only_good = false;
  std::int64_t last = 0;  // the newest so many
};

// One metric of one case over time, on one machine.
struct HistorySeries {
  std::string model;
  std::string plan;
  std::string scenario;
  std::string metric;
  std::string unit;
  std::string better;
  std::string machine;
  std::vector<double> values;  // oldest first
  std::vector<std::string> commits;
  std::vector<std::string> started;
  std::vector<std::string> ids;
};

// Where a run was measured, in words.
std::string machine_text(const OrderedJson& description);

class History {
 public:
  // `url`: a file, sqlite:FILE, or postgresql://USER@HOST/NAME. Throws Error(kUsage) for other
  // urls, Error(kIo) if it cannot be opened, Error(kUnsupported) if a newer program made it.
  History(const std::string& url, bool may_create);
  ~History();

  // Adds a run, or finds it there; returns its entry, and in `is_new` which. Answers are kept
  // without their texts. Throws Error for a name or commit of more than 200 bytes or with control
  // characters.
  HistoryEntry add(const RunResults& run, const HistoryAddition& addition, bool& is_new);

  // Newest first.
  std::vector<HistoryEntry> list(const HistoryFilter& filter = {});
  // By id or the unique beginning of one, of at least 4 digits. Throws Error(kInvalidArgument).
  HistoryEntry find(const std::string& id);
  RunResults load(const HistoryEntry& entry);
  // Every series of `metrics` in runs that are good.
  std::vector<HistorySeries> series(const HistoryFilter& filter,
                                    const std::vector<std::string>& metrics);
  void remove(const std::vector<HistoryEntry>& entries);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The last `count` good runs named `name` of the candidate's suite and machine that have one of its
// cases, newest first: a base to compare it with. Throws Error(kInvalidArgument) that says what
// there is, if there are none.
std::vector<RunResults> history_base(History& history, const std::string& name, std::int64_t count,
                                     const RunResults& candidate);

}  // namespace moebench
