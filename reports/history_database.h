// The tables of a history, in SQLite or PostgreSQL: opening, migrating, and turning the database's
// errors into ours. Internal to reports/.
#pragma once

#include <soci/soci.h>

#include <string>
#include <string_view>
#include <utility>

#include "kernels/core/error.h"

namespace moebench::history {

// Schema versions that this program knows: 1 to this.
inline constexpr long long kSchemaVersion = 2;

enum class Kind { kSqlite, kPostgresql };

// Where a history lies.
struct Place {
  Kind kind = Kind::kSqlite;
  std::string target;  // an absolute path, or what libpq reads
  std::string shown;   // for messages: without a password
};
// "postgresql://..." or "postgres://...", "sqlite:PATH" or a path. Throws Error(kUsage).
Place parse_url(const std::string& url);
// Throws soci::soci_error. A SQLite file that is not there is made.
void connect(soci::session& session, const Place& place);

class Database {
 public:
  // Opens and, where it is older or empty, migrates to `version`. `may_create`: a SQLite file that
  // is not there is made. Throws Error(kIo), or kUnsupported for a history of a newer program.
  // `version` is below kSchemaVersion in tests of migration only.
  Database(const Place& place, bool may_create, long long version = kSchemaVersion);

  soci::session& session() { return session_; }

  // Runs `work` in one transaction that nobody else's writing comes between; all of it happens, or
  // nothing. `what` is being done, for messages.
  template <class Work>
  void write(std::string_view what, Work work) {
    guard(what, [&] {
      begin_writing();
      try {
        work(session_);
        session_ << "COMMIT";
      } catch (...) {
        roll_back();
        throw;
      }
    });
  }

  // Runs `work(session)`; errors of the database become Error(kIo).
  template <class Work>
  void read(std::string_view what, Work work) {
    guard(what, [&] { work(session_); });
  }

 private:
  template <class Work>
  void guard(std::string_view what, Work work) {
    try {
      work();
    } catch (const soci::soci_error& error) {
      complain(what, error.get_error_message());
    }
  }
  [[noreturn]] void complain(std::string_view what, const std::string& message) const;
  void begin_writing();
  void roll_back() noexcept;
  long long version_now();
  void migrate(long long version);

  Place place_;
  soci::session session_;
};

}  // namespace moebench::history
