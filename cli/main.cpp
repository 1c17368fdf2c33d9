// moebench: parse, call down, print. Errors end up here and become one line and an exit code.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

#include "bench/build_info.h"
#include "cli/command.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench::cli {

void add_examples(CLI::App* command, const std::vector<std::string>& lines) {
  command->footer(fmt::format("Examples:\n  {}\n", fmt::join(lines, "\n  ")));
}

namespace {

// The innermost subcommand that the command line reached.
const CLI::App* reached(const CLI::App* app) {
  for (const CLI::App* sub : app->get_subcommands()) return reached(sub);
  return app;
}

// What could have been meant by `word` at `app`: its subcommands, or its flags.
std::vector<std::string> known_words(const CLI::App* app, const std::string& word) {
  std::vector<std::string> known;
  const bool is_flag = word.rfind('-', 0) == 0;
  if (is_flag) {
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
      for (const std::string& name : option->get_snames()) known.push_back("-" + name);
    }
  } else {
    const auto visible = [](const CLI::App* sub) { return !sub->get_group().empty(); };
    for (const CLI::App* sub : app->get_subcommands(visible)) known.push_back(sub->get_name());
  }
  return known;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
  const CLI::App* at = reached(&app);
  std::string hint;
  // CLI11 reports the words that nobody took; the first is the slip.
  const std::vector<std::string> extras = at->remaining();
  if (!extras.empty()) {
    const std::string word = extras.front().substr(0, extras.front().find('='));
    const std::vector<std::string> known = known_words(at, word);
    const bool is_flag = word.rfind('-', 0) == 0;
    fmt::print(stderr, "error: read the command line: unknown {} '{}' ({})\n",
               is_flag ? "flag" : "word", word,
               known.empty() ? "nothing is expected here" : suggestion(word, known));
  } else {
    fmt::print(stderr, "error: read the command line: {}\n", error.what());
  }
  std::string path;
  for (const CLI::App* a = at; a != nullptr; a = a->get_parent()) {
    path = a->get_name() + (path.empty() ? "" : " " + path);
  }
  fmt::print(stderr, "       {} --help shows what works\n", path);
  static_cast<void>(argc);
  static_cast<void>(argv);
  return kExitUsage;
}

int run_action(const Action& action) {
  try {
    const int exit_code = action();
    // What still waits in the buffer may not fit the disk.
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    require_or(ErrorCode::kIo, written, "write to standard output: {}", std::strerror(errno));
    return exit_code;
  } catch (const Error& error) {
    std::fflush(stdout);
    fmt::print(stderr, "error: {}\n", error.what());
    return error.code() == ErrorCode::kUsage ? kExitUsage : kExitFailed;
  } catch (const std::filesystem::filesystem_error& error) {
    fmt::print(stderr, "error: use the file system: {}\n", error.what());
  } catch (const std::system_error& error) {  // by fmt::print
    fmt::print(stderr, "error: write to standard output: {}\n", error.what());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory: the system gave no more\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: unexpected: {}\n", error.what());
  }
  return kExitFailed;
}

int run_program(int argc, char** argv) {
  CLI::App app(
      "Speed, accuracy and fidelity of mixture-of-experts inference plans, in one run.\n"
      "A model is a directory in the Hugging Face layout, or the word nano: the model that ships.");
  app.name("moebench");
  app.set_version_flag("--version",
                       fmt::format("moebench {} ({})", std::string(build_info::kVersion),
                                   std::string(build_info::kGitCommit)));
  app.get_formatter()->column_width(36);
  app.require_subcommand(1);
  app.allow_extras(false);
  app.footer(
      "Exit codes: 0 pass, 1 regression, 2 a run or case failed or its input was invalid,\n"
      "            3 usage, 4 inconclusive.\n\n"
      "Examples:\n"
      "  moebench run demo --out demo-run           the shipped demo, ends in an HTML report\n"
      "  moebench eval --model nano --task nano --effort high --limit 100\n"
      "  moebench model info --model DIR --plan int4\n"
      "  moebench COMMAND --help                    every command has examples\n");
  Action action;
  add_run(app, action);
  add_bench(app, action);
  add_eval(app, action);
  add_data(app, action);
  add_fidelity(app, action);
  add_generate(app, action);
  add_model(app, action);
  add_kernels(app, action);
  add_merge(app, action);
  add_compare(app, action);
  add_export(app, action);
  add_history(app, action);
  add_report(app, action);
  add_publish(app, action);
  add_roofline(app, action);
  add_doctor(app, action);
  add_worker(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error, argc, argv);
  }
  return run_action(action);
}

}  // namespace
}  // namespace moebench::cli

int main(int argc, char** argv) { return moebench::cli::run_program(argc, argv); }
