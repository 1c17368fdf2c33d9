// Connections and schema migrations. Statements are constant text; every value is bound.
#include "reports/history_database.h"

#include <filesystem>
#include <vector>

// As SOCI's own headers declare them; those would want the headers of both databases too.
extern "C" {
const soci::backend_factory* factory_sqlite3();
const soci::backend_factory* factory_postgresql();
}

namespace moebench::history {
namespace {

// What makes version N of version N - 1, for N from 1. A published one never changes: what must be
// different is a migration of its own. Types are words that both databases know.
const std::vector<std::vector<const char*>>& migrations() {
  static const std::vector<std::vector<const char*>> kMigrations = {
      // 1: runs, their records, and each metric as a number of its own.
      {"CREATE TABLE moebench_runs (id TEXT PRIMARY KEY, name TEXT NOT NULL, commit_id TEXT NOT "
       "NULL, started TEXT NOT NULL, added TEXT NOT NULL, suite TEXT NOT NULL, machine TEXT NOT "
       "NULL, good BIGINT NOT NULL, cases BIGINT NOT NULL, cases_ok BIGINT NOT NULL, description "
       "TEXT NOT NULL)",
       "CREATE INDEX moebench_runs_by_name ON moebench_runs (name, started)",
       "CREATE TABLE moebench_records (run_id TEXT NOT NULL REFERENCES moebench_runs (id), place "
       "BIGINT NOT NULL, model TEXT NOT NULL, plan TEXT NOT NULL, scenario TEXT NOT NULL, record "
       "TEXT NOT NULL, PRIMARY KEY (run_id, place))",
       "CREATE TABLE moebench_metrics (run_id TEXT NOT NULL, place BIGINT NOT NULL, metric TEXT "
       "NOT NULL, unit TEXT NOT NULL, better TEXT NOT NULL, value DOUBLE PRECISION NOT NULL, "
       "PRIMARY KEY (run_id, place, metric), FOREIGN KEY (run_id, place) REFERENCES "
       "moebench_records (run_id, place))",
       "CREATE INDEX moebench_metrics_by_name ON moebench_metrics (metric)"},
      // 2: answers without their texts, so that accuracy is paired with the past item by item.
      {"CREATE TABLE moebench_answers (run_id TEXT NOT NULL REFERENCES moebench_runs (id), case_id "
       "TEXT NOT NULL, lines TEXT NOT NULL, PRIMARY KEY (run_id, case_id))"},
  };
  return kMigrations;
}

// "postgresql://user:secret@host/db" without the secret, also where it holds signs that should have
// been written otherwise: all from the first colon to the last @.
std::string without_password(const std::string& url) {
  const std::size_t colon = url.find(':', url.find("://") + 3);
  const std::size_t at = url.rfind('@');
  std::string shown = url;
  if (at != std::string::npos && colon < at) shown.replace(colon + 1, at - colon - 1, "***");
  // Options after the ? may hold one too.
  return shown.substr(0, shown.find('?'));
}

}  // namespace

void connect(soci::session& session, const Place& place) {
  if (place.kind == Kind::kPostgresql) {
    session.open(*factory_postgresql(), place.target);
    return;
  }
  // SOCI reads name="value" pairs here.
  session.open(*factory_sqlite3(), fmt::format("db=\"{}\"", place.target));
}

Place parse_url(const std::string& url) {
  const auto usable = [&](bool ok, std::string_view why) {
    require_or(ErrorCode::kUsage, ok, "read --db: {} (a file, sqlite:FILE or postgresql://...)",
               why);
  };
  usable(!url.empty(), "it is empty");
  for (const char c : url) {
    usable(static_cast<unsigned char>(c) >= 32 && c != 127, "it holds control characters");
  }
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) {
    usable(url.find(' ') == std::string::npos, "a url holds no spaces; write %20");
    // SOCI 4.0 reads KEY=VALUE pairs here, drops its own, and writes the others down again: a url
    // without any equals sign would get one at its end.
    std::string target = url;
    if (url.find('=') == std::string::npos) {
      target += url.find('?') == std::string::npos ? '?' : '&';
      target += "application_name=moebench";
    }
    return {Kind::kPostgresql, target, without_password(url)};
  }
  std::string path = url;
  if (path.starts_with("sqlite:")) {
    path = path.substr(7);
    if (path.starts_with("///")) path = path.substr(2);
  }
  const std::size_t scheme = path.find("://");
  usable(scheme == std::string::npos,
         fmt::format("'{}' is no kind of database that it knows", path.substr(0, scheme)));
  usable(!path.empty(), "it names no file");
  usable(path.find('"') == std::string::npos, "a file's name may not hold a quotation mark");
  return {Kind::kSqlite, std::filesystem::absolute(path).string(), path};
}

Database::Database(const Place& place, bool may_create, long long version) : place_(place) {
  require_or(ErrorCode::kIo,
             place.kind == Kind::kPostgresql || may_create || std::filesystem::exists(place.target),
             "open the history {}: there is no such file (`moebench history add` makes one)",
             place.shown);
  guard("open it", [&] {
    connect(session_, place);
    if (place.kind == Kind::kSqlite) {
      // Others may be writing: wait for them. A file from elsewhere must not bring code along.
      session_ << "PRAGMA busy_timeout = 120000";
      session_ << "PRAGMA trusted_schema = OFF";
      session_ << "PRAGMA foreign_keys = ON";
    } else {
      session_ << "SET client_min_messages = warning";
    }
  });
  if (version_now() < version) {
    write("bring it up to date", [&](soci::session&) { migrate(version); });
  }
  const long long now = version_now();
  require_or(ErrorCode::kUnsupported, now <= kSchemaVersion,
             "open the history {}: a newer moebench made it (version {}; this one knows up to {})",
             place_.shown, now, kSchemaVersion);
}

// 0 where there are no tables yet.
long long Database::version_now() {
  long long tables = 0;
  long long version = 0;
  guard("read its version", [&] {
    if (place_.kind == Kind::kSqlite) {
      session_ << "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = "
                  "'moebench_schema'",
          soci::into(tables);
    } else {
      session_ << "SELECT count(*) FROM information_schema.tables WHERE table_schema = "
                  "current_schema() AND table_name = 'moebench_schema'",
          soci::into(tables);
    }
    if (tables > 0) {
      session_ << "SELECT coalesce(max(version), 0) FROM moebench_schema", soci::into(version);
    }
  });
  return version;
}

// Within a transaction that holds the lock: whoever waited for it finds the work done.
void Database::migrate(long long version) {
  session_ << "CREATE TABLE IF NOT EXISTS moebench_schema (version BIGINT PRIMARY KEY, applied "
              "TEXT NOT NULL)";
  long long now = 0;
  session_ << "SELECT coalesce(max(version), 0) FROM moebench_schema", soci::into(now);
  for (long long next = now + 1; next <= version; ++next) {
    for (const char* statement : migrations()[static_cast<std::size_t>(next - 1)]) {
      session_ << statement;
    }
    session_ << "INSERT INTO moebench_schema (version, applied) VALUES (:version, "
                "CURRENT_TIMESTAMP)",
        soci::use(next);
  }
}

void Database::begin_writing() {
  if (place_.kind == Kind::kSqlite) {
    // The lock for writing now, not at the first write: two transactions that both want to go from
    // reading to writing would fail instead of waiting.
    session_ << "BEGIN IMMEDIATE";
    return;
  }
  session_ << "BEGIN";
  // Migrations take it alone, everything else beside each other would do; but writes are short.
  session_ << "SELECT pg_advisory_xact_lock(7089342501)";
}

void Database::roll_back() noexcept {
  try {
    session_ << "ROLLBACK";
  } catch (...) {
    // The connection is gone, and the transaction with it.
  }
}

void Database::complain(std::string_view what, const std::string& message) const {
  // One line, and none of what a server may have put into it.
  std::string line = message.substr(0, 400);
  line.erase(line.find_last_not_of(" \n\r\t") + 1);
  for (char& c : line) c = static_cast<unsigned char>(c) < 32 || c == 127 ? ' ' : c;
  throw Error(ErrorCode::kIo, fmt::format("use the history {}: {}: {}", place_.shown, what, line));
}

}  // namespace moebench::history
