// The whole procedure of a speed comparison on simulated machines, of which the truth is known; and
// its parts on hand-made samples.
#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>

#include "bench/paired_timing.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// What disturbs a simulated machine; standard deviations of log rates.
struct Machine {
  double start = 0.008;  // between two starts of one program
  double block = 0.015;  // between two blocks of one process
  double wander = 0.10;  // of the whole machine, over seconds
  double spikes = 0.05;  // share of blocks that something else slows by up to half
  double drift = 0;      // of the machine, over the whole budget
};

class SimulatedHost : public ArmHost {
 public:
  SimulatedHost(std::vector<double> log_speed, Machine machine, std::uint64_t seed)
      : log_speed_(std::move(log_speed)), machine_(machine), random_(seed, 5) {}

  double now_s() override { return now_s_; }
  Trouble start(ArmId id) override {
    ++starts;
    now_s_ += 0.2;
    if (id.arm == broken_arm) return {Status::kCrashed, "its process was killed", true};
    placement_[{id.arm, id.copy}] = machine_.start * gauss();
    return {};
  }
  Trouble warm_up(ArmId id, std::size_t test, WarmUp& out) override {
    now_s_ += 0.2;
    if (test == unable_test && id.arm == 1) return {Status::kUnsupported, "too long", false};
    out.steady = true;
    return {};
  }
  Trouble run(ArmId id, std::size_t, Block& out) override {
    if (now_s_ >= interrupt_at_s) throw Error(ErrorCode::kInterrupted, "interrupted");
    out.start_s = now_s_;
    out.seconds = 0.15;
    now_s_ += out.seconds + 0.01;
    // The machine's own speed wanders with a memory of about five seconds.
    constexpr double kKept = 0.97;
    weather_ = kKept * weather_ + machine_.wander * std::sqrt(1 - kKept * kKept) * gauss();
    double log_rate = std::log(1000.0) + log_speed_[id.arm] + placement_[{id.arm, id.copy}] +
                      weather_ + machine_.block * gauss() + machine_.drift * now_s_ / 90;
    if (random_.uniform() < machine_.spikes) log_rate -= 0.7 * random_.uniform();
    out.rates = {std::exp(log_rate)};
    return {};
  }
  void stop_all() override { placement_.clear(); }

  std::size_t broken_arm = 99;
  std::size_t unable_test = 99;
  double interrupt_at_s = 1e9;
  int starts = 0;

 private:
  double gauss() {
    const double radius = std::sqrt(-2 * std::log(1 - random_.uniform()));
    return radius * std::cos(2 * std::numbers::pi * random_.uniform());
  }

  std::vector<double> log_speed_;
  Machine machine_;
  RandomStream random_;
  double now_s_ = 0;
  double weather_ = 0;
  std::map<std::pair<std::size_t, int>, double> placement_;
};

struct Counts {
  int faster = 0, slower = 0, same = 0, inconclusive = 0;
  int covered = 0;
  double seconds = 0;
};

Counts simulate(int runs, double log_ratio, const Machine& machine, PairedOptions options = {}) {
  Counts counts;
  for (int run = 0; run < runs; ++run) {
    SimulatedHost host({0, log_ratio}, machine, static_cast<std::uint64_t>(run));
    options.seed = static_cast<std::uint64_t>(run) + 1000;
    const PairedTiming timing = run_paired(host, options);
    const Comparison& c = timing.comparisons.at(0);
    counts.faster += c.verdict == SpeedVerdict::kFaster ? 1 : 0;
    counts.slower += c.verdict == SpeedVerdict::kSlower ? 1 : 0;
    counts.same += c.verdict == SpeedVerdict::kSame ? 1 : 0;
    counts.inconclusive += c.verdict == SpeedVerdict::kInconclusive ? 1 : 0;
    const double truth = std::exp(log_ratio);
    counts.covered += c.ratios && c.ratios->low <= truth && truth <= c.ratios->high ? 1 : 0;
    counts.seconds += timing.elapsed_s / runs;
  }
  return counts;
}

TimedSample sample(ArmId id, std::int64_t session, std::int64_t round, double rate) {
  TimedSample s{id, 0, session, round, 0, {}, {}};
  s.block.rates = {rate};
  return s;
}

}  // namespace

TEST_CASE("paired timing: of two equal arms it says no difference, within the budget") {
  const Counts counts = simulate(100, 0, Machine{});
  CHECK(counts.faster + counts.slower <= 5);  // 5 %
  CHECK(counts.covered >= 95);
  CHECK(counts.same >= 70);  // the rest is INCONCLUSIVE, at this noise
  CHECK(counts.seconds < 90);
}

TEST_CASE("paired timing: 3 % slower is seen, 3 % faster too") {
  const Counts slower = simulate(60, std::log(0.97), Machine{});
  CHECK(slower.slower >= 57);
  CHECK(slower.faster == 0);
  CHECK(slower.same <= 1);
  CHECK(slower.covered >= 55);
  const Counts faster = simulate(20, std::log(1.03), Machine{});
  CHECK(faster.faster >= 18);
}

TEST_CASE(
    "paired timing: where starts of a program differ by 3 %, it does not pretend to see 3 %") {
  // Blocks are quiet, so that rounds of one session agree on a difference that is none.
  Machine machine;
  machine.start = 0.03;
  machine.block = 0.002;
  machine.spikes = 0;
  const Counts counts = simulate(60, 0, machine);
  CHECK(counts.faster + counts.slower <= 3);
  CHECK(counts.inconclusive >= 30);
}

TEST_CASE("paired timing: a machine that slows down by a third meanwhile changes nothing") {
  Machine machine;
  machine.drift = -0.4;
  const Counts equal = simulate(40, 0, machine);
  CHECK(equal.faster + equal.slower <= 2);
  CHECK(equal.same >= 28);
  machine.drift = -1.5;
  SimulatedHost host({0, 0}, machine, 1);
  const PairedTiming timing = run_paired(host, {});
  REQUIRE(!timing.comparisons[0].notes.empty());
  CHECK_THAT(timing.comparisons[0].notes[0], Catch::Contains("the machine drifted"));
}

TEST_CASE(
    "paired timing: a large difference is decided early, a noisy one says what it could see") {
  const Counts large = simulate(10, std::log(1.5), Machine{});
  CHECK(large.faster == 10);
  CHECK(large.seconds < 45);
  Machine noisy;
  noisy.block = 0.4;
  SimulatedHost host({0, 0}, noisy, 2);
  const PairedTiming timing = run_paired(host, {});
  const Comparison& c = timing.comparisons.at(0);
  REQUIRE(c.verdict == SpeedVerdict::kInconclusive);
  CHECK_THAT(c.reason, Catch::Contains("the budget is used up"));
  REQUIRE(c.smallest_visible);
  CHECK(*c.smallest_visible > 0.03);
  CHECK(timing.elapsed_s <= 95);
}

TEST_CASE("paired timing: a lost arm costs its comparison, an unable one its test") {
  SimulatedHost host({0, 0, std::log(0.8)}, Machine{}, 3);
  host.broken_arm = 1;
  PairedOptions options;
  options.num_arms = 3;
  const PairedTiming timing = run_paired(host, options);
  CHECK(timing.comparisons.at(0).status == Status::kCrashed);
  CHECK(timing.comparisons.at(0).reason == "its process was killed");
  CHECK(timing.comparisons.at(1).verdict == SpeedVerdict::kSlower);
  CHECK(trouble_of(timing, 1, 0).status == Status::kCrashed);

  SimulatedHost half({0, std::log(0.8)}, Machine{}, 4);
  half.unable_test = 0;
  options.num_arms = 2;
  options.num_tests = 2;
  const PairedTiming tests = run_paired(half, options);
  CHECK(tests.comparisons.at(0).status == Status::kUnsupported);
  CHECK(tests.comparisons.at(1).verdict == SpeedVerdict::kSlower);

  SimulatedHost gone({0, 0}, Machine{}, 5);
  gone.broken_arm = 0;
  options.num_tests = 1;
  const PairedTiming nothing = run_paired(gone, options);
  CHECK(nothing.comparisons.at(0).status == Status::kCrashed);
  CHECK_THAT(nothing.comparisons.at(0).reason, Catch::StartsWith("the base: "));
  CHECK(gone.starts <= 3);  // it does not try for 90 seconds
}

TEST_CASE("paired timing: an interrupt keeps what was measured") {
  SimulatedHost host({0, std::log(0.5)}, Machine{}, 6);
  host.interrupt_at_s = 20;
  PairedOptions options;
  options.precision = 1e-6;
  options.threshold = 1e-6;
  const PairedTiming timing = run_paired(host, options);
  CHECK(timing.interrupted == (timing.elapsed_s >= 20));
  CHECK(timing.samples.size() > 20);
  REQUIRE(timing.comparisons.at(0).ratio);
  CHECK(*timing.comparisons.at(0).ratio == Approx(0.5).epsilon(0.1));
}

TEST_CASE("paired timing: rounds asked for are measured exactly, and looked at once") {
  SimulatedHost host({0, std::log(0.5)}, Machine{}, 7);
  PairedOptions options;
  options.rounds = 11;
  options.self_test = false;
  const PairedTiming timing = run_paired(host, options);
  CHECK(timing.samples.size() == 22);
  CHECK(timing.sessions == 6);
  CHECK(timing.comparisons.at(0).looks == 1);
  CHECK(timing.comparisons.at(0).verdict == SpeedVerdict::kSlower);
  CHECK(timing.self_tests.empty());
}

TEST_CASE("paired timing: the order is the seed's, and balanced") {
  const auto order = [](std::uint64_t seed) {
    SimulatedHost host({0, 0}, Machine{}, 8);
    PairedOptions options;
    options.rounds = 40;
    options.seed = seed;
    std::vector<std::size_t> out;
    for (const TimedSample& s : run_paired(host, options).samples) {
      out.push_back(2 * s.id.arm + static_cast<std::size_t>(s.id.copy));
    }
    return out;
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
  const auto one = order(1);
  REQUIRE(one.size() == 120);
  for (std::size_t pair = 0; pair < one.size(); pair += 6) {
    for (std::size_t i = 0; i < 3; ++i) CHECK(one[pair + i] == one[pair + 5 - i]);
  }
}

TEST_CASE("session ratios: hand-made rounds, pairs and sessions") {
  const ArmId base{0, 0}, again{0, 1}, arm{1, 0};
  const std::vector<ArmId> bases = {base, again};
  std::vector<TimedSample> samples;
  // Session 0: three pairs; the arm at 2, 8 and 2 times the base: the median is 2. The base is the
  // geometric mean of its processes: 100 and 400 are 200.
  for (std::int64_t round = 0; round < 6; ++round) {
    const double factor = round / 2 == 1 ? 8 : 2;
    samples.push_back(sample(base, 0, round, 100));
    samples.push_back(sample(again, 0, round, 400));
    samples.push_back(sample(arm, 0, round, 200 * factor));
  }
  // Session 1: one round alone; and one without the arm, which does not count.
  samples.push_back(sample(base, 1, 0, 10));
  samples.push_back(sample(arm, 1, 0, 40));
  samples.push_back(sample(base, 1, 2, 10));
  // Session 2 has no base.
  samples.push_back(sample(arm, 2, 0, 40));
  const SessionRatios ratios = session_ratios(samples, 0, arm, bases);
  REQUIRE(ratios.values.size() == 2);
  CHECK(ratios.values[0] == Approx(std::log(2.0)));
  CHECK(ratios.values[1] == Approx(std::log(4.0)));
  REQUIRE(ratios.pairs[0].size() == 3);
  CHECK(ratios.pairs[0][1] == Approx(std::log(8.0)));
  CHECK(session_ratios(samples, 1, arm, bases).values.empty());
}

TEST_CASE("session effect: none where pairs explain the sessions, all where they agree") {
  // Pairs 0 2 | 0 2: sessions agree exactly.
  CHECK(*session_effect({{1, 1}, {{0, 2}, {0, 2}}}) == 0);
  // Within: 1 each of 2 values: sum of squares 2 + 2 over 2 degrees = 2, of a mean of two: 1.
  // Between: means 1 and 5: variance 8. 1 - 1/8.
  CHECK(*session_effect({{1, 5}, {{0, 2}, {4, 6}}}) == Approx(0.875));
  CHECK(!session_effect({{1, 5}, {{1}, {5}}}));
  CHECK(!session_effect({}));
}

TEST_CASE("verdicts: inside the threshold is SAME, however sure the difference") {
  const auto verdict = [](double low, double high) {
    return judge_speed({std::log1p(low), std::log1p(high), 0.95}, 0.02);
  };
  CHECK(verdict(-0.01, 0.015) == SpeedVerdict::kSame);
  CHECK(verdict(0.001, 0.005) == SpeedVerdict::kSame);
  CHECK(verdict(0.001, 0.03) == SpeedVerdict::kFaster);
  CHECK(verdict(-0.05, -0.001) == SpeedVerdict::kSlower);
  CHECK(verdict(-0.03, 0.001) == SpeedVerdict::kInconclusive);
  CHECK(verdict(-0.001, 0.03) == SpeedVerdict::kInconclusive);
  CHECK(verdict_name(SpeedVerdict::kInconclusive) == "INCONCLUSIVE");
}

TEST_CASE("paired timing: options that make no sense are refused") {
  SimulatedHost host({0, 0}, Machine{}, 9);
  PairedOptions options;
  options.num_arms = 1;
  CHECK_THROWS_AS(run_paired(host, options), Error);
  options.num_arms = 2;
  options.budget_s = std::nan("");
  CHECK_THROWS_AS(run_paired(host, options), Error);
}

TEST_CASE("paired timing: after each session it tells what is known so far") {
  SimulatedHost host({0, 0.05}, Machine{}, 3);
  PairedOptions options;
  std::vector<PairedTiming> told;
  options.on_session = [&](const PairedTiming& timing) { told.push_back(timing); };
  const PairedTiming end = run_paired(host, options);
  CHECK(end.complete);
  REQUIRE(static_cast<std::int64_t>(told.size()) == end.sessions);
  std::size_t samples = 0;
  for (std::size_t i = 0; i < told.size(); ++i) {
    CHECK_FALSE(told[i].complete);
    CHECK(told[i].sessions == static_cast<std::int64_t>(i) + 1);
    CHECK(told[i].samples.size() > samples);
    samples = told[i].samples.size();
    REQUIRE(told[i].comparisons.size() == 1);
    CHECK(told[i].comparisons[0].blocks == static_cast<std::int64_t>(samples));
  }
  CHECK(samples == end.samples.size());
  CHECK(told.front().comparisons[0].verdict == SpeedVerdict::kInconclusive);
  CHECK(told.back().comparisons[0].verdict == end.comparisons[0].verdict);
}

TEST_CASE("paired timing: disturbed blocks are marked, counted by rule, and kept") {
  std::vector<TimedSample> samples(4, sample({0, 0}, 0, 0, 100));
  samples[0].block.conditions.emplace();
  samples[0].block.conditions->seconds = 0.02;
  samples[0].block.conditions->cpu_mhz = 3000;
  samples[1].block.conditions = samples[0].block.conditions;
  samples[1].block.conditions->cpu_mhz = 2600;  // more than a tenth below the fastest
  samples[1].block.wait_share = 0.06;
  samples[2].block.wait_share = 0.05;  // an older program, which tells its waiting only
  samples[3].block.conditions = samples[0].block.conditions;
  samples[3].block.conditions->involuntary_switches = 20;  // 200 in a second, counted for 0.1 s
  mark_disturbed(samples);
  mark_disturbed(samples);  // again changes nothing
  using Marks = std::vector<std::string>;
  CHECK(samples[0].marks.empty());
  CHECK(samples[1].marks == Marks{"cpu clock", "waited"});
  CHECK(samples[2].marks.empty());
  CHECK(samples[3].marks == Marks{"preempted"});
  const OrderedJson json = to_json(samples[1]);
  CHECK(json.at("disturbed") == OrderedJson({"cpu clock", "waited"}));
  CHECK(json.at("conditions").at("cpu_mhz") == 2600);
  CHECK_FALSE(to_json(samples[2]).contains("conditions"));
}

}  // namespace moebench::test
