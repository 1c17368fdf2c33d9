// Checks of sample and log_softmax.
#include <algorithm>
#include <numeric>

#include "kernels/log_softmax/log_softmax.h"
#include "kernels/sample/sample.h"
#include "kernels/verify/compare.h"

namespace moebench::verify {
namespace {

enum class Logits {
  kRandom,
  kTies,  // few distinct values, zeros of both signs among them
  kFew,   // most are -inf
  kFlat,  // so close to each other that no filter can leave many out
};

struct SampleShape {
  std::string_view name;
  std::int64_t vocab_size;
  Logits logits;
  std::int64_t every;  // of all combinations of parameters, one in so many; prime to their number
};

// A row, and what must come of it.
struct SampleCase {
  sample::RowParams params;
  std::int32_t token = 0;
  double log_probability = 0;
};

std::vector<float> sample_logits(RandomStream& random, const SampleShape& s) {
  std::vector<float> logits = random_floats(random, s.vocab_size, 1.0F);
  for (float& v : logits) {
    // Falling off towards large values, as a model's do.
    const float tail = -3.0F * std::log(std::fabs(v) + 1e-6F);
    if (s.logits == Logits::kRandom) v = std::copysign(tail, v);
    if (s.logits == Logits::kTies) v = std::copysign(std::floor(tail / 4), v);
    if (s.logits == Logits::kFew && std::fabs(v) > 0.1F) {
      v = -std::numeric_limits<float>::infinity();
    }
    if (s.logits == Logits::kFlat) v *= 0.01F;
  }
  return logits;
}

// Candidate number `n` of those that still stand, or the last.
std::size_t clamp_place(std::int64_t n, std::size_t count) {
  return std::min(static_cast<std::size_t>(n), count - 1);
}

// The contract, step by step, in float64. `keep` says how many candidates each filter shall leave
// (0: it is off), `share` which of those that are left is drawn. Thresholds and the random number
// are put in the middle between two that would decide otherwise, so that rounding decides nothing.
SampleCase sample_case(const std::vector<float>& logits, double temperature, std::int64_t top_k,
                       std::int64_t keep_top_p, std::int64_t keep_min_p, double share) {
  SampleCase result;
  result.params = {.temperature = temperature, .top_k = top_k};
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t id) {
    return static_cast<double>(logits[static_cast<std::size_t>(id)]);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  const double largest = logit(order[0]);
  double total = 0;
  for (const std::int32_t id : order) total += std::exp(logit(id) - largest);

  result.token = order[0];
  if (temperature > 0) {
    const auto mass = [&](std::int32_t id) {
      return std::exp((logit(id) - largest) / temperature);
    };
    const auto sum_of = [&](std::size_t count) {
      double sum = 0;
      for (std::size_t i = 0; i < count; ++i) sum += mass(order[i]);
      return sum;
    };
    if (top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(top_k)));
    std::size_t kept = order.size();
    if (keep_top_p > 0) {
      kept = clamp_place(keep_top_p - 1, kept) + 1;
      // As many as it takes for the last to matter.
      while (mass(order[kept - 1]) < 1e-9 * sum_of(kept)) --kept;
      result.params.top_p =
          std::min(1.0, (sum_of(kept) - 0.5 * mass(order[kept - 1])) / sum_of(order.size()));
      if (result.params.top_p == 1.0) kept = order.size();
    }
    if (keep_min_p > 0) {
      const std::size_t count = clamp_place(keep_min_p - 1, order.size()) + 1;
      const double last = mass(order[count - 1]);
      result.params.min_p = 0.999 * last;  // equal ones stay too
      std::size_t reach = count;
      while (reach < order.size() && mass(order[reach]) >= result.params.min_p) ++reach;
      kept = std::min(kept, reach);
    }
    order.resize(kept);
    if (top_k == 0 && result.params.top_p == 1 && result.params.min_p == 0) {
      std::sort(order.begin(), order.end());
    }
    const double sum = sum_of(kept);
    // From there on, the first whose interval is wide enough not to be missed.
    std::size_t place =
        clamp_place(static_cast<std::int64_t>(share * static_cast<double>(kept)), kept);
    while (mass(order[place]) < 1e-9 * sum) place = (place + 1) % kept;
    result.token = order[place];
    result.params.uniform = (sum_of(place) + 0.5 * mass(order[place])) / sum;
  }
  result.log_probability = logit(result.token) - (largest + std::log(total));
  return result;
}

// Every combination of parameters of one in `s.every`, or of fewer, which still meet each value.
std::vector<SampleCase> sample_cases(RandomStream& random, const SampleShape& s,
                                     const std::vector<float>& logits, bool few) {
  const std::int64_t every = few ? std::max<std::int64_t>(s.every, 19) : s.every;
  std::vector<SampleCase> cases;
  std::int64_t number = 0;
  for (const double temperature : {0.0, 0.25, 1.0, 8.0}) {
    for (const std::int64_t top_k : {std::int64_t{0}, std::int64_t{1}, std::int64_t{40},
                                     s.vocab_size / 3 + 1, s.vocab_size + 5}) {
      for (const std::int64_t keep_top_p : {0, 7, 500}) {
        for (const std::int64_t keep_min_p : {0, 12, 300}) {
          const double share = random.uniform();
          if (number++ % every != 0) continue;
          cases.push_back(
              sample_case(logits, temperature, top_k, keep_top_p, keep_min_p, share * share));
        }
      }
    }
  }
  return cases;
}

// Judges tokens and status, which must be exact, and then the log-probabilities.
void judge_sample(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& want,
                  const std::vector<std::int32_t>& status,
                  const std::vector<std::int32_t>& want_status,
                  const std::vector<double>& log_probabilities,
                  const std::vector<double>& want_log_probabilities, VerifyResult& r) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (tokens[i] == want[i] && status[i] == want_status[i]) continue;
    r.worst_index = static_cast<std::int64_t>(i);
    r.got = tokens[i];
    r.want = want[i];
    r.nmse = std::numeric_limits<double>::infinity();
    r.reason = fmt::format("row {}: got token {} with status {}, want {} with {}", i, tokens[i],
                           status[i], want[i], want_status[i]);
    return;
  }
  const std::vector<float> got(log_probabilities.begin(), log_probabilities.end());
  compare(got, want_log_probabilities, r);
}

}  // namespace

void check_sample(Check& check) {
  for (const SampleShape& s :
       {SampleShape{"v1", 1, Logits::kRandom, 13}, SampleShape{"v768", 768, Logits::kRandom, 7},
        SampleShape{"v1000_ties", 1000, Logits::kTies, 7},
        SampleShape{"v1000_few", 1000, Logits::kFew, 11},
        SampleShape{"v6001", 6001, Logits::kRandom, 7},
        SampleShape{"v6001_flat", 6001, Logits::kFlat, 11},
        SampleShape{"v201088", 201088, Logits::kRandom, 47}}) {
    if (!check.wants(s.name)) continue;
    RandomStream random(check.seed, 9);
    const std::vector<float> logits = sample_logits(random, s);
    const std::vector<SampleCase> cases = sample_cases(random, s, logits, check.filter.small);
    const auto num_rows = static_cast<std::int64_t>(cases.size());
    std::vector<float> rows;
    std::vector<sample::RowParams> params;
    std::vector<std::int32_t> want;
    std::vector<double> want_log_probabilities;
    for (const SampleCase& one : cases) {
      rows.insert(rows.end(), logits.begin(), logits.end());
      params.push_back(one.params);
      want.push_back(one.token);
      want_log_probabilities.push_back(one.log_probability);
    }
    const std::vector<std::int32_t> want_status(cases.size(), sample::kOk);
    const sample::Problem problem{num_rows, s.vocab_size};
    check.each<sample::Variant>(sample::variants(), "sample", s.name, "", problem,
                                [&](const sample::Variant& variant, VerifyResult& r) {
                                  std::vector<std::int32_t> tokens(cases.size(), -1);
                                  std::vector<std::int32_t> status(cases.size(), -1);
                                  std::vector<double> log_probabilities(cases.size(), std::nan(""));
                                  Operands o(variant.backend);
                                  o.run(variant, problem,
                                        {{o.in(rows), {num_rows, s.vocab_size}},
                                         {o.in(params), {num_rows}},
                                         {o.out(tokens), {num_rows}},
                                         {o.out(log_probabilities), {num_rows}},
                                         {o.out(status), {num_rows}}},
                                        check.pool);
                                  judge_sample(tokens, want, status, want_status, log_probabilities,
                                               want_log_probabilities, r);
                                });
  }

  // Rows that cannot be drawn from, beside one that can.
  constexpr std::int64_t kVocab = 5000;
  constexpr std::int64_t kRows = 5;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  RandomStream random(check.seed, 10);
  std::vector<float> rows = random_floats(random, kRows * kVocab, 5.0F);
  const auto row = [&](std::int64_t r) { return rows.begin() + r * kVocab; };
  row(0)[4999] = std::nanf("");
  row(0)[17] = kInfinity;
  row(1)[4200] = std::nanf("");
  std::fill(row(2), row(3), -kInfinity);
  std::fill(row(3), row(4), -kInfinity);
  row(3)[4099] = -3e38F;
  std::fill(row(4), row(5), -0.0F);
  row(4)[4100] = 0.0F;
  const std::vector<std::int32_t> want = {17, 4200, 0, 4099, 0};
  const std::vector<std::int32_t> want_status = {sample::kBroken, sample::kBroken,
                                                 sample::kNoneFinite, sample::kOk, sample::kOk};
  for (const bool greedy : {true, false}) {
    if (greedy && check.filter.small) continue;
    std::vector<sample::RowParams> params(kRows);
    if (!greedy) std::fill(params.begin(), params.end(), sample::RowParams{.temperature = 1});
    const sample::Problem problem{kRows, kVocab};
    check.each<sample::Variant>(
        sample::variants(), "sample", greedy ? "broken_greedy" : "broken", "", problem,
        [&](const sample::Variant& variant, VerifyResult& r) {
          std::vector<std::int32_t> tokens(kRows, -1);
          std::vector<std::int32_t> status(kRows, -1);
          std::vector<double> log_probabilities(kRows, 1);
          Operands o(variant.backend);
          o.run(variant, problem,
                {{o.in(rows), {kRows, kVocab}},
                 {o.in(params), {kRows}},
                 {o.out(tokens), {kRows}},
                 {o.out(log_probabilities), {kRows}},
                 {o.out(status), {kRows}}},
                check.pool);
          for (double& value : log_probabilities) {
            if (std::isnan(value)) value = 100;  // as it must be in the first three
          }
          judge_sample(tokens, want, status, want_status, log_probabilities,
                       {100, 100, 100, 0, -std::log(static_cast<double>(kVocab))}, r);
        });
  }
}

void check_log_softmax(Check& check) {
  struct Shape {
    std::int64_t rows, size;
  };
  for (const Shape& s : {Shape{1, 1}, Shape{3, 768}, Shape{2, 1025}, Shape{1, 20001}}) {
    const std::string name = fmt::format("r{}_v{}", s.rows, s.size);
    if (!check.wants(name)) continue;
    RandomStream random(check.seed, 11);
    const std::vector<float> logits = random_floats(random, s.rows * s.size, 12.0F);
    std::vector<double> want = doubles(logits);
    for (std::int64_t r = 0; r < s.rows; ++r) {
      const auto begin = want.begin() + r * s.size;
      double sum = 0;
      for (std::int64_t i = 0; i < s.size; ++i) sum += std::exp(begin[i]);
      for (std::int64_t i = 0; i < s.size; ++i) begin[i] -= std::log(sum);
    }
    const log_softmax::Problem problem{s.rows, s.size};
    check.each<log_softmax::Variant>(
        log_softmax::variants(), "log_softmax", name, "", problem,
        [&](const log_softmax::Variant& variant, VerifyResult& r) {
          std::vector<float> out(want.size(), std::nanf(""));
          Operands o(variant.backend);
          o.run(variant, problem,
                {{o.in(logits), {s.rows, s.size}}, {o.out(out), {s.rows, s.size}}}, check.pool);
          compare(out, want, r);
        });
  }
}

}  // namespace moebench::verify
