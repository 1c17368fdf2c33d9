// Events to JSON, in place.
#include "bench/trace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/mapped_file.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::size_t kHeldBack = 1 << 16;  // bytes between writes
constexpr std::string_view kOpen = "[";
constexpr std::string_view kClose = "\n]\n";
// Tracks of a process.
constexpr int kCases = 1;
constexpr int kSteps = 2;
constexpr int kRequests = 3;

double microseconds(std::int64_t ns) { return static_cast<double>(ns) / 1e3; }

}  // namespace

TraceFile::TraceFile(const std::filesystem::path& path, bool append) : path_(path) {
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  const bool goes_on = append && std::filesystem::exists(path);
  if (goes_on) {
    const std::string text = read_text_file(path, std::size_t{4} << 30);
    require_or(ErrorCode::kParse, text.starts_with(kOpen) && text.ends_with(kClose),
               "continue the trace {}: it does not end as a trace of ours", path.string());
    end_ = static_cast<std::int64_t>(text.size() - kClose.size());
    empty_ = text.size() == kOpen.size() + kClose.size();
    // Tracks are numbered on.
    for (std::size_t at = 0; (at = text.find("\"process_name\"", at)) != std::string::npos; ++at) {
      ++process_;
    }
  }
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (goes_on ? 0 : O_TRUNC), 0644);
  require_or(ErrorCode::kIo, fd_ >= 0, "write the trace {}: {}", path.string(),
             std::strerror(errno));
  if (goes_on) return;
  end_ = static_cast<std::int64_t>(kOpen.size());
  const std::string text = fmt::format("{}{}", kOpen, kClose);
  require_or(ErrorCode::kIo,
             pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()),
             "write the trace {}: {}", path.string(), std::strerror(errno));
}

TraceFile::~TraceFile() {
  try {
    flush();
  } catch (const Error&) {
    // What was written before is whole.
  }
  close(fd_);
}

void TraceFile::flush() {
  if (pending_.empty()) return;
  // The first event has no comma before it.
  std::string text = empty_ ? pending_.substr(1) : pending_;
  const auto events = static_cast<std::int64_t>(text.size());
  text += kClose;
  const ssize_t written = pwrite(fd_, text.data(), text.size(), static_cast<off_t>(end_));
  require_or(ErrorCode::kIo, written == static_cast<ssize_t>(text.size()), "write the trace {}: {}",
             path_.string(), written < 0 ? std::strerror(errno) : "the disk is full");
  end_ += events;
  empty_ = false;
  pending_.clear();
}

void TraceFile::add_event(const OrderedJson& event) {
  pending_ += ",\n" + json_line(event);
  if (pending_.size() >= kHeldBack) flush();
}

void TraceFile::begin_process(std::string_view process) {
  ++process_;
  add_event({{"name", "process_name"},
             {"ph", "M"},
             {"pid", process_},
             {"tid", 0},
             {"args", {{"name", process}}}});
  for (const auto& [track, name] :
       {std::pair{kCases, "cases"}, {kSteps, "steps and ops"}, {kRequests, "requests"}}) {
    add_event({{"name", "thread_name"},
               {"ph", "M"},
               {"pid", process_},
               {"tid", track},
               {"args", {{"name", name}}}});
  }
}

void TraceFile::add_case(std::string_view label, std::int64_t begin_ns, std::int64_t end_ns) {
  add_event({{"name", label},
             {"cat", "case"},
             {"ph", "X"},
             {"pid", process_},
             {"tid", kCases},
             {"ts", microseconds(begin_ns)},
             {"dur", microseconds(end_ns - begin_ns)}});
  flush();
}

void TraceFile::add(const Model::Span& span) {
  const bool is_step = span.name == "step";
  OrderedJson args = {{"tokens", span.num_tokens}, {"sequences", span.num_sequences}};
  if (span.layer >= 0) args["layer"] = span.layer;
  add_event({{"name", span.name},
             {"cat", is_step ? "step" : "op"},
             {"ph", "X"},
             {"pid", process_},
             {"tid", kSteps},
             {"ts", microseconds(span.begin_ns)},
             {"dur", microseconds(span.end_ns - span.begin_ns)},
             {"args", args}});
}

void TraceFile::add(const RequestResult& request) {
  // Ids repeat from one repetition to the next: the time of submission tells them apart.
  const std::string id = fmt::format("{}.{}", request.submitted_ns, request.id);
  const auto event = [&](const char* phase, std::string_view name, std::int64_t at_ns,
                         const OrderedJson& args) {
    add_event({{"name", name},
               {"cat", "request"},
               {"ph", phase},
               {"id", id},
               {"pid", process_},
               {"tid", kRequests},
               {"ts", microseconds(at_ns)},
               {"args", args}});
  };
  const std::string name = fmt::format("request {}", request.id);
  event("b", name, request.submitted_ns,
        {{"prompt_tokens", request.prompt_tokens}, {"cached_tokens", request.cached_tokens}});
  if (!request.token_ns.empty()) {
    event("n", "first token", request.token_ns.front(), OrderedJson::object());
  }
  event("e", name, request.finished_ns,
        {{"output_tokens", request.tokens.size()}, {"finish", finish_reason_name(request.finish)}});
}

Model::Tracer TraceFile::tracer() {
  return {[this](const Model::Span& span) { add(span); },
          [this](const RequestResult& request) { add(request); }};
}

}  // namespace moebench
