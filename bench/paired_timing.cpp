// Sessions, rounds, looks.
#include "bench/paired_timing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "evals/timing_statistics.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

// More sessions make the t quantile no smaller to speak of, and cost starts.
constexpr std::int64_t kSessionsAimedAt = 24;
// At the first look an interval from fewer sessions would be wider than any difference.
constexpr std::size_t kSessionsOfFirstLook = 4;
constexpr std::size_t kLeastSessions = 3;
// Starting processes may take a third of a session: where starts are slow, sessions get longer, as
// long as at least so many of them fit the budget.
constexpr double kSessionPerStart = 3;
constexpr double kSessionsAtLeast = 8;
// Of alpha, the part that is spent. Levels that are exact for a known variance let more through
// when they are used with t quantiles of trimmed means of few sessions: in simulations 1.4 times as
// much (tests/bench/test_paired_timing.cpp holds the result to alpha).
constexpr double kSpentPart = 0.65;
// A self-test beyond this level says that the method does not hold on this machine now.
constexpr double kSelfTestLevel = 0.999;

// A machine on which the base differs from itself can tell nothing about others.
void apply_self_tests(PairedTiming& timing) {
  for (const Comparison& self : timing.self_tests) {
    if (self.sessions.values.size() < kSessionsOfFirstLook) continue;
    const Interval wide = robust_mean(self.sessions.values).interval(kSelfTestLevel);
    if (wide.low <= 0 && wide.high >= 0) continue;
    for (Comparison& c : timing.comparisons) {
      if (c.test != self.test || c.status != Status::kOk) continue;
      c.verdict = SpeedVerdict::kInconclusive;
      c.reason = fmt::format(
          "the self-test failed: two processes of the base differ by {:+.2f} %, surely, so the "
          "method does not hold on this machine now",
          (*self.ratio - 1) * 100);
    }
  }
}

class Pairing {
 public:
  Pairing(ArmHost& host, const PairedOptions& options)
      : host_(host), o_(options), random_(options.seed) {
    require(o_.num_arms >= 2 && o_.num_tests >= 1,
            "compare speeds: {} arms, {} tests; expected "
            "at least 2 and 1",
            o_.num_arms, o_.num_tests);
    require(o_.budget_s > 0 && o_.precision > 0 && o_.threshold > 0 && o_.threshold < 1,
            "compare speeds: budget {} s, precision {}, threshold {}; all must be positive",
            o_.budget_s, o_.precision, o_.threshold);
    processes_.push_back({0, 0});
    if (o_.self_test) processes_.push_back({0, 1});
    for (std::size_t arm = 1; arm < o_.num_arms; ++arm) processes_.push_back({arm, 0});
    // Together all comparisons miss with alpha at most (Bonferroni); the self-test stands alone.
    const double alpha = kSpentPart * o_.alpha;
    const double each = alpha / static_cast<double>((o_.num_arms - 1) * o_.num_tests);
    for (std::size_t arm = 1; arm < o_.num_arms; ++arm) {
      for (std::size_t test = 0; test < o_.num_tests; ++test) {
        questions_.push_back({ArmId{arm, 0}, {ArmId{0, 0}, ArmId{0, 1}}, AlphaSpending(each), {}});
        questions_.back().comparison.arm = arm;
        questions_.back().comparison.test = test;
      }
    }
    for (std::size_t test = 0; o_.self_test && test < o_.num_tests; ++test) {
      questions_.push_back({ArmId{0, 1}, {ArmId{0, 0}}, AlphaSpending(alpha), {}});
      questions_.back().comparison.test = test;
      questions_.back().is_self_test = true;
    }
  }

  PairedTiming go() {
    try {
      while (!finished()) {
        session();
        ++out_.sessions;
        take_looks(is_last());
        if (o_.on_session) o_.on_session(result());
      }
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInterrupted) throw;
      out_.interrupted = true;
      take_looks(true);
    }
    host_.stop_all();
    out_.complete = true;
    return result();
  }

 private:
  struct Question {
    ArmId arm;
    std::vector<ArmId> bases;
    AlphaSpending spending;
    Comparison comparison;
    bool is_self_test = false;
    bool decided = false;
    std::size_t sessions_seen = 0;  // at the last look
  };

  // What there is to tell now.
  PairedTiming result() {
    mark_disturbed(out_.samples);
    PairedTiming timing = out_;
    timing.elapsed_s = host_.now_s();
    for (std::size_t arm = 0; arm < o_.num_arms; ++arm) {
      for (std::size_t test = 0; test < o_.num_tests; ++test) {
        if (const Trouble* trouble = trouble_of({arm, 0}, test)) {
          timing.troubles[{arm, test}] = *trouble;
        }
      }
    }
    for (Question question : questions_) {
      conclude(question);
      (question.is_self_test ? timing.self_tests : timing.comparisons)
          .push_back(question.comparison);
    }
    apply_self_tests(timing);
    return timing;
  }

  static std::pair<std::size_t, int> key(ArmId id) { return {id.arm, id.copy}; }

  bool alive(ArmId id) const { return !lost_.contains(key(id)); }
  bool can_run(ArmId id, std::size_t test) const {
    return alive(id) && !unable_.contains({key(id), test});
  }
  // The first trouble is kept: what comes after follows from it.
  void note_trouble(ArmId id, std::size_t test, const Trouble& trouble) {
    if (trouble.process_lost) lost_.try_emplace(key(id), trouble);
    unable_.try_emplace({key(id), test}, trouble);
  }
  bool base_can_run(std::size_t test) const {
    return can_run({0, 0}, test) || (o_.self_test && can_run({0, 1}, test));
  }
  bool is_open(const Question& q) const {
    return !q.is_self_test && !q.decided && can_run(q.arm, q.comparison.test) &&
           base_can_run(q.comparison.test);
  }
  bool wanted(std::size_t test) const {
    return std::ranges::any_of(
        questions_, [&](const Question& q) { return is_open(q) && q.comparison.test == test; });
  }
  // The base runs whatever anybody asks of it.
  bool wanted(ArmId id, std::size_t test) const {
    if (!can_run(id, test) || !wanted(test)) return false;
    return id.arm == 0 || std::ranges::any_of(questions_, [&](const Question& q) {
             return is_open(q) && q.comparison.test == test && q.arm.arm == id.arm;
           });
  }
  std::vector<ArmId> shuffled(std::vector<ArmId> ids) {
    for (std::size_t i = ids.size(); i > 1; --i) {
      std::swap(ids[i - 1],
                ids[static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(i)))]);
    }
    return ids;
  }

  std::int64_t most_pairs() const {
    if (o_.rounds == 0) return 1 << 20;
    const std::int64_t pairs = (o_.rounds + 1) / 2;
    return (pairs + kSessionsAimedAt - 1) / kSessionsAimedAt;
  }
  bool rounds_left(std::size_t test) const {
    const auto it = rounds_.find(test);
    return o_.rounds == 0 || it == rounds_.end() || it->second < o_.rounds;
  }

  bool finished() const {
    for (std::size_t test = 0; test < o_.num_tests; ++test) {
      if (wanted(test) && rounds_left(test)) return out_.sessions > 0 && is_last();
    }
    return true;
  }

  // Whether another session would not fit. What a session costs does not depend on which arm is
  // faster, so neither does the end.
  bool is_last() const {
    if (o_.rounds > 0) {
      bool left = false;
      for (std::size_t test = 0; test < o_.num_tests; ++test) left |= rounds_left(test);
      if (!left) return true;
    }
    return host_.now_s() + start_s_ + pair_s_ > o_.budget_s;
  }

  void session() {
    const double begin = host_.now_s();
    host_.stop_all();
    for (const ArmId id : shuffled(processes_)) {
      bool any = false;
      for (std::size_t test = 0; test < o_.num_tests; ++test) any |= wanted(id, test);
      if (!any) continue;
      if (const Trouble trouble = host_.start(id); !trouble.ok()) {
        lost_.try_emplace(key(id), trouble);
      }
    }
    for (std::size_t test = 0; test < o_.num_tests; ++test) {
      if (!rounds_left(test)) continue;
      for (const ArmId id : shuffled(processes_)) {
        if (!wanted(id, test)) continue;
        WarmUp warm;
        const Trouble trouble = host_.warm_up(id, test, warm);
        if (!trouble.ok()) note_trouble(id, test, trouble);
        out_.unsteady_warm_ups += trouble.ok() && !warm.steady ? 1 : 0;
      }
    }
    const double started = host_.now_s();
    start_s_ = started - begin;
    const double session_s =
        std::max(o_.budget_s / kSessionsAimedAt,
                 std::min(kSessionPerStart * start_s_, o_.budget_s / kSessionsAtLeast));
    for (std::int64_t pair = 0; pair < most_pairs(); ++pair) {
      const double pair_begin = host_.now_s();
      const bool time_over =
          pair_begin - begin >= session_s || (pair > 0 && pair_begin + pair_s_ > o_.budget_s);
      if (pair > 0 && o_.rounds == 0 && time_over) break;
      for (std::size_t test = 0; test < o_.num_tests; ++test) run_pair(test, pair);
      pair_s_ = host_.now_s() - pair_begin;
    }
  }

  void run_pair(std::size_t test, std::int64_t pair) {
    std::vector<ArmId> order = shuffled(processes_);
    for (std::int64_t half = 0; half < 2; ++half) {
      if (!rounds_left(test)) return;
      std::int64_t place = 0;
      bool ran = false;
      for (const ArmId id : order) {
        if (!wanted(id, test)) continue;
        TimedSample sample{id, test, out_.sessions, 2 * pair + half, place++, {}, {}};
        const Trouble trouble = host_.run(id, test, sample.block);
        if (!trouble.ok()) {
          note_trouble(id, test, trouble);
          continue;
        }
        ran = true;
        out_.samples.push_back(std::move(sample));
      }
      if (ran) ++rounds_[test];
      std::ranges::reverse(order);  // A B B A: a steady drift cancels
    }
  }

  void take_looks(bool last) {
    const double share = last ? 1 : std::min(1.0, host_.now_s() / o_.budget_s);
    for (Question& q : questions_) {
      Comparison& c = q.comparison;
      if (q.decided && !q.is_self_test) continue;
      c.sessions = session_ratios(out_.samples, c.test, q.arm, q.bases);
      const std::size_t n = c.sessions.values.size();
      if (n == q.sessions_seen || n < kLeastSessions) continue;
      // A fixed number of rounds is looked at once, at the end.
      if (!last && (n < kSessionsOfFirstLook || o_.rounds > 0)) continue;
      const double p = q.spending.next_look(static_cast<double>(n), share);
      q.sessions_seen = n;
      look(c, 1 - p, 1 - o_.alpha, o_.threshold);
      q.decided = c.verdict != SpeedVerdict::kInconclusive ||
                  c.ratios->high - c.ratios->low <= o_.precision;
    }
  }

  void conclude(Question& q) const {
    Comparison& c = q.comparison;
    std::set<std::pair<std::int64_t, std::int64_t>> rounds;
    std::vector<double> base;
    for (const TimedSample& s : out_.samples) {
      if (s.test != c.test) continue;
      const bool is_arm = key(s.id) == key(q.arm);
      const bool is_base =
          std::ranges::any_of(q.bases, [&](ArmId id) { return key(id) == key(s.id); });
      if (!is_arm && !is_base) continue;
      ++c.blocks;
      c.disturbed_blocks += s.marks.empty() ? 0 : 1;
      for (const std::string& mark : s.marks) ++c.disturbances[mark];
      if (is_arm) rounds.insert({s.session, s.round});
      if (key(s.id) == key(q.bases.front())) base.push_back(s.value());
    }
    c.rounds = static_cast<std::int64_t>(rounds.size());
    add_notes(c, base);
    add_trouble(q);
    if (c.status != Status::kOk || c.verdict != SpeedVerdict::kInconclusive) return;
    if (!c.ratios) {
      c.reason = fmt::format(
          "{} sessions are too few for an interval ({} are needed): give it a "
          "longer budget",
          c.sessions.values.size(), kLeastSessions);
      if (!c.sessions.values.empty()) c.ratio = std::exp(median(c.sessions.values));
    } else {
      c.reason = fmt::format("{}: the interval reaches across no difference and beyond {:.3g} %",
                             !out_.complete     ? "so far"
                             : out_.interrupted ? "interrupted"
                                                : "the budget is used up",
                             o_.threshold * 100);
    }
  }

  const Trouble* trouble_of(ArmId id, std::size_t test) const {
    if (const auto it = unable_.find({key(id), test}); it != unable_.end()) return &it->second;
    if (const auto it = lost_.find(key(id)); it != lost_.end()) return &it->second;
    return nullptr;
  }

  // A lost arm, or a base that gave nothing to compare with.
  void add_trouble(Question& q) const {
    Comparison& c = q.comparison;
    const Trouble* trouble = trouble_of(q.arm, c.test);
    const bool of_arm = trouble != nullptr;
    if (trouble == nullptr && !base_can_run(c.test)) trouble = trouble_of({0, 0}, c.test);
    if (trouble == nullptr || q.decided) return;
    c.status = trouble->status;
    c.verdict = SpeedVerdict::kInconclusive;
    c.reason = of_arm ? trouble->reason : fmt::format("the base: {}", trouble->reason);
  }

  void add_notes(Comparison& c, const std::vector<double>& base) const {
    if (c.disturbed_blocks > 0) {
      std::string marks;
      for (const auto& [mark, count] : c.disturbances) {
        marks += fmt::format("{}{} {}", marks.empty() ? "" : ", ", mark, count);
      }
      c.notes.push_back(
          fmt::format("{} of {} blocks were disturbed ({}); they count like the others",
                      c.disturbed_blocks, c.blocks, marks));
    }
    if (base.size() >= 12) {
      const MannKendall trend = mann_kendall(base);
      const std::size_t third = base.size() / 3;
      const double early = median(std::span(base).first(third));
      const double late = median(std::span(base).last(third));
      if (trend.p_value < 0.01) {
        c.notes.push_back(
            fmt::format("the machine drifted: the base was {:.1f} % {} in the last "
                        "third than in the first (pairs cancel that)",
                        std::abs(late / early - 1) * 100, late > early ? "faster" : "slower"));
      }
    }
    const auto& values = c.sessions.values;
    if (values.size() >= 8) {
      const double r = lag1_autocorrelation(values);
      if (r > 2 / std::sqrt(static_cast<double>(values.size()))) {
        c.notes.push_back(
            fmt::format("sessions depend on each other (lag-1 autocorrelation "
                        "{:.2f}): the interval is too narrow",
                        r));
      }
    }
  }

  ArmHost& host_;
  PairedOptions o_;
  RandomStream random_;
  std::vector<ArmId> processes_;
  std::vector<Question> questions_;
  std::map<std::pair<std::size_t, int>, Trouble> lost_;
  std::map<std::pair<std::pair<std::size_t, int>, std::size_t>, Trouble> unable_;
  std::map<std::size_t, std::int64_t> rounds_;  // by test, of all sessions
  double start_s_ = 0;                          // of the last session
  double pair_s_ = 0;
  PairedTiming out_;
};

}  // namespace

Trouble trouble_of(const PairedTiming& timing, std::size_t arm, std::size_t test) {
  const auto it = timing.troubles.find({arm, test});
  if (it != timing.troubles.end()) return it->second;
  // A base that has nobody to be compared with, or an arm without a base, is not timed.
  for (const auto& [place, trouble] : timing.troubles) {
    if (place.second != test) continue;
    return {trouble.status, fmt::format("not timed, for another arm failed: {}", trouble.reason),
            false};
  }
  return {Status::kInterrupted, "the measuring ended before its first block", false};
}

PairedTiming run_paired(ArmHost& host, const PairedOptions& options) {
  return Pairing(host, options).go();
}

}  // namespace moebench
