// A headless Chromium that tests drive through its debugging pipe: pages are opened as a reader
// opens them, and asked what they hold.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/support/files.h"

namespace moebench::test {

// Where pictures of pages are kept for people to look at: screenshots/ in the build's folder, or
// $MOEBENCH_SCREENSHOTS.
std::filesystem::path screenshot_folder();

// Where Chromium is, or "": tests of pages then say so and pass.
std::string browser_path();

class Browser {
 public:
  // Throws std::runtime_error if it does not start or stops answering.
  Browser();
  ~Browser();
  Browser(const Browser&) = delete;

  void set_size(int width, int height);
  void set_dark(bool dark);
  // Loads the file (with `fragment`, "#items") and waits until its scripts have run.
  void open(const std::filesystem::path& page, const std::string& fragment = "");
  // The value of a JavaScript expression; promises are awaited. An exception becomes
  // {"exception": text}.
  Json value(const std::string& expression);
  // Waits up to a minute, on a loaded machine, for an expression to become true.
  bool wait_for(const std::string& expression);
  void press(const std::string& key);
  // The whole page, with all its charts.
  void screenshot(const std::filesystem::path& file);

  // What went wrong since the last open(): exceptions, console messages, what the browser logged,
  // and requests for anything but the page itself and data in it.
  std::vector<std::string> problems();

 private:
  struct Process;
  Json call(const std::string& method, const Json& parameters = Json::object());
  void note(const Json& event);

  TemporaryDirectory folder_;
  std::unique_ptr<Process> process_;
  int last_id_ = 0;
  int width_ = 800;
  std::string session_;
  std::string page_;
  std::vector<std::string> problems_;
};

}  // namespace moebench::test
