// The parent's end of the protocol in bench/arm_worker.h.
#include "bench/arm_process.h"

#include <signal.h>

#include <algorithm>
#include <cmath>

#include "bench/arm_worker.h"
#include "bench/interrupt.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

using Clock = std::chrono::steady_clock;

Trouble lost(Status status, std::string reason) { return {status, std::move(reason), true}; }

// "" where there is no such text: what another program says may be anything.
std::string text_of(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// What `read` throws becomes trouble.
template <class Read>
Trouble read_answer(const Read& read) {
  try {
    read();
    return {};
  } catch (const Error& error) {
    return lost(Status::kFailed, error.what());
  }
}

}  // namespace

ArmProcesses::ArmProcesses(std::vector<ArmSpec> arms, ArmProcessOptions options)
    : arms_(std::move(arms)),
      options_(std::move(options)),
      begin_(Clock::now()),
      checked_(arms_.size()),
      digests_(arms_.size(), std::vector<std::string>(options_.tests.size())),
      details_(arms_.size(), OrderedJson::object()) {}

ArmProcesses::~ArmProcesses() = default;

double ArmProcesses::now_s() {
  return std::chrono::duration<double>(Clock::now() - begin_).count();
}

Trouble ArmProcesses::start(ArmId id) {
  const ArmSpec& spec = arms_[id.arm];
  const std::filesystem::path program =
      spec.program.empty() ? std::filesystem::read_symlink("/proc/self/exe") : spec.program;
  Process& process = processes_[{id.arm, id.copy}];
  process.repetition_s.assign(options_.tests.size(), 0);
  process.child = std::make_unique<ChildProcess>(program, std::vector{std::string(kArmCommand)}, "",
                                                 options_.log, ChildProcess::Input::kStaysOpen);
  constexpr double kHelloTimeoutS = 30;
  Json hello;
  Trouble trouble = listen(id, "hello", kHelloTimeoutS, hello);
  if (!trouble.ok()) {
    if (trouble.status == Status::kCrashed) {
      trouble.reason += fmt::format(" before it said hello; is {} a moebench that has arms ({})?",
                                    program.string(), kArmProtocol);
    }
    return trouble;
  }
  const std::string protocol = text_of(hello, "protocol");
  if (protocol != kArmProtocol) {
    stop(id);
    return lost(Status::kUnsupported,
                fmt::format("{} (version {}, commit {}) speaks {}, this program {}: build both "
                            "from sources that have the same",
                            program.string(), text_of(hello, "version"), text_of(hello, "commit"),
                            protocol, kArmProtocol));
  }
  Job job;
  for (const Scenario& test : options_.tests) {
    job.cases.push_back({"bench", options_.model, spec.plan, test});
  }
  job.engine = options_.engine;
  job.threads = options_.threads;
  Json ready;
  trouble = ask(id, {{"job", to_json(job)}, {"check_outputs", !checked_[id.arm]}}, "ready",
                options_.start_timeout_s, ready);
  if (!trouble.ok()) {
    trouble.process_lost = true;
    stop(id);
    return trouble;
  }
  if (!checked_[id.arm]) {
    if (const auto it = ready.find("details"); it != ready.end() && it->is_object()) {
      details_[id.arm] = OrderedJson(*it);
    }
    details_[id.arm]["version"] = text_of(hello, "version");
    details_[id.arm]["commit"] = text_of(hello, "commit");
    checked_[id.arm] = true;
  }
  return trouble;
}

Trouble ArmProcesses::warm_up(ArmId id, std::size_t test, WarmUp& out) {
  Json answer;
  const Trouble trouble =
      ask(id, {{"do", "warm_up"}, {"test", test}, {"seconds", options_.block_s}}, "warm",
          options_.start_timeout_s, answer);
  if (!trouble.ok()) return trouble;
  const Trouble unread = read_answer([&] {
    JsonFields fields(answer, "an arm's warm-up");
    out.repetitions = fields.required<std::int64_t>("repetitions");
    out.repetition_s = fields.required<double>("repetition_s");
    out.steady = fields.required<bool>("steady");
    out.digest = fields.required<std::string>("digest");
  });
  if (!unread.ok()) {
    stop(id);
    return unread;
  }
  processes_[{id.arm, id.copy}].repetition_s[test] = out.repetition_s;
  // Greedy decoding of the same prompts by the same plan: another process must say the same.
  std::string& witness = digests_[id.arm][test];
  if (witness.empty()) witness = out.digest;
  if (witness != out.digest) {
    stop(id);
    return lost(Status::kWrongOutput,
                fmt::format("another process of this arm gave other tokens ({} instead of {}); its "
                            "time would mean nothing",
                            out.digest, witness));
  }
  return trouble;
}

Trouble ArmProcesses::run(ArmId id, std::size_t test, Block& out) {
  Json answer;
  const Process& process = processes_[{id.arm, id.copy}];
  const Trouble trouble = ask(id, {{"do", "block"}, {"test", test}, {"seconds", options_.block_s}},
                              "block", patience_s(process, test), answer);
  if (!trouble.ok()) return trouble;
  const Trouble unread = read_answer([&] {
    JsonFields fields(answer, "an arm's block");
    const auto start_ns = fields.required<std::int64_t>("start_ns");
    out.start_s = static_cast<double>(start_ns - begin_.time_since_epoch().count()) * 1e-9;
    out.seconds = fields.required<double>("seconds");
    out.wait_share = fields.optional<double>("wait_share", -1);
    out.conditions.reset();
    if (const Json* conditions = fields.find("conditions"); conditions != nullptr) {
      out.conditions = conditions_from_json(*conditions, fields.path("conditions"));
    }
    out.rates.clear();
    const Json* rates = fields.find("rates");
    require(rates != nullptr && rates->is_array() && !rates->empty(),
            "an arm's block: rates are missing");
    for (const Json& rate : *rates) {
      const double value = rate.is_number() ? rate.get<double>() : 0;
      require(value > 0 && std::isfinite(value), "an arm's block: a rate is {}",
              json_excerpt(rate));
      out.rates.push_back(value);
    }
  });
  if (!unread.ok()) stop(id);
  return unread;
}

void ArmProcesses::stop_all() { processes_.clear(); }

void ArmProcesses::stop(ArmId id) { processes_[{id.arm, id.copy}].child.reset(); }

double ArmProcesses::patience_s(const Process& process, std::size_t test) const {
  constexpr double kLeastS = 60;
  constexpr double kTimes = 50;
  return std::max(kLeastS, kTimes * std::max(process.repetition_s[test], options_.block_s));
}

Trouble ArmProcesses::ask(ArmId id, const OrderedJson& message, std::string_view expected,
                          double timeout_s, Json& answer) {
  processes_[{id.arm, id.copy}].child->send(json_line(message) + "\n");
  return listen(id, expected, timeout_s, answer);
}

Trouble ArmProcesses::listen(ArmId id, std::string_view expected, double timeout_s, Json& answer) {
  ChildProcess& child = *processes_[{id.arm, id.copy}].child;
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_s);
  std::string line;
  ChildProcess::Wait event = ChildProcess::Wait::kInterrupted;
  // A signal that is no request to stop changes nothing.
  while (event == ChildProcess::Wait::kInterrupted) {
    require_or(ErrorCode::kInterrupted, !interrupted(), "time an arm: interrupted");
    const double left_s = std::chrono::duration<double>(deadline - Clock::now()).count();
    event = child.next_line(static_cast<int>(std::clamp(left_s * 1e3, 0.0, 1e9)), line);
  }
  if (event == ChildProcess::Wait::kTimeout) {
    stop(id);
    return lost(Status::kTimeout,
                fmt::format("its process gave no answer for {:.0f} s", timeout_s));
  }
  if (event == ChildProcess::Wait::kEnd) {
    const std::string death = child.wait_for_end();
    stop(id);
    return lost(Status::kCrashed,
                fmt::format("its process {}", death.empty() ? "ended early" : death));
  }
  const Trouble garbled = read_answer([&] { answer = parse_json(line, "an arm's answer"); });
  const std::string kind =
      garbled.ok() && answer.is_object() ? text_of(answer, "event") : std::string();
  if (kind == expected) return {};
  Trouble trouble;
  if (kind == "failed") {
    const Trouble unread = read_answer([&] {
      trouble.reason = text_of(answer, "reason");
      trouble.status = parse_status(text_of(answer, "status"), "an arm's failure");
    });
    trouble.process_lost = trouble.status == Status::kWrongOutput;
    if (unread.ok() && !trouble.ok()) return trouble;
  }
  stop(id);
  return lost(Status::kFailed,
              fmt::format("its process said '{}' instead of '{}'", line.substr(0, 100), expected));
}

}  // namespace moebench
