// Reading and writing the event log.
#include "bench/event_log.h"

#include <algorithm>
#include <array>
#include <limits>

#include "engine/harmony.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 32;
// A hundred years: sums and differences of such times do not overflow.
constexpr std::int64_t kMostNs = std::int64_t{100} * 366 * 86400 * 1'000'000'000;

FinishReason finish_from_name(const std::string& name, const std::string& where) {
  std::array<std::string_view, 5> names;
  for (std::size_t i = 0; i < names.size(); ++i) {
    names[i] = finish_reason_name(static_cast<FinishReason>(i));
  }
  return static_cast<FinishReason>(index_of_name(names, name, where, "finish reason"));
}

std::optional<std::int64_t> optional_time(JsonFields& fields, std::string_view name) {
  const Json* value = fields.find(name);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return in_range<std::int64_t>(fields.required<std::int64_t>(name), 0, kMostNs, fields.path(name));
}

}  // namespace

RequestEvents events_of(const RequestResult& result, std::int64_t origin_ns) {
  RequestEvents events;
  events.id = result.id;
  events.submitted_ns = result.submitted_ns - origin_ns;
  if (result.started_ns > 0) events.started_ns = result.started_ns - origin_ns;
  for (const std::int64_t ns : result.token_ns) events.token_ns.push_back(ns - origin_ns);
  events.finished_ns = result.finished_ns - origin_ns;
  events.finish = result.finish;
  events.error = result.error;
  events.prompt_tokens = result.prompt_tokens;
  events.cached_tokens = result.cached_tokens;
  return events;
}

std::string token_channels(const Tokenizer& tokenizer, std::span<const std::int32_t> tokens) {
  HarmonyParser parser(tokenizer, Role::kAssistant);
  const HarmonyTokens special = HarmonyTokens::of(tokenizer);
  std::string channels;
  for (const std::int32_t token : tokens) {
    const Message* message = parser.current();
    char letter = kOtherToken;
    if (message != nullptr && !special.ends_message(token)) {
      if (message->channel == "analysis") letter = kReasoningToken;
      if (message->channel == "final") letter = kFinalToken;
    }
    channels += letter;
    parser.push(token);
  }
  return channels;
}

OrderedJson to_json(const RequestEvents& events) {
  OrderedJson json = {{"id", events.id}, {"point", events.point}};
  if (events.scheduled_ns) json["scheduled_ns"] = *events.scheduled_ns;
  json["submitted_ns"] = events.submitted_ns;
  if (events.started_ns) json["started_ns"] = *events.started_ns;
  json["token_ns"] = events.token_ns;
  if (!events.channels.empty()) json["channels"] = events.channels;
  json["finished_ns"] = events.finished_ns;
  json["finish"] = finish_reason_name(events.finish);
  if (!events.error.empty()) json["error"] = events.error;
  json["prompt_tokens"] = events.prompt_tokens;
  json["cached_tokens"] = events.cached_tokens;
  return json;
}

RequestEvents request_events_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  RequestEvents events;
  const auto number = [&](std::string_view name, std::int64_t high) {
    return in_range<std::int64_t>(fields.required<std::int64_t>(name), 0, high, fields.path(name));
  };
  events.id = static_cast<std::uint64_t>(number("id", std::numeric_limits<std::int64_t>::max()));
  events.point = in_range<std::int64_t>(fields.optional<std::int64_t>("point", 0), 0, 1'000'000,
                                        fields.path("point"));
  events.scheduled_ns = optional_time(fields, "scheduled_ns");
  events.submitted_ns = number("submitted_ns", kMostNs);
  events.started_ns = optional_time(fields, "started_ns");
  events.token_ns = fields.required<std::vector<std::int64_t>>("token_ns");
  events.finished_ns = number("finished_ns", kMostNs);
  events.channels = fields.optional<std::string>("channels", "");
  events.finish = finish_from_name(fields.required<std::string>("finish"), fields.path("finish"));
  events.error = fields.optional<std::string>("error", "");
  events.prompt_tokens = number("prompt_tokens", kMostTokens);
  events.cached_tokens = number("cached_tokens", kMostTokens);
  fields.finish();

  require(events.cached_tokens <= events.prompt_tokens, "{}: {} of {} prompt tokens",
          fields.path("cached_tokens"), events.cached_tokens, events.prompt_tokens);
  require(events.channels.empty() || events.channels.size() == events.token_ns.size(),
          "{}: {} letters for {} tokens", fields.path("channels"), events.channels.size(),
          events.token_ns.size());
  require(events.channels.find_first_not_of("rfo") == std::string::npos,
          "{}: only the letters r, f and o are known", fields.path("channels"));
  std::int64_t before = events.submitted_ns;
  const auto in_order = [&](std::int64_t ns, std::string_view name) {
    require(ns >= before, "{}: {} ns comes before {} ns, which should be earlier",
            fields.path(name), ns, before);
    before = ns;
  };
  if (events.started_ns) in_order(*events.started_ns, "started_ns");
  for (const std::int64_t ns : events.token_ns) in_order(ns, "token_ns");
  in_order(events.finished_ns, "finished_ns");
  require(!events.scheduled_ns || *events.scheduled_ns <= events.submitted_ns,
          "{}: submitted before its time", fields.path("scheduled_ns"));
  return events;
}

std::filesystem::path event_log_path(const std::filesystem::path& out_dir,
                                     std::string_view case_id) {
  return out_dir / "events" / fmt::format("{}.jsonl", case_id);
}

std::vector<RequestEvents> read_event_log(const std::filesystem::path& path) {
  require_or(ErrorCode::kIo, std::filesystem::exists(path),
             "read the event log {}: there is no such file", path.string());
  std::vector<RequestEvents> log;
  for_each_whole_json_line(path, [&](const Json& json, const std::string& where) {
    log.push_back(request_events_from_json(json, where));
  });
  return log;
}

}  // namespace moebench
