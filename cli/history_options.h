// Which history is meant: shared by the commands that read one.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

namespace moebench::cli {

inline std::string default_history() {
  const char* given = std::getenv("MOEBENCH_HISTORY");
  return given != nullptr && *given != '\0' ? given : "moebench-history.db";
}

inline void add_history_option(CLI::App* command, std::string& db) {
  command
      ->add_option("--db", db,
                   "A file of SQLite, or postgresql://USER@HOST/NAME ($MOEBENCH_HISTORY, else "
                   "moebench-history.db)")
      ->type_name("URL");
}

}  // namespace moebench::cli
