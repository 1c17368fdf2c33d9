// Downloads by HTTPS: resumed where they were cut off, bounded in size, and careful with secrets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace moebench {

struct DownloadOptions {
  std::int64_t max_bytes = std::int64_t{2} << 30;
  // Only for a mirror that the user named.
  bool allow_http = false;
  // Sent to `token_hosts`, and hosts below them, over https; never to where they redirect to,
  // unless that is one of them, too. Never printed.
  std::string token;
  std::vector<std::string> token_hosts = {"huggingface.co", "hf.co"};
  bool allow_token_over_http = false;  // for tests

  int connect_timeout_s = 30;
  int stall_timeout_s = 60;  // without a byte
  int max_redirects = 10;
  // `total` is 0 where the server does not say.
  std::function<void(std::int64_t done, std::int64_t total)> on_progress;
  std::function<bool()> stop_requested;
};

struct DownloadResult {
  std::int64_t bytes = 0;         // of the whole file
  std::int64_t resumed_from = 0;  // that an earlier try had left
};

// Writes the content of `url` to `path`. A try that was cut off leaves what it has in `path`, and
// in `path`.tag by which name the server knew that version; the next one asks for the rest of the
// same version, and starts over if the server has another or does not do parts. Proxies are taken
// from the environment (https_proxy, no_proxy, ...). Throws Error(kIo) naming the URL without its
// secrets, Error(kInterrupted) when asked to stop.
DownloadResult download(const std::string& url, const std::filesystem::path& path,
                        const DownloadOptions& options);

// The URL without user, password and query, any of which may be a secret.
std::string shown_url(const std::string& url);

// The tag beside a partial download.
std::filesystem::path tag_path(const std::filesystem::path& path);

}  // namespace moebench
