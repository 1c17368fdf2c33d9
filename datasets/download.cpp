// By libcurl. Redirects are followed here, one request each, so that every hop is checked anew for
// its scheme and for whether the token may go there.
#include "datasets/download.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <memory>

#include "kernels/core/error.h"

namespace moebench {
namespace {

struct CurlFree {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(std::FILE* file) const { std::fclose(file); }
};

struct UrlParts {
  std::string scheme;
  std::string host;
  std::string shown;  // without user, password and query: these may be secrets
};

UrlParts parts_of(const std::string& url) {
  const std::unique_ptr<CURLU, CurlFree> parsed(curl_url());
  require_or(
      ErrorCode::kIo,
      parsed != nullptr && curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) == CURLUE_OK,
      "download a file: what was given is not a URL");
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), which, &text, 0) != CURLUE_OK) return std::string();
    std::string copy = text;
    curl_free(text);
    return copy;
  };
  UrlParts parts{part(CURLUPART_SCHEME), part(CURLUPART_HOST), ""};
  const std::string port = part(CURLUPART_PORT);
  parts.shown = fmt::format("{}://{}{}{}{}", parts.scheme, parts.host, port.empty() ? "" : ":",
                            port, part(CURLUPART_PATH));
  return parts;
}

bool is_or_is_below(const std::string& host, const std::string& domain) {
  return host == domain || (host.size() > domain.size() && host.ends_with(domain) &&
                            host[host.size() - domain.size() - 1] == '.');
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

bool token_may_go_to(const UrlParts& url, const DownloadOptions& options) {
  if (options.token.empty()) return false;
  if (url.scheme != "https" && !options.allow_token_over_http) return false;
  const std::string host = lower(url.host);
  return std::any_of(options.token_hosts.begin(), options.token_hosts.end(),
                     [&](const std::string& domain) { return is_or_is_below(host, domain); });
}

// One request and what came of it.
struct Transfer {
  Transfer(const DownloadOptions& the_options, const std::filesystem::path& the_path)
      : options(the_options), path(the_path) {}

  const DownloadOptions& options;
  const std::filesystem::path& path;
  std::string shown;
  std::int64_t asked_from = 0;  // bytes that are there already
  CURL* handle = nullptr;

  std::unique_ptr<std::FILE, CurlFree> file;
  std::int64_t bytes = 0;  // of the file so far
  std::int64_t resumed_from = 0;
  std::string tag;            // ETag or Last-Modified, of the response being read
  std::string content_range;  // likewise
  std::string failure;        // why the transfer was stopped by us
  bool stopped = false;
};

std::string header_value(std::string_view line, std::string_view name) {
  if (lower(std::string(line.substr(0, name.size()))) != name) return "";
  line.remove_prefix(name.size());
  const auto begin = line.find_first_not_of(" \t");
  const auto end = line.find_last_not_of(" \t\r\n");
  return begin == std::string_view::npos ? "" : std::string(line.substr(begin, end - begin + 1));
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // of a proxy's response, or the server's own
    transfer.tag.clear();
    transfer.content_range.clear();
  }
  // A weak ETag ("W/...") does not promise equal bytes.
  if (const std::string tag = header_value(line, "etag:"); tag.starts_with('"')) transfer.tag = tag;
  if (transfer.tag.empty()) transfer.tag = header_value(line, "last-modified:");
  if (const std::string range = header_value(line, "content-range:"); !range.empty()) {
    transfer.content_range = range;
  }
  return size * count;
}

long status_of(CURL* handle) {
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

// Opens the file to append or anew, as the server's answer has it.
bool begin_body(Transfer& transfer) {
  const bool is_rest =
      status_of(transfer.handle) == 206 &&
      transfer.content_range.starts_with(fmt::format("bytes {}-", transfer.asked_from));
  if (status_of(transfer.handle) == 206 && !is_rest) {
    transfer.failure = fmt::format("the server sent '{}' where the bytes from {} were wanted",
                                   transfer.content_range.substr(0, 80), transfer.asked_from);
    return false;
  }
  transfer.resumed_from = is_rest ? transfer.asked_from : 0;
  transfer.bytes = transfer.resumed_from;
  transfer.file.reset(std::fopen(transfer.path.c_str(), is_rest ? "ab" : "wb"));
  if (transfer.file == nullptr) {
    transfer.failure = fmt::format("{} cannot be written", transfer.path.string());
    return false;
  }
  std::ofstream(tag_path(transfer.path), std::ios::binary) << transfer.tag;
  return true;
}

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::size_t length = size * count;
  const long status = status_of(transfer.handle);
  if (status != 200 && status != 206) return length;  // the page of an error or a redirect
  if (transfer.file == nullptr && !begin_body(transfer)) return 0;
  transfer.bytes += static_cast<std::int64_t>(length);
  if (transfer.bytes > transfer.options.max_bytes) {
    transfer.failure = fmt::format("it is larger than {} bytes", transfer.options.max_bytes);
    return 0;
  }
  if (std::fwrite(data, 1, length, transfer.file.get()) != length) {
    transfer.failure =
        fmt::format("{} cannot be written (is the disk full?)", transfer.path.string());
    return 0;
  }
  return length;
}

int on_progress(void* user, curl_off_t total, curl_off_t done, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (transfer.options.stop_requested && transfer.options.stop_requested()) {
    transfer.stopped = true;
    return 1;
  }
  if (transfer.options.on_progress && transfer.file != nullptr) {
    transfer.options.on_progress(transfer.resumed_from + done,
                                 total > 0 ? transfer.resumed_from + total : 0);
  }
  return 0;
}

std::string read_small(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

template <class Value>
void set(CURL* handle, CURLoption option, Value value) {
  require_or(ErrorCode::kIo, curl_easy_setopt(handle, option, value) == CURLE_OK,
             "download a file: libcurl refused option {}", static_cast<int>(option));
}

struct Answer {
  long status = 0;
  std::string redirect;  // the next URL; "" if the file is there
};

// The request to one URL.
Answer request(const std::string& url, Transfer& transfer) {
  const DownloadOptions& options = transfer.options;
  const UrlParts parts = parts_of(url);
  transfer.shown = parts.shown;
  require_or(ErrorCode::kIo,
             parts.scheme == "https" || (options.allow_http && parts.scheme == "http"),
             "download {}: only https is accepted", parts.shown);
  const std::unique_ptr<CURL, CurlFree> handle(curl_easy_init());
  require_or(ErrorCode::kIo, handle != nullptr, "download {}: libcurl did not start", parts.shown);
  transfer.handle = handle.get();
  set(handle.get(), CURLOPT_URL, url.c_str());
  set(handle.get(), CURLOPT_PROTOCOLS_STR, options.allow_http ? "https,http" : "https");
  set(handle.get(), CURLOPT_FOLLOWLOCATION, 0L);
  set(handle.get(), CURLOPT_NOSIGNAL, 1L);
  set(handle.get(), CURLOPT_CONNECTTIMEOUT, static_cast<long>(options.connect_timeout_s));
  set(handle.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(handle.get(), CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_timeout_s));
  set(handle.get(), CURLOPT_USERAGENT, "moebench");
  set(handle.get(), CURLOPT_HEADERFUNCTION, on_header);
  set(handle.get(), CURLOPT_HEADERDATA, &transfer);
  set(handle.get(), CURLOPT_WRITEFUNCTION, on_body);
  set(handle.get(), CURLOPT_WRITEDATA, &transfer);
  set(handle.get(), CURLOPT_NOPROGRESS, 0L);
  set(handle.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  set(handle.get(), CURLOPT_XFERINFODATA, &transfer);
  std::unique_ptr<curl_slist, CurlFree> headers;
  const auto add = [&](const std::string& header) {
    headers.reset(curl_slist_append(headers.release(), header.c_str()));
  };
  if (token_may_go_to(parts, options)) add("Authorization: Bearer " + options.token);
  std::string range;
  if (transfer.asked_from > 0) {
    range = fmt::format("{}-", transfer.asked_from);
    set(handle.get(), CURLOPT_RANGE, range.c_str());
    add("If-Range: " + read_small(tag_path(transfer.path)));
  }
  if (headers) set(handle.get(), CURLOPT_HTTPHEADER, headers.get());

  const CURLcode code = curl_easy_perform(handle.get());
  if (transfer.file != nullptr && std::fclose(transfer.file.release()) != 0) {
    transfer.failure =
        fmt::format("{} cannot be written (is the disk full?)", transfer.path.string());
  }
  require_or(ErrorCode::kInterrupted, !transfer.stopped, "download {}: interrupted", parts.shown);
  require_or(ErrorCode::kIo, transfer.failure.empty(), "download {}: {}", parts.shown,
             transfer.failure);
  require_or(ErrorCode::kIo, code == CURLE_OK, "download {}: {}", parts.shown,
             curl_easy_strerror(code));
  const long status = status_of(handle.get());
  if (status >= 300 && status < 400) {
    char* target = nullptr;
    curl_easy_getinfo(handle.get(), CURLINFO_REDIRECT_URL, &target);
    require_or(ErrorCode::kIo, target != nullptr, "download {}: status {} without a place to go",
               parts.shown, status);
    return {status, target};
  }
  const bool wants_account = status == 401 || status == 403;
  require_or(
      ErrorCode::kIo, status == 200 || status == 206 || status == 416,
      "download {}: the server answered with status {}{}", parts.shown, status,
      wants_account ? " (if it wants an account: accept its terms there and set HF_TOKEN)" : "");
  if (transfer.bytes == 0 && status == 200) begin_body(transfer);  // an empty file
  return {status, ""};
}

}  // namespace

std::string shown_url(const std::string& url) { return parts_of(url).shown; }

std::filesystem::path tag_path(const std::filesystem::path& path) { return path.string() + ".tag"; }

DownloadResult download(const std::string& url, const std::filesystem::path& path,
                        const DownloadOptions& options) {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  require_or(ErrorCode::kIo, ready, "download a file: libcurl did not start");
  require(std::all_of(options.token.begin(), options.token.end(),
                      [](char c) { return c > ' ' && c < '\x7f'; }),
          "download {}: the token in HF_TOKEN holds characters that no token has",
          parts_of(url).shown);
  std::error_code ignored;
  const std::uintmax_t there = std::filesystem::file_size(path, ignored);
  // Without the name of its version a part cannot be continued: it may be of another.
  bool may_resume = !ignored && there > 0 && !read_small(tag_path(path)).empty();
  std::string at = url;
  for (int hop = 0; hop <= options.max_redirects; ++hop) {
    Transfer transfer(options, path);
    transfer.asked_from = may_resume ? static_cast<std::int64_t>(there) : 0;
    const Answer answer = request(at, transfer);
    if (answer.status == 416 && may_resume) {  // what is there is no beginning of that version
      may_resume = false;
    } else if (answer.redirect.empty()) {
      require_or(ErrorCode::kIo, answer.status != 416, "download {}: the server has no bytes of it",
                 transfer.shown);
      std::filesystem::remove(tag_path(path), ignored);
      return {transfer.bytes, transfer.resumed_from};
    } else {
      at = answer.redirect;
    }
  }
  fail(ErrorCode::kIo, "download {}: more than {} redirects", parts_of(url).shown,
       options.max_redirects);
}

}  // namespace moebench
