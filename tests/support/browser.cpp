// Chromium's protocol over two pipes (--remote-debugging-pipe): JSON messages, each ended by a NUL.
#include "tests/support/browser.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace moebench::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(60);  // a loaded machine is slow to start it

std::string decode_base64(const std::string& text) {
  std::string bytes(text.size(), '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) throw std::runtime_error("the browser's picture is not base64");
  // Padding is decoded too.
  const auto padding = static_cast<std::size_t>(
      std::count(text.end() - std::min<std::ptrdiff_t>(2, std::ssize(text)), text.end(), '='));
  bytes.resize(static_cast<std::size_t>(size) - padding);
  return bytes;
}

}  // namespace

std::string browser_path() {
  for (const char* path :
       {"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"}) {
    if (std::filesystem::exists(path)) return path;
  }
  return "";
}

std::filesystem::path screenshot_folder() {
  const char* given = std::getenv("MOEBENCH_SCREENSHOTS");
  // build/PRESET/bin/moebench
  return given != nullptr && *given != '\0'
             ? std::filesystem::path(given)
             : std::filesystem::path(MOEBENCH_PROGRAM).parent_path().parent_path() / "screenshots";
}

struct Browser::Process {
  pid_t pid = -1;
  int to = -1;
  int from = -1;
  std::string received;

  ~Process() {
    if (to >= 0) ::close(to);
    if (from >= 0) ::close(from);
    if (pid > 0) {
      ::kill(-pid, SIGKILL);  // its helpers are of its process group
      ::waitpid(pid, nullptr, 0);
    }
  }

  void send(const Json& message) {
    const std::string text = message.dump() + '\0';
    for (std::size_t sent = 0; sent < text.size();) {
      const ssize_t n = ::write(to, text.data() + sent, text.size() - sent);
      if (n <= 0) throw std::runtime_error("the browser no longer listens");
      sent += static_cast<std::size_t>(n);
    }
  }

  Json receive() {
    const auto until = Clock::now() + kPatience;
    while (true) {
      if (const std::size_t end = received.find('\0'); end != std::string::npos) {
        Json message = Json::parse(received.substr(0, end));
        received.erase(0, end + 1);
        return message;
      }
      pollfd ready{from, POLLIN, 0};
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) {
        throw std::runtime_error("the browser does not answer");
      }
      std::array<char, 65536> bytes{};
      const ssize_t n = ::read(from, bytes.data(), bytes.size());
      if (n <= 0) throw std::runtime_error("the browser has stopped");
      received.append(bytes.data(), static_cast<std::size_t>(n));
    }
  }
};

Browser::Browser() : process_(std::make_unique<Process>()) {
  ::signal(SIGPIPE, SIG_IGN);
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("no pipes for the browser");
  }
  const std::string path = browser_path();
  const std::string profile = "--user-data-dir=" + folder_.path().string();
  process_->pid = ::fork();
  if (process_->pid == 0) {
    ::setpgid(0, 0);
    // Moved away first: a pipe's end may be 3 or 4 itself.
    const int reads = ::fcntl(in[0], F_DUPFD, 10);
    const int writes = ::fcntl(out[1], F_DUPFD, 10);
    ::dup2(reads, 3);
    ::dup2(writes, 4);
    const int nothing = ::open("/dev/null", O_RDWR);
    ::dup2(nothing, 1);
    ::dup2(nothing, 2);
    ::execl(path.c_str(), path.c_str(), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", profile.c_str(), "about:blank", nullptr);
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  process_->to = in[1];
  process_->from = out[0];
  const Json target = call("Target.createTarget", {{"url", "about:blank"}});
  session_ = call("Target.attachToTarget", {{"targetId", target.at("targetId")}, {"flatten", true}})
                 .at("sessionId");
  for (const char* domain : {"Page", "Runtime", "Log", "Network"}) {
    call(std::string(domain) + ".enable");
  }
}

Browser::~Browser() = default;

Json Browser::call(const std::string& method, const Json& parameters) {
  Json message = {{"id", ++last_id_}, {"method", method}, {"params", parameters}};
  if (!session_.empty() && method.rfind("Target.", 0) != 0) message["sessionId"] = session_;
  process_->send(message);
  while (true) {
    const Json answer = process_->receive();
    if (!answer.contains("id")) {
      note(answer);
      continue;
    }
    if (answer.at("id") != last_id_) continue;
    if (answer.contains("error"))
      throw std::runtime_error(method + ": " + answer.at("error").dump());
    return answer.at("result");
  }
}

void Browser::note(const Json& event) {
  const std::string method = event.value("method", "");
  const Json parameters = event.value("params", Json::object());
  if (method == "Runtime.exceptionThrown") {
    problems_.push_back("exception: " + parameters.at("exceptionDetails").dump());
  } else if (method == "Runtime.consoleAPICalled") {
    problems_.push_back("console: " + parameters.at("args").dump());
  } else if (method == "Log.entryAdded") {
    problems_.push_back("log: " + parameters.at("entry").value("text", ""));
  } else if (method == "Network.requestWillBeSent") {
    const std::string url = parameters.at("request").value("url", "");
    if (url.rfind(page_, 0) != 0 && url.rfind("data:", 0) != 0)
      problems_.push_back("request: " + url);
  } else if (method == "Page.javascriptDialogOpening") {
    problems_.push_back("dialog: " + parameters.value("message", ""));
    // Nobody would close it.
    process_->send({{"id", 0},
                    {"method", "Page.handleJavaScriptDialog"},
                    {"params", {{"accept", false}}},
                    {"sessionId", session_}});
  }
}

void Browser::set_size(int width, int height) {
  width_ = width;
  call("Emulation.setDeviceMetricsOverride",
       {{"width", width}, {"height", height}, {"deviceScaleFactor", 1}, {"mobile", width < 500}});
}

void Browser::set_dark(bool dark) {
  call("Emulation.setEmulatedMedia",
       {{"features", {{{"name", "prefers-color-scheme"}, {"value", dark ? "dark" : "light"}}}}});
}

void Browser::open(const std::filesystem::path& page, const std::string& fragment) {
  // From nowhere: a page that is open already would only move to the fragment.
  call("Page.navigate", {{"url", "about:blank"}});
  page_ = "file://" + std::filesystem::absolute(page).string();
  call("Page.navigate", {{"url", page_ + fragment}});
  if (!wait_for("document.readyState === 'complete' && location.protocol === 'file:'")) {
    throw std::runtime_error("the browser does not finish " + page_);
  }
  problems_.erase(std::remove_if(problems_.begin(), problems_.end(),
                                 [](const std::string& p) { return p == "request: about:blank"; }),
                  problems_.end());
}

Json Browser::value(const std::string& expression) {
  const Json result =
      call("Runtime.evaluate",
           {{"expression", expression}, {"returnByValue", true}, {"awaitPromise", true}});
  if (result.contains("exceptionDetails")) {
    return {{"exception", result.at("exceptionDetails").dump()}};
  }
  return result.at("result").value("value", Json());
}

bool Browser::wait_for(const std::string& expression) {
  for (const auto until = Clock::now() + kPatience; Clock::now() < until;) {
    if (value("Boolean(" + expression + ")") == true) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

void Browser::press(const std::string& key) {
  Json parameters = {{"type", "keyDown"}, {"key", key}};
  if (key.size() == 1) parameters["text"] = key;
  if (key == "Enter") parameters.update({{"text", "\r"}, {"windowsVirtualKeyCode", 13}});
  call("Input.dispatchKeyEvent", parameters);
  parameters["type"] = "keyUp";
  parameters.erase("text");
  call("Input.dispatchKeyEvent", parameters);
}

void Browser::screenshot(const std::filesystem::path& file) {
  constexpr int kMostHeight = 16000;  // what a picture can have
  const auto height = value("document.documentElement.scrollHeight").get<int>();
  set_size(width_, std::min(height, kMostHeight));
  // Charts are drawn when they come near.
  wait_for(
      "typeof Chart === 'undefined' || [...document.querySelectorAll('figure[data-chart] canvas')]"
      ".every(c => Chart.getChart(c) || c.getBoundingClientRect().top > innerHeight)");
  std::filesystem::create_directories(file.parent_path());
  write_file(file, decode_base64(call("Page.captureScreenshot").at("data")));
}

std::vector<std::string> Browser::problems() {
  value("1");  // what was under way has been said by now
  return std::exchange(problems_, {});
}

}  // namespace moebench::test
